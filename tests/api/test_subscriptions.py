"""Subscriptions over HTTP, on a real Temporal and a gateway on paper."""

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from billing.dunning import Debt, DunningSchedule
from billing.subscription import Access, SubscriptionStatus
from billing.subscription_messages import SUBSCRIPTION_WORKFLOW, WriteSubscription
from storage.tables import idempotency_claims as claims
from tests.api import saving
from tests.api.conftest import Shop
from tests.api.subscribing import (
    active,
    asked,
    command,
    commanded,
    customer,
    pay,
    read,
    signed_up,
    until,
)


async def test_access_is_what_is_granted_now(shop: Shop) -> None:
    """While the customer pays by hand nothing is written, and the grace ends all the same."""
    subscription = await active(shop)
    await shop.stack.context.client.get_workflow_handle(subscription["id"]).terminate()
    now = datetime.now(UTC)
    async with shop.stack.database.begin() as work:
        record = await work.subscriptions.find(subscription["id"])
        assert record is not None
        owing = {"status": SubscriptionStatus.PAST_DUE, "access": Access.GRACE}
        due_at = now - timedelta(hours=DunningSchedule().restricted_after_hours + 1)
        found = record.standing.subscription
        step = WriteSubscription(
            version=record.standing.version,
            subscription=found.model_copy(update=owing),
            debt=Debt(due_at=due_at, ends_at=found.period.end, zone="UTC", method_id=None),
            event="subscription.access_changed",
            next_at=now + timedelta(days=1),
            now=due_at,
        )
        await work.subscriptions.write(step)
    assert (await read(shop, subscription["id"]))["access"] == "restricted"
    page = (await shop.get("/subscription", user_id=subscription["user_id"])).json()
    assert [one["access"] for one in page["data"]] == ["restricted"]
    known = await customer(shop, subscription["user_id"])
    assert (known["tier"], known["tier_reason"]) == ("FREE", "unpaid")


