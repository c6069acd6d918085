"""Webhooks through the whole house: signed with the sandbox's keys, sent over HTTP."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError
from temporalio.service import RPCError, RPCStatusCode

from storage.inbox import Inbox
from storage.tables import webhook_inbox
from tests.end_to_end.notices import (
    ACCEPTED,
    TELLS_OF_MONEY,
    Notice,
    keys_of,
    notice,
    probe,
    signed,
)
from tests.end_to_end.outcomes import events_of, inbox_of, until_delivered, webhooks_of
from tests.fixtures.house import METHODS, House

GATEWAYS = tuple(METHODS)
NOBODY = "pay_01hf7yat00fzzvzzzzzzzzzzzz"
LIMIT_BYTES = 256 * 1024
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"

each_gateway = pytest.mark.parametrize("gateway", GATEWAYS)


@dataclass(frozen=True)
class Seen:
    """All that a webhook could change."""

    inbox_rows: int
    events: list[str]
    updated_at: datetime
    history_length: int


async def seen(house: House, payment_id: str) -> Seen:
    await _all_told(house)
    async with house.database.begin() as work:
        rows = await work.connection.scalar(select(func.count()).select_from(webhook_inbox))
    description = await house.client.get_workflow_handle(payment_id).describe()
    record = await house.record(payment_id)
    return Seen(
        int(rows or 0),
        await events_of(house, payment_id),
        record.payment.updated_at,
        description.history_length,
    )


async def _all_told(house: House) -> None:
    """What the sandbox has to say of earlier payments has been said."""
    async with asyncio.timeout(30):
        while any(each["state"] == "waiting" for each in await house.sandbox.webhooks()):
            await asyncio.sleep(0.05)


def is_refusal(gateway: str, answer: httpx.Response) -> bool:
    """Whether this is the gateway's own form of a no."""
    media_type = answer.headers["content-type"].partition(";")[0]
    match gateway:
        case "alipay":
            return answer.content == b"fail" and media_type == "text/plain"
        case "wechatpay":
            body = json.loads(answer.content)
            return (
                list(body) == ["code", "message"] and body["code"] == "FAIL" and media_type == JSON
            )
        case _:
            return list(json.loads(answer.content)) == ["error"] and media_type == JSON


Forge = Callable[[House, str], Notice]


