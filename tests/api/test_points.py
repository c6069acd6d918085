"""Points over HTTP: bought at the catalog's price, spent once per key, and what they come to."""

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from temporalio.client import Client
from temporalio.service import RPCError, RPCStatusCode

from api.app import BASE
from api.commands import Commands
from billing.identifiers import is_points_transaction_id
from storage.keys import Scope
from storage.points import User
from storage.tables import payments
from tests.api.conftest import Shop, purchase
from tests.api.test_validation import check_problem
from tests.storage.points_samples import make_transaction_id
from tests.storage.samples import NOW


async def ordered(shop: Shop, key: str | None = None, **changes: Any) -> httpx.Response:
    return await shop.post("/points/purchase", purchase(**changes), key or secrets.token_hex(16))


async def bought(shop: Shop, **changes: Any) -> dict[str, Any]:
    """A purchase of 500 points and 50 of bonus that is paid."""
    answer = await ordered(shop, **changes)
    assert answer.status_code == 201, answer.text
    payment: dict[str, Any] = answer.json()
    shop.gateway(payment["gateway"]).pay(payment["id"])
    answer = await shop.post(f"/{payment['id']}/refresh")
    assert answer.json()["status"] == "succeeded", answer.text
    return payment


class TestPurchase:
    async def test_is_a_payment_at_the_catalogs_price(self, shop: Shop) -> None:
        answer = await ordered(shop, metadata={"from": "the shop"})
        assert answer.status_code == 201
        payment = answer.json()
        assert (payment["type"], payment["status"]) == ("points", "requires_action")
        assert (payment["amount"], payment["currency"]) == (3000, "CNY")
        assert payment["description"] == "500 points"
        assert payment["metadata"] == {"from": "the shop"}
        assert payment["next_action"]["type"] == "qr_code"
        assert (await shop.get(f"/{payment['id']}")).json() == payment
        listed = (await shop.get("/history", type="points")).json()["data"]
        assert [one["id"] for one in listed] == [payment["id"]]

    async def test_has_one_answer_for_one_key(self, shop: Shop) -> None:
        first, again = [await ordered(shop, "a-key") for _ in range(2)]
        assert again.json() == first.json()
        assert again.headers["Idempotent-Replayed"] == "true"
        other = await ordered(shop, "a-key", package="points_100")
        assert check_problem(other, 422)["code"] == "idempotency_key_reused"

    @pytest.mark.parametrize(
        ("changes", "code", "param"),
        [
            ({"package": "points_5"}, "invalid_request", "package"),
            ({"package": "Points 100"}, "invalid_request", "package"),
            ({"package": ...}, "invalid_request", "package"),
            ({"gateway": "stripe", "method": "card", "currency": "JPY"}, None, "currency"),
            ({"currency": "USD"}, "currency_not_supported", "currency"),
            ({"method": "native"}, "method_not_supported", "method"),
            ({"method": "saved"}, "method_not_supported", "method"),
            ({"amount": 1}, "invalid_request", "amount"),
            ({"description": "mine"}, "invalid_request", "description"),
            ({"user_id": "user 1"}, "invalid_request", "user_id"),
            ({"expires_in_seconds": 7201}, "invalid_request", "expires_in_seconds"),
        ],
    )
    async def test_refuses_what_is_not_on_sale(
        self, shop: Shop, changes: dict[str, Any], code: str | None, param: str
    ) -> None:
        problem = check_problem(await ordered(shop, **changes), 422)
        assert (problem["code"], problem["param"]) == (code or "currency_not_supported", param)
        async with shop.stack.database.begin() as work:
            made = await work.connection.execute(
                payments.select().where(payments.c.application == shop.name)
            )
            assert made.all() == []

    async def test_needs_a_key(self, shop: Shop) -> None:
        problem = check_problem(await shop.post("/points/purchase", purchase()), 400)
        assert problem["code"] == "idempotency_key_required"


async def spent(shop: Shop, points: Any, key: str | None = None, **changes: Any) -> httpx.Response:
    body = {"user_id": "user_1", "points": points, "reason": "a hint"} | changes
    return await shop.post("/points/spend", body, key or secrets.token_hex(16))


async def movements(shop: Shop, user_id: str = "user_1") -> list[int]:
    async with shop.stack.database.begin() as work:
        page = await work.points.page(User(shop.name, user_id), limit=100)
    return [one.amount for one in page.data]


