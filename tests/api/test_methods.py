"""Saved methods over HTTP: set up, listed, made the default, deleted."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from api.orders import Offers
from billing.identifiers import is_method_id, mandate_number
from billing.payment import GatewayName, PaymentMethod
from gateways.gateway import Capabilities
from storage.keys import Scope
from storage.method_tables import payment_methods
from tests.api.conftest import Shop, Stack
from tests.api.paper import REFUSED_USER, SILENT_USER, UNDER_WAY
from tests.api.saving import NOBODY, active, asked, charged, delete, payers, pending, read, wanted
from tests.api.test_validation import check_problem


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

    @pytest.mark.parametrize(
        ("methods", "code"),
        [
            (None, "gateway_not_configured"),
            (frozenset({PaymentMethod.CARD}), "method_not_supported"),
        ],
    )
    async def test_where_the_gateway_saves_none(
        self, shop: Shop, stack: Stack, methods: frozenset[PaymentMethod] | None, code: str
    ) -> None:
        offered = {} if methods is None else {GatewayName.STRIPE: Capabilities(methods, None)}
        limited = stack.having(offers=Offers(offered, lambda _: True))
        async with limited.caller(await stack.key(shop.name, Scope.WRITE)) as http:
            problem = check_problem(await asked(Shop(shop.name, http, limited)), 422)
        assert (problem["code"], problem["param"]) == (code, "gateway")

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
