"""Refunds made at Alipay's and WeChat Pay's own platforms, asked about by the number they have
there, at the sandbox in its own process."""

import secrets
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from billing.errors import AnswerUntrusted, OutcomeUnknown
from billing.identifiers import PAYMENT, make_id
from billing.payment import GatewayName, PaymentMethod
from gateways.gateway import Gateway, Opened, Order, RefundState, ToldRefunds
from gateways.registry import build_gateways
from runtime.settings import Settings
from tests.fixtures.sandbox import SandboxProcess
from tests.gateways.parties import make_order

METHODS = {GatewayName.ALIPAY: PaymentMethod.QR, GatewayName.WECHATPAY: PaymentMethod.NATIVE}


@pytest.fixture(params=METHODS)
async def gateway(
    request: pytest.FixtureRequest, sandbox_settings: Settings
) -> AsyncIterator[Gateway]:
    gateways = build_gateways(sandbox_settings)
    yield gateways[request.param]
    for gateway in gateways.values():
        await gateway.aclose()


async def paid(gateway: Gateway, sandbox: SandboxProcess) -> Order:
    """An order of 2905 that is paid."""
    number = make_id(PAYMENT, time.time_ns() // 1_000_000, secrets.token_bytes(10))
    order = make_order(
        METHODS[gateway.name],
        payment_id=number,
        number=number,
        expires_at=datetime.now(UTC) + timedelta(minutes=30),
    )
    outcome = await gateway.open(order)
    assert isinstance(outcome, Opened)
    await sandbox.pay(gateway=gateway.name, next_action=outcome.next_action.model_dump())
    return order


async def test_each_is_told_by_its_number(gateway: Gateway, sandbox: SandboxProcess) -> None:
    order = await paid(gateway, sandbox)
    assert await gateway.list_refunds(order, []) == ToldRefunds()
    part = await sandbox.refund(gateway.name, order.payment_id, amount=905)
    told = await gateway.list_refunds(order, [part["number"], "unheard of"])
    [refund] = told.refunds
    assert (refund.number, refund.amount_minor) == (part["number"], 905)
    assert refund.observation.state is RefundState.SUCCEEDED
    assert refund.observation.reference == part["number"]
    assert refund.observation.refunded_at is not None
    assert told.returned_minor is None
    assert told.is_any is (gateway.name is GatewayName.WECHATPAY)


async def test_all_of_it(gateway: Gateway, sandbox: SandboxProcess) -> None:
    order = await paid(gateway, sandbox)
    await sandbox.refund(gateway.name, order.payment_id)
    told = await gateway.list_refunds(order, [])
    is_alipay = gateway.name is GatewayName.ALIPAY
    assert told == ToldRefunds((), 2905 if is_alipay else None, is_any=not is_alipay)


@pytest.mark.parametrize("fault", ["wrong_order", "wrong_merchant"])
async def test_what_cannot_be_trusted(
    gateway: Gateway, sandbox: SandboxProcess, fault: str
) -> None:
    order = await paid(gateway, sandbox)
    await sandbox.fault(gateway.name, "query", fault)
    with pytest.raises(AnswerUntrusted):
        await gateway.list_refunds(order, [])


async def test_a_refund_of_another_order(gateway: Gateway, sandbox: SandboxProcess) -> None:
    order = await paid(gateway, sandbox)
    part = await sandbox.refund(gateway.name, order.payment_id, amount=905)
    await sandbox.fault(gateway.name, "refund_query", "wrong_order")
    with pytest.raises(AnswerUntrusted) as refused:
        await gateway.list_refunds(order, [part["number"]])
    assert refused.value.reason == "order_mismatch"


@pytest.mark.parametrize("fault", ["http_500", "garbage", "bad_signature", "cut_after"])
async def test_silence(gateway: Gateway, sandbox: SandboxProcess, fault: str) -> None:
    order = await paid(gateway, sandbox)
    part = await sandbox.refund(gateway.name, order.payment_id, amount=905)
    await sandbox.fault(gateway.name, "refund_query", fault)
    with pytest.raises(OutcomeUnknown):
        await gateway.list_refunds(order, [part["number"]])
