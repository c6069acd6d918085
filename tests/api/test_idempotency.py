"""One key, one effect, one answer."""

import asyncio
import json
import secrets
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from api import subscription_inputs as inputs
from api.app import BASE
from api.bodies import parse_json
from api.idempotency import fingerprint_of
from api.orders import Offers
from billing.errors import InvalidRequest
from storage.keys import Scope
from storage.tables import idempotency_claims as claims
from tests.api.conftest import Shop, order
from tests.api.paper import SILENT
from tests.api.subscribing import active, wanted


async def test_a_hundred_requests_at_once_under_one_key_are_one_payment(shop: Shop) -> None:
    key = secrets.token_hex(16)
    answers = await asyncio.gather(*(shop.create(key) for _ in range(100)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    replayed = [answer.headers.get("Idempotent-Replayed") == "true" for answer in answers]
    assert sum(replayed) == 99
    assert len({answer.headers["Request-Id"] for answer in answers}) == 100
    history = await shop.get("/history")
    assert [payment["id"] for payment in history.json()["data"]] == [answers[0].json()["id"]]
    assert shop.gateway("alipay").opened[answers[0].json()["id"]] == 1


async def test_a_repeat_gets_the_first_answer_though_the_payment_has_moved_on(shop: Shop) -> None:
    first = await shop.create("order-1")
    cancel = await shop.post(f"/{first.json()['id']}/refresh")
    assert cancel.status_code == 200
    repeat = await shop.create("order-1")
    assert repeat.status_code == 201
    assert repeat.content == first.content
    assert "Idempotent-Replayed" not in first.headers
    assert repeat.headers["Idempotent-Replayed"] == "true"


async def test_a_repeat_of_what_is_not_offered_any_more_gets_the_first_answer(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway was switched off meanwhile, a package or a tier taken out of the catalog."""
    package = {"user_id": "user_1", "package": "points_500"}
    package |= {"gateway": "alipay", "method": "qr", "currency": "CNY"}
    subscription = await active(shop)
    changed = {"tier": "PREMIUM", "cycle": "monthly"}
    waiting = (await shop.create("order-to-be-switched")).json()
    asked_for = {
        "/create": order(),
        f"/{waiting['id']}/switch": {"gateway": "alipay", "method": "page"},
        "/points/purchase": package,
        "/subscription": wanted(user_id="user_1"),
        f"/subscription/{subscription['id']}/change": changed,
    }
    first = {path: await shop.post(path, body, key=path) for path, body in asked_for.items()}
    assert {answer.status_code for answer in first.values()} == {200, 201}

    def gone(*_: object, **__: object) -> None:
        raise InvalidRequest("it is not offered")

    monkeypatch.setattr(Offers, "order", gone)
    monkeypatch.setattr(Offers, "purchase", gone)
    monkeypatch.setattr(Offers, "switch", gone)
    monkeypatch.setattr(inputs, "start_of", gone)
    monkeypatch.setattr(inputs, "change_of", gone)
    for path, body in asked_for.items():
        again = await shop.post(path, body, key=path)
        assert again.content == first[path].content
        assert again.headers["Idempotent-Replayed"] == "true"
        assert (await shop.post(path, body, key="another")).status_code == 422
        assert (await shop.post(path, body | {"user_id": "user_2"}, key=path)).status_code == 422


async def test_a_repeat_of_what_is_not_offered_any_more_joins_what_is_under_way(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its first answer was lost before it could be kept."""
    subscription = await active(shop)
    asked_for = {
        "/create": order(),
        "/subscription": wanted(user_id="user_1"),
        f"/subscription/{subscription['id']}/change": {"tier": "PREMIUM", "cycle": "monthly"},
    }
    first = {path: await shop.post(path, body, key=path) for path, body in asked_for.items()}
    async with shop.stack.context.database.begin() as work:
        await work.connection.execute(update(claims).values(answer_status=None, answer_body=None))

    def gone(*_: object, **__: object) -> None:
        raise InvalidRequest("it is not offered")

    monkeypatch.setattr(Offers, "order", gone)
    monkeypatch.setattr(inputs, "start_of", gone)
    monkeypatch.setattr(inputs, "change_of", gone)
    for path, body in asked_for.items():
        again = await shop.post(path, body, key=path)
        assert again.status_code == first[path].status_code, again.text
        assert again.json()["id"] == first[path].json()["id"]


@pytest.mark.parametrize(
    "change", [{"amount": 2901}, {"amount": 2900.0}, {"metadata": {}}, {"user_id": "user_2"}]
)
async def test_another_body_under_the_same_key_is_refused(
    shop: Shop, change: dict[str, Any]
) -> None:
    await shop.create("order-1")
    answer = await shop.create("order-1", **change)
    assert answer.status_code == 422
    assert answer.json()["code"] == "idempotency_key_reused"
    assert answer.json()["param"] == "Idempotency-Key"


async def test_another_path_under_the_same_key_is_refused(shop: Shop) -> None:
    payment = (await shop.create("order-1")).json()
    answer = await shop.post(f"/{payment['id']}/cancel", key="order-1")
    assert answer.status_code == 422
    assert answer.json()["code"] == "idempotency_key_reused"


async def test_the_order_of_fields_and_spaces_do_not_make_another_request(shop: Shop) -> None:
    first = await shop.create("order-1")
    turned = json.dumps(dict(reversed(order().items())), indent=3)
    headers = {"Idempotency-Key": "order-1", "Content-Type": "application/json"}
    repeat = await shop.http.post(f"{BASE}/create", content=turned, headers=headers)
    assert repeat.content == first.content


async def test_applications_do_not_share_keys(shop: Shop, other_shop: Shop) -> None:
    first, other = await shop.create("order-1"), await other_shop.create("order-1", amount=1)
    assert other.status_code == 201
    assert other.json()["id"] != first.json()["id"]
    assert "Idempotent-Replayed" not in other.headers


async def test_a_key_outlives_the_api_key_it_came_with(shop: Shop) -> None:
    first = await shop.create("order-1")
    second_key = await shop.stack.key(shop.name, Scope.WRITE)
    async with shop.stack.caller(second_key) as caller:
        repeat = await caller.post(
            f"{BASE}/create", json=order(), headers={"Idempotency-Key": "order-1"}
        )
    assert repeat.content == first.content


async def test_a_repeated_cancel_gets_its_first_answer(shop: Shop) -> None:
    payment = (await shop.create()).json()
    path = f"/{payment['id']}/cancel"
    first, second = await asyncio.gather(shop.post(path, key="c"), shop.post(path, key="c"))
    assert first.status_code == second.status_code
    third = await shop.post(path, key="c")
    assert third.headers["Idempotent-Replayed"] == "true"
    assert third.status_code == first.status_code


async def test_an_answer_that_takes_too_long_is_accepted_and_can_be_joined_later(
    slow_shop: Shop,
) -> None:
    gateway = slow_shop.gateway("wechatpay")
    wanted = {"gateway": "wechatpay", "method": "native", "description": SILENT}
    first = await slow_shop.create("order-1", **wanted)
    assert first.status_code == 202
    assert first.json()["status"] == "created"
    assert first.json()["next_action"] == {"type": "none"}
    read = await slow_shop.get(f"/{first.json()['id']}")
    assert read.json()["status"] == "created"
    again = await slow_shop.create("order-1", **wanted)
    assert again.status_code == 202
    gateway.speaks.set()
    for _ in range(100):
        joined = await slow_shop.create("order-1", **wanted)
        if joined.status_code == 201:
            break
    assert joined.json()["id"] == first.json()["id"]
    assert joined.json()["status"] == "requires_action"
    replay = await slow_shop.create("order-1", **wanted)
    assert replay.content == joined.content
    assert gateway.opened[first.json()["id"]] == 1


@pytest.mark.parametrize(
    ("key", "status", "code"),
    [
        (None, 400, "idempotency_key_required"),
        ("", 400, "idempotency_key_invalid"),
        ("a b", 400, "idempotency_key_invalid"),
        ("a" * 256, 400, "idempotency_key_invalid"),
        ("order-4242424242424242", 422, "card_number_refused"),
    ],
)
async def test_a_key_that_is_none_is_refused(
    shop: Shop, key: str | None, status: int, code: str
) -> None:
    headers = {} if key is None else {"Idempotency-Key": key}
    answer = await shop.http.post(f"{BASE}/create", json=order(), headers=headers)
    assert answer.status_code == status
    assert answer.json()["code"] == code
    assert answer.json()["param"] == "Idempotency-Key"
    assert "4242" not in answer.text


async def test_two_keys_at_once_are_refused(shop: Shop) -> None:
    headers = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
    answer = await shop.http.post(f"{BASE}/create", json=order(), headers=headers)
    assert answer.json()["code"] == "idempotency_key_invalid"


async def test_a_key_with_a_byte_that_is_no_text_is_refused(shop: Shop) -> None:
    answer = await shop.http.post(
        f"{BASE}/create", json=order(), headers={b"Idempotency-Key": b"a\xffb"}
    )
    assert answer.json()["code"] == "idempotency_key_invalid"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc"), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=100)
@given(first=json_values, second=json_values)
def test_fingerprints_are_equal_for_equal_documents_alone(first: object, second: object) -> None:
    ours = fingerprint_of("POST", "/create", parse_json(json.dumps(first).encode()))
    turned = parse_json(json.dumps(first, indent=1, ensure_ascii=False).encode())
    assert fingerprint_of("POST", "/create", turned) == ours
    assert fingerprint_of("POST", "/cancel", first) != ours
    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert (fingerprint_of("POST", "/create", second) == ours) is same
