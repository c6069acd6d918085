"""A payer with the Alipay app: what it does with a code, a signed page or an app's order."""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from sandbox.alipay.agreements import Agreements
from sandbox.alipay.calls import Call, read_call, read_parameters
from sandbox.alipay.errors import AlipayError, TradeError
from sandbox.alipay.signing_page import AgreementParty
from sandbox.alipay.terms import APP, PAGE, PAY, WAP
from sandbox.alipay.trades import NAME, WAITING, Trades, terms_of
from sandbox.alipay.withholding import Withholding
from sandbox.book import Document
from sandbox.core import ControlRefused, OrderLine, Sandbox, Wanted


class AlipayPayer:
    """Opens what it is given, checks its signature, and pays or fails to.

    It has no options. Alipay never tells the merchant of a failed try, nor why it failed.
    """

    def __init__(self, sandbox: Sandbox, trades: Trades) -> None:
        self._sandbox = sandbox
        self._trades = trades
        self._party = AgreementParty(sandbox)
        self._withholding = Withholding(sandbox, trades, Agreements(sandbox))

    async def pay(self, wanted: Wanted, **options: Any) -> dict[str, Any]:
        """Signs where an agreement is to be signed."""
        if self._party.is_asked(wanted):
            _refuse_options(options)
            return self._party.answer(wanted, consents=True)

        def take(order: Document) -> None:
            (self._withholding.settle if order["method"] == PAY else self._trades.pay)(order)

        return self._do(wanted, options, take)

    async def decline(
        self, wanted: Wanted, decline_code: str | None = None, **options: Any
    ) -> dict[str, Any]:
        """The trade is there afterwards and still waits: WAIT_BUYER_PAY. An agreement is not
        signed."""
        if self._party.is_asked(wanted):
            _refuse_options(options)
            return self._party.answer(wanted, consents=False)
        return self._do(wanted, options, self._trades.begin) | {"decline_code": decline_code}

    def _do(
        self, wanted: Wanted, options: dict[str, Any], deed: Callable[[Document], None]
    ) -> dict[str, Any]:
        _refuse_options(options)
        with self._sandbox.book.transaction():
            try:
                order = self._open(wanted)
                deed(order)
            except TradeError as problem:
                raise ControlRefused(409, f"Alipay takes no money for this: {problem}") from None
        return {
            "gateway": NAME,
            "reference": order["reference"],
            "attempt": order["attempt"],
            "number": order["number"],
            "status": order["trade"]["status"],
        }

    def _open(self, wanted: Wanted) -> Document:
        """The order that a control is about, as the payer's device gets at it."""
        if wanted.next_action is None:
            order = self._trades.of_payment(wanted.reference or "", wanted.attempt)
            if order is None:
                raise ControlRefused(
                    404,
                    f"Alipay has seen no order of {wanted.reference!r}: a page or an app's order"
                    " reaches it with the payer, so give its next_action",
                )
            return order
        match wanted.next_action:
            case {"type": "qr_code", "code_url": str(url)}:
                return self._scan(url)
            case {"type": "redirect", "url": str(url)}:
                return self._visit(url)
            case {"type": "app_params", "params": {"order_string": str(text)}}:
                return self._trades.arrive(self._read(text, (APP,)))
        raise ControlRefused(
            422,
            "a payer with Alipay needs next_action of type qr_code, redirect or app_params (with"
            " order_string)",
        )

    def _scan(self, url: str) -> Document:
        order = self._trades.by_field(code=urlsplit(url).path.rpartition("/")[2])
        if order is None:
            raise ControlRefused(404, f"no code of Alipay's: {url}")
        return order

    def _visit(self, url: str) -> Document:
        parts = urlsplit(url)
        if parts.path != "/gateway.do":
            raise ControlRefused(422, f"no page of Alipay's: {url}")
        return self._trades.arrive(self._read(parts.query, (PAGE, WAP)))

    def _read(self, text: str, methods: tuple[str, ...]) -> Call:
        try:
            call = read_call(
                read_parameters(text, ""),
                self._sandbox.keys[NAME],
                self._sandbox.clock(),
                from_browser=True,
            )
        except AlipayError as problem:
            raise ControlRefused(422, f"Alipay refuses these instructions: {problem}") from None
        if call.method not in methods:
            raise ControlRefused(422, f"{call.method} is not for this: {' and '.join(methods)} are")
        return call


def _refuse_options(options: dict[str, Any]) -> None:
    if options:
        raise ControlRefused(422, f"Alipay's payer has no option {', '.join(sorted(options))}")


def order_lines(sandbox: Sandbox, trades: Trades, limit: int) -> list[OrderLine]:
    return [_order_line(sandbox, order) for order in trades.newest(limit)]


def _order_line(sandbox: Sandbox, order: Document) -> OrderLine:
    terms, now = terms_of(order), sandbox.clock()
    status = order["trade"]["status"] if order["trade"] else "TRADE_NOT_EXIST"
    is_over = terms.is_over(now) and order["trade"] is None
    pages = {}
    if order["code"]:
        pages["Scan"] = f"{sandbox.url}/alipay/qr/{order['code']}"
    if order["visit"]:
        pages["Cashier"] = f"{sandbox.url}/alipay/cashier/{order['visit']}"
    return OrderLine(
        gateway=NAME,
        reference=order["reference"],
        attempt=order["attempt"],
        number=order["number"],
        status=status,
        is_open=status in (WAITING, "TRADE_NOT_EXIST") and not is_over,
        amount=terms.amount,
        currency="CNY",
        description=terms.subject,
        created_at=datetime.fromisoformat(order["seen_at"]),
        pages=pages,
    )
