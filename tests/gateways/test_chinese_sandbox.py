"""Alipay and WeChat Pay, built from settings alone, against the sandbox in its own process."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from billing.errors import (
    AnswerUntrusted,
    GatewayMisconfigured,
    GatewayThrottled,
    InstructionsLost,
    OutcomeUnknown,
)
from billing.identifiers import PAYMENT, attempt_number, make_id
from billing.payment import GatewayName, NextAction, Payer, PaymentMethod
from gateways.alipay.requests import Account, request_parameters
from gateways.gateway import (
    AlreadyOrdered,
    Gateway,
    Observation,
    ObservedState,
    Opened,
    Order,
    Refused,
    WebhookRefused,
)
from gateways.keys import load_private_key, load_public_key
from gateways.registry import build_gateways, build_verifiers, notify_url
from runtime.settings import Settings, load_settings
from tests.fixtures.sandbox import SandboxProcess
from tests.gateways.mailbox import Mailbox
from tests.gateways.parties import key_of, make_order

_ALIPAY = [PaymentMethod.QR, PaymentMethod.PAGE, PaymentMethod.WAP, PaymentMethod.APP]
_WECHATPAY = [PaymentMethod.NATIVE, PaymentMethod.JSAPI, PaymentMethod.H5, PaymentMethod.APP]
_METHODS = {GatewayName.ALIPAY: _ALIPAY, GatewayName.WECHATPAY: _WECHATPAY}
_MAIN = {GatewayName.ALIPAY: PaymentMethod.QR, GatewayName.WECHATPAY: PaymentMethod.NATIVE}
_OUR_KEY = {
    GatewayName.ALIPAY: "EVERBILL_ALIPAY_APP_PRIVATE_KEY",
    GatewayName.WECHATPAY: "EVERBILL_WECHATPAY_MERCHANT_PRIVATE_KEY",
}
_UNPAID = {
    GatewayName.ALIPAY: ObservedState.ABSENT,
    GatewayName.WECHATPAY: ObservedState.PENDING,
}
_AFTER_THE_DEED = ("cut_after", "garbage", "truncated", "http_500_after", "bad_signature")
_BEFORE_THE_DEED = ("cut_before", "http_500")

both = pytest.mark.parametrize("name", _MAIN)


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
async def gateways(settings: Settings) -> AsyncIterator[dict[GatewayName, Gateway]]:
    built = build_gateways(settings)
    yield built
    for gateway in built.values():
        await gateway.aclose()


def new_order(method: PaymentMethod, *, attempt: int = 1, seconds: float = 1800) -> Order:
    payment_id = make_id(PAYMENT, time.time_ns() // 1_000_000, secrets.token_bytes(10))
    now = datetime.now(UTC)
    return make_order(
        method,
        payment_id=payment_id,
        attempt=attempt,
        number=attempt_number(payment_id, attempt),
        description='Gold & 会员 = 1+1 / "{}"',
        created_at=now,
        expires_at=now + timedelta(seconds=seconds),
        return_url="https://shop.example.com/thanks?order=1&to=会员",
        payer=Payer(openid="oUpF8uMuAJO_M2pxb1Q9zNjWeS6o", client_ip="203.0.113.7"),
    )


def alipay_account_of(settings: Settings) -> Account:
    keys = settings.alipay
    assert keys.app_id
    assert keys.seller_id
    assert keys.app_private_key
    assert keys.alipay_public_key
    return Account(
        app_id=keys.app_id,
        seller_id=keys.seller_id,
        private_key=load_private_key(keys.app_private_key.get_secret_value(), "test"),
        alipay_public_key=load_public_key(keys.alipay_public_key, "test"),
        gateway_url=keys.gateway_url,
    )


async def opened(gateway: Gateway, order: Order) -> NextAction:
    outcome = await gateway.open(order)
    assert isinstance(outcome, Opened), outcome
    return outcome.next_action


async def paid(sandbox: SandboxProcess, gateway: Gateway, order: Order) -> Observation:
    action = await opened(gateway, order)
    await sandbox.pay(gateway=gateway.name.value, next_action=action.model_dump())
    return await gateway.query(order)


async def dead(gateway: Gateway, order: Order) -> None:
    """Wait until the gateway says so; the test's own time-out ends a wait in vain."""
    while (await gateway.query(order)).state is not ObservedState.DEAD:
        await asyncio.sleep(0.2)


