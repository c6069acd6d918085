"""Alipay's gateway.do in public-key mode, for direct payments and agreements; a
`sandbox.core.Provider`."""

from datetime import timedelta
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from sandbox import rsa
from sandbox.alipay.agreements import SIGN
from sandbox.alipay.cashier import Cashier
from sandbox.alipay.errors import CallRefused
from sandbox.alipay.gateway import Gateway, parameters_of, refusal
from sandbox.alipay.merchant import AlipayMerchant
from sandbox.alipay.notifications import RETRY_DELAYS, signed_message
from sandbox.alipay.payer import AlipayPayer, order_lines
from sandbox.alipay.refunds import Refunds
from sandbox.alipay.signing_page import PAGE_PATH, AgreementParty, page_routes
from sandbox.alipay.terms import PAGE, WAP
from sandbox.alipay.trades import NAME, Trades
from sandbox.core import (
    Agreements,
    ControlRefused,
    Keys,
    Merchant,
    OrderLine,
    Payer,
    Sandbox,
    Wanted,
)
from sandbox.delivery import Message, WebhookRules
from sandbox.numbers import digits

__all__ = [
    "NAME",
    "age",
    "agreements",
    "make_keys",
    "merchant",
    "orders",
    "payer",
    "routes",
    "settings",
    "webhook_rules",
]


def make_keys() -> Keys:
    app_private_key, app_public_key = rsa.make_key_pair()
    alipay_private_key, alipay_public_key = rsa.make_key_pair()
    return {
        "app_id": f"2021{digits(12)}",
        "seller_id": f"2088{digits(12)}",
        "app_private_key": app_private_key,
        "app_public_key": app_public_key,
        "alipay_private_key": alipay_private_key,
        "alipay_public_key": alipay_public_key,
    }


def settings(keys: Keys, url: str) -> dict[str, str]:
    """Alipay's public key is bare Base64, as its console shows it."""
    return {
        "EVERBILL_ALIPAY_APP_ID": keys["app_id"],
        "EVERBILL_ALIPAY_APP_PRIVATE_KEY": keys["app_private_key"],
        "EVERBILL_ALIPAY_ALIPAY_PUBLIC_KEY": rsa.bare(keys["alipay_public_key"]),
        "EVERBILL_ALIPAY_SELLER_ID": keys["seller_id"],
        "EVERBILL_ALIPAY_GATEWAY_URL": f"{url}/gateway.do",
    }


def routes(sandbox: Sandbox) -> APIRouter:
    router = APIRouter()
    trades = Trades(sandbox)
    gateway = Gateway(sandbox, trades)
    cashier = Cashier(sandbox, trades)

    @router.api_route("/gateway.do", methods=["GET", "POST"])
    async def gateway_do(request: Request) -> Response:
        try:
            parameters = await parameters_of(request)
        except CallRefused as problem:
            return refusal(problem)
        if parameters.get("method") == SIGN:
            return RedirectResponse(f"{PAGE_PATH}?{request.url.query}", 303)
        if parameters.get("method") in (PAGE, WAP):
            return cashier.enter(parameters)
        return await gateway.answer(parameters)

    @router.get("/alipay/cashier/{visit}")
    async def cashier_page(visit: str) -> Response:
        return cashier.show(trades.by_field(visit=visit))

    @router.post("/alipay/cashier/{visit}")
    async def cashier_button(request: Request, visit: str) -> Response:
        return await cashier.act(request, trades.by_field(visit=visit))

    @router.get("/alipay/qr/{code}")
    async def scanned_page(code: str) -> Response:
        return cashier.show(trades.by_field(code=code))

    @router.post("/alipay/qr/{code}")
    async def scanned_button(request: Request, code: str) -> Response:
        return await cashier.act(request, trades.by_field(code=code))

    router.include_router(page_routes(AgreementParty(sandbox)))
    return router


def payer(sandbox: Sandbox) -> Payer:
    return AlipayPayer(sandbox, Trades(sandbox))


def merchant(sandbox: Sandbox) -> Merchant:
    return AlipayMerchant(sandbox, Trades(sandbox))


def age(sandbox: Sandbox, wanted: Wanted, by: timedelta) -> dict[str, Any]:
    trades = Trades(sandbox)
    order = trades.of_payment(wanted.reference or "", wanted.attempt)
    if order is None or order["trade"] is None:
        raise ControlRefused(404, f"Alipay has no trade of {wanted.reference!r}")
    with sandbox.book.transaction():
        paid_at = Refunds(sandbox, trades).age(order, by)
    return {"gateway": NAME, "reference": order["reference"], "paid_at": paid_at.isoformat()}


def agreements(sandbox: Sandbox) -> Agreements:
    return AgreementParty(sandbox)


def webhook_rules(sandbox: Sandbox) -> WebhookRules:
    """Taken is what is answered with exactly `success`."""
    keys = sandbox.keys[NAME]

    def sign(parameters: dict[str, Any], forged: bool) -> Message:
        return signed_message(parameters, forged, keys)

    return WebhookRules(
        sign, lambda status, body: status == 200 and body == b"success", RETRY_DELAYS
    )


def orders(sandbox: Sandbox, limit: int) -> list[OrderLine]:
    return order_lines(sandbox, Trades(sandbox), limit)