class TestSpend:
    async def test_answers_with_the_movement(self, shop: Shop) -> None:
        await bought(shop)
        answer = await spent(shop, 30.0)
        assert answer.status_code == 201, answer.text
        movement = answer.json()
        assert is_points_transaction_id(movement["id"])
        assert (movement["kind"], movement["amount"]) == ("spend", -30)
        assert (movement["balance_after"], movement["description"]) == (520, "a hint")
        events = (await shop.get("/events", limit=100)).json()["data"]
        assert [one["object_id"] for one in events if one["type"] == "points.spent"] == [
            movement["id"]
        ]

    async def test_once_for_one_key(self, shop: Shop) -> None:
        await bought(shop)
        answers = await asyncio.gather(*(spent(shop, 30, "a-key") for _ in range(5)))
        assert {answer.status_code for answer in answers} == {201}
        assert len({answer.json()["id"] for answer in answers}) == 1
        assert (await movements(shop))[0] == -30
        other = await spent(shop, 31, "a-key")
        assert check_problem(other, 422)["code"] == "idempotency_key_reused"
        assert len(await movements(shop)) == 3

    async def test_more_than_there_is_changes_nothing(self, shop: Shop) -> None:
        await bought(shop)
        before = await movements(shop)
        for user_id, there in (("user_1", 550), ("nobody", 0)):
            first, again = [
                await spent(shop, 551, f"key-{user_id}", user_id=user_id) for _ in range(2)
            ]
            problem = check_problem(first, 409)
            assert (problem["code"], again.content) == ("insufficient_points", first.content)
            assert problem["detail"] == f"{there} points can be spent, not 551"
            assert problem["param"] == "points"
        assert await movements(shop) == before

    async def test_another_shops_user_has_points_of_their_own(
        self, shop: Shop, other_shop: Shop
    ) -> None:
        await bought(shop)
        assert check_problem(await spent(other_shop, 1), 409)["code"] == "insufficient_points"

    @pytest.mark.parametrize(
        ("changes", "code", "param"),
        [
            ({"points": 0}, "invalid_request", "points"),
            ({"points": -1}, "invalid_request", "points"),
            ({"points": 1.5}, "invalid_request", "points"),
            ({"points": "1"}, "invalid_request", "points"),
            ({"points": True}, "invalid_request", "points"),
            ({"points": 100_000_000}, "invalid_request", "points"),
            ({"reason": ""}, "invalid_request", "reason"),
            ({"reason": "x" * 81}, "invalid_request", "reason"),
            ({"reason": "4242 4242 4242 4242"}, "card_number_refused", "reason"),
            ({"user_id": "a@b.example"}, "invalid_request", "user_id"),
            ({"currency": "CNY"}, "invalid_request", "currency"),
        ],
    )
    async def test_what_cannot_be(
        self, shop: Shop, changes: dict[str, Any], code: str, param: str
    ) -> None:
        problem = check_problem(await spent(shop, **({"points": 1} | changes)), 422)
        assert (problem["code"], problem["param"]) == (code, param)

    async def test_a_claim_whose_process_never_started_is_carried_out(self, shop: Shop) -> None:
        """As if the API had died between the two."""
        await bought(shop)
        hasty = shop.stack.having(commands=NeverStarts(shop.stack.context.client))
        async with hasty.caller(await hasty.key(shop.name, Scope.WRITE)) as http:
            body = {"user_id": "user_1", "points": 30, "reason": "a hint"}
            path, headers = f"{BASE}/points/spend", {"Idempotency-Key": "a-key"}
            check_problem(await http.post(path, json=body, headers=headers), 503)
        assert len(await movements(shop)) == 2
        assert (await spent(shop, 30, "a-key")).status_code == 201
        assert (await movements(shop))[0] == -30

    async def test_a_lost_process_is_started_again(self, shop: Shop) -> None:
        await bought(shop)
        client = shop.stack.context.client
        hurried = Commands(client, answer_within=timedelta(milliseconds=400))
        hasty = shop.stack.having(commands=hurried)
        async with (
            hasty.caller(await hasty.key(shop.name, Scope.WRITE)) as http,
            shop.stack.database.begin() as work,
        ):
            # The balance is locked: the spend is under way, and can come to no end.
            await work.points.spend(User(shop.name, "user_1"), make_transaction_id(), 1, "", NOW)
            check_problem(await spent(Shop(shop.name, http, hasty), 30, "a-key"), 503)
            spend_id = await object_of(shop, "a-key")
            await terminated(client, spend_id)
        answer = await spent(shop, 30, "a-key")
        assert (answer.status_code, answer.json()["id"]) == (201, spend_id)
        assert (await movements(shop))[:2] == [-30, -1]


async def object_of(shop: Shop, key: str) -> str:
    """What the key was claimed for."""
    async with shop.stack.database.begin() as work:
        claim = await work.claims.claim(
            application=shop.name,
            key=key,
            fingerprint="",
            command="",
            object_id="",
            request=b"",
            now=datetime.now(UTC),
        )
    return claim.object_id


async def terminated(client: Client, workflow_id: str) -> None:
    """The workflow is lost, once its start has arrived."""
    async with asyncio.timeout(30):
        while True:
            try:
                await client.get_workflow_handle(workflow_id).terminate("lost")
            except RPCError as problem:
                if problem.status is not RPCStatusCode.NOT_FOUND:
                    raise
                await asyncio.sleep(0.1)
            else:
                return


class NeverStarts(Commands):
    async def spend(self, *_: object) -> None:
        return None