@both
async def test_each_method_is_paid_once_and_told_of(
    name: GatewayName,
    sandbox: SandboxProcess,
    settings: Settings,
    gateways: dict[GatewayName, Gateway],
    mailbox: Mailbox,
) -> None:
    gateway, verifier = gateways[name], build_verifiers(settings)[name]
    for attempt, method in enumerate(_METHODS[name], start=1):
        order = new_order(method, attempt=attempt)
        action = await opened(gateway, order)
        assert (await gateway.query(order)).state is _UNPAID[name]
        await sandbox.pay(gateway=name.value, next_action=action.model_dump())

        seen = await gateway.query(order)
        assert seen.state is ObservedState.PAID, method
        assert seen.receipt is not None
        assert (seen.receipt.amount_minor, seen.receipt.currency) == (2905, "CNY")
        assert abs(seen.receipt.paid_at - datetime.now(UTC)) < timedelta(minutes=1)
        assert seen == await gateway.query(order, gateway_number=seen.receipt.gateway_reference)
        await gateway.close(order)
        assert seen == await gateway.query(order)

        charge = (await sandbox.charges())[-1]
        assert (charge["reference"], charge["attempt"]) == (order.payment_id, attempt)
        arrived = await mailbox.delivered.get()
        assert notify_url(settings, name).endswith(arrived.path)
        told = verifier.verify(arrived.headers, arrived.body, datetime.now(UTC))
        assert told.number == order.number
        assert told.event_type in ("TRADE_SUCCESS", "TRANSACTION.SUCCESS")
        with pytest.raises(WebhookRefused):
            verifier.verify(arrived.headers, arrived.body + b"x", datetime.now(UTC))
    assert len(await sandbox.charges()) == len(_METHODS[name])


@both
async def test_an_open_of_unknown_outcome_can_be_repeated(
    name: GatewayName, sandbox: SandboxProcess, gateways: dict[GatewayName, Gateway]
) -> None:
    gateway = gateways[name]
    for fault in (*_BEFORE_THE_DEED, *_AFTER_THE_DEED):
        order = new_order(_MAIN[name])
        await sandbox.fault(name.value, "open", fault)
        with pytest.raises(OutcomeUnknown):
            await gateway.open(order)
        if name is GatewayName.ALIPAY and fault in _AFTER_THE_DEED:
            with pytest.raises(InstructionsLost):
                await gateway.open(order)
            order = replace(order, attempt=2, number=attempt_number(order.payment_id, 2))
        seen = await paid(sandbox, gateway, order)
        assert seen.state is ObservedState.PAID, fault
    assert len(await sandbox.charges()) == len(_BEFORE_THE_DEED) + len(_AFTER_THE_DEED)


@both
async def test_a_query_that_cannot_be_believed_is_asked_again(
    name: GatewayName, sandbox: SandboxProcess, gateways: dict[GatewayName, Gateway]
) -> None:
    gateway, order = gateways[name], new_order(_MAIN[name])
    seen = await paid(sandbox, gateway, order)
    for fault in (*_BEFORE_THE_DEED, *_AFTER_THE_DEED):
        await sandbox.fault(name.value, "query", fault)
        with pytest.raises(OutcomeUnknown):
            await gateway.query(order)
        assert await gateway.query(order) == seen
    for fault, reason in (
        ("wrong_amount", "amount_mismatch"),
        ("wrong_currency", "currency_mismatch"),
        ("wrong_merchant", "merchant_mismatch"),
        ("wrong_order", "order_mismatch"),
    ):
        await sandbox.fault(name.value, "query", fault)
        with pytest.raises(AnswerUntrusted) as untrusted:
            await gateway.query(order)
        assert untrusted.value.reason == reason
    await sandbox.fault(name.value, "query", "unknown_status")
    assert (await gateway.query(order)).state is ObservedState.UNRECOGNISED
    for operation in (gateway.open, gateway.query, gateway.close):
        await sandbox.fault(name.value, "*", "http_429", retry_after=7)
        with pytest.raises(GatewayThrottled) as throttled:
            await operation(order)
        assert throttled.value.retry_after_seconds == 7
    assert await gateway.query(order) == seen


@both
async def test_a_number_that_was_paid_cannot_be_ordered_again(
    name: GatewayName, sandbox: SandboxProcess, gateways: dict[GatewayName, Gateway]
) -> None:
    gateway, order = gateways[name], new_order(_MAIN[name])
    await paid(sandbox, gateway, order)
    assert await gateway.open(order) == AlreadyOrdered()
    assert await gateway.open(replace(order, amount_minor=1)) == AlreadyOrdered()
    assert len(await sandbox.charges()) == 1


async def test_wechat_pay_gives_the_same_instructions_until_the_order_is_closed(
    sandbox: SandboxProcess, gateways: dict[GatewayName, Gateway]
) -> None:
    gateway, order = gateways[GatewayName.WECHATPAY], new_order(PaymentMethod.NATIVE)
    await gateway.close(order)
    assert (await gateway.query(order)).state is ObservedState.ABSENT
    assert await opened(gateway, order) == await opened(gateway, order)
    for fault in (*_BEFORE_THE_DEED, "cut_after", "http_500_after"):
        await sandbox.fault("wechatpay", "close", fault)
        with pytest.raises(OutcomeUnknown):
            await gateway.close(order)
    await gateway.close(order)
    assert (await gateway.query(order)).state is ObservedState.DEAD
    assert await gateway.open(order) == AlreadyOrdered()
    assert await sandbox.charges() == []


