"""Saved methods over HTTP: set up, listed, made the default, deleted, charged, reported on."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select, update

from api.app import BASE
from billing.identifiers import is_method_id, mandate_number
from billing.payment import GatewayName
from gateways.gateway import Notification, Reply
from storage.keys import Scope
from storage.method_tables import payment_methods
from storage.tables import webhook_inbox
from tests.api.conftest import Shop, Stack
from tests.api.paper import CARD, REFUSED, REFUSED_USER, SILENT_USER, UNDER_WAY, PaperMandates
from tests.api.test_validation import check_problem

NOBODY = "pm_01hf7yat00fzzvzzzzzzzzzzzz"
CLAIMED = "pm_01hf7yat00fzzvzzzzzzzzzzz1"


def wanted(**changes: Any) -> dict[str, Any]:
    body = {"user_id": "user_1", "gateway": "stripe", "return_url": "https://shop.example/back"}
    return {name: value for name, value in (body | changes).items() if value is not ...}


async def asked(shop: Shop, key: str | None = None, **changes: Any) -> httpx.Response:
    return await shop.post("/methods", wanted(**changes), key or secrets.token_hex(16))


async def pending(shop: Shop, **changes: Any) -> dict[str, Any]:
    answer = await asked(shop, **changes)
    assert answer.status_code == 201, answer.text
    method: dict[str, Any] = answer.json()
    return method


async def delete(shop: Shop, method_id: str, **params: Any) -> httpx.Response:
    return await shop.http.delete(f"{BASE}/methods/{method_id}", params=params)


async def read(shop: Shop, method_id: str) -> dict[str, Any]:
    answer = await shop.get(f"/methods/{method_id}")
    assert answer.status_code == 200, answer.text
    method: dict[str, Any] = answer.json()
    return method


def payers(shop: Shop, gateway: str = "stripe") -> PaperMandates:
    return shop.gateway(gateway).payers


class PaperVerifier:
    """Takes a webhook at its word: the body names the mandate."""

    name = GatewayName.STRIPE
    accepted = Reply(200, b"{}", "application/json")

    def verify(self, headers: Mapping[str, str], body: bytes, now: datetime) -> Notification:
        return Notification(**json.loads(body))

    def refused(self, status_code: int, reason: str) -> Reply:
        return Reply(status_code, b"{}", "application/json")


@pytest.fixture
async def told(shop: Shop, stack: Stack) -> AsyncIterator[Shop]:
    """A shop whose webhooks speak of mandates."""
    trusting = stack.having(verifiers={GatewayName.STRIPE: PaperVerifier()})
    async with trusting.caller(await stack.key(shop.name)) as http:
        yield Shop(shop.name, http, trusting)


async def report(told: Shop, **names: str) -> str | None:
    """Have the webhook delivered; what became of it."""
    event_id = f"evt_{secrets.token_hex(8)}"
    body = {"event_id": event_id, "event_type": "mandate.updated", "number": None, **names}
    answer = await told.post("/webhook/stripe", body)
    assert answer.status_code == 200
    await told.stack.context.deliveries.drain()
    async with told.stack.database.single() as work:
        outcome: str | None = await work.connection.scalar(
            select(webhook_inbox.c.outcome).where(webhook_inbox.c.event_id == event_id)
        )
    return outcome


async def until_status(shop: Shop, method_id: str, status: str) -> dict[str, Any]:
    async with asyncio.timeout(20):
        while (method := await read(shop, method_id))["status"] != status:
            await asyncio.sleep(0.02)
    return method


async def active(shop: Shop, told: Shop, **changes: Any) -> dict[str, Any]:
    method = await pending(shop, **changes)
    payers(shop, method["gateway"]).consent(method["id"])
    assert await report(told, mandate_number=mandate_number(method["id"])) == "delivered"
    return await until_status(shop, method["id"], "active")


class TestSave:
    async def test_answers_with_what_the_payer_needs(self, shop: Shop) -> None:
        first, again = [await asked(shop, "a-key") for _ in range(2)]
        assert first.status_code == 201, first.text
        method = first.json()
        assert is_method_id(method["id"])
        number = mandate_number(method["id"])
        assert method == {
            "id": method["id"],
            "user_id": "user_1",
            "gateway": "stripe",
            "status": "pending",
            "is_default": False,
            "card": None,
            "most": None,
            "next_action": {"type": "redirect", "url": f"https://paper.example/{number}"},
            "failure": None,
            "created_at": method["created_at"],
            "updated_at": method["updated_at"],
            "ends_at": None,
            "ended_at": None,
        }
        assert (again.content, again.headers["Idempotent-Replayed"]) == (first.content, "true")
        assert await read(shop, method["id"]) == method
        assert payers(shop).asked[number] == 1
        other = await asked(shop, "a-key", most=5, currency="USD")
        assert check_problem(other, 422)["code"] == "idempotency_key_reused"

    async def test_one_for_one_key_however_many_ask(self, shop: Shop) -> None:
        answers = await asyncio.gather(*(asked(shop, "a-key") for _ in range(5)))
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.json()["id"] for answer in answers}) == 1

    async def test_a_refusal_is_a_failed_method(self, shop: Shop) -> None:
        method = await pending(shop, user_id=REFUSED_USER)
        assert (method["status"], method["failure"]["code"]) == ("failed", "terms_refused")
        assert method["next_action"] == {"type": "none"}

    async def test_without_an_answer_in_time_it_goes_on_by_itself(self, slow_shop: Shop) -> None:
        mandates = payers(slow_shop)
        mandates.speaks.clear()
        try:
            answer = await asked(slow_shop, "a-key", user_id=SILENT_USER)
            assert answer.status_code == 202, answer.text
            method = answer.json()
            assert (method["status"], method["next_action"]) == ("pending", {"type": "none"})
            token = await slow_shop.post("/token", {"payment_method_id": method["id"]})
            assert token.json()["next_action"] == {"type": "none"}
        finally:
            mandates.speaks.set()
        async with asyncio.timeout(20):
            while (await read(slow_shop, method["id"]))["next_action"]["type"] == "none":
                await asyncio.sleep(0.02)
        again = await asked(slow_shop, "a-key", user_id=SILENT_USER)
        assert (again.status_code, again.json()["id"]) == (201, method["id"])

    @pytest.mark.parametrize(
        ("changes", "code", "param"),
        [
            ({"user_id": ...}, "invalid_request", "user_id"),
            ({"user_id": "a b"}, "invalid_request", "user_id"),
            ({"gateway": "paypal"}, "invalid_request", "gateway"),
            ({"return_url": "http://shop.example"}, "invalid_request", "return_url"),
            ({"most": 0}, "invalid_request", "most"),
            ({"most": 5}, "invalid_request", "currency"),
            ({"currency": "usd"}, "invalid_request", "currency"),
            ({"currency": "XXX"}, "currency_not_supported", "currency"),
            ({"gateway": "alipay", "currency": "USD"}, "currency_not_supported", "currency"),
            ({"every_months": 0}, "invalid_request", "every_months"),
            ({"every_months": 13}, "invalid_request", "every_months"),
            ({"every_months": "1"}, "invalid_request", "every_months"),
            ({"first_charge_on": "2099-01-01"}, "invalid_request", "first_charge_on"),
            (
                {"every_months": 1, "first_charge_on": "2020-01-01"},
                "invalid_request",
                "first_charge_on",
            ),
            (
                {"every_months": 1, "first_charge_on": "2099-02-30"},
                "invalid_request",
                "first_charge_on",
            ),
            ({"card": {"number": "4242424242424242"}}, "invalid_request", "card"),
        ],
    )
    async def test_refuses_what_makes_no_sense(
        self, shop: Shop, changes: dict[str, Any], code: str, param: str
    ) -> None:
        problem = check_problem(await asked(shop, **changes), 422)
        assert (problem["code"], problem["param"]) == (code, param)
        async with shop.stack.database.single() as work:
            made = await work.connection.execute(
                select(payment_methods.c.id).where(payment_methods.c.application == shop.name)
            )
            assert made.all() == []

    async def test_needs_a_key(self, shop: Shop) -> None:
        problem = check_problem(await shop.post("/methods", wanted()), 400)
        assert problem["code"] == "idempotency_key_required"

    async def test_where_the_gateway_saves_none(self, shop: Shop, stack: Stack) -> None:
        offered = stack.context.offers
        capabilities = {GatewayName.ALIPAY: stack.gateways[GatewayName.ALIPAY].capabilities}
        limited = stack.having(offers=type(offered)(capabilities, lambda _: True))
        async with limited.caller(await stack.key(shop.name, Scope.WRITE)) as http:
            here = Shop(shop.name, http, limited)
            problem = check_problem(await asked(here), 422)
        assert (problem["code"], problem["param"]) == ("gateway_not_configured", "gateway")

    async def test_tells_the_terms(self, shop: Shop) -> None:
        day = (datetime.now(UTC) + timedelta(days=3)).date().isoformat()
        method = await pending(
            shop, gateway="alipay", most=9900, every_months=3.0, first_charge_on=day
        )
        assert method["most"] == 9900
        async with shop.stack.database.single() as work:
            order = (await work.methods.found(method["id"])).order
        assert (order.currency, order.every_months) == ("CNY", 3)
        assert str(order.first_charge_on) == day


class TestRead:
    async def test_lists_a_users_own_newest_first(self, shop: Shop, other_shop: Shop) -> None:
        mine = [(await pending(shop))["id"] for _ in range(3)]
        await pending(shop, user_id="user_2")
        await pending(other_shop)
        first = (await shop.get("/methods", user_id="user_1", limit=2)).json()
        assert [one["id"] for one in first["data"]] == mine[:0:-1]
        rest = (
            await shop.get("/methods", user_id="user_1", limit=2, cursor=first["next_cursor"])
        ).json()
        assert [one["id"] for one in rest["data"]] == mine[:1]
        assert (rest["has_more"], rest["next_cursor"]) == (False, None)
        ended = await shop.get("/methods", user_id="user_1", status="ended")
        assert ended.json()["data"] == []

    @pytest.mark.parametrize(
        ("params", "param"),
        [
            ({}, "user_id"),
            ({"user_id": "user_1", "cursor": NOBODY}, "cursor"),
            ({"user_id": "user_1", "status": "gone"}, "status"),
            ({"user_id": "user_1", "limit": "0"}, "limit"),
            ({"user_id": "user_1", "page": "2"}, "page"),
        ],
    )
    async def test_refuses_a_list_that_makes_no_sense(
        self, shop: Shop, params: dict[str, str], param: str
    ) -> None:
        assert check_problem(await shop.get("/methods", **params), 422)["param"] == param

    async def test_a_token_is_the_next_action_alone(self, shop: Shop) -> None:
        method = await pending(shop)
        answer = await shop.post("/token", {"payment_method_id": method["id"]})
        assert answer.json() == {
            "payment_id": None,
            "payment_method_id": method["id"],
            "next_action": method["next_action"],
        }
        for body in ({}, {"payment_id": "pay_1", "payment_method_id": method["id"]}):
            check_problem(await shop.post("/token", body), 422)

    @pytest.mark.parametrize("kind", ["malformed", "unknown", "another shop's"])
    async def test_what_is_not_ours_is_not_there(
        self, shop: Shop, other_shop: Shop, kind: str
    ) -> None:
        theirs = await pending(other_shop)
        method_id = {"malformed": "pm_1", "unknown": NOBODY, "another shop's": theirs["id"]}[kind]
        for answer in (
            await shop.get(f"/methods/{method_id}"),
            await delete(shop, method_id),
            await shop.post(f"/methods/{method_id}/default"),
            await shop.post("/token", {"payment_method_id": method_id}),
        ):
            assert check_problem(answer, 404)["code"] == "payment_method_not_found"
        assert await read(other_shop, theirs["id"]) == theirs


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
        await shop.stack.context.client.get_workflow_handle(method["id"]).result()
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


class TestDelete:
    async def test_ends_it_here_and_at_the_gateway_once(self, shop: Shop, told: Shop) -> None:
        method = await active(shop, told)
        answers = [await delete(shop, method["id"]) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [200, 200]
        assert answers[0].json() == answers[1].json() == await read(shop, method["id"])
        ended = answers[0].json()
        assert (ended["status"], ended["is_default"]) == ("ended", False)
        assert mandate_number(method["id"]) in payers(shop).revoked
        events = (await shop.get("/events", limit=100)).json()["data"]
        assert [one["type"] for one in events if one["object_id"] == method["id"]] == [
            "method.created",
            "method.activated",
            "method.ended",
        ]

    async def test_before_consent(self, shop: Shop) -> None:
        method = await pending(shop)
        answer = await delete(shop, method["id"])
        assert (answer.status_code, answer.json()["status"]) == (200, "ended")
        assert mandate_number(method["id"]) in payers(shop).revoked

    async def test_is_refused_while_it_is_charged_unless_forced(
        self, shop: Shop, told: Shop
    ) -> None:
        method = await active(shop, told)
        payment = await charged(shop, method, description=UNDER_WAY)
        assert payment["status"] == "processing"
        problem = check_problem(await delete(shop, method["id"]), 409)
        assert problem["code"] == "method_in_use"
        assert await read(shop, method["id"]) == method
        for force in ("1", "yes", ""):
            check_problem(await delete(shop, method["id"], force=force), 422)
        answer = await delete(shop, method["id"], force="true")
        assert (answer.status_code, answer.json()["status"]) == (200, "ended")


class TestDefault:
    async def test_is_one_a_user(self, shop: Shop, told: Shop) -> None:
        first, second = [await active(shop, told) for _ in range(2)]
        other = await active(shop, told, user_id="user_2")
        for _ in range(2):
            answer = await shop.post(f"/methods/{second['id']}/default")
            assert (answer.status_code, answer.json()["is_default"]) == (200, True)
        assert not (await read(shop, first["id"]))["is_default"]
        assert (await read(shop, other["id"]))["is_default"]

    async def test_is_an_active_one(self, shop: Shop) -> None:
        method = await pending(shop)
        problem = check_problem(await shop.post(f"/methods/{method['id']}/default"), 409)
        assert problem["code"] == "payment_method_not_active"
        assert await read(shop, method["id"]) == method


async def charge(
    shop: Shop, method: dict[str, Any], key: str | None = None, **changes: Any
) -> httpx.Response:
    order = {
        "gateway": "stripe",
        "method": "saved",
        "currency": "USD",
        "payment_method_id": method["id"],
    }
    return await shop.create(key, **(order | changes))


async def charged(shop: Shop, method: dict[str, Any], **changes: Any) -> dict[str, Any]:
    answer = await charge(shop, method, **changes)
    assert answer.status_code == 201, answer.text
    payment: dict[str, Any] = answer.json()
    return payment


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