class TestSigningUp:
    async def test_the_first_payment_begins_it(self, shop: Shop) -> None:
        subscription = await signed_up(shop)
        payment = subscription["payment"]
        assert (subscription["status"], subscription["access"]) == ("incomplete", "ended")
        assert payment["next_action"]["type"] == "qr_code"
        assert (payment["type"], payment["amount"]) == (
            "subscription",
            subscription["plan"]["amount"],
        )
        assert (await customer(shop, subscription["user_id"]))["tier"] == "FREE"
        await pay(shop, payment)
        found = await until(shop, subscription["id"], "active")
        assert (found["payment"], found["access"]) == (None, "active")
        known = await customer(shop, subscription["user_id"])
        assert (known["tier"], known["tier_reason"]) == ("BASIC", "paid")
        assert known["tier_until"] == found["period"]["end"]

    async def test_charged_to_a_saved_method_it_is_active_at_once(
        self, shop: Shop, told: Shop
    ) -> None:
        method = await saving.active(shop, told)
        subscription = await signed_up(
            shop,
            user_id=method["user_id"],
            gateway="stripe",
            currency="USD",
            payment_method_id=method["id"],
        )
        assert (subscription["status"], subscription["payment"]) == ("active", None)
        refused = await saving.delete(shop, method["id"])
        assert (refused.status_code, refused.json()["code"]) == (409, "method_in_use")

    async def test_a_mandate_with_windows_carries_one(self, shop: Shop, told: Shop) -> None:
        user_id = f"user_{secrets.token_hex(6)}"
        method = await saving.active(shop, told, gateway="alipay", user_id=user_id, every_months=1)
        key, first = secrets.token_hex(16), {"user_id": user_id, "payment_method_id": method["id"]}
        answer = await asked(shop, key, **first)
        assert answer.status_code == 201, answer.text
        subscription = answer.json()
        assert (await asked(shop, key, **first)).json()["id"] == subscription["id"]
        refused = await asked(shop, **first)
        assert refused.status_code == 422
        assert refused.json()["code"] == "payment_method_not_usable"
        assert subscription["id"] in refused.json()["detail"]
        other = await active(shop, user_id=user_id)
        body = {"gateway": "alipay", "payment_method_id": method["id"]}
        refused = await command(shop, other, "method", **body)
        assert (refused.status_code, refused.json()["param"]) == (422, "payment_method_id")
        await until(shop, subscription["id"], "active")
        await commanded(shop, subscription, "method", **body)
        await commanded(shop, subscription, "cancel", at_period_end=False)
        found = await commanded(shop, other, "method", **body)
        assert found["payment_method_id"] == method["id"]

    async def test_once_for_one_key(self, shop: Shop) -> None:
        key, user = secrets.token_hex(16), "user_of_one_key"
        answers = await asyncio.gather(*(asked(shop, key, user_id=user) for _ in range(4)))
        assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1
        page = (await shop.get("/subscription", user_id=user)).json()
        assert len(page["data"]) == 1

    async def test_a_trial_begins_without_a_payment(self, shop: Shop) -> None:
        subscription = await signed_up(shop, tier="BASIC", trial_days=...)
        assert subscription["status"] in ("trialing", "incomplete")
        if subscription["status"] == "trialing":
            assert subscription["period"]["number"] == 0

    @pytest.mark.parametrize(
        ("changes", "code", "param"),
        [
            ({"tier": "FREE"}, "plan_not_offered", "tier"),
            ({"tier": "GOLD"}, "invalid_request", "tier"),
            ({"currency": "JPY", "gateway": "stripe"}, "plan_not_offered", "currency"),
            ({"currency": "USD"}, "currency_not_supported", "currency"),
            ({"cycle": "weekly"}, "invalid_request", "cycle"),
            ({"trial_days": 400}, "invalid_request", "trial_days"),
            ({"trial_days": -1}, "invalid_request", "trial_days"),
            ({"method": "saved"}, "method_not_supported", "method"),
            ({"method": "native"}, "method_not_supported", "method"),
            ({"payment_method_id": saving.NOBODY}, "payment_method_not_usable", None),
            ({"price": 1}, "invalid_request", "price"),
        ],
    )
    async def test_refuses_what_makes_no_sense(
        self, shop: Shop, changes: dict[str, Any], code: str, param: str | None
    ) -> None:
        answer = await asked(shop, user_id="nobody_yet", **changes)
        assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
        assert param is None or answer.json()["param"] == param
        assert (await shop.get("/subscription", user_id="nobody_yet")).json()["data"] == []

    async def test_what_was_refused_is_not_begun_by_its_repeat(self, shop: Shop) -> None:
        """Two of one key at once, or an answer that could not be kept."""
        key, changes = secrets.token_hex(16), {"user_id": "user_of_no_method"}
        refusals = []
        for _ in range(2):
            refusals.append(await asked(shop, key, payment_method_id=saving.NOBODY, **changes))
            async with shop.stack.database.begin() as work:
                forgotten = claims.update().values(answer_status=None, answer_body=None)
                mine = (
                    claims.c.object_id
                    == select(claims.c.object_id)
                    .where(claims.c.application == shop.name)
                    .order_by(claims.c.created_at.desc())
                    .limit(1)
                    .scalar_subquery()
                )
                await work.connection.execute(forgotten.where(mine))
        assert [one.status_code for one in refusals] == [422, 422]
        assert (await shop.get("/subscription", **changes)).json()["data"] == []

    async def test_another_users_method_is_not_usable(self, shop: Shop, told: Shop) -> None:
        method = await saving.active(shop, told)
        answer = await asked(
            shop, user_id="somebody_else", gateway="stripe", payment_method_id=method["id"]
        )
        assert (answer.status_code, answer.json()["code"]) == (422, "payment_method_not_usable")


async def test_a_lost_process_goes_on_from_the_record(shop: Shop) -> None:
    subscription = await active(shop)
    client = shop.stack.context.client
    await client.get_workflow_handle(subscription["id"]).terminate()
    found = await commanded(shop, subscription, "pause")
    assert found["status"] == "paused"
    assert not await shop.stack.context.resumption.resume_subscription(subscription["id"])
    await client.get_workflow_handle(subscription["id"]).terminate()
    assert await shop.stack.context.resumption.resume_subscription(subscription["id"])
    description = await client.get_workflow_handle(subscription["id"]).describe()
    assert description.workflow_type == SUBSCRIPTION_WORKFLOW
