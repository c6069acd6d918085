"""Orders whose payment id is known before anybody has heard of them."""

import json
from datetime import UTC, datetime

from api.idempotency import fingerprint_of
from api.orders import CreatePayment, Offers
from tests.fixtures.house import BASE, House, order_body


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
