"""The checker's teeth for promise 11: each violation is planted, and it alone found."""

from dataclasses import dataclass
from datetime import timedelta

import pytest

from audit.evidence import Charge as Taken
from billing.charges import order_of
from billing.identifiers import SUBSCRIPTION, charge_payment_id, make_id
from billing.messages import PaymentOrder
from billing.moves import first, start_of
from billing.payment import AttemptState, PaymentStatus
from billing.subscription_messages import (
    Charge,
    ChargeStatus,
    SubscriptionStanding,
    WriteSubscription,
)
from storage.database import Database
from storage.ledger import Posting
from tests.audit.conftest import Broken, Plant
from tests.audit.record import LONG_AGO, CleanRecord, FakeTruth
from tests.workflows.scripted_subscription import subscription_start


@dataclass(frozen=True)
class Subscribed:
    subscription: str
    payment: str


async def _pay(database: Database, truth: FakeTruth, order: PaymentOrder) -> None:
    async with database.begin() as work:
        await work.payments.insert(order, LONG_AGO)
        await work.receipts.record(
            payment_id=order.payment_id,
            attempt=1,
            gateway=order.gateway,
            receipt_reference=f"{order.payment_id}/1",
            amount_minor=order.amount_minor,
            currency=order.currency,
            paid_at=LONG_AGO,
            kept=True,
            now=LONG_AGO,
        )
        await work.attempts.set(order.payment_id, 1, state=AttemptState.PAID, now=LONG_AGO)
        await work.ledger.post(
            f"receipt/{order.payment_id}",
            LONG_AGO,
            [
                Posting(f"gateway_clearing:{order.gateway}", order.amount_minor, order.currency),
                Posting("revenue", -order.amount_minor, order.currency),
            ],
        )
        await work.payments.move(
            order.payment_id, PaymentStatus.SUCCEEDED, paid_at=LONG_AGO, now=LONG_AGO
        )
    truth.taken.append(
        Taken(order.gateway, order.payment_id, 1, order.amount_minor, 0, order.currency, LONG_AGO)
    )


@pytest.fixture
async def subscribed(database: Database, clean: CleanRecord) -> Subscribed:
    """One whose first payment was made."""
    start = subscription_start(make_id(SUBSCRIPTION, 1, b"\x01" * 10), LONG_AGO, method_id=None)
    standing = SubscriptionStanding(subscription=start_of(start), version=1)
    move = first(standing, start.terms, LONG_AGO)
    assert move.charge is not None
    charge = Charge(
        number=1,
        payment_id=charge_payment_id(start.order.id, 1, 1),
        kind=move.charge.kind,
        way=move.charge.way,
        decision=move.charge.decision,
        opened_at=LONG_AGO,
        expires_at=LONG_AGO + timedelta(hours=2),
    )
    opened = WriteSubscription(
        version=1,
        subscription=move.subscription,
        event=move.event,
        opened=charge,
        now=LONG_AGO,
    )
    async with database.begin() as work:
        await work.subscriptions.insert(start, standing.subscription)
        await work.subscriptions.write(opened)
    await _pay(database, clean.truth, order_of(charge, move.subscription, start.application))
    async with database.begin() as work:
        await work.subscriptions.write(
            WriteSubscription(
                version=2,
                subscription=charge.decision.after,
                event="subscription.activated",
                closed=ChargeStatus.PAID,
                now=LONG_AGO,
            )
        )
    return Subscribed(start.order.id, charge.payment_id)


async def test_a_subscription_as_it_should_be(broken: Broken, subscribed: Subscribed) -> None:
    assert await broken() == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE subscription_charges SET amount_minor = amount_minor - 1",
        "UPDATE subscription_charges SET status = 'failed'",
        "UPDATE subscriptions SET user_id = 'somebody_else'",
    ],
)
async def test_a_charge_that_is_another_than_its_payment(
    broken: Broken, subscribed: Subscribed, plant: Plant, change: str
) -> None:
    plant(change)
    assert await broken() == [(11, subscribed.payment)]


async def test_a_payment_that_nothing_charged(
    broken: Broken, subscribed: Subscribed, plant: Plant
) -> None:
    plant("DELETE FROM subscription_charges")
    assert await broken() == [(11, subscribed.payment)]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE subscriptions SET status = 'past_due'",
        "UPDATE subscriptions SET version = version + 1",
        "UPDATE subscriptions SET has_open_charge = true",
    ],
)
async def test_a_row_that_its_events_do_not_tell(
    broken: Broken, subscribed: Subscribed, plant: Plant, change: str
) -> None:
    plant(change)
    assert await broken() == [(11, subscribed.subscription)]
