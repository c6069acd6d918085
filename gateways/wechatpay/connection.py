"""Calls to WeChat Pay, signed, and their answers, believed only once they are verified."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx

from billing.errors import (
    AnswerUntrusted,
    BalanceInsufficient,
    GatewayMisconfigured,
    GatewayThrottled,
    OutcomeUnknown,
)
from gateways.clock import Clock, utc_now
from gateways.meaning import Meaning, raise_unless_answered
from gateways.strict_json import read_object
from gateways.transport import Answer, retry_after_seconds, send
from gateways.wechatpay import v2
from gateways.wechatpay.outcomes import BALANCE_CODE, meaning_of, meaning_of_v2
from gateways.wechatpay.requests import Account, Contracting
from gateways.wechatpay.signature import (
    SIGNATURE_HEADER,
    SignatureRefused,
    authorization,
    check_signature,
)

Nonce = Callable[[], str]


def fresh_nonce() -> str:
    return secrets.token_hex(16)


@dataclass(frozen=True)
class Told:
    """A verified answer that says yes, or an error's meaning with the words for it."""

    fields: Mapping[str, object]
    meaning: Meaning | None = None
    code: str = ""
    detail: str = ""


class Connection:
    """One direct merchant's line to WeChat Pay, of APIv3 and of the older APIv2."""

    def __init__(
        self,
        client: httpx.AsyncClient,
        account: Account,
        clock: Clock = utc_now,
        nonce: Nonce = fresh_nonce,
    ) -> None:
        self.client = client
        self.account = account
        self.clock = clock
        self.nonce = nonce

    async def call(
        self, method: str, path: str, body: bytes = b"", *, may_be_empty: bool = False
    ) -> Told:
        """A call of APIv3; `may_be_empty` where WeChat Pay answers with 204.

        Raises OutcomeUnknown, GatewayThrottled, BalanceInsufficient, GatewayMisconfigured.
        """
        account = self.account
        url = httpx.URL(account.api_base + path)
        headers = {
            "Accept": "application/json",
            "Wechatpay-Serial": account.public_key_id,
            "Authorization": authorization(
                mchid=account.mchid,
                serial=account.merchant_serial,
                key=account.private_key,
                method=method,
                raw_path=url.raw_path,
                body=body,
                timestamp=int(self.clock().timestamp()),
                nonce=self.nonce(),
            ),
        }
        if body:
            headers["Content-Type"] = "application/json"
        answer = await send(self.client, method, str(url), headers=headers, content=body or None)
        place = f"{method} {url.path}"
        if not 200 <= answer.status_code < 300:
            return self._error(answer, place)
        if answer.status_code == httpx.codes.ACCEPTED:
            raise OutcomeUnknown(f"WeChat Pay is still working on {place}; repeat it")
        if answer.status_code == httpx.codes.NO_CONTENT and may_be_empty:
            if SIGNATURE_HEADER in answer.headers:
                self._check(answer, place)
            return Told({})
        self._check(answer, place)
        return Told(_fields(answer, place))

    async def post_xml(
        self, contracting: Contracting, path: str, fields: Mapping[str, str]
    ) -> Told:
        """A call of APIv2, whose answers have HTTP status 200 whatever they say.

        Raises OutcomeUnknown, GatewayThrottled, GatewayMisconfigured, AnswerUntrusted.
        """
        account = self.account
        sent = {"appid": account.appid, "mch_id": account.mchid, **fields}
        answer = await send(
            self.client,
            "POST",
            account.api_base + path,
            headers={"Content-Type": "text/xml; charset=utf-8"},
            content=v2.write_xml(v2.signed(sent, contracting.key)),
        )
        place = f"POST {path}"
        if answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            raise GatewayThrottled(
                f"WeChat Pay limits {place}",
                retry_after_seconds=retry_after_seconds(answer.headers),
            )
        if answer.status_code != httpx.codes.OK:
            raise OutcomeUnknown(f"WeChat Pay answered {place} with HTTP {answer.status_code}")
        try:
            told = v2.read_xml(answer.body)
        except v2.MalformedXml as problem:
            raise OutcomeUnknown(f"WeChat Pay's answer to {place}: {problem}") from None
        return self._said(contracting, told, place)

    def _said(self, contracting: Contracting, told: dict[str, str], place: str) -> Told:
        if told.get("return_code") != "SUCCESS":
            # Unsigned, and without a code: only its words say that the signature was refused.
            if "签名" in told.get("return_msg", ""):
                raise GatewayMisconfigured(
                    f"WeChat Pay refuses the signature on {place}: is the APIv2 key right?"
                )
            raise OutcomeUnknown(f"WeChat Pay could not take {place}")
        is_refusal = told.get("result_code") == "FAIL"
        if ("sign" in told or not is_refusal) and not v2.is_signed(told, contracting.key):
            raise OutcomeUnknown(f"WeChat Pay's answer to {place} is not signed with our key")
        for name, ours in (("mch_id", self.account.mchid), ("appid", self.account.appid)):
            if told.get(name, ours) != ours:
                raise AnswerUntrusted("merchant_mismatch", f"the answer to {place} has a {name}")
        if told.get("result_code") == "SUCCESS":
            return Told(told)
        code = told.get("err_code", "")
        detail = f"WeChat Pay answered {place} with {code or 'no code'}"
        meaning = meaning_of_v2(code)
        raise_unless_answered(meaning, detail)
        return Told(told, meaning, code, detail)

    def _check(self, answer: Answer, place: str) -> None:
        try:
            check_signature(answer.headers, answer.body, self.account.public_keys, self.clock())
        except SignatureRefused as problem:
            raise OutcomeUnknown(f"WeChat Pay's answer to {place}: {problem}") from None

    def _error(self, answer: Answer, place: str) -> Told:
        """Errors may come unsigned; a signature that one does carry must be valid."""
        if SIGNATURE_HEADER in answer.headers:
            self._check(answer, place)
        try:
            code = read_object(answer.body.decode()).get("code")
        except ValueError:
            code = None
        code = code if isinstance(code, str) else ""
        detail = f"WeChat Pay answered {place} with HTTP {answer.status_code} {code}".rstrip()
        if code == BALANCE_CODE:
            raise BalanceInsufficient(detail)
        meaning = meaning_of(answer.status_code, code)
        raise_unless_answered(
            meaning, detail, retry_after_seconds=retry_after_seconds(answer.headers)
        )
        return Told({}, meaning, code, detail)


def _fields(answer: Answer, place: str) -> Mapping[str, object]:
    try:
        return read_object(answer.body.decode())
    except ValueError as problem:
        raise OutcomeUnknown(f"WeChat Pay's answer to {place} cannot be read: {problem}") from None