async def test_wechat_pay_may_decline_to_close_so_early(
    sandbox: SandboxProcess, gateways: dict[GatewayName, Gateway]
) -> None:
    gateway, order = gateways[GatewayName.WECHATPAY], new_order(PaymentMethod.NATIVE)
    await opened(gateway, order)
    await sandbox.fault("wechatpay", "close", "close_too_early")
    await gateway.close(order)
    assert (await gateway.query(order)).state is ObservedState.PENDING
    await gateway.close(order)
    assert (await gateway.query(order)).state is ObservedState.DEAD


async def test_a_probe_before_the_true_webhook_is_refused(
    sandbox: SandboxProcess,
    settings: Settings,
    gateways: dict[GatewayName, Gateway],
    mailbox: Mailbox,
) -> None:
    await sandbox.fault("wechatpay", "webhook", "signtest")
    order = new_order(PaymentMethod.NATIVE)
    await paid(sandbox, gateways[GatewayName.WECHATPAY], order)
    verifier = build_verifiers(settings)[GatewayName.WECHATPAY]
    probe = await mailbox.delivered.get()
    assert probe.headers["wechatpay-signature"].startswith("WECHATPAY/SIGNTEST/")
    with pytest.raises(WebhookRefused):
        verifier.verify(probe.headers, probe.body, datetime.now(UTC))


async def test_alipay_closes_nothing_until_the_payer_came(
    sandbox: SandboxProcess, gateways: dict[GatewayName, Gateway]
) -> None:
    gateway = gateways[GatewayName.ALIPAY]
    for method in (PaymentMethod.QR, PaymentMethod.PAGE):
        order = new_order(method)
        action = await opened(gateway, order)
        await gateway.close(order)
        assert (await gateway.query(order)).state is ObservedState.ABSENT
        await sandbox.decline(gateway="alipay", next_action=action.model_dump())
        assert (await gateway.query(order)).state is ObservedState.PENDING
        for fault in (*_BEFORE_THE_DEED, *_AFTER_THE_DEED):
            await sandbox.fault("alipay", "close", fault)
            with pytest.raises(OutcomeUnknown):
                await gateway.close(replace(order, number=f"{order.payment_id}09"))
        await gateway.close(order)
        assert (await gateway.query(order)).state is ObservedState.DEAD
    assert await sandbox.charges() == []


async def test_an_alipay_trade_refunded_elsewhere_is_still_seen_as_paid(
    sandbox: SandboxProcess, settings: Settings, gateways: dict[GatewayName, Gateway]
) -> None:
    gateway, order = gateways[GatewayName.ALIPAY], new_order(PaymentMethod.QR)
    seen = await paid(sandbox, gateway, order)
    refund = {"out_trade_no": order.number, "refund_amount": "29.05", "out_request_no": "1"}
    parameters = request_parameters(
        alipay_account_of(settings), "alipay.trade.refund", refund, datetime.now(UTC)
    )
    assert '"fund_change":"Y"' in (await sandbox.control.post("/gateway.do", data=parameters)).text
    refunded = await gateway.query(order)
    assert refunded.status == "TRADE_CLOSED"
    assert (refunded.state, refunded.receipt) == (ObservedState.PAID, seen.receipt)


@both
async def test_an_order_dies_at_its_own_expiry(
    name: GatewayName, sandbox: SandboxProcess, gateways: dict[GatewayName, Gateway]
) -> None:
    gateway, order = gateways[name], new_order(_MAIN[name], seconds=3)
    action = await opened(gateway, order)
    await sandbox.decline(gateway=name.value, next_action=action.model_dump())
    assert (await gateway.query(order)).state is ObservedState.PENDING
    await dead(gateway, order)
    assert datetime.now(UTC) >= order.expires_at - timedelta(seconds=1)
    late = await sandbox.control.post(
        "/control/pay", json={"gateway": name.value, "next_action": action.model_dump()}
    )
    assert late.status_code == 409
    assert isinstance(await gateway.open(new_order(_MAIN[name], seconds=-60)), Refused)
    assert await sandbox.charges() == []


@both
async def test_another_merchants_key_is_the_operators_affair(
    name: GatewayName, sandbox_settings: Settings, clean_settings: pytest.MonkeyPatch
) -> None:
    pem = key_of("stranger").private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    clean_settings.setenv(_OUR_KEY[name], pem.decode())
    gateway = build_gateways(load_settings())[name]
    order = new_order(_MAIN[name])
    for operation in (gateway.open, gateway.query, gateway.close):
        with pytest.raises(GatewayMisconfigured):
            await operation(order)
    await gateway.aclose()


@both
async def test_a_forged_webhook_of_the_sandbox_is_refused(
    name: GatewayName,
    sandbox: SandboxProcess,
    settings: Settings,
    gateways: dict[GatewayName, Gateway],
    mailbox: Mailbox,
) -> None:
    await sandbox.fault(name.value, "webhook", "bad_signature")
    await paid(sandbox, gateways[name], new_order(_MAIN[name]))
    forged = await mailbox.delivered.get()
    with pytest.raises(WebhookRefused):
        build_verifiers(settings)[name].verify(forged.headers, forged.body, datetime.now(UTC))
