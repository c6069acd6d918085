"""Webhooks: verified, stored once, answered in the gateway's own form, and delivered afterwards."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from api.app import BASE
from api.deliveries import Deliveries
from billing.messages import GatewayReport
from storage.inbox import InboxEntry, InboxOutcome
from tests.api.conftest import Shop, Stack
from tests.api.notices import (
    Notice,
    alipay_notice,
    deduct_notice,
    stripe_notice,
    wechatpay_notice,
)

NOTICES: dict[str, Callable[..., Notice]] = {
    "stripe": stripe_notice,
    "alipay": alipay_notice,
    "wechatpay": wechatpay_notice,
}
ORDERS = {
    "stripe": {"gateway": "stripe", "method": "card"},
    "alipay": {"gateway": "alipay", "method": "qr"},
    "wechatpay": {"gateway": "wechatpay", "method": "native"},
}
UNKNOWN = "pay_01hf7yat00fzzvzzzzzzzzzzzz"
each_gateway = pytest.mark.parametrize("gateway", NOTICES)


async def post(stack: Stack, notice: Notice, body: Any = None) -> httpx.Response:
    async with stack.caller() as gateway:
        return await gateway.post(
            f"{BASE}/webhook/{notice.gateway}",
            content=notice.body if body is None else body,
            headers=notice.headers,
        )


async def stored(stack: Stack) -> int:
    async with stack.database.begin() as work:
        return sum((await work.inbox.counts()).values())


async def counts(stack: Stack) -> dict[str, int]:
    await stack.context.deliveries.drain()
    async with stack.database.begin() as work:
        return await work.inbox.counts()


@each_gateway
async def test_a_genuine_webhook_settles_its_payment(shop: Shop, gateway: str) -> None:
    payment = await shop.created(**ORDERS[gateway])
    shop.gateway(gateway).pay(payment["id"])
    notice = NOTICES[gateway](payment["id"])
    answer = await post(shop.stack, notice)
    assert (answer.status_code, answer.content) == notice.accepted
    page = (await shop.get("/events", after=await last_cursor(shop, 2))).json()
    assert page["data"][0]["type"] == "payment.succeeded"
    assert (await shop.get(f"/{payment['id']}")).json()["status"] == "succeeded"


async def test_a_message_in_xml_is_answered_in_xml(shop: Shop) -> None:
    before = await stored(shop.stack)
    notice = deduct_notice(UNKNOWN)
    for _ in range(2):
        answer = await post(shop.stack, notice)
        assert (answer.status_code, answer.content) == notice.accepted
        assert answer.headers["content-type"].startswith("text/xml")
    assert await stored(shop.stack) == before + 1
    forged = await post(shop.stack, notice, notice.body.replace(b"2900", b"2901"))
    assert forged.status_code == 400
    assert is_refusal("wechatpay", forged)
    assert await stored(shop.stack) == before + 1


async def last_cursor(shop: Shop, count: int) -> str:
    page = (await shop.get("/events", limit=count)).json()
    cursor: str = page["next_cursor"]
    return cursor


@each_gateway
async def test_a_repeated_webhook_is_accepted_and_stored_once(shop: Shop, gateway: str) -> None:
    before = await stored(shop.stack)
    notice = NOTICES[gateway](UNKNOWN)
    answers = await asyncio.gather(*(post(shop.stack, notice) for _ in range(20)))
    assert {(answer.status_code, answer.content) for answer in answers} == {notice.accepted}
    assert await stored(shop.stack) == before + 1


@each_gateway
async def test_a_webhook_for_an_order_we_do_not_know_is_kept_as_unmatched(
    shop: Shop, gateway: str
) -> None:
    before = (await counts(shop.stack)).get("unmatched", 0)
    await post(shop.stack, NOTICES[gateway](UNKNOWN))
    assert (await counts(shop.stack))["unmatched"] == before + 1


@each_gateway
async def test_a_webhook_about_no_order_is_kept_as_ignored(shop: Shop, gateway: str) -> None:
    before = (await counts(shop.stack)).get("ignored", 0)
    notice = NOTICES[gateway](None)
    answer = await post(shop.stack, notice)
    assert (answer.status_code, answer.content) == notice.accepted
    assert (await counts(shop.stack))["ignored"] == before + 1


def forgeries() -> dict[str, Notice]:
    stripe, alipay, wechat = (make(UNKNOWN) for make in NOTICES.values())
    return {
        "stripe unsigned": stripe.with_header("Stripe-Signature", ""),
        "stripe by another secret": stripe_notice(UNKNOWN, secret="whsec_another"),
        "stripe stale": stripe_notice(UNKNOWN, age_seconds=301),
        "stripe of the future": stripe_notice(UNKNOWN, age_seconds=-400),
        "stripe altered": stripe.with_body(stripe.body.replace(b"succeeded", b"canceled!")),
        "stripe truncated": stripe.with_body(stripe.body[:-1]),
        "stripe empty": stripe.with_body(b""),
        "alipay by another key": alipay_notice(UNKNOWN, owner="merchant"),
        "alipay altered": alipay.with_body(alipay.body.replace(b"29.00", b"92.00")),
        "alipay truncated": alipay.with_body(alipay.body[:-5]),
        "alipay empty": alipay.with_body(b""),
        "alipay no form": alipay.with_body(b"\xff\xfe"),
        "wechatpay by another key": wechatpay_notice(UNKNOWN, owner="merchant"),
        "wechatpay stale": wechatpay_notice(UNKNOWN, age_seconds=301),
        "wechatpay altered": wechat.with_body(wechat.body.replace(b"SUCCESS", b"REFUND!")),
        "wechatpay empty": wechat.with_body(b""),
        "wechatpay probe": wechat.with_header("Wechatpay-Signature", "WECHATPAY/SIGNTEST/abc"),
    }


@pytest.mark.parametrize("name", forgeries())
async def test_a_forgery_is_refused_and_changes_nothing(shop: Shop, name: str) -> None:
    before = await stored(shop.stack)
    notice = forgeries()[name]
    answer = await post(shop.stack, notice)
    assert answer.status_code == 400
    assert is_refusal(notice.gateway, answer)
    assert await stored(shop.stack) == before


@each_gateway
async def test_one_that_is_too_long_is_refused_unread(shop: Shop, gateway: str) -> None:
    before = await stored(shop.stack)
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(1000):
            sent += 65536
            yield b"a" * 65536

    answer = await post(shop.stack, NOTICES[gateway](UNKNOWN), endless())
    assert answer.status_code == 413
    assert is_refusal(gateway, answer)
    assert sent <= 256 * 1024 + 2 * 65536
    assert await stored(shop.stack) == before


@each_gateway
async def test_one_that_cannot_be_stored_is_to_be_sent_again(
    without_database: Stack, gateway: str
) -> None:
    answer = await post(without_database, NOTICES[gateway](UNKNOWN))
    assert answer.status_code == 503
    assert is_refusal(gateway, answer)


class StuckDelivery:
    """Temporal out of reach: no delivery ends by itself."""

    def __init__(self) -> None:
        self.begun = 0

    async def deliver(self, entry: InboxEntry) -> None:
        self.begun += 1
        await asyncio.Event().wait()

    async def observe(self, payment_id: str, report: GatewayReport) -> InboxOutcome | None:
        raise AssertionError("nobody refreshes here")


@each_gateway
async def test_no_answer_waits_for_a_delivery(
    shop: Shop, gateway: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = StuckDelivery()
    deliveries = Deliveries(stuck)
    monkeypatch.setattr("api.deliveries._DRAIN_SECONDS", 0.05)
    stack = shop.stack.having(deliveries=deliveries)
    for _ in range(30):
        notice = NOTICES[gateway](UNKNOWN)
        answer = await post(stack, notice)
        assert (answer.status_code, answer.content) == notice.accepted
    assert 1 <= stuck.begun <= 20
    await deliveries.drain()


@each_gateway
async def test_a_gateway_that_is_off_has_no_webhook(shop: Shop, gateway: str) -> None:
    verifiers = {
        name: verifier
        for name, verifier in shop.stack.context.verifiers.items()
        if name.value != gateway
    }
    answer = await post(shop.stack.having(verifiers=verifiers), NOTICES[gateway](UNKNOWN))
    assert answer.status_code == 404
    assert answer.json()["code"] == "gateway_not_configured"


def is_refusal(gateway: str, answer: httpx.Response) -> bool:
    match gateway:
        case "alipay":
            return answer.content == b"fail"
        case "wechatpay":
            return bool(json.loads(answer.content)["code"] == "FAIL")
        case _:
            return list(json.loads(answer.content)) == ["error"]