class TestReads:
    async def test_what_a_user_has(self, shop: Shop) -> None:
        payment = await bought(shop, package="points_100")
        await spent(shop, 102)
        answer = await shop.get("/points/user_1")
        assert answer.status_code == 200
        holdings = answer.json()
        (lot,) = holdings.pop("lots")
        assert holdings == {"user_id": "user_1", "balance": 3, "spendable": 3, "owed": 0}
        expires_at = datetime.fromisoformat(lot.pop("expires_at"))
        assert (expires_at - datetime.now(UTC)).days in (364, 365)
        assert lot == {
            "payment_id": payment["id"],
            "kind": "bonus",
            "granted": 5,
            "remaining": 3,
        }

    async def test_nothing_of_nobody(self, shop: Shop, other_shop: Shop) -> None:
        await bought(shop)
        nothing = {"user_id": "user_1", "balance": 0, "spendable": 0, "owed": 0, "lots": []}
        assert (await other_shop.get("/points/user_1")).json() == nothing
        page = (await other_shop.get("/points/user_1/transactions")).json()
        assert page == {"data": [], "has_more": False, "next_cursor": None}

    async def test_movements_page_by_page(self, shop: Shop) -> None:
        await bought(shop)
        for points in (1, 2, 3):
            await spent(shop, points)
        amounts: list[int] = []
        cursor: dict[str, Any] = {}
        while True:
            page = (await shop.get("/points/user_1/transactions", limit=2, **cursor)).json()
            amounts += [one["amount"] for one in page["data"]]
            if not page["has_more"]:
                break
            cursor = {"cursor": page["next_cursor"]}
        assert amounts == [-3, -2, -1, 50, 500]
        assert page["next_cursor"] is None

    @pytest.mark.parametrize(
        ("path", "params", "param"),
        [
            ("/points/a%20b", {}, "user_id"),
            ("/points/user_1", {"limit": 1}, "limit"),
            ("/points/a%20b/transactions", {}, "user_id"),
            ("/points/user_1/transactions", {"limit": 101}, "limit"),
            ("/points/user_1/transactions", {"cursor": "ptx_1"}, "cursor"),
            ("/points/user_1/transactions", {"kind": "spend"}, "kind"),
            ("/customer/a%20b", {}, "user_id"),
        ],
    )
    async def test_wrong_questions(
        self, shop: Shop, path: str, params: dict[str, Any], param: str
    ) -> None:
        problem = check_problem(await shop.get(path, **params), 422)
        assert problem["param"] == param


class TestPreview:
    async def test_of_points_says_what_comes_of_them(self, shop: Shop) -> None:
        payment = await bought(shop)
        await spent(shop, 275)
        asked = {"payment_id": payment["id"]}
        answer = await shop.post("/refund/preview", asked)
        assert answer.status_code == 200, answer.text
        points = {"policy": "reduce", "bonus": 50, "paid": 225, "owed": 0, "balance_after": 0}
        expected = asked | {"amount": 1500, "currency": "CNY", "points": points}
        assert answer.json() == expected
        part = (await shop.post("/refund/preview", asked | {"amount": 300})).json()
        assert part["amount"] == 300
        assert part["points"] == points | {"bonus": 50, "paid": 5, "balance_after": 220}
        refund = await shop.post("/refund", asked | {"reason": "too many"}, "a-key")
        assert refund.json()["amount"] == 1500
        assert (await movements(shop))[0] == -275
        problem = check_problem(await shop.post("/refund/preview", asked), 409)
        assert problem["code"] == "points_already_spent"

    async def test_of_anything_else(self, shop: Shop, other_shop: Shop) -> None:
        payment = await shop.created()
        asked = {"payment_id": payment["id"]}
        problem = check_problem(await shop.post("/refund/preview", asked), 409)
        assert problem["code"] == "payment_not_refundable"
        shop.gateway("alipay").pay(payment["id"])
        await shop.post(f"/{payment['id']}/refresh")
        answer = await shop.post("/refund/preview", asked | {"amount": 2000})
        assert answer.json() == asked | {"amount": 2000, "currency": "CNY", "points": None}
        wrong: list[tuple[dict[str, Any], int]] = [
            ({"amount": 2901}, 409),
            ({"currency": "USD"}, 409),
            ({"reason": "x"}, 422),
        ]
        for fields, status in wrong:
            check_problem(await shop.post("/refund/preview", asked | fields), status)
        check_problem(await other_shop.post("/refund/preview", asked), 404)
        assert (await shop.get(f"/{payment['id']}")).json()["amount_refunded"] == 0


class TestCustomer:
    async def test_is_known_since_the_first_payment(self, shop: Shop) -> None:
        problem = check_problem(await shop.get("/customer/user_1"), 404)
        assert problem["code"] == "customer_not_found"
        first = await shop.created()
        await bought(shop)
        answer = await shop.get("/customer/user_1")
        assert answer.json() == {
            "user_id": "user_1",
            "tier": "FREE",
            "tier_until": None,
            "tier_reason": "none",
            "subscription_id": None,
            "points_balance": 550,
            "default_payment_method_id": None,
            "gateway_customers": {},
            "created_at": first["created_at"],
        }

    async def test_is_one_applications_own(self, shop: Shop, other_shop: Shop) -> None:
        await shop.created()
        check_problem(await other_shop.get("/customer/user_1"), 404)
