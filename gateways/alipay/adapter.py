"""Alipay behind the port: QR codes, cashier pages and app orders over gateway.do.

Only `qr` places an order with Alipay; the other methods are signed instructions that the payer's
browser or app carries there, so nothing exists at Alipay before the payer arrives. A charge by
agreement (`saved`) is in `gateways.alipay.charges`.
"""

from collections.abc import Collection

import httpx

from billing.errors import AnswerUntrusted, MethodNotSupported, OutcomeUnknown
from billing.payment import AppParams, GatewayName, NextAction, PaymentMethod, QrCode, Redirect
from gateways.alipay import refunds
from gateways.alipay.charges import charge
from gateways.alipay.connection import Connection, failed
from gateways.alipay.mandates import AlipayMandates
from gateways.alipay.outcomes import (
    SUCCESS,
    TRADE_CLOSED,
    TRADE_STATUSES,
    failure_of,
    was_paid,
)
from gateways.alipay.requests import (
    CLOSE,
    CURRENCY,
    PRODUCTS,
    QUERY,
    Account,
    check_number,
    encoded,
    order_parameters,
    read_beijing_text,
    read_yuan,
    request_parameters,
)
from gateways.alipay.signature import Node
from gateways.clock import Clock, utc_now
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


class AlipayGateway:
    """One application at Alipay. `notify_url` is where Alipay reports to, for every order."""

    name: GatewayName = GatewayName.ALIPAY
    mandates: Mandates | None
    capabilities: Capabilities = Capabilities(
        methods=frozenset(PRODUCTS) | {PaymentMethod.SAVED},
        currencies=frozenset({CURRENCY}),
        orders_expire=True,
    )

    def __init__(
        self,
        client: httpx.AsyncClient,
        account: Account,
        notify_url: str,
        *,
        clock: Clock = utc_now,
    ) -> None:
        self._connection = Connection(client, account, notify_url, clock)
        self._account = account
        self.mandates = AlipayMandates(self._connection)

    async def open(self, order: Order) -> OpenOutcome:
        if order.method is PaymentMethod.SAVED:
            return await charge(self._connection, order)
        if order.method not in PRODUCTS:
            raise MethodNotSupported(f"Alipay does not offer {order.method.value}", param="method")
        if order.method is PaymentMethod.QR:
            return await self._precreate(order)
        return Opened(self._signed_instructions(order), reference=None)

    async def query(self, order: Order, *, gateway_number: str | None = None) -> Observation:
        wanted = {"trade_no": gateway_number} if gateway_number else {"out_trade_no": order.number}
        node = await self._connection.call(QUERY, wanted)
        if node.text("code") == SUCCESS:
            return self._observation(order, node, gateway_number)
        meaning, detail = failed(QUERY, node)
        if meaning is Meaning.ABSENT:
            return Observation(ObservedState.ABSENT, node.text("sub_code") or "")
        raise OutcomeUnknown(detail)

    async def close(self, order: Order) -> None:
        node = await self._connection.call(CLOSE, {"out_trade_no": order.number})
        if node.text("code") != SUCCESS:
            failed(CLOSE, node)

    async def refund(self, order: RefundOrder) -> RefundObservation:
        node = await self._connection.call(
            refunds.REFUND, refunds.refund_parameters(order), is_reported=True
        )
        if node.text("code") == SUCCESS:
            return refunds.asked(order, node, self._account)
        refusal = refunds.refusal_of(order, node)
        if refusal is None:
            _, detail = failed(refunds.REFUND, node)
            raise OutcomeUnknown(detail)
        # A trade that gave back all it had is closed: the refund itself may be why.
        done = await self.query_refund(order)
        return refusal if done.state is RefundState.ABSENT else done

    async def query_refund(self, order: RefundOrder) -> RefundObservation:
        node = await self._connection.call(refunds.REFUND_QUERY, refunds.query_parameters(order))
        if node.text("code") == SUCCESS:
            return refunds.queried(order, node, self._account)
        meaning, detail = failed(refunds.REFUND_QUERY, node)
        if meaning is Meaning.ABSENT:
            return RefundObservation(RefundState.ABSENT, node.text("sub_code") or "")
        raise OutcomeUnknown(detail)

    async def list_refunds(self, order: Order, hints: Collection[str]) -> ToldRefunds:
        """See `Gateway.list_refunds`. A trade that was paid and is closed has given all back."""
        seen = await self.query(order)
        returned = None
        if seen.receipt is not None and seen.status == TRADE_CLOSED:
            returned = seen.receipt.amount_minor
        found = []
        for number in hints:
            node = await self._connection.call(
                refunds.REFUND_QUERY, {"out_trade_no": order.number, "out_request_no": number}
            )
            if node.text("code") != SUCCESS:
                meaning, detail = failed(refunds.REFUND_QUERY, node)
                if meaning is not Meaning.ABSENT:
                    raise OutcomeUnknown(detail)
                continue
            refund = refunds.foreign(order, number, node)
            if refund is not None:
                found.append(refund)
        return ToldRefunds(tuple(found), returned)

    async def list_disputes(self, order: Order) -> list[DisputeObservation]:
        """See `Gateway.list_disputes`: it tells of none."""
        return []

    async def aclose(self) -> None:
        await self._connection.client.aclose()

    async def _precreate(self, order: Order) -> OpenOutcome:
        method = PRODUCTS[order.method][0]
        node = await self._connection.call(method, order_parameters(order), is_reported=True)
        if node.text("code") == SUCCESS:
            check_number(order, node)
            code_url = node.text("qr_code")
            if code_url is None:
                raise OutcomeUnknown(f"Alipay answered {order.number} without a qr_code")
            return Opened(QrCode(code_url=code_url), reference=None)
        meaning, detail = failed(method, node)
        if meaning is Meaning.ORDERED:
            return AlreadyOrdered()
        if meaning in (Meaning.DECLINED, Meaning.REFUSED):
            return Refused(failure_of(meaning, node.text("sub_code") or ""))
        raise OutcomeUnknown(detail)

    def _signed_instructions(self, order: Order) -> NextAction:
        is_app = order.method is PaymentMethod.APP
        text = encoded(
            request_parameters(
                self._account,
                PRODUCTS[order.method][0],
                order_parameters(order),
                self._connection.clock(),
                notify_url=self._connection.notify_url,
                return_url=None if is_app else order.return_url,
            )
        )
        if is_app:
            return AppParams(params={"order_string": text})
        return Redirect(url=f"{self._account.gateway_url}?{text}")

    def _observation(self, order: Order, node: Node, gateway_number: str | None) -> Observation:
        check_number(order, node)
        reference = node.text("trade_no")
        if gateway_number is not None and reference != gateway_number:
            raise AnswerUntrusted(
                "order_mismatch",
                f"asked for Alipay's trade {gateway_number}, the answer is about {reference}",
            )
        self._check_merchant(order, node)
        status = node.text("trade_status") or "(none)"
        state = TRADE_STATUSES.get(status, ObservedState.UNRECOGNISED)
        if state is ObservedState.DEAD and was_paid(node.fields):
            state = ObservedState.PAID
        receipt = self._receipt(order, node) if state is ObservedState.PAID else None
        return Observation(state, status, reference=reference, receipt=receipt)

    def _check_merchant(self, order: Order, node: Node) -> None:
        """Answers name the merchant only at times; where one does, it must be us."""
        expected = {"seller_id": self._account.seller_id, "app_id": self._account.app_id}
        for name, ours in expected.items():
            theirs = node.text(name)
            if theirs is not None and theirs != ours:
                raise AnswerUntrusted(
                    "merchant_mismatch", f"{order.number} is said to belong to {name} {theirs}"
                )

    def _receipt(self, order: Order, node: Node) -> Receipt:
        """Raises AnswerUntrusted unless it is exactly the order's money."""
        trade_no = node.text("trade_no")
        if trade_no is None:
            raise OutcomeUnknown(f"Alipay calls {order.number} paid, without a trade_no")
        amount_minor = read_yuan(node.text("total_amount"))
        if amount_minor is None:
            raise AnswerUntrusted(
                "amount_mismatch",
                f"the gateway reports {order.number} as paid without an amount that can be read",
            )
        paid_at = read_beijing_text(node.text("send_pay_date"))
        return check_receipt(
            order,
            Receipt(
                gateway_reference=trade_no,
                amount_minor=amount_minor,
                currency=node.text("trans_currency") or CURRENCY,
                # The money is certain even where its instant is not told: then it is known now.
                paid_at=paid_at or self._connection.clock(),
            ),
        )
