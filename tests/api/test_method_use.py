"""What saved methods are for and what becomes of them: charged, reported on, started again."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select, update

from billing.identifiers import mandate_number
from storage.method_tables import payment_methods
from storage.tables import webhook_inbox
from tests.api.conftest import Shop
from tests.api.paper import CARD, REFUSED, UNDER_WAY
from tests.api.saving import (
    NOBODY,
    active,
    charge,
    charged,
    delete,
    payers,
    pending,
    report,
    until_status,
)
from tests.api.test_validation import check_problem

CLAIMED = "pm_01hf7yat00fzzvzzzzzzzzzzz1"


class TestReported:
    async def test_consent_makes_it_active_and_the_default(self, shop: Shop, told: Shop) -> None:
        method = await active(shop, told)
        assert (method["card"], method["is_default"]) == (CARD.model_dump(), True)
        assert method["next_action"] == {"type": "none"}
        customer = (await shop.get("/customer/user_1")).json()
        assert customer["default_payment_method_id"] == method["id"]
        assert customer["gateway_customers"] == {"stripe": f"cus_{shop.name}_user_1"}

    async def test_afterwards_by_the_gateways_own_number(self, shop: Shop, told: Shop) -> None:
        method = await active(shop, told)
        number = mandate_number(method["id"])
        payers(shop).withdraw(method["id"])
        assert await report(told, mandate_reference=f"m_{number}") == "delivered"
        ended = await until_status(shop, method["id"], "ended")
        assert ended["ended_at"] is not None
        assert number not in payers(shop).revoked
        async with shop.stack.database.single() as work:
            found = await work.connection.scalars(
                select(webhook_inbox.c.outcome).where(webhook_inbox.c.method_id == method["id"])
            )
            assert list(found) == ["delivered", "delivered"]

    async def test_before_its_gateway_was_asked_anything(self, shop: Shop, told: Shop) -> None:
        """By the set-up's number, which the payer's page may tell of first."""
        method = await pending(shop)
        payers(shop).consent(method["id"])
        reference = f"s_{mandate_number(method['id'])}"
        assert await report(told, mandate_reference=reference) == "delivered"
        await until_status(shop, method["id"], "active")

    @pytest.mark.parametrize(
        ("names", "outcome"),
        [
            ({"mandate_number": mandate_number(NOBODY)}, "unmatched"),
            ({"mandate_reference": "pm_of_another_system"}, "unmatched"),
            ({"mandate_number": "another-systems"}, "ignored"),
        ],
    )
    async def test_one_that_is_not_ours(
        self, told: Shop, names: dict[str, str], outcome: str
    ) -> None:
        assert await report(told, **names) == outcome

    async def test_one_that_is_claimed_waits_for_its_row(self, shop: Shop, told: Shop) -> None:
        async with shop.stack.database.single() as work:
            await work.claims.claim(
                application=shop.name,
                key="a-key",
                fingerprint="-",
                command="save_method",
                object_id=CLAIMED,
                request=b"{}",
                now=datetime.now(UTC),
            )
        assert await report(told, mandate_number=mandate_number(CLAIMED)) is None


class TestCharge:
    async def test_takes_the_money_without_the_payer(self, shop: Shop, told: Shop) -> None:
        method = await active(shop, told)
        first, again = [await charge(shop, method, "a-key") for _ in range(2)]
        assert first.status_code == 201, first.text
        payment = first.json()
        assert (payment["status"], payment["method"]) == ("succeeded", "saved")
        assert payment["next_action"] == {"type": "none"}
        assert again.content == first.content
        assert shop.gateway("stripe").opened[payment["id"]] == 1

    async def test_under_way_until_the_gateway_says_more(self, shop: Shop, told: Shop) -> None:
        payment = await charged(shop, await active(shop, told), description=UNDER_WAY)
        assert (payment["status"], payment["attempt"]) == ("processing", 1)
        shop.gateway("stripe").pay(payment["id"])
        answer = await shop.post(f"/{payment['id']}/refresh")
        assert answer.json()["status"] == "succeeded"

    async def test_a_decline_is_a_failed_payment(self, shop: Shop, told: Shop) -> None:
        payment = await charged(shop, await active(shop, told), description=REFUSED)
        assert (payment["status"], payment["failure"]["code"]) == ("failed", "order_refused")

    @pytest.mark.parametrize(
        "changes",
        [
            {"user_id": "user_2"},
            {"gateway": "alipay", "currency": "CNY"},
            {"payment_method_id": NOBODY},
            {"payment_method_id": ...},
        ],
        ids=["another user", "another gateway", "no such method", "none"],
    )
    async def test_only_the_users_own(
        self, shop: Shop, told: Shop, changes: dict[str, Any]
    ) -> None:
        method = await active(shop, told)
        problem = check_problem(await charge(shop, method, **changes), 422)
        assert (problem["code"], problem["param"]) == (
            "payment_method_not_usable",
            "payment_method_id",
        )
        assert (await shop.get("/history")).json()["data"] == []

    async def test_not_another_shops(self, shop: Shop, other_shop: Shop, told: Shop) -> None:
        method = await active(shop, told)
        problem = check_problem(await charge(other_shop, method), 422)
        assert problem["code"] == "payment_method_not_usable"

    async def test_only_an_active_one_and_a_repeat_gets_its_answer(
        self, shop: Shop, told: Shop
    ) -> None:
        method = await pending(shop)
        refused = await charge(shop, method, "early")
        assert check_problem(refused, 422)["code"] == "payment_method_not_usable"
        payers(shop).consent(method["id"])
        await report(told, mandate_number=mandate_number(method["id"]))
        await until_status(shop, method["id"], "active")
        assert (await charge(shop, method, "early")).content == refused.content
        paid = await charge(shop, method, "in-time")
        assert (await delete(shop, method["id"])).status_code == 200
        assert (await charge(shop, method, "in-time")).content == paid.content
        check_problem(await charge(shop, method, "late"), 422)

    async def test_refused_as_often_as_it_is_asked_for_at_once(
        self, shop: Shop, told: Shop
    ) -> None:
        method = await active(shop, told, most=2899, currency="USD")
        answers = await asyncio.gather(*(charge(shop, method, "a-key") for _ in range(8)))
        refusals = {(one.status_code, one.json()["code"]) for one in answers}
        assert refusals == {(422, "payment_method_not_usable")}
        assert (await shop.get("/history")).json()["data"] == []

    async def test_not_above_what_the_payer_consented_to(self, shop: Shop, told: Shop) -> None:
        method = await active(shop, told, most=2899, currency="USD")
        problem = check_problem(await charge(shop, method), 422)
        assert (problem["code"], problem["param"]) == ("payment_method_not_usable", "amount")
        assert (await charged(shop, method, amount=2899))["status"] == "succeeded"

    async def test_is_not_what_a_payment_is_switched_to(self, shop: Shop) -> None:
        payment = await shop.created()
        answer = await shop.post(
            f"/{payment['id']}/switch", {"gateway": "alipay", "method": "saved"}, "a-key"
        )
        assert check_problem(answer, 422)["code"] == "method_not_supported"


class TestSweep:
    async def test_starts_again_what_was_lost(self, shop: Shop, told: Shop) -> None:
        waiting, ended = await pending(shop), await active(shop, told)
        client, resumption = shop.stack.context.client, shop.stack.context.resumption
        await client.get_workflow_handle(waiting["id"]).terminate()
        async with shop.stack.database.begin() as work:
            await work.connection.execute(
                update(payment_methods)
                .where(payment_methods.c.id == ended["id"])
                .values(status="ended", is_default=False, ended_at=datetime.now(UTC))
            )
        payers(shop).consent(waiting["id"])
        assert await resumption.resume_method(waiting["id"])
        await until_status(shop, waiting["id"], "active")
        assert not await resumption.resume_method(waiting["id"])
        assert await resumption.sweep() >= 1
        async with asyncio.timeout(20):
            while mandate_number(ended["id"]) not in payers(shop).revoked:
                await asyncio.sleep(0.02)

    async def test_asks_about_what_should_be_over(self, shop: Shop, told: Shop) -> None:
        method = await active(shop, told)
        assert not await shop.stack.context.resumption.resume_method(method["id"])
        async with shop.stack.database.begin() as work:
            await work.connection.execute(
                update(payment_methods)
                .where(payment_methods.c.id == method["id"])
                .values(ends_at=datetime.now(UTC))
            )
        payers(shop).withdraw(method["id"])
        assert await shop.stack.context.resumption.resume_method(method["id"])
        await until_status(shop, method["id"], "ended")
