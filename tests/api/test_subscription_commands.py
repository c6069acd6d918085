"""Commands to subscriptions over HTTP, as in `test_subscriptions`."""

import asyncio
import secrets
from typing import Any

import pytest

from billing.identifiers import mandate_number
from tests.api import saving
from tests.api.conftest import Shop
from tests.api.subscribing import (
    NOBODY,
    active,
    command,
    commanded,
    customer,
    pay,
    read,
    signed_up,
    until,
    versions,
)


class TestCommands:
    async def test_an_upgrade_is_charged_as_it_was_previewed(self, shop: Shop) -> None:
        subscription = await active(shop)
        wanted = {"tier": "PREMIUM", "cycle": "monthly"}
        preview = await shop.post(
            f"/subscription/{subscription['id']}/preview", {"command": "change", **wanted}
        )
        assert preview.status_code == 200, preview.text
        quote = preview.json()
        assert quote["preview"]["total"] == sum(
            line["amount"] for line in quote["preview"]["lines"]
        )
        assert quote["if_unpaid"][-1]["kind"] == "end"
        old = await command(
            shop, subscription, "change", **wanted, quoted_at="2026-01-02T03:04:05Z"
        )
        assert (old.status_code, old.json()["param"]) == (422, "quoted_at")
        await asyncio.sleep(1.1)
        changing = await commanded(
            shop, subscription, "change", **wanted, quoted_at=quote["effective_at"]
        )
        assert changing["plan"]["tier"] == "BASIC"
        assert changing["payment"]["amount"] == quote["preview"]["total"]
        refused = await command(shop, subscription, "pause")
        assert (refused.status_code, refused.json()["code"]) == (
            409,
            "subscription_not_changeable",
        )
        await pay(shop, changing["payment"])
        async with asyncio.timeout(10):
            while (await read(shop, subscription["id"]))["plan"]["tier"] != "PREMIUM":
                await asyncio.sleep(0.05)
        assert (await customer(shop, subscription["user_id"]))["tier"] == "PREMIUM"

    @pytest.mark.parametrize(
        ("terms", "is_charged"), [({"most": 2500}, False), ({"most": 9900}, True)], ids=str
    )
    async def test_a_preview_tells_what_the_mandate_cannot_carry(
        self, shop: Shop, told: Shop, terms: dict[str, Any], is_charged: bool
    ) -> None:
        user_id = f"user_{secrets.token_hex(4)}"
        method = await saving.active(
            shop, told, gateway="alipay", currency="CNY", user_id=user_id, **terms
        )
        subscription = await signed_up(shop, user_id=user_id, payment_method_id=method["id"])
        subscription = await until(shop, subscription["id"], "active")
        wanted_ = {"tier": "SUPER", "cycle": "monthly"}
        quote = await shop.post(
            f"/subscription/{subscription['id']}/preview", {"command": "change", **wanted_}
        )
        assert (quote.json()["payment_method_id"] == method["id"]) is is_charged
        found = await commanded(shop, subscription, "change", **wanted_)
        by_hand = found["payment"] is not None and found["payment"]["method"] != "saved"
        assert by_hand is not is_charged

    async def test_a_downgrade_waits_for_the_periods_end(self, shop: Shop) -> None:
        subscription = await active(shop, tier="SUPER")
        found = await commanded(shop, subscription, "change", tier="BASIC", cycle="monthly")
        assert (found["plan"]["tier"], found["pending"]["kind"]) == ("SUPER", "downgrade")
        told = (await shop.get(f"/subscription/{subscription['id']}/upcoming")).json()["data"]
        assert {one["tier"] for one in told} == {"BASIC"}
        assert len(told) == 24

    async def test_canceled_at_the_end_and_undone(self, shop: Shop) -> None:
        subscription = await active(shop)
        found = await commanded(shop, subscription, "cancel")
        assert found["cancel_at_period_end"]
        known = await customer(shop, subscription["user_id"])
        assert (known["tier"], known["tier_reason"]) == ("BASIC", "ending")
        found = await commanded(shop, subscription, "resume")
        assert not found["cancel_at_period_end"]
        again = await command(shop, subscription, "resume")
        assert (again.status_code, again.json()["code"]) == (409, "subscription_not_resumable")

    async def test_canceled_now_the_rest_is_refunded(self, shop: Shop) -> None:
        subscription = await active(shop)
        found = await commanded(shop, subscription, "cancel", at_period_end=False, refund=True)
        assert (found["status"], found["access"]) == ("canceled", "ended")
        assert (await customer(shop, subscription["user_id"]))["tier"] == "FREE"
        paid = found["latest_payment_id"]
        payment = (await shop.get(f"/{paid}")).json()
        async with asyncio.timeout(20):
            while not payment["amount_refunded"]:
                await asyncio.sleep(0.05)
                payment = (await shop.get(f"/{paid}")).json()
        assert payment["amount_refunded"] + found["balance"] == payment["amount"]
        before = await versions(shop, subscription["id"])
        refused = await command(shop, subscription, "change", tier="SUPER", cycle="monthly")
        assert (refused.status_code, refused.json()["code"]) == (409, "subscription_ended")
        assert await versions(shop, subscription["id"]) == before

    async def test_what_was_refunded_before_is_not_given_back_again(self, shop: Shop) -> None:
        subscription = await active(shop)
        paid = subscription["latest_payment_id"]
        refund = {"payment_id": paid, "reason": "goodwill"}
        answer = await shop.post("/refund", refund, secrets.token_hex(16))
        assert answer.status_code == 201, answer.text
        found = await commanded(shop, subscription, "cancel", at_period_end=False, refund=True)
        assert (found["status"], found["balance"]) == ("canceled", 0)
        payment = (await shop.get(f"/{paid}")).json()
        assert payment["amount_refunded"] <= payment["amount"]

    async def test_a_preview_of_the_end_tells_what_is_given_back(self, shop: Shop) -> None:
        subscription = await active(shop)
        paid, price = subscription["latest_payment_id"], subscription["plan"]["amount"]
        ending = {"command": "cancel", "at_period_end": False, "refund": True}
        path = f"/subscription/{subscription['id']}/preview"
        whole = (await shop.post(path, ending)).json()["refund"]
        refund = {"payment_id": paid, "amount": price // 3, "reason": "goodwill"}
        answer = await shop.post("/refund", refund, secrets.token_hex(16))
        assert answer.status_code == 201, answer.text
        rest = (await shop.post(path, ending)).json()["refund"]
        assert 0 < rest <= whole - price // 3 + 1
        found = await commanded(shop, subscription, "cancel", at_period_end=False, refund=True)
        assert found["balance"] == 0
        events = (await shop.get("/events", limit=100)).json()["data"]
        [told] = [one["data"] for one in events if one["type"] == "subscription.given_back"]
        assert (told["refunded"], told["credited"]) == (rest, 0)

    async def test_a_refund_after_a_change_of_cycle_is_not_credited(self, shop: Shop) -> None:
        subscription = await active(shop)
        first, path = (
            subscription["latest_payment_id"],
            f"/subscription/{subscription['id']}/preview",
        )
        yearly = await commanded(
            shop, subscription, "change", tier="BASIC", cycle="yearly", when="now"
        )
        await pay(shop, yearly["payment"])
        async with asyncio.timeout(20):
            while (await read(shop, subscription["id"]))["plan"]["cycle"] != "yearly":
                await asyncio.sleep(0.05)
        ending = {"command": "cancel", "at_period_end": False, "refund": True}
        before = (await shop.post(path, ending)).json()["refund"]
        refund = {"payment_id": first, "reason": "goodwill"}
        answer = await shop.post("/refund", refund, secrets.token_hex(16))
        assert answer.status_code == 201, answer.text
        after = (await shop.post(path, ending)).json()["refund"]
        assert abs(before - after - subscription["plan"]["amount"]) <= 1

    async def test_what_was_refunded_is_not_credited(self, shop: Shop) -> None:
        subscription = await active(shop)
        refund = {"payment_id": subscription["latest_payment_id"], "reason": "goodwill"}
        answer = await shop.post("/refund", refund, secrets.token_hex(16))
        assert answer.status_code == 201, answer.text
        dearer, path = (
            {"tier": "PREMIUM", "cycle": "monthly"},
            f"/subscription/{subscription['id']}",
        )
        await asyncio.sleep(1.1)
        quote = (await shop.post(f"{path}/preview", {"command": "change", **dearer})).json()
        assert [line["code"] for line in quote["preview"]["lines"]] == ["new_rest"]
        await asyncio.sleep(1.1)
        changing = await commanded(
            shop, subscription, "change", **dearer, quoted_at=quote["effective_at"]
        )
        assert changing["payment"]["amount"] == quote["preview"]["total"]

    async def test_a_quote_from_before_a_refund_is_not_charged(self, shop: Shop) -> None:
        subscription = await active(shop)
        path = f"/subscription/{subscription['id']}/preview"
        dearer = {"tier": "PREMIUM", "cycle": "monthly"}
        await asyncio.sleep(1.1)
        quote = (await shop.post(path, {"command": "change", **dearer})).json()
        refund = {"payment_id": subscription["latest_payment_id"], "reason": "goodwill"}
        answer = await shop.post("/refund", refund, secrets.token_hex(16))
        assert answer.status_code == 201, answer.text
        refused = await command(
            shop, subscription, "change", **dearer, quoted_at=quote["effective_at"]
        )
        assert (refused.status_code, refused.json()["param"]) == (422, "quoted_at")

    async def test_paused_it_grants_nothing_until_it_is_resumed(self, shop: Shop) -> None:
        subscription = await active(shop)
        found = await commanded(shop, subscription, "pause")
        assert found["status"] == "paused"
        known = await customer(shop, subscription["user_id"])
        assert (known["tier"], known["tier_reason"]) == ("FREE", "paused")
        found = await commanded(shop, subscription, "resume")
        assert found["status"] == "active"

    async def test_moves_to_a_saved_method(self, shop: Shop, told: Shop) -> None:
        method = await saving.active(shop, told, user_id=f"user_{secrets.token_hex(4)}")
        subscription = await active(shop, user_id=method["user_id"])
        found = await commanded(
            shop, subscription, "method", gateway="stripe", payment_method_id=method["id"]
        )
        assert (found["gateway"], found["payment_method_id"]) == ("stripe", method["id"])
        refused = await command(
            shop, subscription, "method", gateway="wechatpay", payment_method_id=method["id"]
        )
        assert refused.json()["code"] == "payment_method_not_usable"

    async def test_a_plan_above_the_mandate_asks_for_a_new_signature(
        self, shop: Shop, told: Shop
    ) -> None:
        signed = {"gateway": "alipay", "currency": "CNY"}
        method = await saving.active(
            shop, told, **signed, user_id=f"user_{secrets.token_hex(4)}", most=2500
        )
        user_id = method["user_id"]
        subscription = await signed_up(shop, user_id=user_id, payment_method_id=method["id"])
        subscription = await until(shop, subscription["id"], "active")
        assert subscription["signature"] is None
        wanted_ = {"command": "change", "tier": "BASIC", "cycle": "quarterly"}
        quote = (await shop.post(f"/subscription/{subscription['id']}/preview", wanted_)).json()
        assert quote["needs_signature"]
        before = quote["subscription"]["plan"]
        pending = {"amount": quote["subscription"]["pending"]["plan"]["amount"]}
        assert before["amount"] <= 2500 < pending["amount"]

        found = await commanded(shop, subscription, "change", tier="BASIC", cycle="quarterly")
        asked_for = found["signature"]
        assert (asked_for["status"], asked_for["most"]) == ("pending", pending["amount"])
        assert asked_for["next_action"]["type"] == "redirect"
        again = await commanded(shop, subscription, "change", tier="BASIC", cycle="quarterly")
        assert again["signature"]["id"] == asked_for["id"]

        saving.payers(shop, "alipay").consent(asked_for["id"])
        number = mandate_number(asked_for["id"])
        assert await saving.report(told, mandate_number=number) == "delivered"
        await saving.until_status(shop, asked_for["id"], "active")
        async with asyncio.timeout(30):
            while (found := await read(shop, subscription["id"]))["signature"] is not None:
                await asyncio.sleep(0.1)
        assert found["payment_method_id"] == asked_for["id"]

    async def test_a_signature_that_lapsed_is_asked_for_again(self, shop: Shop, told: Shop) -> None:
        user_id = f"user_{secrets.token_hex(4)}"
        method = await saving.active(
            shop, told, gateway="alipay", currency="CNY", user_id=user_id, most=2500
        )
        subscription = await signed_up(shop, user_id=user_id, payment_method_id=method["id"])
        subscription = await until(shop, subscription["id"], "active")
        upgrade = {"tier": "PREMIUM", "cycle": "monthly"}
        found = await commanded(shop, subscription, "change", **upgrade, when="period_end")
        lapsed = found["signature"]
        assert (await saving.delete(shop, lapsed["id"])).status_code == 200
        assert (await read(shop, subscription["id"]))["signature"]["status"] == "ended"

        found = await commanded(shop, subscription, "change", **upgrade, when="period_end")
        again = found["signature"]
        assert again["id"] != lapsed["id"]
        assert (again["status"], again["most"]) == ("pending", lapsed["most"])
        assert (await read(shop, subscription["id"]))["signature"]["id"] == again["id"]
        saving.payers(shop, "alipay").consent(again["id"])
        number = mandate_number(again["id"])
        assert await saving.report(told, mandate_number=number) == "delivered"
        async with asyncio.timeout(30):
            while (found := await read(shop, subscription["id"]))["signature"] is not None:
                await asyncio.sleep(0.1)
        assert found["payment_method_id"] == again["id"]

    async def test_a_rhythm_longer_than_the_cycle_asks_for_a_new_signature(
        self, shop: Shop, told: Shop
    ) -> None:
        user_id = f"user_{secrets.token_hex(4)}"
        method = await saving.active(
            shop,
            told,
            gateway="alipay",
            currency="CNY",
            user_id=user_id,
            most=99000,
            every_months=12,
            first_charge_on="2099-01-01",
        )
        subscription = await active(shop, user_id=user_id, cycle="yearly")
        body = {"gateway": "alipay", "payment_method_id": method["id"]}
        await commanded(shop, subscription, "method", **body)
        wanted_ = {"command": "change", "tier": "BASIC", "cycle": "monthly"}
        quote = (await shop.post(f"/subscription/{subscription['id']}/preview", wanted_)).json()
        assert quote["needs_signature"]
        found = await commanded(shop, subscription, "change", tier="BASIC", cycle="monthly")
        assert found["signature"]["status"] == "pending"

    async def test_a_backup_is_kept_beside_the_method(self, shop: Shop, told: Shop) -> None:
        user_id = f"user_{secrets.token_hex(4)}"
        first, second = [(await saving.active(shop, told, user_id=user_id))["id"] for _ in range(2)]
        subscription = await active(shop, user_id=user_id)
        method = {"gateway": "stripe", "payment_method_id": first}
        backed = method | {"backup_payment_method_id": second}
        found = await commanded(shop, subscription, "method", **backed)
        assert found["backup_payment_method_id"] == second
        for wrong in (first, "pm_01hf7yat00fzzvzzzzzzzzzzzz"):
            answer = await command(
                shop, subscription, "method", **(method | {"backup_payment_method_id": wrong})
            )
            assert answer.status_code == 422
            assert answer.json()["param"] == "backup_payment_method_id"
        alone = {"gateway": "stripe", "backup_payment_method_id": second}
        assert (await command(shop, subscription, "method", **alone)).status_code == 422
        found = await commanded(shop, subscription, "method", **method)
        assert found["backup_payment_method_id"] is None

    async def test_operators_move_and_end(self, shop: Shop) -> None:
        subscription = await active(shop)
        until_ = subscription["period"]["end"].replace("T", "T")
        refused = await command(shop, subscription, "operate", action="waive", reason="why not")
        assert (refused.status_code, refused.json()["code"]) == (
            409,
            "subscription_not_changeable",
        )
        refused = await command(
            shop, subscription, "operate", action="move", reason="gift", until=until_
        )
        assert refused.status_code == 422
        found = await commanded(shop, subscription, "operate", action="end", reason="asked to")
        assert found["status"] == "canceled"
        events = (await shop.get("/events", limit=100)).json()["data"]
        ended = [one for one in events if one["type"] == "subscription.canceled"]
        assert ended[-1]["data"]["reason"] == "asked to"

    async def test_one_key_commands_once(self, shop: Shop) -> None:
        subscription = await active(shop)
        key = secrets.token_hex(16)
        first = await command(shop, subscription, "pause", key)
        await commanded(shop, subscription, "resume")
        again = await command(shop, subscription, "pause", key)
        assert again.text == first.text
        assert (await read(shop, subscription["id"]))["status"] == "active"

    async def test_an_answered_key_outlives_its_method(self, shop: Shop, told: Shop) -> None:
        method = await saving.active(shop, told, user_id=f"user_{secrets.token_hex(4)}")
        subscription = await active(shop, user_id=method["user_id"])
        key, body = secrets.token_hex(16), {"gateway": "stripe", "payment_method_id": method["id"]}
        first = await command(shop, subscription, "method", key, **body)
        assert (await saving.delete(shop, method["id"], force="true")).status_code == 200
        again = await command(shop, subscription, "method", key, **body)
        assert (again.status_code, again.text) == (200, first.text)

    @pytest.mark.parametrize("name", ["cancel", "pause", "resume", "preview"])
    async def test_what_is_not_ours_is_not_there(
        self, shop: Shop, other_shop: Shop, name: str
    ) -> None:
        subscription = await signed_up(shop)
        body = {"command": "resume"} if name == "preview" else {}
        answer = await command(other_shop, subscription, name, **body)
        assert (answer.status_code, answer.json()["code"]) == (404, "subscription_not_found")
        answer = await command(other_shop, {"id": NOBODY}, name, **body)
        assert answer.status_code == 404
