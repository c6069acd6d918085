"""Orders and refunds whose id is known before anybody has heard of them."""

import json
import secrets
from datetime import UTC, datetime
from typing import Any

from api.idempotency import fingerprint_of
from api.orders import CreatePayment, Offers
from billing.identifiers import REFUND, make_id
from billing.messages import RefundRequest
from tests.fixtures.house import BASE, House, order_body, refund_body


async def claimed(house: House, gateway: str, key: str, **fields: object) -> str:
    """The payment's id, with `POST /create` gone as far as its claim: as if its process had died
    right there. The same order under the same key carries on from it."""
    wanted = order_body(gateway, **fields)
    capabilities = {name: each.capabilities for name, each in house.gateways.items()}
    now = datetime.now(UTC)
    order = Offers(capabilities, house.settings.is_sandbox).order(
        CreatePayment.model_validate_json(json.dumps(wanted)), "shop", now
    )
    async with house.database.begin() as work:
        claim = await work.claims.claim(
            application="shop",
            key=key,
            fingerprint=fingerprint_of("POST", f"{BASE}/create", wanted),
            command="create",
            object_id=order.payment_id,
            request=order.model_dump_json().encode(),
            now=now,
        )
    return claim.object_id


async def claimed_refund(house: House, payment: dict[str, Any], key: str, **fields: object) -> str:
    """The refund's id, as above: `House.post_refund` with the same key and fields carries on."""
    now = datetime.now(UTC)
    wanted = refund_body(payment["id"], **fields)
    request = RefundRequest(
        refund_id=make_id(REFUND, int(now.timestamp() * 1000), secrets.token_bytes(10)),
        payment_id=payment["id"],
        application="shop",
        user_id=payment["user_id"],
        gateway=payment["gateway"],
        currency=payment["currency"],
        amount_minor=wanted.get("amount"),
        reason=wanted["reason"],
        created_at=now,
    )
    async with house.database.begin() as work:
        claim = await work.claims.claim(
            application="shop",
            key=key,
            fingerprint=fingerprint_of("POST", f"{BASE}/refund", wanted),
            command="refund",
            object_id=request.refund_id,
            request=request.model_dump_json().encode(),
            now=now,
        )
    return claim.object_id
