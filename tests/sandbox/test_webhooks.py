"""Webhooks: signed as Stripe signs, after the answer, repeated until taken."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import stripe

from sandbox.app import make_sandbox
from sandbox.core import Options
from sandbox.stripe.events import EVENT, Events, Origin
from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.conftest import Received, WebhookReceiver
from tests.sandbox.test_stripe_api import open_order


def types(received: Iterable[Received]) -> list[str]:
    return [json.loads(webhook.body)["type"] for webhook in received]


async def state_of(sandbox: SandboxProcess, event_type: str) -> dict[str, Any]:
    found = [w for w in await sandbox.webhooks() if w["event_type"] == event_type]
    assert len(found) == 1
    return found[0]


async def test_events_verify_and_tell_the_objects_state(
    client: stripe.StripeClient, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    intent = await open_order(client)
    await sandbox.pay(gateway="stripe", reference="pay_01")
    secret = sandbox.environment["EVERBILL_STRIPE_WEBHOOK_SECRETS"]

    received = [await receiver.next() for _ in range(3)]
    events = [
        stripe.Webhook.construct_event(w.body, w.headers["stripe-signature"], secret)
        for w in received
    ]

    assert {w.path for w in received} == {"/api/v1/payment/webhook/stripe"}
    assert [event.type for event in events] == [
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.succeeded",
    ]
    assert events[0].data.object["status"] == "requires_payment_method"
    assert events[2].data.object["status"] == "succeeded"
    assert events[2].data.object["id"] == intent.id
    assert events[0].request is not None
    assert intent.last_response is not None
    assert events[0].request.id == intent.last_response.request_id
    assert {event.api_version for event in events} == {stripe.api_version}
    listed = await client.v1.events.list_async({"types": ["payment_intent.succeeded"]})
    assert [event.id for event in listed.data] == [events[2].id]


async def test_every_turn_of_an_intent_has_its_event(
    client: stripe.StripeClient, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    intent = await open_order(client)
    await sandbox.decline(gateway="stripe", reference="pay_01")
    await sandbox.pay(gateway="stripe", reference="pay_01", card="4000002760003184")
    await client.v1.payment_intents.cancel_async(intent.id)

    assert types([await receiver.next() for _ in range(5)]) == [
        "payment_intent.created",
        "charge.failed",
        "payment_intent.payment_failed",
        "payment_intent.requires_action",
        "payment_intent.canceled",
    ]


async def test_the_answer_does_not_wait_for_the_webhook(
    client: stripe.StripeClient, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    receiver.may_answer.clear()
    await open_order(client)
    created = await receiver.next()

    paid = await sandbox.pay(gateway="stripe", reference="pay_01")
    receiver.may_answer.set()

    assert paid["status"] == "succeeded"
    assert types([created]) == ["payment_intent.created"]


async def test_a_refused_webhook_comes_again_with_a_fresh_signature(
    client: stripe.StripeClient, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    receiver.answers += [(503, b""), (302, b"")]
    await open_order(client)

    tries = [await receiver.next() for _ in range(3)]

    assert len({w.body for w in tries}) == 1
    assert len({w.headers["stripe-signature"] for w in tries}) == 3


async def test_what_was_not_taken_continues_after_a_kill(
    client: stripe.StripeClient, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    receiver.answers += [(500, b"")]
    await open_order(client)
    first = await receiver.next()
    await sandbox.restart()

    assert (await receiver.next()).body == first.body


async def test_a_webhook_can_be_sent_again(
    client: stripe.StripeClient, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    await open_order(client)
    first = await receiver.next()
    webhook = await state_of(sandbox, "payment_intent.created")

    again = await sandbox.control.post(f"/control/webhooks/{webhook['id']}/resend")
    unknown = await sandbox.control.post("/control/webhooks/whd_unknown/resend")

    assert (again.status_code, unknown.status_code) == (200, 404)
    assert (await receiver.next()).body == first.body


async def test_fault_never(
    client: stripe.StripeClient, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    await sandbox.fault("stripe", "webhook", "never")
    await open_order(client)
    await sandbox.pay(gateway="stripe", reference="pay_01")

    assert types([await receiver.next()]) == ["charge.succeeded"]
    assert (await state_of(sandbox, "payment_intent.created"))["state"] == "withheld"
    missed = await client.v1.events.list_async(
        {"delivery_success": False, "type": "payment_intent.created"}
    )
    assert len(missed.data) == 1


async def test_fault_duplicate(
    client: stripe.StripeClient, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    await sandbox.fault("stripe", "webhook", "duplicate", copies=2)
    await open_order(client)

    received = [await receiver.next() for _ in range(3)]

    assert len({webhook.body for webhook in received}) == 1


async def test_fault_before_answer(
    client: stripe.StripeClient, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    await sandbox.fault("stripe", "webhook", "before_answer")
    await open_order(client)
    assert types([receiver.received.get_nowait()]) == ["payment_intent.created"]

    await sandbox.fault("stripe", "webhook", "before_answer", times=2)
    await sandbox.pay(gateway="stripe", reference="pay_01")
    assert types([receiver.received.get_nowait(), receiver.received.get_nowait()]) == [
        "charge.succeeded",
        "payment_intent.succeeded",
    ]


async def test_fault_reorder(
    client: stripe.StripeClient, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    await sandbox.fault("stripe", "webhook", "reorder", seconds=3600)
    await open_order(client)
    await sandbox.pay(gateway="stripe", reference="pay_01")

    assert types([await receiver.next() for _ in range(3)])[0] == "charge.succeeded"


async def test_fault_bad_signature_forges_the_first_try(
    client: stripe.StripeClient, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    receiver.answers += [(400, b"")]
    secret = sandbox.environment["EVERBILL_STRIPE_WEBHOOK_SECRETS"]
    await sandbox.fault("stripe", "webhook", "bad_signature")
    await open_order(client)

    forged, genuine = await receiver.next(), await receiver.next()

    with pytest.raises(stripe.SignatureVerificationError):
        stripe.Webhook.construct_event(forged.body, forged.headers["stripe-signature"], secret)
    stripe.Webhook.construct_event(genuine.body, genuine.headers["stripe-signature"], secret)


async def test_a_fault_can_be_for_one_payment(
    client: stripe.StripeClient, sandbox: SandboxProcess, receiver: WebhookReceiver
) -> None:
    await sandbox.fault("stripe", "webhook", "never", reference="pay_02")
    await open_order(client)

    assert types([await receiver.next()]) == ["payment_intent.created"]


def test_an_endpoint_is_sent_what_it_is_subscribed_to(tmp_path: Path) -> None:
    """The account knows the other events all the same."""
    subscribed = frozenset({"payment_intent.succeeded"})
    options = Options(tmp_path, 0, "http://127.0.0.1:9", stripe_events=subscribed)
    sandbox = make_sandbox(options, "http://127.0.0.1:9", {})

    with sandbox.book.transaction():
        for event_type in ("charge.succeeded", "payment_intent.succeeded"):
            Events(sandbox).tell("pi_1", "pay_01", event_type, {"id": "pi_1"}, Origin())

    assert [w["event_type"] for w in sandbox.delivery.newest(9)] == ["payment_intent.succeeded"]
    assert len(sandbox.book.find(EVENT)) == 2
    sandbox.book.close()
