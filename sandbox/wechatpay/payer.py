"""A payer with WeChat: what it does with a code, a page, and an app's or a page's signed order."""

from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from sandbox import rsa
from sandbox.book import Document
from sandbox.core import ControlRefused, OrderLine, Sandbox, Wanted
from sandbox.html import button, element, paragraph, show_page
from sandbox.wechatpay.errors import WechatError
from sandbox.wechatpay.orders import NOTPAY, SUCCESS, Orders
from sandbox.wechatpay.parameters import APP, H5, JSAPI, NAME, NATIVE
from sandbox.wechatpay.refunds import REFUND_STATUSES
from sandbox.wechatpay.signing import app_message, jsapi_message
from sandbox.wechatpay.signing_page import ContractParty, is_waiting

H5_PATH = "/wechatpay/h5/checkmweb"

_APP_FIELDS = frozenset(
    {"appid", "partnerid", "prepayid", "package", "noncestr", "timestamp", "sign"}
)
_JSAPI_FIELDS = frozenset({"appId", "timeStamp", "nonceStr", "package", "signType", "paySign"})


class WechatPayer:
    """Opens what it is given, checks its signature, and pays or fails to.

    WeChat Pay never tells the merchant of a failed try, nor why it failed.
    """

    def __init__(self, sandbox: Sandbox, orders: Orders) -> None:
        self._sandbox = sandbox
        self._orders = orders
        self._party = ContractParty(sandbox)
        self._keys = sandbox.keys[NAME]

    async def pay(self, wanted: Wanted, refunds: str = SUCCESS, **options: Any) -> dict[str, Any]:
        """`refunds` is what becomes of refunds to this payer: SUCCESS, ABNORMAL where its card is
        closed, CLOSED where WeChat Pay gives them up."""
        if refunds not in REFUND_STATUSES:
            raise ControlRefused(422, f"refunds is one of {', '.join(REFUND_STATUSES)}")
        if self._party.is_asked(wanted):
            _refuse_options(options)
            return self._party.answer(wanted, consents=True)

        def take(order: Document) -> None:
            if is_waiting(order):
                self._party.settle(order, None)
            else:
                self._orders.pay(order, refunds)

        return self._do(wanted, options, take)

    async def decline(
        self, wanted: Wanted, decline_code: str | None = None, **options: Any
    ) -> dict[str, Any]:
        """The order still waits afterwards: NOTPAY. A contract is not signed; a deduction that
        waits has failed."""
        if self._party.is_asked(wanted):
            _refuse_options(options)
            return self._party.answer(wanted, consents=False)

        def fail(order: Document) -> None:
            if is_waiting(order):
                self._party.settle(order, decline_code or "NOTENOUGH")
            else:
                _check_open(order)

        return self._do(wanted, options, fail) | {"decline_code": decline_code}

    def at_page(self, url: str) -> Document:
        """The order of an h5_url. Raises ControlRefused."""
        query = parse_qs(urlsplit(url).query)
        order = self._by_prepay_id(query.get("prepay_id", [""])[0], H5)
        if [order["code"]] != query.get("package"):
            raise ControlRefused(404, "no such page of WeChat Pay's")
        return order

    def _do(
        self, wanted: Wanted, options: dict[str, Any], deed: Callable[[Document], None]
    ) -> dict[str, Any]:
        _refuse_options(options)
        with self._sandbox.book.transaction():
            order = self._open(wanted)
            try:
                deed(order)
            except WechatError as problem:
                raise ControlRefused(
                    409, f"WeChat Pay takes no money for this: {problem}"
                ) from None
        return {
            "gateway": NAME,
            "reference": order["reference"],
            "attempt": order["attempt"],
            "number": order["number"],
            "status": order["state"],
        }

    def _open(self, wanted: Wanted) -> Document:
        """The order that a control is about, as the payer's device gets at it."""
        if wanted.next_action is None:
            order = self._orders.of_payment(wanted.reference or "", wanted.attempt)
            if order is None:
                raise ControlRefused(404, f"WeChat Pay has no order of {wanted.reference!r}")
            return order
        match wanted.next_action:
            case {"type": "qr_code", "code_url": str(url)}:
                order = self._scan(url)
            case {"type": "redirect", "url": str(url)}:
                order = self._visit(url)
            case {"type": "app_params", "params": dict(params)}:
                order = self._in_app(params)
            case {"type": "jsapi_params", "params": dict(params)}:
                order = self._in_wechat(params)
            case _:
                raise ControlRefused(
                    422,
                    "a payer with WeChat needs next_action of type qr_code, redirect, app_params"
                    " or jsapi_params",
                )
        if order["state"] == NOTPAY and not self._orders.is_payable_by_instructions(order):
            raise ControlRefused(
                409, "these instructions have grown too old: place the order again"
            )
        return order

    def _scan(self, url: str) -> Document:
        parts = urlsplit(url)
        if (parts.scheme, parts.netloc, parts.path) != ("weixin", "wxpay", "/bizpayurl"):
            raise ControlRefused(422, f"no code of WeChat Pay's: {url}")
        order = self._orders.by_field(code=parse_qs(parts.query).get("pr", [""])[0])
        if order is None or order["trade_type"] != NATIVE:
            raise ControlRefused(404, f"WeChat Pay knows no code {url}")
        return order

    def _visit(self, url: str) -> Document:
        if urlsplit(url).path != H5_PATH:
            raise ControlRefused(422, f"no page of WeChat Pay's: {url}")
        return self.at_page(url)

    def _in_app(self, params: dict[str, Any]) -> Document:
        """What the mobile SDK is given, and WeChat checks."""
        self._check_fields(params, _APP_FIELDS)
        expected = {
            "appid": self._keys["appid"],
            "partnerid": self._keys["mchid"],
            "package": "Sign=WXPay",
        }
        _check_values(params, expected)
        self._check_sign(app_message(params), params["sign"], "sign")
        return self._by_prepay_id(params["prepayid"], APP)

    def _in_wechat(self, params: dict[str, Any]) -> Document:
        """What a page inside WeChat hands to its bridge."""
        self._check_fields(params, _JSAPI_FIELDS)
        _check_values(params, {"appId": self._keys["appid"], "signType": "RSA"})
        self._check_sign(jsapi_message(params), params["paySign"], "paySign")
        name, _, prepay_id = params["package"].partition("=")
        if name != "prepay_id":
            raise ControlRefused(422, "package is prepay_id=...")
        return self._by_prepay_id(prepay_id, JSAPI)

    def _by_prepay_id(self, prepay_id: str, trade_type: str) -> Document:
        order = self._orders.by_field(prepay_id=prepay_id)
        if order is None or order["trade_type"] != trade_type:
            raise ControlRefused(404, f"WeChat Pay knows no {trade_type} order {prepay_id!r}")
        return order

    @staticmethod
    def _check_fields(params: dict[str, Any], fields: frozenset[str]) -> None:
        if set(params) != fields or not all(isinstance(value, str) for value in params.values()):
            raise ControlRefused(422, f"params are text under {', '.join(sorted(fields))}")

    def _check_sign(self, message: bytes, signature: str, name: str) -> None:
        if not rsa.is_signed(message, signature, self._keys["merchant_public_key"]):
            raise ControlRefused(422, f"{name} does not sign {message!r} with the merchant's key")


