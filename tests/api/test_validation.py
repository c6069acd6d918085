"""What may not be ordered, and what every refusal says."""

import json
import random
from typing import Any

import httpx
import pytest

from api.app import BASE
from tests.api.conftest import Shop, order
from tests.billing.test_cards import card_number

OMITTED = ...


def card(**changes: Any) -> dict[str, Any]:
    return {"gateway": "stripe", "method": "card", "currency": "USD"} | changes


def wechat(method: str, **changes: Any) -> dict[str, Any]:
    return {"gateway": "wechatpay", "method": method} | changes


@pytest.mark.parametrize(
    ("changes", "code", "param"),
    [
        ({"user_id": OMITTED}, "invalid_request", "user_id"),
        ({"user_id": ""}, "invalid_request", "user_id"),
        ({"user_id": "a@b.example"}, "invalid_request", "user_id"),
        ({"user_id": "-a"}, "invalid_request", "user_id"),
        ({"user_id": "a" * 65}, "invalid_request", "user_id"),
        ({"user_id": "a\n"}, "character_refused", "user_id"),
        ({"user_id": 7}, "invalid_request", "user_id"),
        ({"amount": 0}, "invalid_request", "amount"),
        ({"amount": -1}, "invalid_request", "amount"),
        ({"amount": 100_000_000}, "invalid_request", "amount"),
        ({"amount": True}, "invalid_request", "amount"),
        ({"amount": "29"}, "invalid_request", "amount"),
        ({"amount": 29.5}, "invalid_request", "amount"),
        ({"amount": 10**400}, "invalid_request", "amount"),
        ({"amount": None}, "invalid_request", "amount"),
        ({"amount": [2900]}, "invalid_request", "amount"),
        ({"currency": "cny"}, "invalid_request", "currency"),
        ({"currency": "USD"}, "currency_not_supported", "currency"),
        (card(currency="XXX"), "currency_not_supported", "currency"),
        (wechat("native", currency="EUR"), "currency_not_supported", "currency"),
        ({"gateway": "paypal"}, "invalid_request", "gateway"),
        ({"gateway": OMITTED}, "invalid_request", "gateway"),
        ({"method": "card"}, "method_not_supported", "method"),
        ({"method": "saved"}, "payment_method_not_usable", "payment_method_id"),
        ({"method": "cash"}, "invalid_request", "method"),
        (card(method="qr"), "method_not_supported", "method"),
        (card(method="saved"), "payment_method_not_usable", "payment_method_id"),
        (wechat("page"), "method_not_supported", "method"),
        (wechat("jsapi"), "invalid_request", "payer.openid"),
        (wechat("jsapi", payer={}), "invalid_request", "payer.openid"),
        (wechat("jsapi", payer={"openid": ""}), "invalid_request", "payer.openid"),
        (wechat("jsapi", payer={"client_ip": "1.2.3.4"}), "invalid_request", "payer.openid"),
        (wechat("h5"), "invalid_request", "payer.client_ip"),
        (wechat("h5", payer={"client_ip": "1.2.3"}), "invalid_request", "payer.client_ip"),
        (wechat("h5", payer={"client_ip": "fe80::1%eth0"}), "invalid_request", "payer.client_ip"),
        ({"payer": {"name": "Ann"}}, "invalid_request", "payer.name"),
        ({"description": ""}, "invalid_request", "description"),
        ({"description": "a" * 128}, "invalid_request", "description"),
        ({"description": "a\u0000"}, "character_refused", "description"),
        ({"description": "a\u007f"}, "character_refused", "description"),
        ({"description": "a\u0085"}, "character_refused", "description"),
        ({"description": "a\tb"}, "character_refused", "description"),
        ({"description": "\ud800"}, "character_refused", "description"),
        ({"description": "4242 4242 4242 4242"}, "card_number_refused", "description"),
        ({"metadata": {"card": "4242424242424242"}}, "card_number_refused", "metadata"),
        ({"metadata": {"4242424242424242": "card"}}, "card_number_refused", "metadata"),
        ({"metadata": {"a": 1}}, "invalid_request", "metadata.a"),
        ({"metadata": {"a": "b" * 501}}, "invalid_request", "metadata.a"),
        ({"metadata": {str(n): "" for n in range(21)}}, "invalid_request", "metadata"),
        ({"metadata": {"a\u0000": ""}}, "character_refused", "metadata"),
        ({"metadata": None}, "invalid_request", "metadata"),
        ({"return_url": "javascript:alert(1)"}, "invalid_request", "return_url"),
        ({"return_url": "http://shop.example/"}, "invalid_request", "return_url"),
        ({"return_url": "https://user:pass@shop.example/"}, "invalid_request", "return_url"),
        ({"return_url": "https://"}, "invalid_request", "return_url"),
        ({"return_url": "https://[::1"}, "invalid_request", "return_url"),
        ({"return_url": "https://shop.example:99999/"}, "invalid_request", "return_url"),
        ({"return_url": "https://a/" + "b" * 256}, "invalid_request", "return_url"),
        ({"payment_method_id": "pm_" + "0" * 26}, "invalid_request", "payment_method_id"),
        ({"method": "saved", "payment_method_id": "pm_1"}, "invalid_request", "payment_method_id"),
        ({"expires_in_seconds": 4}, "invalid_request", "expires_in_seconds"),
        ({"expires_in_seconds": 7201}, "invalid_request", "expires_in_seconds"),
        ({"expires_in_seconds": 60.5}, "invalid_request", "expires_in_seconds"),
        (card(expires_in_seconds=59), "invalid_request", "expires_in_seconds"),
        (card(expires_in_seconds=86_401), "invalid_request", "expires_in_seconds"),
        (wechat("native", expires_in_seconds=7201), "invalid_request", "expires_in_seconds"),
        ({"status": "succeeded"}, "invalid_request", "status"),
        ({"id": "pay_01hf7yat00fzzvzzzzzzzzzzzz"}, "invalid_request", "id"),
    ],
)
async def test_an_order_that_cannot_be_taken_names_what_is_wrong(
    shop: Shop, changes: dict[str, Any], code: str, param: str
) -> None:
    body = json.dumps(order(**changes)).encode()
    answer = await send(shop, body)
    problem = check_problem(answer, 422)
    assert (problem["code"], problem["param"]) == (code, param)
    assert (await shop.get("/history")).json()["data"] == []


