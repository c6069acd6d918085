"""Refunds by WeChat Pay, built from settings alone, at the sandbox in its own process."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing.errors import AnswerUntrusted, BalanceInsufficient, GatewayThrottled, OutcomeUnknown
from billing.identifiers import PAYMENT, REFUND, make_id
from billing.payment import GatewayName, PaymentMethod
from gateways.gateway import Gateway, ObservedState, Opened, Order, RefundOrder, RefundState
from gateways.registry import build_gateways, build_verifiers
from runtime.settings import Settings
from tests.fixtures.sandbox import SandboxProcess
from tests.gateways.mailbox import Mailbox
from tests.gateways.parties import make_order


@pytest.fixture
def mailbox() -> Mailbox:
    return Mailbox()


@pytest.fixture
async def settings(sandbox_settings: Settings, mailbox: Mailbox) -> AsyncIterator[Settings]:
    """Those of the sandbox, with a public address at which webhooks are taken."""
    server = await asyncio.start_server(mailbox.take, "127.0.0.1", 0)
    async with server:
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        yield sandbox_settings.model_copy(update={"public_url": address})


@pytest.fixture
async def gateway(settings: Settings) -> AsyncIterator[Gateway]:
    gateways = build_gateways(settings)
    yield gateways[GatewayName.WECHATPAY]
    for gateway in gateways.values():
        await gateway.aclose()


def some_id(prefix: str) -> str:
    return make_id(prefix, time.time_ns() // 1_000_000, secrets.token_bytes(10))


async def paid(
    gateway: Gateway, sandbox: SandboxProcess, **options: Any
) -> tuple[Order, RefundOrder]:
    """An order of 2905 that is paid, and a refund of 905 of it."""
    number = some_id(PAYMENT)
    order = make_order(
        PaymentMethod.NATIVE,
        payment_id=number,
        number=number,
        expires_at=datetime.fromtimestamp(time.time() + 1800, UTC),
    )
    outcome = await gateway.open(order)
    assert isinstance(outcome, Opened)
    action = outcome.next_action.model_dump()
    await sandbox.pay(gateway="wechatpay", next_action=action, **options)
    receipt = (await gateway.query(order)).receipt
    assert receipt is not None
    return order, RefundOrder(
        number=some_id(REFUND),
        payment_number=number,
        payment_reference=receipt.gateway_reference,
        paid_minor=receipt.amount_minor,
        amount_minor=905,
        currency="CNY",
        reason='"会员" &+= 1',
        created_at=order.created_at,
    )


async def given_back(sandbox: SandboxProcess) -> int:
    [charge] = await sandbox.charges()
    amount: int = charge["refunded"]
    return amount


async def test_a_refund_is_accepted_done_and_told_of(
    gateway: Gateway, sandbox: SandboxProcess, settings: Settings, mailbox: Mailbox
) -> None:
    order, refund = await paid(gateway, sandbox)
    verifier = build_verifiers(settings)[GatewayName.WECHATPAY]
    before = await gateway.query(order)
    assert (await gateway.query_refund(refund)).state is RefundState.ABSENT

    accepted = await gateway.refund(refund)
    done = await gateway.query_refund(refund)

    assert (accepted.state, accepted.refunded_at) == (RefundState.PROCESSING, None)
    assert (done.state, done.reference) == (RefundState.SUCCEEDED, accepted.reference)
    assert done.refunded_at is not None
    assert done == await gateway.refund(refund)
    assert await given_back(sandbox) == 905
    seen = await gateway.query(order)
    assert (seen.state, seen.status) == (ObservedState.PAID, "REFUND")
    assert seen.receipt == before.receipt
    messages = [await mailbox.delivered.get() for _ in range(2)]
    told = [
        verifier.verify(message.headers, message.body, datetime.now(UTC)) for message in messages
    ]
    assert [(each.event_type, each.number, each.refund_number) for each in told] == [
        ("TRANSACTION.SUCCESS", order.number, None),
        ("REFUND.SUCCESS", order.number, refund.number),
    ]


async def test_no_more_than_was_paid_is_given_back(
    gateway: Gateway, sandbox: SandboxProcess
) -> None:
    order, refund = await paid(gateway, sandbox)
    await gateway.refund(replace(refund, amount_minor=2000))
    await sandbox.age("wechatpay", order.payment_id, 60)
    others = replace(refund, number=some_id(REFUND))
    refused = await gateway.refund(replace(others, amount_minor=906))
    assert (refused.state, refused.status) == (RefundState.FAILED, "INVALID_REQUEST")
    assert (await gateway.refund(others)).state is RefundState.PROCESSING
    assert await given_back(sandbox) == 2905


@pytest.mark.parametrize(
    "fault",
    [
        "cut_before",
        "cut_after",
        "http_500",
        "http_500_after",
        "garbage",
        "truncated",
        "bad_signature",
        "http_429",
        "balance_insufficient",
    ],
)
async def test_a_refund_of_unknown_outcome_is_made_once(
    gateway: Gateway, sandbox: SandboxProcess, fault: str
) -> None:
    order, refund = await paid(gateway, sandbox)
    await sandbox.fault("wechatpay", "refund", fault, reference=order.payment_id)
    with pytest.raises(OutcomeUnknown) as unknown:
        await gateway.refund(refund)
    assert not isinstance(unknown.value, GatewayThrottled)
    assert isinstance(unknown.value, BalanceInsufficient) == (fault == "balance_insufficient")
    await gateway.refund(refund)
    assert (await gateway.query_refund(refund)).state is RefundState.SUCCEEDED
    assert await given_back(sandbox) == 905


@pytest.mark.parametrize("operation", ["refund", "refund_query"])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("wrong_amount", "amount_mismatch"),
        ("wrong_currency", "currency_mismatch"),
        ("wrong_order", "order_mismatch"),
    ],
)
async def test_an_answer_about_other_money_is_not_believed(
    gateway: Gateway, sandbox: SandboxProcess, operation: str, fault: str, reason: str
) -> None:
    order, refund = await paid(gateway, sandbox)
    await gateway.refund(refund)
    ask = {"refund": gateway.refund, "refund_query": gateway.query_refund}[operation]
    await sandbox.fault("wechatpay", operation, fault, reference=order.payment_id)
    with pytest.raises(AnswerUntrusted) as untrusted:
        await ask(refund)
    assert untrusted.value.reason == reason
    await sandbox.fault("wechatpay", operation, "unknown_status", reference=order.payment_id)
    assert (await ask(refund)).state is RefundState.UNRECOGNISED
    assert (await ask(refund)).state is RefundState.SUCCEEDED


async def test_a_stuck_refund_is_repaired_by_a_person(
    gateway: Gateway, sandbox: SandboxProcess
) -> None:
    _, refund = await paid(gateway, sandbox, refunds="ABNORMAL")
    assert (await gateway.refund(refund)).state is RefundState.PROCESSING
    stuck = await gateway.query_refund(refund)
    assert stuck.state is RefundState.STUCK
    assert stuck.failure is not None
    assert await given_back(sandbox) == 0
    answer = await sandbox.control.post(f"/control/wechatpay/refunds/{refund.number}/repair")
    assert answer.status_code == 200
    assert (await gateway.query_refund(refund)).state is RefundState.SUCCEEDED
    assert await given_back(sandbox) == 905


async def test_a_closed_refund_has_failed(gateway: Gateway, sandbox: SandboxProcess) -> None:
    _, refund = await paid(gateway, sandbox, refunds="CLOSED")
    await gateway.refund(refund)
    closed = await gateway.refund(refund)
    assert (closed.state, closed.status) == (RefundState.FAILED, "CLOSED")
    assert await given_back(sandbox) == 0


class TestLimits:
    async def test_too_soon_after_another_it_is_asked_for_again(
        self, gateway: Gateway, sandbox: SandboxProcess
    ) -> None:
        order, first = await paid(gateway, sandbox)
        await gateway.refund(first)
        second = replace(first, number=some_id(REFUND))
        with pytest.raises(OutcomeUnknown, match="FREQUENCY_LIMITED"):
            await gateway.refund(second)
        assert await given_back(sandbox) == 905
        assert (await gateway.query_refund(second)).state is RefundState.ABSENT
        await sandbox.age("wechatpay", order.payment_id, 60)
        assert (await gateway.refund(second)).state is RefundState.PROCESSING
        assert await given_back(sandbox) == 1810

    async def test_one_too_many_is_refused(self, gateway: Gateway, sandbox: SandboxProcess) -> None:
        order, refund = await paid(gateway, sandbox)
        for _ in range(50):
            await sandbox.refund("wechatpay", order.payment_id, amount=1)
        await sandbox.age("wechatpay", order.payment_id, 60)
        refused = await gateway.refund(refund)
        assert (refused.state, refused.status) == (RefundState.FAILED, "INVALID_REQUEST")
        assert await given_back(sandbox) == 50

    async def test_one_too_late_is_refused(self, gateway: Gateway, sandbox: SandboxProcess) -> None:
        order, refund = await paid(gateway, sandbox)
        await sandbox.age("wechatpay", order.payment_id, 366 * 86_400)
        refused = await gateway.refund(refund)
        assert (refused.state, refused.status) == (RefundState.FAILED, "TRADE_OVERDUE")
        assert await given_back(sandbox) == 0
        seen = await gateway.query(order)
        assert seen.receipt is not None
        assert seen.receipt.paid_at < datetime.now(UTC) - timedelta(days=365)
