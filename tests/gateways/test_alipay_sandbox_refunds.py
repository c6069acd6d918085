"""Refunds by Alipay, built from settings alone, at the sandbox in its own process."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime

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
    return Mailbox(b"success")


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
    yield gateways[GatewayName.ALIPAY]
    for gateway in gateways.values():
        await gateway.aclose()


def some_id(prefix: str) -> str:
    return make_id(prefix, time.time_ns() // 1_000_000, secrets.token_bytes(10))


async def paid(gateway: Gateway, sandbox: SandboxProcess) -> tuple[Order, RefundOrder]:
    """An order of 2905 that is paid, and a refund of 905 of it."""
    number = some_id(PAYMENT)
    order = make_order(
        PaymentMethod.QR,
        payment_id=number,
        number=number,
        expires_at=datetime.fromtimestamp(time.time() + 1800, UTC),
    )
    outcome = await gateway.open(order)
    assert isinstance(outcome, Opened)
    await sandbox.pay(gateway="alipay", next_action=outcome.next_action.model_dump())
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


async def test_a_refund_is_done_found_and_told_of(
    gateway: Gateway, sandbox: SandboxProcess, settings: Settings, mailbox: Mailbox
) -> None:
    order, refund = await paid(gateway, sandbox)
    verifier = build_verifiers(settings)[GatewayName.ALIPAY]
    before = await gateway.query(order)
    assert (await gateway.query_refund(refund)).state is RefundState.ABSENT

    done = await gateway.refund(refund)
    repeated = await gateway.refund(refund)
    found = await gateway.query_refund(refund)

    assert (done.state, done.status) == (RefundState.SUCCEEDED, "fund_change Y")
    assert (repeated.state, repeated.status) == (RefundState.PROCESSING, "fund_change N")
    assert (found.state, found.refunded_at) == (RefundState.SUCCEEDED, done.refunded_at)
    assert done.refunded_at is not None
    assert await given_back(sandbox) == 905
    assert await gateway.query(order) == before
    messages = [await mailbox.delivered.get() for _ in range(2)]
    told = [
        verifier.verify(message.headers, message.body, datetime.now(UTC)) for message in messages
    ]
    assert [(each.number, each.refund_number) for each in told] == [
        (order.number, None),
        (order.number, refund.number),
    ]


async def test_no_more_than_was_paid_is_given_back(
    gateway: Gateway, sandbox: SandboxProcess
) -> None:
    order, refund = await paid(gateway, sandbox)
    await gateway.refund(replace(refund, amount_minor=2000))
    await sandbox.age("alipay", order.payment_id, 3)
    others = replace(refund, number=some_id(REFUND))
    refused = await gateway.refund(replace(others, amount_minor=906))
    assert (refused.state, refused.status) == (RefundState.FAILED, "REFUND_AMT_NOT_EQUAL_TOTAL")
    assert (await gateway.refund(others)).state is RefundState.SUCCEEDED
    assert await given_back(sandbox) == 2905
    late = await gateway.refund(replace(refund, number=some_id(REFUND), amount_minor=1))
    assert (late.state, late.status) == (RefundState.FAILED, "TRADE_HAS_CLOSE")
    seen = await gateway.query(order)
    assert (seen.state, seen.status) == (ObservedState.PAID, "TRADE_CLOSED")


async def test_a_number_has_one_amount(gateway: Gateway, sandbox: SandboxProcess) -> None:
    _, refund = await paid(gateway, sandbox)
    await gateway.refund(refund)
    with pytest.raises(AnswerUntrusted, match=refund.number):
        await gateway.refund(replace(refund, amount_minor=904))
    assert await given_back(sandbox) == 905


@pytest.mark.parametrize("amount", [905, 2905])
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
    gateway: Gateway, sandbox: SandboxProcess, fault: str, amount: int
) -> None:
    order, refund = await paid(gateway, sandbox)
    refund = replace(refund, amount_minor=amount)
    await sandbox.fault("alipay", "refund", fault, reference=order.payment_id)
    with pytest.raises(OutcomeUnknown) as unknown:
        await gateway.refund(refund)
    assert isinstance(unknown.value, BalanceInsufficient) == (fault == "balance_insufficient")
    await gateway.refund(refund)
    assert (await gateway.query_refund(refund)).state is RefundState.SUCCEEDED
    assert await given_back(sandbox) == amount


@pytest.mark.parametrize("operation", ["refund", "refund_query"])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("wrong_amount", "amount_mismatch"),
        ("wrong_currency", "currency_mismatch"),
        ("wrong_order", "order_mismatch"),
        ("wrong_merchant", "merchant_mismatch"),
    ],
)
async def test_an_answer_about_other_money_is_not_believed(
    gateway: Gateway, sandbox: SandboxProcess, operation: str, fault: str, reason: str
) -> None:
    """A sum given back that is wrong shows where the whole payment goes back."""
    order, refund = await paid(gateway, sandbox)
    refund = replace(refund, amount_minor=2905)
    ask = {"refund": gateway.refund, "refund_query": gateway.query_refund}[operation]
    if operation == "refund_query":
        await gateway.refund(refund)
    await sandbox.fault("alipay", operation, fault, reference=order.payment_id)
    with pytest.raises(AnswerUntrusted) as untrusted:
        await ask(refund)
    assert untrusted.value.reason == reason
    assert (await gateway.query_refund(refund)).state is RefundState.SUCCEEDED
    assert await given_back(sandbox) == 2905


async def test_a_status_nobody_knows_is_not_guessed_at(
    gateway: Gateway, sandbox: SandboxProcess
) -> None:
    order, refund = await paid(gateway, sandbox)
    await gateway.refund(refund)
    await sandbox.fault("alipay", "refund_query", "unknown_status", reference=order.payment_id)
    assert (await gateway.query_refund(refund)).state is RefundState.UNRECOGNISED
    assert (await gateway.query_refund(refund)).state is RefundState.SUCCEEDED


class TestLimits:
    async def test_too_soon_after_another_it_is_asked_for_again(
        self, gateway: Gateway, sandbox: SandboxProcess
    ) -> None:
        order, first = await paid(gateway, sandbox)
        await gateway.refund(first)
        second = replace(first, number=some_id(REFUND))
        with pytest.raises(GatewayThrottled, match="USER_RATE_LIMIT"):
            await gateway.refund(second)
        assert await given_back(sandbox) == 905
        assert (await gateway.query_refund(second)).state is RefundState.ABSENT
        await sandbox.age("alipay", order.payment_id, 3)
        assert (await gateway.refund(second)).state is RefundState.SUCCEEDED
        assert await given_back(sandbox) == 1810

    async def test_a_finished_trade_is_paid_and_refunded_no_more(
        self, gateway: Gateway, sandbox: SandboxProcess
    ) -> None:
        order, refund = await paid(gateway, sandbox)
        await sandbox.age("alipay", order.payment_id, 366 * 86_400)
        refused = await gateway.refund(refund)
        assert (refused.state, refused.status) == (RefundState.FAILED, "TRADE_HAS_FINISHED")
        assert await given_back(sandbox) == 0
        seen = await gateway.query(order)
        assert (seen.state, seen.status) == (ObservedState.PAID, "TRADE_FINISHED")
