"""WeChat Pay APIv3 behind the port: the `native`, `jsapi`, `h5` and `app` orders of a merchant."""

import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from urllib.parse import quote

import httpx

from billing.errors import (
    AnswerUntrusted,
    BalanceInsufficient,
    GatewayThrottled,
    MethodNotSupported,
    OutcomeUnknown,
)
from billing.payment import (
    AppParams,
    GatewayName,
    JsapiParams,
    NextAction,
    PaymentMethod,
    QrCode,
    Redirect,
)
from gateways.clock import Clock, read_rfc3339, utc_now
from gateways.gateway import (
    AlreadyOrdered,
    Capabilities,
    DisputeObservation,
    Observation,
    ObservedState,
    Opened,
    OpenOutcome,
    Order,
    Receipt,
    RefundObservation,
    RefundOrder,
    RefundState,
    Refused,
    ToldRefunds,
    check_receipt,
)
from gateways.mandates import Mandates
from gateways.meaning import Meaning, raise_unless_answered
from gateways.strict_json import read_object
from gateways.transport import Answer, retry_after_seconds, send
from gateways.wechatpay import refunds
from gateways.wechatpay.outcomes import (
    BALANCE_CODE,
    REFUNDED,
    TRADE_STATES,
    failure_of,
    meaning_of,
    refusal_of,
)
from gateways.wechatpay.requests import (
    CURRENCY,
    METHODS,
    Account,
    close_body,
    close_path,
    order_body,
    order_path,
    query_path,
)
from gateways.wechatpay.signature import (
    SIGNATURE_HEADER,
    SignatureRefused,
    app_parameters,
    authorization,
    check_signature,
    jsapi_parameters,
)

Nonce = Callable[[], str]


def fresh_nonce() -> str:
    return secrets.token_hex(16)


@dataclass(frozen=True)
class _Told:
    """A verified 2xx answer, or an error's meaning with the words for it."""

    fields: Mapping[str, object]
    meaning: Meaning | None = None
    code: str = ""
    detail: str = ""


