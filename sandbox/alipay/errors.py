"""Failures in Alipay's words."""

from typing import Final

_MESSAGES: Final = {
    "20000": "Service Currently Unavailable",
    "40001": "Missing Required Arguments",
    "40002": "Invalid Arguments",
    "40004": "Business Failed",
    "40005": "Call Limited",
}


class AlipayError(Exception):
    """A call refused: the public code, the sub_code that callers branch on, and words."""

    def __init__(self, code: str, sub_code: str, sub_msg: str) -> None:
        super().__init__(f"{sub_code}: {sub_msg}")
        self.code = code
        self.sub_code = sub_code
        self.sub_msg = sub_msg

    @property
    def fields(self) -> dict[str, str]:
        return {
            "code": self.code,
            "msg": _MESSAGES[self.code],
            "sub_code": self.sub_code,
            "sub_msg": self.sub_msg,
        }


class CallRefused(AlipayError):
    """Refused before the merchant's signature was found good: answered without one of Alipay's."""


class TradeError(AlipayError):
    """A failure of the business, code 40004; `sub_code` without its `ACQ.`."""

    def __init__(self, sub_code: str, sub_msg: str) -> None:
        super().__init__("40004", f"ACQ.{sub_code}", sub_msg)


class AgreementError(TradeError):
    """A failure of the business of agreements, whose sub_codes have no `ACQ.`."""

    def __init__(self, sub_code: str, sub_msg: str) -> None:
        AlipayError.__init__(self, "40004", sub_code, sub_msg)


def missing(name: str) -> CallRefused:
    return CallRefused("40001", f"isv.missing-{name.replace('_', '-')}", f"缺少参数 {name}")


def invalid(name: str, why: str) -> CallRefused:
    return CallRefused("40002", f"isv.invalid-{name.replace('_', '-')}", why)


def invalid_parameter(name: str, why: str) -> TradeError:
    return TradeError("INVALID_PARAMETER", f"参数无效：{name} {why}")
