"""Failures in WeChat Pay's words."""

from typing import Any


class WechatError(Exception):
    """A call refused: HTTP status, the code that callers branch on, and words."""

    def __init__(
        self, status: int, code: str, message: str, detail: dict[str, Any] | None = None
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.detail = detail

    @property
    def body(self) -> dict[str, Any]:
        told: dict[str, Any] = {"code": self.code, "message": self.message}
        return told | {"detail": self.detail} if self.detail else told


class Unverified(WechatError):
    """Refused before the merchant's signature was found good: answered unsigned."""


def parameter_error(field: str, why: str) -> WechatError:
    """`field` as a path into the body: `amount.total`."""
    return WechatError(
        400,
        "PARAM_ERROR",
        f"参数错误：{field} {why}",
        {"field": f"/body/{field.replace('.', '/')}", "issue": why, "location": "body"},
    )


def order_missing(number: str) -> WechatError:
    return WechatError(404, "ORDER_NOT_EXIST", f"订单不存在：{number}")
