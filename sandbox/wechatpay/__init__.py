"""WeChat Pay for a direct merchant: APIv3 in public-key mode, and APIv2 for contracts; a
`sandbox.core.Provider`."""

import secrets
import string
from datetime import timedelta
from typing import Any

from fastapi import APIRouter

from sandbox import rsa
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
from sandbox.wechatpay import xml
from sandbox.wechatpay.contract_routes import contract_routes
from sandbox.wechatpay.gateway import api_routes
from sandbox.wechatpay.merchant import WechatMerchant
from sandbox.wechatpay.notifications import RETRY_DELAYS, signed_message
from sandbox.wechatpay.orders import Orders
from sandbox.wechatpay.parameters import NAME
from sandbox.wechatpay.payer import WechatPayer, h5_routes, order_lines
from sandbox.wechatpay.refunds import Refunds
from sandbox.wechatpay.signing_page import ContractParty, page_routes

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
    merchant_private_key, merchant_public_key = rsa.make_key_pair()
    platform_private_key, platform_public_key = rsa.make_key_pair()
    return {
        "mchid": f"16{_some(string.digits, 8)}",
        "appid": f"wx{secrets.token_hex(8)}",
        "merchant_serial": secrets.token_hex(20).upper(),
        "merchant_private_key": merchant_private_key,
        "merchant_public_key": merchant_public_key,
        "public_key_id": f"PUB_KEY_ID_0{_some(string.digits, 27)}",
        "platform_private_key": platform_private_key,
        "platform_public_key": platform_public_key,
        "apiv3_key": _some(string.ascii_letters + string.digits, 32),
    }


def settings(keys: Keys, url: str) -> dict[str, str]:
    return {
        "EVERBILL_WECHATPAY_MCHID": keys["mchid"],
        "EVERBILL_WECHATPAY_APPID": keys["appid"],
        "EVERBILL_WECHATPAY_MERCHANT_SERIAL": keys["merchant_serial"],
        "EVERBILL_WECHATPAY_MERCHANT_PRIVATE_KEY": keys["merchant_private_key"],
        "EVERBILL_WECHATPAY_PUBLIC_KEY_ID": keys["public_key_id"],
        "EVERBILL_WECHATPAY_PUBLIC_KEY": keys["platform_public_key"],
        "EVERBILL_WECHATPAY_APIV3_KEY": keys["apiv3_key"],
        "EVERBILL_WECHATPAY_API_V2_KEY": xml.apiv2_key(keys),
        "EVERBILL_WECHATPAY_PLAN_ID": xml.plan_id(keys),
        "EVERBILL_WECHATPAY_API_BASE": url,
    }


def routes(sandbox: Sandbox) -> APIRouter:
    orders = Orders(sandbox)
    router = APIRouter()
    router.include_router(contract_routes(sandbox, orders))
    router.include_router(api_routes(sandbox, orders))
    router.include_router(page_routes(ContractParty(sandbox)))
    router.include_router(h5_routes(sandbox, WechatPayer(sandbox, orders)))
    return router


def payer(sandbox: Sandbox) -> Payer:
    return WechatPayer(sandbox, Orders(sandbox))


def merchant(sandbox: Sandbox) -> Merchant:
    return WechatMerchant(sandbox, Orders(sandbox))


def age(sandbox: Sandbox, wanted: Wanted, by: timedelta) -> dict[str, Any]:
    orders = Orders(sandbox)
    order = orders.of_payment(wanted.reference or "", wanted.attempt)
    if order is None:
        raise ControlRefused(404, f"WeChat Pay has no order of {wanted.reference!r}")
    with sandbox.book.transaction():
        paid_at = Refunds(sandbox, orders).age(order, by)
    return {"gateway": NAME, "reference": order["reference"], "paid_at": paid_at.isoformat()}


def agreements(sandbox: Sandbox) -> Agreements:
    return ContractParty(sandbox)


def webhook_rules(sandbox: Sandbox) -> WebhookRules:
    """Taken is what is answered with 200 or 204, whatever the body."""
    keys = sandbox.keys[NAME]

    def sign(payload: dict[str, Any], forged: bool) -> Message:
        return signed_message(payload, forged, keys)

    return WebhookRules(sign, lambda status, body: status in (200, 204), RETRY_DELAYS)


def orders(sandbox: Sandbox, limit: int) -> list[OrderLine]:
    return order_lines(sandbox, Orders(sandbox), limit)


def _some(characters: str, count: int) -> str:
    return "".join(secrets.choice(characters) for _ in range(count))