async def test_how_long_a_text_may_be_is_told_in_characters(shop: Shop) -> None:
    answer = await send(shop, json.dumps(order(description="a" * 128)).encode())
    problem = check_problem(answer, 422)
    assert problem["detail"] == "description: String should have at most 127 characters"


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 2900.0, "expires_in_seconds": 5},
        {"description": "会" * 127, "metadata": {"键": "值" * 500}},
        {"metadata": {str(n): "" for n in range(20)}},
        {"method": "page", "return_url": "https://shop.example/back?a=1&b=2"},
        {"method": "wap", "return_url": "http://127.0.0.1:3000/back"},
        {"method": "app", "return_url": None, "payer": None, "payment_method_id": None},
        card(currency="JPY", amount=1, expires_in_seconds=86_400),
        wechat("jsapi", payer={"openid": "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"}),
        wechat("h5", payer={"client_ip": "2001:db8::1"}),
        wechat("app", expires_in_seconds=60),
    ],
)
async def test_what_may_be_ordered_is_taken(shop: Shop, changes: dict[str, Any]) -> None:
    payment = await shop.created(**changes)
    assert isinstance(payment["amount"], int)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed_json"),
        (b"{", 400, "malformed_json"),
        (b"[]", 422, "invalid_request"),
        (b"null", 422, "invalid_request"),
        (b'{"amount":NaN}', 400, "malformed_json"),
        (b'{"amount":Infinity}', 400, "malformed_json"),
        (b'{"amount":' + b"9" * 5000 + b"}", 400, "malformed_json"),
        (b'{"a":"\xff"}', 400, "malformed_json"),
        (b'\xef\xbb\xbf{"a":1}', 400, "malformed_json"),
        (b'{"a":"\x00"}', 400, "malformed_json"),
        (b"[" * 30_000, 400, "malformed_json"),
        (b'{"amount":1,"amount":2}', 400, "duplicate_key"),
        (b'{"payer":{"openid":"a","openid":"b"}}', 400, "duplicate_key"),
        (b'{"a":[{"b":1,"\\u0062":2}]}', 400, "duplicate_key"),
        (b'{"a":"' + b"a" * 65536 + b'"}', 413, "body_too_large"),
    ],
)
async def test_a_body_without_one_meaning_is_refused(
    shop: Shop, body: bytes, status: int, code: str
) -> None:
    assert check_problem(await send(shop, body), status)["code"] == code


