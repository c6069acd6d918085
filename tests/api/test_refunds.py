"""Refunds over HTTP whose process is lost."""

from datetime import timedelta
from typing import Any

from sqlalchemy import select

from api.commands import Commands
from billing.messages import Command
from storage.keys import Scope
from storage.tables import payments
from tests.api.conftest import Shop
from tests.api.test_points import object_of, terminated
from workflows.payment import PaymentWorkflow


async def paid(shop: Shop) -> dict[str, Any]:
    payment = await shop.created()
    shop.gateway(payment["gateway"]).pay(payment["id"])
    handle = shop.stack.context.client.get_workflow_handle(payment["id"])
    await handle.execute_update(PaymentWorkflow.refresh, Command(application=shop.name))
    return payment


async def test_lost_before_it_set_anything_aside_it_is_started_again(shop: Shop) -> None:
    payment = await paid(shop)
    asked = {"payment_id": payment["id"], "reason": "goodwill"}
    client = shop.stack.context.client
    hurried = Commands(client, answer_within=timedelta(milliseconds=400))
    hasty = shop.stack.having(commands=hurried)
    async with (
        hasty.caller(await hasty.key(shop.name, Scope.REFUND)) as http,
        shop.stack.database.begin() as work,
    ):
        # The payment is locked: nothing can be set aside.
        locked = select(payments.c.id).where(payments.c.id == payment["id"]).with_for_update()
        await work.connection.execute(locked)
        answer = await Shop(shop.name, http, hasty).post("/refund", asked, "a-key")
        assert answer.status_code in (202, 503), answer.text
        refund_id = await object_of(shop, "a-key")
        await terminated(client, refund_id)
    answer = await shop.post("/refund", asked, "a-key")
    assert (answer.status_code, answer.json()["id"]) == (201, refund_id), answer.text
    assert answer.json()["amount"] == payment["amount"]
