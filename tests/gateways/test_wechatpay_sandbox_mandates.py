"""Contracts at the sandbox's WeChat Pay: signed, announced, charged, ended, by settings alone."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from billing.errors import (
    AnswerUntrusted,
    GatewayMisconfigured,
    GatewayThrottled,
    MethodNotSupported,
    OutcomeUnknown,
)
from billing.identifiers import METHOD, mandate_number
from billing.payment import DeclineClass, GatewayName, PaymentMethod
from gateways.gateway import (
    AlreadyOrdered,
    ObservedState,
    Reply,
    WebhookRefused,
    WebhookVerifier,
)
from gateways.mandates import (
    Mandate,
    MandateRefused,
    MandateState,
)
from gateways.registry import build_gateways, build_verifiers
from runtime.settings import Settings, load_settings
from tests.fixtures.sandbox import SandboxProcess
from tests.gateways.contract_member import NOON, Member, new_id
from tests.gateways.mailbox import Mailbox

_TAKEN = Reply(200, b"<xml><return_code><![CDATA[SUCCESS]]></return_code></xml>", "text/xml")
_FAULTS = (
    "cut_before",
    "http_500",
    "cut_after",
    "http_500_after",
    "garbage",
    "truncated",
    "bad_signature",
)


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox(_TAKEN.body)


@pytest.fixture
async def settings(sandbox_settings: Settings, mailbox: Mailbox) -> AsyncIterator[Settings]:
    server = await asyncio.start_server(mailbox.take, "127.0.0.1", 0)
    async with server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield sandbox_settings.model_copy(update={"public_url": address})


@pytest.fixture
async def member(sandbox: SandboxProcess, settings: Settings) -> AsyncIterator[Member]:
    """Nobody has signed anything yet; it is noon."""
    gateway = build_gateways(settings)[GatewayName.WECHATPAY]
    method_id = new_id(METHOD)
    member = Member(sandbox, gateway, Mandate(method_id, mandate_number(method_id)))
    await member.at(NOON)
    yield member
    await gateway.aclose()


@pytest.fixture
async def signed(member: Member) -> Member:
    """Signed at noon."""
    await member.sign()
    return member


@pytest.fixture
def verifier(settings: Settings) -> WebhookVerifier:
    return build_verifiers(settings)[GatewayName.WECHATPAY]


async def test_a_contract_is_signed_seen_and_told(
    member: Member, mailbox: Mailbox, verifier: WebhookVerifier
) -> None:
    assert PaymentMethod.SAVED in member.gateway.capabilities.methods
    assert await member.mandates.enrol("shop", "user", NOON) is None
    action = await member.asked()
    assert (await member.mandates.query(member.mandate)).state is MandateState.ABSENT
    await member.sandbox.decline(gateway="wechatpay", next_action=action)
    assert (await member.mandates.query(member.mandate)).state is MandateState.ABSENT
    told = await member.sandbox.pay(gateway="wechatpay", next_action=action)
    assert told["reference"] == member.mandate.method_id

    seen = await member.mandates.query(member.mandate)
    assert (seen.state, seen.reference) == (MandateState.ACTIVE, told["number"])
    assert seen.signed_at == NOON
    assert seen.ends_at is not None
    [line] = (await member.sandbox.control.get("/control/mandates")).json()["data"]
    assert (line["reference"], line["status"]) == (member.mandate.method_id, "in force")
    assert datetime.fromisoformat(line["now"]) == NOON
    known = replace(member.mandate, reference=seen.reference)
    assert await member.mandates.query(known) == seen
    arrived = await mailbox.delivered.get()
    notification = verifier.verify(arrived.headers, arrived.body, datetime.now(UTC))
    assert notification.event_type == "CONTRACT.ADD"
    assert notification.mandate_number == member.mandate.number
    assert notification.mandate_reference == seen.reference
    assert notification.number is None
    assert notification.reply == _TAKEN


async def test_a_page_opens_for_the_merchants_own_signature_alone(member: Member) -> None:
    page = str((await member.asked())["url"])
    shown = await member.sandbox.control.get(page)
    assert (shown.status_code, "Agree" in shown.text) == (200, True)
    assert "user_1___会员" in shown.text
    forged = await member.sandbox.control.get(page.replace("plan_id=", "plan_id=9"))
    assert forged.status_code == 400
    assert (await member.sandbox.control.post(page)).status_code == 200
    assert "Agree" not in (await member.sandbox.control.get(page)).text
    assert (await member.sandbox.control.post(page)).status_code == 409
    assert (await member.mandates.query(member.mandate)).state is MandateState.ACTIVE


async def test_the_first_charge_needs_no_notice_for_twelve_hours(
    signed: Member, mailbox: Mailbox, verifier: WebhookVerifier
) -> None:
    await mailbox.delivered.get()
    order = signed.order()
    assert await signed.charge(order) is ObservedState.PAID
    seen = await signed.gateway.query(order)
    assert seen.receipt is not None
    assert seen.receipt.amount_minor == 2905
    assert abs(datetime.now(UTC) - seen.receipt.paid_at) < timedelta(minutes=5)
    by_their_number = seen.receipt.gateway_reference
    assert await signed.gateway.query(order, gateway_number=by_their_number) == seen
    await signed.gateway.close(order)
    assert await signed.gateway.query(order) == seen
    arrived = await mailbox.delivered.get()
    told = verifier.verify(arrived.headers, arrived.body, datetime.now(UTC))
    assert (told.event_type, told.number) == ("DEDUCT.SUCCESS", order.number)
    assert told.reply == _TAKEN
    assert (await signed.refused(signed.order()))[0] == "outside_window"
    assert len(await signed.sandbox.charges()) == 1


async def test_a_charge_is_announced_and_made_in_its_days(signed: Member) -> None:
    await signed.charge()
    outside = ("outside_window", "RULE_LIMIT", DeclineClass.SOFT)
    noticed = NOON + timedelta(days=30)
    await signed.at(noticed)
    assert await signed.refused(signed.order()) == outside
    await signed.mandates.announce(signed.mandate, 2905, "CNY")
    for day in (0, 1, 2):
        await signed.at(noticed + timedelta(days=day))
        assert await signed.refused(signed.order()) == outside
    for hours in (10, 18.99):
        await signed.at(noticed + timedelta(days=3, hours=hours))
        assert await signed.refused(signed.order()) == outside
    await signed.at(noticed + timedelta(days=8))
    assert await signed.refused(signed.order(amount_minor=2906)) == outside
    await signed.control("mandate", decline="NOTENOUGH")
    declined = signed.order()
    assert await signed.charge(declined) is ObservedState.DEAD
    failure = (await signed.gateway.query(declined)).failure
    assert failure is not None
    assert (failure.code, failure.decline_code) == ("payment_declined", "NOTENOUGH")
    assert failure.advice is DeclineClass.SOFT
    assert await signed.charge() is ObservedState.PAID
    assert await signed.refused(signed.order()) == outside
    await signed.mandates.announce(signed.mandate, 2905, "CNY")
    await signed.at(noticed + timedelta(days=17))
    assert await signed.refused(signed.order()) == outside
    assert len(await signed.sandbox.charges()) == 2


async def test_no_notice_is_sent_at_night_nor_without_a_contract(signed: Member) -> None:
    await signed.at(NOON + timedelta(hours=10))
    with pytest.raises(MandateRefused) as at_night:
        await signed.mandates.announce(signed.mandate, 2905, "CNY")
    assert at_night.value.failure.code == "outside_window"
    await signed.at(NOON)
    await signed.control("mandate", end=True)
    for mandate in (signed.mandate, replace(signed.mandate, reference=None)):
        with pytest.raises(MandateRefused) as ended:
            await signed.mandates.announce(mandate, 2905, "CNY")
        assert ended.value.failure.code == "mandate_ended"
        assert ended.value.failure.advice is DeclineClass.HARD


async def test_a_charge_is_accepted_first_and_ends_when_it_ends(signed: Member) -> None:
    await signed.control("mandate", wait=True, times=2)
    for deed, state in (
        (signed.sandbox.pay, ObservedState.PAID),
        (signed.sandbox.decline, ObservedState.DEAD),
    ):
        order = signed.order()
        assert await signed.charge(order) is ObservedState.PROCESSING
        assert await signed.gateway.open(order) == AlreadyOrdered()
        await deed(gateway="wechatpay", reference=order.payment_id)
        assert (await signed.gateway.query(order)).state is state
        # The second is no first charge any more.
        await signed.announced(NOON)
    assert len(await signed.sandbox.charges()) == 1


async def test_the_same_number_is_charged_once_wherever_a_call_is_cut(signed: Member) -> None:
    for turn, fault in enumerate(_FAULTS):
        await signed.announced(NOON + timedelta(days=30 * turn))
        order = signed.order()
        await signed.sandbox.fault("wechatpay", "open", fault)
        with pytest.raises(OutcomeUnknown):
            await signed.gateway.open(order)
        assert await signed.charge(order) is ObservedState.PAID
        assert await signed.gateway.open(order) == AlreadyOrdered()
        assert await signed.gateway.open(replace(order, amount_minor=1)) == AlreadyOrdered()
    charges = await signed.sandbox.charges()
    assert [charge["amount"] for charge in charges] == [2905] * len(_FAULTS)


async def test_what_was_taken_is_not_called_refused_after_an_answer_was_lost(
    signed: Member,
) -> None:
    order = signed.order()
    await signed.sandbox.fault("wechatpay", "open", "cut_after")
    with pytest.raises(OutcomeUnknown):
        await signed.gateway.open(order)
    await signed.control("mandate", end=True)
    assert await signed.gateway.open(order) == AlreadyOrdered()


async def test_answers_that_cannot_be_believed(signed: Member) -> None:
    order = signed.order()
    await signed.charge(order)
    for fault, reason in (
        ("wrong_amount", "amount_mismatch"),
        ("wrong_currency", "currency_mismatch"),
        ("wrong_merchant", "merchant_mismatch"),
        ("wrong_order", "order_mismatch"),
    ):
        await signed.sandbox.fault("wechatpay", "query", fault)
        with pytest.raises(AnswerUntrusted) as untrusted:
            await signed.gateway.query(order)
        assert untrusted.value.reason == reason
    await signed.sandbox.fault("wechatpay", "query", "unknown_status")
    assert (await signed.gateway.query(order)).state is ObservedState.UNRECOGNISED
    for fault in ("bad_signature", "garbage", "cut_after", "http_500"):
        for operation in ("query", "mandate"):
            await signed.sandbox.fault("wechatpay", operation, fault)
        with pytest.raises(OutcomeUnknown):
            await signed.gateway.query(order)
        with pytest.raises(OutcomeUnknown):
            await signed.mandates.query(signed.mandate)
    await signed.sandbox.fault("wechatpay", "mandate", "wrong_order")
    with pytest.raises(AnswerUntrusted):
        await signed.mandates.query(signed.mandate)
    await signed.sandbox.fault("wechatpay", "mandate", "unknown_status")
    assert (await signed.mandates.query(signed.mandate)).state is MandateState.UNRECOGNISED
    await signed.sandbox.fault("wechatpay", "mandate", "http_429", retry_after=7)
    with pytest.raises(GatewayThrottled) as throttled:
        await signed.mandates.revoke(signed.mandate)
    assert throttled.value.retry_after_seconds == 7


async def test_we_end_a_contract_and_so_does_its_payer(
    member: Member, mailbox: Mailbox, verifier: WebhookVerifier
) -> None:
    await member.mandates.revoke(member.mandate)
    await member.sign()
    await member.sandbox.fault("wechatpay", "mandate", "cut_after")
    with pytest.raises(OutcomeUnknown):
        await member.mandates.revoke(member.mandate)
    await member.mandates.revoke(member.mandate)
    seen = await member.mandates.query(member.mandate)
    assert (seen.state, seen.ends_at) == (MandateState.ENDED, NOON)
    assert await member.refused(member.order()) == (
        "mandate_ended",
        "CONTRACT_NOT_EXIST",
        DeclineClass.HARD,
    )
    types = []
    for _ in range(2):
        arrived = await mailbox.delivered.get()
        told = verifier.verify(arrived.headers, arrived.body, datetime.now(UTC))
        types.append((told.event_type, told.mandate_reference))
    assert types == [("CONTRACT.ADD", seen.reference), ("CONTRACT.DELETE", seen.reference)]


async def test_a_payer_ends_their_contract(
    signed: Member, mailbox: Mailbox, verifier: WebhookVerifier
) -> None:
    await mailbox.delivered.get()
    await signed.control("mandate", end=True)
    arrived = await mailbox.delivered.get()
    told = verifier.verify(arrived.headers, arrived.body, datetime.now(UTC))
    assert (told.event_type, told.mandate_number) == ("CONTRACT.DELETE", signed.mandate.number)
    assert (await signed.mandates.query(signed.mandate)).state is MandateState.ENDED


async def test_a_forged_message_is_refused(
    member: Member, mailbox: Mailbox, verifier: WebhookVerifier
) -> None:
    await member.sandbox.fault("wechatpay", "webhook", "bad_signature")
    await member.sign()
    forged = await mailbox.delivered.get()
    with pytest.raises(WebhookRefused):
        verifier.verify(forged.headers, forged.body, datetime.now(UTC))


async def test_a_charge_by_contract_is_refunded_like_any_other(signed: Member) -> None:
    order = signed.order()
    await signed.charge(order)
    await signed.sandbox.refund("wechatpay", order.payment_id, amount=905)
    seen = await signed.gateway.query(order)
    assert (seen.state, seen.status) == (ObservedState.PAID, "REFUND")
    assert (await signed.gateway.list_refunds(order, [])).is_any


async def test_another_key_is_the_operators_affair(
    signed: Member, settings: Settings, clean_settings: pytest.MonkeyPatch
) -> None:
    for name, value in signed.sandbox.environment.items():
        clean_settings.setenv(name, value)
    clean_settings.setenv("EVERBILL_WECHATPAY_API_V2_KEY", "0" * 32)
    gateway = build_gateways(load_settings())[GatewayName.WECHATPAY]
    assert gateway.mandates is not None
    with pytest.raises(GatewayMisconfigured):
        await gateway.open(signed.order())
    with pytest.raises(GatewayMisconfigured):
        await gateway.mandates.query(signed.mandate)
    await gateway.aclose()


async def test_without_the_key_there_are_no_mandates(
    signed: Member, clean_settings: pytest.MonkeyPatch
) -> None:
    for name, value in signed.sandbox.environment.items():
        clean_settings.setenv(name, value)
    for name in ("API_V2_KEY", "PLAN_ID"):
        clean_settings.delenv(f"EVERBILL_WECHATPAY_{name}")
    gateway = build_gateways(load_settings())[GatewayName.WECHATPAY]
    assert gateway.mandates is None
    assert PaymentMethod.SAVED not in gateway.capabilities.methods
    for operation in (gateway.open, gateway.query):
        with pytest.raises(MethodNotSupported):
            await operation(signed.order())
    await gateway.aclose()
