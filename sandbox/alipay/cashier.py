"""The pages a payer sees: gateway.do in a browser, the cashier behind it, and a scanned code."""

from typing import Final
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from sandbox.alipay.calls import read_call
from sandbox.alipay.errors import AlipayError, TradeError
from sandbox.alipay.notifications import return_address
from sandbox.alipay.terms import yuan
from sandbox.alipay.trades import NAME, SUCCESS, WAITING, Trades, terms_of
from sandbox.book import Document
from sandbox.core import Sandbox
from sandbox.html import Markup, button, element, paragraph, show_page

_TITLE: Final = "Alipay cashier"


class Cashier:
    """Signing in (or scanning) makes the trade; then the payer pays, fails, or leaves."""

    def __init__(self, sandbox: Sandbox, trades: Trades) -> None:
        self._sandbox = sandbox
        self._trades = trades

    def enter(self, parameters: dict[str, str]) -> Response:
        """A browser at a signed page.pay or wap.pay: on to the cashier, or a page saying why not.

        Nobody but the payer is told of an error here.
        """
        now = self._sandbox.clock()
        try:
            call = read_call(parameters, self._sandbox.keys[NAME], now, from_browser=True)
            with self._sandbox.book.transaction():
                order = self._trades.arrive(call)
        except AlipayError as problem:
            return refusal_page(problem)
        return RedirectResponse(f"/alipay/cashier/{order['visit']}", 303)

    def show(self, order: Document | None) -> Response:
        if order is None:
            return show_page(_TITLE, paragraph("There is no such page or code."), status=404)
        terms, trade = terms_of(order), order["trade"]
        status = trade["status"] if trade else None
        return show_page(
            _TITLE,
            element("p", f"{terms.subject} · {yuan(terms.amount)} CNY"),
            element("p", f"{order['number']} · {status or 'not begun'}", class_="soft"),
            *self._buttons(order, status),
        )

    async def act(self, request: Request, order: Document | None) -> Response:
        """The button pressed: `begin`, `pay` or `fail`."""
        if order is None:
            return self.show(None)
        deed = dict(parse_qsl((await request.body()).decode(errors="replace"))).get("deed")
        try:
            with self._sandbox.book.transaction():
                (self._trades.pay if deed == "pay" else self._trades.begin)(order)
        except TradeError as problem:
            return refusal_page(problem)
        back = self._way_back(order) if deed == "pay" else None
        return RedirectResponse(back or request.url.path, 303)

    def _buttons(self, order: Document, status: str | None) -> list[Markup]:
        way_out = terms_of(order).quit_url or order["return_url"]
        leave = [element("a", "Leave", href=way_out)] if way_out else []
        if status is None:
            word = "Scan" if order["visit"] is None else "Sign in"
            return [button("", word, {"deed": "begin"}), *leave]
        if status == WAITING:
            return [
                button("", "Pay", {"deed": "pay"}),
                button("", "Fail to pay", {"deed": "fail"}),
                *leave,
            ]
        back = self._way_back(order) if status == SUCCESS else None
        return [element("a", "Back to the shop", href=back)] if back else []

    def _way_back(self, order: Document) -> str | None:
        keys = self._sandbox.keys[NAME]
        return return_address(order, terms_of(order), keys, self._sandbox.clock())


def refusal_page(problem: AlipayError) -> Response:
    return show_page(_TITLE, paragraph(str(problem)))