def truncated(gateway: str) -> Forge:
    def forge(house: House, number: str) -> Notice:
        genuine = notice(house, gateway, number)
        return genuine.with_body(genuine.body[: len(genuine.body) // 2])

    return forge


def altered(gateway: str, before: bytes, after: bytes) -> Forge:
    def forge(house: House, number: str) -> Notice:
        genuine = notice(house, gateway, number)
        assert before in genuine.body
        return genuine.with_body(genuine.body.replace(before, after, 1))

    return forge


def made(gateway: str, **options: Any) -> Forge:
    return lambda house, number: notice(house, gateway, number, **options)


def meaningless(gateway: str, body: bytes) -> Forge:
    """Signed all right, and no message."""
    return lambda house, _: signed(gateway, body, keys_of(house, gateway))


def of_another_kind(gateway: str, body: bytes, media_type: str) -> Forge:
    def forge(house: House, number: str) -> Notice:
        genuine = notice(house, gateway, number)
        return genuine.with_body(body).with_headers(Content_Type=media_type)

    return forge


def without(gateway: str, header: str) -> Forge:
    return lambda house, number: notice(house, gateway, number).with_headers(**{header: ""})


def as_merchant(house: House, number: str) -> Notice:
    """By our own key, which is not Alipay's."""
    return notice(
        house,
        "alipay",
        number,
        alipay_private_key=keys_of(house, "alipay")["app_private_key"],
    )


def as_wechat_merchant(house: House, number: str) -> Notice:
    keys = keys_of(house, "wechatpay")
    return notice(house, "wechatpay", number, platform_private_key=keys["merchant_private_key"])


FORGERIES: dict[str, tuple[str, Forge]] = {
    "stripe forged": ("stripe", made("stripe", webhook_secret="whsec_another")),
    "stripe unsigned": ("stripe", without("stripe", "Stripe_Signature")),
    "stripe stale": ("stripe", made("stripe", age_seconds=301)),
    "stripe of the future": ("stripe", made("stripe", age_seconds=-310)),
    "stripe truncated": ("stripe", truncated("stripe")),
    "stripe altered": ("stripe", altered("stripe", b'"1"', b'"2"')),
    "stripe no JSON": ("stripe", meaningless("stripe", b'{"id": "evt_1", ')),
    "stripe no UTF-8": ("stripe", meaningless("stripe", b"\xff\xfe\x00")),
    "stripe nested": ("stripe", meaningless("stripe", b"[" * 100_000)),
    "stripe no event": ("stripe", meaningless("stripe", b'{"id": "evt_1", "object": "charge"}')),
    "stripe as a form": ("stripe", of_another_kind("stripe", b"id=evt_1&type=a", FORM)),
    "stripe empty": ("stripe", of_another_kind("stripe", b"", JSON)),
    "alipay forged": ("alipay", as_merchant),
    "alipay truncated": ("alipay", truncated("alipay")),
    "alipay altered": ("alipay", altered("alipay", b"29.00", b"92.00")),
    "alipay of a foreign app": ("alipay", made("alipay", app_id="2021000000000000")),
    "alipay of a foreign seller": ("alipay", made("alipay", seller_id="2088000000000000")),
    "alipay repeated field": ("alipay", altered("alipay", b"app_id=", b"app_id=1&app_id=")),
    "alipay other scheme": ("alipay", altered("alipay", b"RSA2", b"RSA")),
    "alipay no form": ("alipay", of_another_kind("alipay", b"\xff\xfe\x00", FORM)),
    "alipay as JSON": ("alipay", of_another_kind("alipay", b'{"app_id":"1"}', JSON)),
    "alipay empty": ("alipay", of_another_kind("alipay", b"", FORM)),
    "wechatpay forged": ("wechatpay", as_wechat_merchant),
    "wechatpay unsigned": ("wechatpay", without("wechatpay", "Wechatpay_Signature")),
    "wechatpay probe": ("wechatpay", probe),
    "wechatpay other serial": ("wechatpay", made("wechatpay", public_key_id="PUB_KEY_ID_01")),
    "wechatpay stale": ("wechatpay", made("wechatpay", age_seconds=301)),
    "wechatpay of the future": ("wechatpay", made("wechatpay", age_seconds=-310)),
    "wechatpay truncated": ("wechatpay", truncated("wechatpay")),
    "wechatpay altered": ("wechatpay", altered("wechatpay", b"SUCCESS", b"SUCCESs")),
    "wechatpay of a foreign merchant": ("wechatpay", made("wechatpay", mchid="1600000000")),
    "wechatpay of a foreign app": ("wechatpay", made("wechatpay", appid="wx0000000000000000")),
    "wechatpay under another key": ("wechatpay", made("wechatpay", apiv3_key="0" * 32)),
    "wechatpay no JSON": ("wechatpay", meaningless("wechatpay", b"<xml><id>1</id></xml>")),
    "wechatpay nested": ("wechatpay", meaningless("wechatpay", b'{"resource":' * 20_000)),
    "wechatpay as a form": ("wechatpay", of_another_kind("wechatpay", b"id=1", FORM)),
    "wechatpay empty": ("wechatpay", of_another_kind("wechatpay", b"", JSON)),
}


@each_gateway
async def test_what_is_no_genuine_message_is_refused_and_changes_nothing(
    house: House, gateway: str
) -> None:
    payment = await house.create(gateway)
    before = await seen(house, payment["id"])
    for name, (of, forge) in FORGERIES.items():
        if of == gateway:
            answer = await forge(house, payment["id"]).post(house)
            assert answer.status_code == 400, name
            assert is_refusal(gateway, answer), (name, answer.content)
    assert await seen(house, payment["id"]) == before
    await house.command(payment["id"], "cancel")


@each_gateway
async def test_one_that_is_too_long_is_refused_however_well_signed(
    house: House, gateway: str
) -> None:
    payment = await house.create(gateway)
    before = await seen(house, payment["id"])
    genuine = notice(house, gateway, payment["id"])
    longer = genuine.body + b" " * (LIMIT_BYTES + 1 - len(genuine.body))
    if gateway == "alipay":
        answer = await genuine.with_body(longer).post(house)
    else:
        answer = await signed(gateway, longer, keys_of(house, gateway)).post(house)
    assert answer.status_code == 413
    assert is_refusal(gateway, answer)
    assert await seen(house, payment["id"]) == before
    await house.command(payment["id"], "cancel")


@pytest.mark.parametrize("gateway", ["stripe", "wechatpay"])
async def test_the_longest_there_may_be_is_taken(house: House, gateway: str) -> None:
    genuine = notice(house, gateway, NOBODY)
    longest = genuine.body + b" " * (LIMIT_BYTES - len(genuine.body))
    answer = await signed(gateway, longest, keys_of(house, gateway)).post(house)
    assert (answer.status_code, answer.content) == ACCEPTED[gateway]


@each_gateway
async def test_the_signature_decides_and_not_the_content_type(house: House, gateway: str) -> None:
    """A proxy that relabels a genuine message must not cost us the message."""
    for media_type in ("text/plain", "application/octet-stream"):
        relabeled = notice(house, gateway, NOBODY).with_headers(Content_Type=media_type)
        answer = await relabeled.post(house)
        assert (answer.status_code, answer.content) == ACCEPTED[gateway]


@each_gateway
async def test_one_about_an_order_we_do_not_know_is_received_and_set_aside(
    house: House, gateway: str
) -> None:
    stranger = f"pay_01hf7yat00fzzvzzzzzzzz{GATEWAYS.index(gateway):04d}"
    answer = await notice(house, gateway, stranger).post(house)
    assert (answer.status_code, answer.content) == ACCEPTED[gateway]
    assert await until_delivered(house, stranger, 1) == ["unmatched"]


@each_gateway
async def test_one_about_another_system_s_order_is_received_and_ignored(
    house: House, gateway: str
) -> None:
    """They share the merchant account: Stripe's then has no payment_id of ours."""
    theirs = None if gateway == "stripe" else f"SHOP2-{gateway}"
    genuine = notice(house, gateway, theirs)
    before = await _ignored(house)
    answer = await genuine.post(house)
    assert (answer.status_code, answer.content) == ACCEPTED[gateway]
    async with asyncio.timeout(30):
        while await _ignored(house) == before:
            await asyncio.sleep(0.05)


async def _ignored(house: House) -> int:
    async with house.database.begin() as work:
        return (await work.inbox.counts()).get("ignored", 0)


@each_gateway
async def test_one_that_tells_what_the_record_says_has_nobody_asked(
    house: House, gateway: str
) -> None:
    payment, outcomes = await _paid_and_told_again(house, gateway, None)
    assert set(outcomes) == {"delivered"}
    with pytest.raises(RPCError) as unknown:
        await house.client.get_workflow_handle(f"{payment['id']}/after").describe()
    assert unknown.value.status is RPCStatusCode.NOT_FOUND


@pytest.mark.parametrize(
    ("gateway", "word"), [("stripe", "payment_intent.canceled"), ("alipay", "TRADE_CLOSED")]
)
async def test_another_that_comes_after_the_end_has_the_gateway_asked_once_more(
    house: House, gateway: str, word: str
) -> None:
    payment, outcomes = await _paid_and_told_again(house, gateway, word)
    assert set(outcomes) == {"delivered"}
    after = await house.client.get_workflow_handle(f"{payment['id']}/after").result()
    assert after["status"] == "succeeded"
    assert len(await house.receipts(payment["id"])) == 1


async def _paid_and_told_again(
    house: House, gateway: str, word: str | None
) -> tuple[dict[str, Any], list[str | None]]:
    """A payment whose end changed nothing any more, and how all that was told of it was taken."""
    payment = await house.create(gateway)
    await house.pay(payment)
    ended = await house.until_status(payment["id"])
    await house.client.get_workflow_handle(payment["id"]).result()
    known = len(await inbox_of(house, payment["id"]))
    events = await events_of(house, payment["id"])
    answer = await notice(house, gateway, payment["id"], word).post(house)
    assert (answer.status_code, answer.content) == ACCEPTED[gateway]
    outcomes = await until_delivered(house, payment["id"], known + 1)
    assert await house.read(payment["id"]) == ended
    assert await events_of(house, payment["id"]) == events
    return payment, outcomes


async def test_one_that_cannot_be_stored_is_sent_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL is gone for the webhook: no yes is said, and the gateway's repeat is taken."""
    payments = [await house.create(gateway) for gateway in GATEWAYS]

    async def gone(*_: object, **__: object) -> None:
        raise OperationalError("INSERT INTO webhook_inbox", {}, ConnectionError("gone"))

    with monkeypatch.context() as patched:
        patched.setattr(Inbox, "store", gone)
        for payment in payments:
            answer = await notice(house, payment["gateway"], payment["id"]).post(house)
            assert answer.status_code == 503
            assert is_refusal(payment["gateway"], answer)
            await house.pay(payment)
        first = [await _tries(house, payment["id"], 1) for payment in payments]
    assert {tries[0]["status"] for tries in first} == {503}
    assert not any(tries[0]["accepted"] for tries in first)
    for payment in payments:
        tries = await _tries(house, payment["id"], 2)
        assert tries[-1]["accepted"]
        assert (await house.until_status(payment["id"]))["status"] == "succeeded"
        assert set(await until_delivered(house, payment["id"], 1)) == {"delivered"}


async def _tries(house: House, payment_id: str, least: int) -> list[dict[str, Any]]:
    """The sandbox's tries at the webhook that tells of the money."""
    async with asyncio.timeout(30):
        while True:
            for each in await webhooks_of(house, payment_id):
                tries: list[dict[str, Any]] = each["tries"]
                if each["event_type"] in TELLS_OF_MONEY and len(tries) >= least:
                    return tries
            await asyncio.sleep(0.05)