def h5_routes(sandbox: Sandbox, payer: WechatPayer) -> APIRouter:
    """The page behind an h5_url: pay or fail, then on to `redirect_url`."""
    router = APIRouter()

    @router.get(H5_PATH)
    async def page(request: Request) -> Response:
        order = payer.at_page(str(request.url))
        amount = order["request"]["amount"]["total"]
        way_back = request.query_params.get("redirect_url")
        can_pay = order["state"] == NOTPAY
        return show_page(
            "WeChat Pay",
            element(
                "p", f"{order['request']['description']} · {amount // 100}.{amount % 100:02d} CNY"
            ),
            element("p", f"{order['number']} · {order['state']}", class_="soft"),
            button("", "Pay", {"deed": "pay"}) if can_pay else "",
            button("", "Fail to pay", {"deed": "fail"}) if can_pay else "",
            element("a", "Back to the shop", href=way_back) if way_back else "",
        )

    @router.post(H5_PATH)
    async def pressed(request: Request) -> Response:
        form = dict(parse_qsl((await request.body()).decode(errors="replace")))
        wanted = Wanted({"type": "redirect", "url": str(request.url)})
        if form.get("deed") == "pay":
            await payer.pay(wanted)
        else:
            await payer.decline(wanted)
        way_back = request.query_params.get("redirect_url")
        if way_back:
            return RedirectResponse(way_back, 303)
        return show_page("WeChat Pay", paragraph("Done. You can close this page."))

    return router


def order_lines(sandbox: Sandbox, orders: Orders, limit: int) -> list[OrderLine]:
    return [_order_line(sandbox, order) for order in orders.newest(limit)]


def _order_line(sandbox: Sandbox, order: Document) -> OrderLine:
    page = f"{sandbox.url}{H5_PATH}?prepay_id={order['prepay_id']}&package={order['code']}"
    return OrderLine(
        gateway=NAME,
        reference=order["reference"],
        attempt=order["attempt"],
        number=order["number"],
        status=order["state"],
        is_open=order["state"] == NOTPAY or is_waiting(order),
        amount=order["request"]["amount"]["total"],
        currency="CNY",
        description=order["request"]["description"],
        created_at=datetime.fromisoformat(order["created_at"]),
        pages={"H5 page": page} if order["trade_type"] == H5 else {},
    )


def _refuse_options(options: dict[str, Any]) -> None:
    if options:
        names = ", ".join(sorted(options))
        raise ControlRefused(422, f"WeChat Pay's payer has no option {names}")


def _check_open(order: Document) -> None:
    if order["state"] != NOTPAY:
        raise WechatError(400, "ORDER_CLOSED", f"订单状态为{order['state']}")


def _check_values(params: dict[str, Any], expected: dict[str, str]) -> None:
    for name, value in expected.items():
        if params[name] != value:
            raise ControlRefused(422, f"{name} is {params[name]!r}, expected {value!r}")