class WechatpayGateway:
    """One direct merchant at WeChat Pay. `notify_url` is where it reports to, for every order."""

    name: GatewayName = GatewayName.WECHATPAY
    mandates: Mandates | None = None
    capabilities: Capabilities = Capabilities(
        methods=METHODS, currencies=frozenset({CURRENCY}), orders_expire=True
    )

    def __init__(
        self,
        client: httpx.AsyncClient,
        account: Account,
        notify_url: str,
        *,
        clock: Clock = utc_now,
        nonce: Nonce = fresh_nonce,
    ) -> None:
        self._client = client
        self._account = account
        self._notify_url = notify_url
        self._clock = clock
        self._nonce = nonce

    async def open(self, order: Order) -> OpenOutcome:
        if order.method not in METHODS:
            raise MethodNotSupported(
                f"WeChat Pay does not offer {order.method.value}", param="method"
            )
        told = await self._call(
            "POST", order_path(order), order_body(self._account, order, self._notify_url)
        )
        match told.meaning:
            case None:
                return Opened(self._instructions(order, told.fields), reference=None)
            case Meaning.ORDERED:
                return AlreadyOrdered()
            case Meaning.REFUSED:
                return Refused(refusal_of(told.code))
            case _:
                raise OutcomeUnknown(told.detail)

    async def query(self, order: Order, *, gateway_number: str | None = None) -> Observation:
        told = await self._call("GET", query_path(self._account, order, gateway_number))
        if told.meaning is Meaning.ABSENT:
            return Observation(ObservedState.ABSENT, told.code)
        if told.meaning is not None:
            raise OutcomeUnknown(told.detail)
        return self._observation(order, told.fields, gateway_number)

    async def close(self, order: Order) -> None:
        path = close_path(order)
        await self._call("POST", path, close_body(self._account), may_be_empty=True)

    async def refund(self, order: RefundOrder) -> RefundObservation:
        """See `Gateway.refund`. Raises GatewayThrottled only of the query that follows: a refund
        limited for its rate may be in progress all the same."""
        body = refunds.refund_body(order, self._notify_url)
        try:
            told = await self._call("POST", refunds.REFUNDS_PATH, body)
        except GatewayThrottled as problem:
            known = await self.query_refund(order)
            if known.state is RefundState.ABSENT:
                raise OutcomeUnknown(problem.detail) from None
            return known
        if told.meaning is None:
            return refunds.observed(order, told.fields)
        # A refusal gives the money free for another refund: see first that it is not this one,
        # asked for before, which leaves nothing to give back.
        known = await self.query_refund(order)
        return refunds.refused(told.code) if known.state is RefundState.ABSENT else known

    async def query_refund(self, order: RefundOrder) -> RefundObservation:
        told = await self._call("GET", refunds.refund_path(order))
        if told.meaning is Meaning.ABSENT:
            return RefundObservation(RefundState.ABSENT, told.code)
        if told.meaning is not None:
            raise OutcomeUnknown(told.detail)
        return refunds.observed(order, told.fields)

    async def list_refunds(self, order: Order, hints: Collection[str]) -> ToldRefunds:
        """See `Gateway.list_refunds`. An order says that it has refunds, never which."""
        seen = await self.query(order)
        found = []
        for number in hints:
            told = await self._call("GET", refunds.path_of(number))
            if told.meaning is None:
                found.append(refunds.foreign(order, number, told.fields))
            elif told.meaning is not Meaning.ABSENT:
                raise OutcomeUnknown(told.detail)
        return ToldRefunds(tuple(found), is_any=seen.status == REFUNDED)

    async def list_disputes(self, order: Order) -> list[DisputeObservation]:
        """See `Gateway.list_disputes`: it tells of none."""
        return []

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _call(
        self, method: str, path: str, body: bytes = b"", *, may_be_empty: bool = False
    ) -> _Told:
        """Send a signed request; what comes back is verified before anything in it is believed.

        `may_be_empty` where WeChat Pay answers with 204. Raises OutcomeUnknown, GatewayThrottled,
        BalanceInsufficient, GatewayMisconfigured.
        """
        account = self._account
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
                timestamp=int(self._clock().timestamp()),
                nonce=self._nonce(),
            ),
        }
        if body:
            headers["Content-Type"] = "application/json"
        answer = await send(self._client, method, str(url), headers=headers, content=body or None)
        place = f"{method} {url.path}"
        if not 200 <= answer.status_code < 300:
            return self._error(answer, place)
        if answer.status_code == httpx.codes.ACCEPTED:
            raise OutcomeUnknown(f"WeChat Pay is still working on {place}; repeat it")
        if answer.status_code == httpx.codes.NO_CONTENT and may_be_empty:
            if SIGNATURE_HEADER in answer.headers:
                self._check(answer, place)
            return _Told({})
        self._check(answer, place)
        return _Told(_fields(answer, place))

    def _check(self, answer: Answer, place: str) -> None:
        try:
            check_signature(answer.headers, answer.body, self._account.public_keys, self._clock())
        except SignatureRefused as problem:
            raise OutcomeUnknown(f"WeChat Pay's answer to {place}: {problem}") from None

    def _error(self, answer: Answer, place: str) -> _Told:
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
        return _Told({}, meaning, code, detail)

    def _instructions(self, order: Order, fields: Mapping[str, object]) -> NextAction:
        name = {
            PaymentMethod.NATIVE: "code_url",
            PaymentMethod.H5: "h5_url",
        }.get(order.method, "prepay_id")
        given = fields.get(name)
        if not isinstance(given, str) or not given:
            raise OutcomeUnknown(f"WeChat Pay answered {order.number} without a {name}")
        match order.method:
            case PaymentMethod.NATIVE:
                return QrCode(code_url=given)
            case PaymentMethod.H5:
                if order.return_url is None:
                    return Redirect(url=given)
                return Redirect(url=f"{given}&redirect_url={quote(order.return_url, safe='')}")
            case PaymentMethod.JSAPI:
                return JsapiParams(
                    params=jsapi_parameters(
                        appid=self._account.appid,
                        prepay_id=given,
                        key=self._account.private_key,
                        timestamp=int(self._clock().timestamp()),
                        nonce=self._nonce(),
                    )
                )
            case _:
                return AppParams(
                    params=app_parameters(
                        appid=self._account.appid,
                        mchid=self._account.mchid,
                        prepay_id=given,
                        key=self._account.private_key,
                        timestamp=int(self._clock().timestamp()),
                        nonce=self._nonce(),
                    )
                )

    def _observation(
        self, order: Order, fields: Mapping[str, object], gateway_number: str | None
    ) -> Observation:
        for name, ours in (("mchid", self._account.mchid), ("appid", self._account.appid)):
            if fields.get(name) != ours:
                raise AnswerUntrusted(
                    "merchant_mismatch",
                    f"{order.number} is said to belong to {name} {fields.get(name)}",
                )
        number, reference = fields.get("out_trade_no"), fields.get("transaction_id")
        if number != order.number or gateway_number not in (None, reference):
            raise AnswerUntrusted(
                "order_mismatch",
                f"asked about {gateway_number or order.number}, WeChat Pay's answer is about"
                f" {number}, transaction {reference}",
            )
        status = fields.get("trade_state")
        status = status if isinstance(status, str) and status else "(none)"
        state = TRADE_STATES.get(status, ObservedState.UNRECOGNISED)
        return Observation(
            state,
            status,
            reference=reference if isinstance(reference, str) and reference else None,
            receipt=self._receipt(order, fields) if state is ObservedState.PAID else None,
            failure=failure_of(status),
        )

    def _receipt(self, order: Order, fields: Mapping[str, object]) -> Receipt:
        """Raises AnswerUntrusted unless it is exactly the order's money.

        `amount.total` is the order's amount; `payer_total` may be less by WeChat's own coupons.
        """
        reference = fields.get("transaction_id")
        if not isinstance(reference, str) or not reference:
            raise OutcomeUnknown(f"WeChat Pay calls {order.number} paid, without a transaction_id")
        amount = fields.get("amount")
        amount = amount if isinstance(amount, dict) else {}
        total, currency = amount.get("total"), amount.get("currency", CURRENCY)
        if not isinstance(total, int) or isinstance(total, bool):
            raise AnswerUntrusted(
                "amount_mismatch",
                f"the gateway reports {order.number} as paid without an amount that can be read",
            )
        return check_receipt(
            order,
            Receipt(
                gateway_reference=reference,
                amount_minor=total,
                currency=str(currency),
                # The money is certain even where its instant is not told: then it is known now.
                paid_at=read_rfc3339(fields.get("success_time")) or self._clock(),
            ),
        )


def _fields(answer: Answer, place: str) -> Mapping[str, object]:
    try:
        return read_object(answer.body.decode())
    except ValueError as problem:
        raise OutcomeUnknown(f"WeChat Pay's answer to {place} cannot be read: {problem}") from None