async def test_a_body_of_the_greatest_length_is_read(shop: Shop) -> None:
    body = json.dumps(order()).encode()
    answer = await send(shop, body + b" " * (64 * 1024 - len(body)))
    assert answer.status_code == 201


async def test_a_body_that_streams_on_is_cut_off_at_the_limit(shop: Shop) -> None:
    sent = 0

    async def stream() -> Any:
        nonlocal sent
        for _ in range(1000):
            sent += 8192
            yield b" " * 8192

    answer = await shop.http.post(
        f"{BASE}/create",
        content=stream(),
        headers={"Content-Type": "application/json", "Idempotency-Key": "order-1"},
    )
    assert check_problem(answer, 413)["code"] == "body_too_large"
    assert sent <= 64 * 1024 + 2 * 8192


@pytest.mark.parametrize("media_type", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_only_json_is_taken(shop: Shop, media_type: str | None) -> None:
    headers = {"Idempotency-Key": "order-1"}
    if media_type is not None:
        headers["Content-Type"] = media_type
    content = json.dumps(order()).encode()
    answer = await shop.http.post(f"{BASE}/create", content=content, headers=headers)
    assert check_problem(answer, 415)["param"] == "Content-Type"


@pytest.mark.parametrize("seed", range(10))
async def test_card_numbers_are_refused_wherever_they_are_planted(shop: Shop, seed: int) -> None:
    source = random.Random(seed)
    number = card_number(source.choice(["4", "51", "2221", "34", "62"]), 16, source)
    separator = source.choice(["", " ", "-"])
    written = separator.join(number[at : at + 4] for at in range(0, 16, 4))
    place = source.choice(["description", "value", "name"])
    plants: dict[str, dict[str, Any]] = {
        "description": {"description": f"pay {written} now"},
        "value": {"metadata": {"note": f"({written})"}},
        "name": {"metadata": {written: "note"}},
    }
    answer = await shop.create(**plants[place])
    assert check_problem(answer, 422)["code"] == "card_number_refused"
    assert number[:6] not in answer.text
    review = {"action": "close", "reason": f"card {written}"}
    answer = await shop.post("/pay_01hf7yat00fzzvzzzzzzzzzzzz/review", review)
    assert check_problem(answer, 422)["param"] == "reason"


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/history?colour=red", "colour"),
        ("/history?limit=0", "limit"),
        ("/history?limit=101", "limit"),
        ("/history?limit=1.0", "limit"),
        ("/history?limit=1_0", "limit"),
        ("/history?limit=", "limit"),
        ("/history?limit=1&limit=2", "limit"),
        ("/history?status=paid", "status"),
        ("/history?created_after=2026-01-01", "created_after"),
        ("/history?created_after=0", "created_after"),
        ("/history?created_after=2026-13-01T00:00:00Z", "created_after"),
        ("/history?user_id=%00", "user_id"),
        ("/history?cursor=other", "cursor"),
        ("/history?cursor=%E4%BC%9A", "cursor"),
        ("/events?after=1", "after"),
        ("/events?after=99999999999999999999.1", "after"),
        ("/events?wait_seconds=21", "wait_seconds"),
        ("/pricing?a=1", "a"),
        ("/pay_01hf7yat00fzzvzzzzzzzzzzzz?expand=all", "expand"),
    ],
)
async def test_a_query_nobody_defined_is_refused(shop: Shop, path: str, param: str) -> None:
    answer = await shop.http.get(BASE + path)
    assert check_problem(answer, 422)["param"] == param


@pytest.mark.parametrize(
    "body", [{"at_period_end": True}, [], "cancel", None], ids=["field", "list", "text", "null"]
)
async def test_a_command_without_a_body_takes_none_but_an_empty_object(
    shop: Shop, body: Any
) -> None:
    payment = await shop.created()
    content = json.dumps(body).encode()
    answer = await shop.http.post(
        f"{BASE}/{payment['id']}/cancel",
        content=content,
        headers={"Content-Type": "application/json"},
    )
    check_problem(answer, 422)


async def send(shop: Shop, body: bytes) -> httpx.Response:
    return await shop.http.post(
        f"{BASE}/create",
        content=body,
        headers={"Content-Type": "application/json", "Idempotency-Key": "order-1"},
    )


def check_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The answer's problem, after its shape has been checked."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert list(problem) == ["type", "title", "status", "code", "detail", "param", "request_id"]
    assert problem["status"] == status
    assert problem["detail"]
    assert problem["request_id"] == answer.headers["Request-Id"]
    return problem
