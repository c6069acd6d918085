"""WeChat Pay behind the port: the `native`, `jsapi`, `h5` and `app` orders of a merchant by APIv3,
and `saved` ones, charged by contract, in `gateways.wechatpay.deductions`."""

from collections.abc import Collection, Mapping
from urllib.parse import quote

import httpx

from billing.errors import (
    AnswerUntrusted,
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
from gateways.meaning import Meaning
from gateways.wechatpay import refunds
from gateways.wechatpay.connection import Connection, Nonce, fresh_nonce
from gateways.wechatpay.deductions import Deductions
from gateways.wechatpay.mandates import WechatpayMandates
from gateways.wechatpay.outcomes import (
    REFUNDED,
    TRADE_STATES,
    failure_of,
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
from gateways.wechatpay.signature import app_parameters, jsapi_parameters


class WechatpayGateway:
    """One direct merchant at WeChat Pay. `notify_url` is where it reports to, for every order."""

    name: GatewayName = GatewayName.WECHATPAY

    def __init__(
        self,
        client: httpx.AsyncClient,
        account: Account,
        notify_url: str,
        *,
        clock: Clock = utc_now,
        nonce: Nonce = fresh_nonce,
    ) -> None:
        self._connection = Connection(client, account, clock, nonce)
        self._account = account
        self._notify_url = notify_url
        contracting = account.contracting
        methods = METHODS if contracting is None else METHODS | {PaymentMethod.SAVED}
        self.capabilities: Capabilities = Capabilities(
            methods=methods, currencies=frozenset({CURRENCY}), orders_expire=True
        )
        self.mandates: Mandates | None = None
        self._deductions: Deductions | None = None
        if contracting is not None:
            self.mandates = WechatpayMandates(self._connection, contracting, notify_url)
            self._deductions = Deductions(self._connection, contracting, notify_url)

    async def open(self, order: Order) -> OpenOutcome:
        if order.method is PaymentMethod.SAVED:
            return await self._by_contract(order).open(order)
        if order.method not in METHODS:
            raise _not_offered(order)
        told = await self._connection.call(
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
        if order.method is PaymentMethod.SAVED:
            return await self._by_contract(order).query(order, gateway_number)
        told = await self._connection.call("GET", query_path(self._account, order, gateway_number))
        if told.meaning is Meaning.ABSENT:
            return Observation(ObservedState.ABSENT, told.code)
        if told.meaning is not None:
            raise OutcomeUnknown(told.detail)
        return self._observation(order, told.fields, gateway_number)

    async def close(self, order: Order) -> None:
        """See `Gateway.close`. What was asked of a contract cannot be taken back."""
        if order.method is PaymentMethod.SAVED:
            return
        path = close_path(order)
        await self._connection.call("POST", path, close_body(self._account), may_be_empty=True)

    async def refund(self, order: RefundOrder) -> RefundObservation:
        """See `Gateway.refund`. Raises GatewayThrottled only of the query that follows: a refund
        limited for its rate may be in progress all the same."""
        body = refunds.refund_body(order, self._notify_url)
        try:
            told = await self._connection.call("POST", refunds.REFUNDS_PATH, body)
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
        told = await self._connection.call("GET", refunds.refund_path(order))
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
            told = await self._connection.call("GET", refunds.path_of(number))
            if told.meaning is None:
                found.append(refunds.foreign(order, number, told.fields))
            elif told.meaning is not Meaning.ABSENT:
                raise OutcomeUnknown(told.detail)
        return ToldRefunds(tuple(found), is_any=seen.status == REFUNDED)

    async def list_disputes(self, order: Order) -> list[DisputeObservation]:
        """See `Gateway.list_disputes`: it tells of none."""
        return []

    async def aclose(self) -> None:
        await self._connection.client.aclose()

    def _by_contract(self, order: Order) -> Deductions:
        if self._deductions is None:
            raise _not_offered(order)
        return self._deductions

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
                        timestamp=int(self._connection.clock().timestamp()),
                        nonce=self._connection.nonce(),
                    )
                )
            case _:
                return AppParams(
                    params=app_parameters(
                        appid=self._account.appid,
                        mchid=self._account.mchid,
                        prepay_id=given,
                        key=self._account.private_key,
                        timestamp=int(self._connection.clock().timestamp()),
                        nonce=self._connection.nonce(),
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
                paid_at=read_rfc3339(fields.get("success_time")) or self._connection.clock(),
            ),
        )


def _not_offered(order: Order) -> MethodNotSupported:
    return MethodNotSupported(f"WeChat Pay does not offer {order.method.value}", param="method")
