"""Orders as WeChat Pay wants to be told of them; every parameter comes from the order alone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

from billing.errors import InvalidRequest
from billing.payment import PaymentMethod
from gateways.clock import BEIJING
from gateways.gateway import Order

CURRENCY: Final = "CNY"

METHODS: Final = frozenset(
    {PaymentMethod.NATIVE, PaymentMethod.JSAPI, PaymentMethod.H5, PaymentMethod.APP}
)
"""Ours have the very names of the last path segment of WeChat Pay's own."""


@dataclass(frozen=True)
class Contracting:
    """What charges without the payer take: the APIv2 key, and the plan (the template of contracts)
    that WeChat Pay has approved for the merchant."""

    key: bytes = field(repr=False)
    plan_id: str


@dataclass(frozen=True)
class Account:
    """One direct merchant at WeChat Pay, in public-key mode.

    `merchant_serial` is that of the API certificate; `public_keys` maps each key id that may sign
    what comes from WeChat Pay, and `public_key_id` is the one asked for. `contracting` is None
    where no payer is charged by contract.
    """

    mchid: str
    appid: str
    merchant_serial: str
    private_key: RSAPrivateKey
    public_key_id: str
    public_keys: Mapping[str, RSAPublicKey]
    apiv3_key: bytes = field(repr=False)
    api_base: str
    contracting: Contracting | None = None


def order_path(order: Order) -> str:
    return f"/v3/pay/transactions/{order.method.value}"


def order_body(account: Account, order: Order, notify_url: str) -> bytes:
    """The body that places an order, serialized once: these bytes are signed and sent.

    Raises InvalidRequest where the method needs something of the payer that is not there.
    """
    body: dict[str, object] = {
        "appid": account.appid,
        "mchid": account.mchid,
        "description": order.description,
        "out_trade_no": order.number,
        "time_expire": order.expires_at.astimezone(BEIJING).isoformat(timespec="seconds"),
        "notify_url": notify_url,
        "amount": {"total": order.amount_minor, "currency": CURRENCY},
    }
    if order.method is PaymentMethod.JSAPI:
        if order.payer is None or order.payer.openid is None:
            raise InvalidRequest("method jsapi needs the payer's openid", param="payer.openid")
        body["payer"] = {"openid": order.payer.openid}
    if order.method is PaymentMethod.H5:
        if order.payer is None or order.payer.client_ip is None:
            raise InvalidRequest("method h5 needs the payer's address", param="payer.client_ip")
        body["scene_info"] = {
            "payer_client_ip": order.payer.client_ip,
            "h5_info": {"type": "Wap"},
        }
    return serialized(body)


def query_path(account: Account, order: Order, gateway_number: str | None) -> str:
    """The path and query that ask about an order, by our number or by WeChat Pay's own."""
    asked = (
        f"id/{quote(gateway_number, safe='')}"
        if gateway_number
        else f"out-trade-no/{quote(order.number, safe='')}"
    )
    return f"/v3/pay/transactions/{asked}?mchid={quote(account.mchid, safe='')}"


def close_path(order: Order) -> str:
    return f"/v3/pay/transactions/out-trade-no/{quote(order.number, safe='')}/close"


def close_body(account: Account) -> bytes:
    return serialized({"mchid": account.mchid})


def serialized(body: Mapping[str, object]) -> bytes:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
