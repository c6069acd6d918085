"""Subscriptions that wait for their next charge, written as ones whose trial is about to end."""

import asyncio
import math
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, TypeVar

from sqlalchemy import func, select

from benchmarks.contenders import TASK_TIMEOUT, RunFailed
from benchmarks.house import House, Size
from billing.calendar import Cycle
from billing.identifiers import SUBSCRIPTION, make_id
from billing.lifecycle import paid_up, sign_up
from billing.money import Money
from billing.payment import GatewayName, PaymentMethod
from billing.plans import Plan, Tier
from billing.subscription import Subscription, SubscriptionOrder
from billing.subscription_messages import (
    PaymentWay,
    SubscriptionStart,
    SubscriptionTerms,
    WriteSubscription,
)
from cli.shop import Shop
from runtime import attributes
from runtime.queues import CORE
from storage.method_tables import payment_methods
from storage.subscription_tables import subscription_charges
from storage.tables import events
from workflows.subscription import SubscriptionWorkflow

TRIAL_DAYS: Final = 30
LONGEST_SECONDS: Final = 600
_USER: Final = "renewing"
_AMOUNT_MINOR: Final = 865
_STARTS_AT_ONCE: Final = 40
_ROWS_AT_ONCE: Final = 250
_SHARE_BEFORE_DUE: Final = 0.05
"""Seconds for each that is started before it is due, and a few besides."""
_SPARE_SECONDS: Final = 20
_LOOK_SECONDS: Final = 0.5
_WATCHED: Final = 9
_EVENTS_UNTIL_TIMED: Final = 12
"""Started, a task, the activity that reads the row, a task, an upsert, the timer."""
_NOTHING: Final = Size(0, 0)
_RENEWED: Final = "subscription.renewed"
_T = TypeVar("_T")


@dataclass
class Counted:
    """How often the gateway took money twice for one subscription, or never; and the largest
    cycle's addition to a subscription's history, and history of its payment."""

    charged_twice: int = 0
    skipped: int = 0
    cycle: Size = _NOTHING
    payment: Size = _NOTHING


@dataclass
class Members:
    """Subscriptions of one user, charged to one saved card; `opened` counts them."""

    house: House
    method_id: str
    application: str
    opened: int = 0

    async def renew(self, count: int, due_at: datetime, found: Counted) -> float:
        """Have so many renewed; the seconds until the last of them was. Raises RunFailed."""
        starts = await self.open(count, due_at)
        ids = [start.order.id for start in starts]
        require_ahead(due_at)
        renewed_at = await self._all_renewed(ids)
        await self._count(ids, found)
        for subscription_id in ids[:_WATCHED]:
            await self._weigh(subscription_id, found)
        return (renewed_at - due_at).total_seconds()

    async def open(self, count: int, due_at: datetime) -> list[SubscriptionStart]:
        """So many, which wait for their next charge. Raises RunFailed."""
        starts = [self._start(due_at) for _ in range(count)]
        for first in range(0, count, _ROWS_AT_ONCE):
            await self._write(starts[first : first + _ROWS_AT_ONCE], due_at)
        await at_once(starts, self._run)
        await self._waiting(starts)
        self.opened += count
        return starts

    def _start(self, due_at: datetime) -> SubscriptionStart:
        signed_up_at = due_at - timedelta(days=TRIAL_DAYS)
        milliseconds = int(signed_up_at.timestamp() * 1000)
        return SubscriptionStart(
            order=SubscriptionOrder(
                id=make_id(SUBSCRIPTION, milliseconds, secrets.token_bytes(10)),
                user_id=_USER,
                plan=Plan.of(
                    Tier.BASIC,
                    1,
                    Cycle.MONTHLY,
                    Money(amount_minor=_AMOUNT_MINOR, currency="USD"),
                ),
                gateway=GatewayName.STRIPE,
                zone="UTC",
                trial_days=TRIAL_DAYS,
                payment_method_id=self.method_id,
            ),
            application=self.application,
            terms=SubscriptionTerms(
                way=PaymentWay(gateway=GatewayName.STRIPE, method=PaymentMethod.CARD)
            ),
            created_at=signed_up_at,
        )

    async def _write(self, starts: Sequence[SubscriptionStart], due_at: datetime) -> None:
        async with self.house.database.begin() as work:
            for start in starts:
                waiting = sign_up(start.order, start.created_at)
                await work.subscriptions.insert(start, waiting)
                running = paid_up(waiting, start.created_at)
                await work.subscriptions.write(_begun(running, due_at))

    async def _run(self, start: SubscriptionStart) -> None:
        await self.house.temporal.start_workflow(
            SubscriptionWorkflow.run,
            start.model_copy(update={"resumed": True}),
            id=start.order.id,
            task_queue=CORE,
            task_timeout=TASK_TIMEOUT,
            search_attributes=attributes.at_subscription_start(start.order),
            static_summary=attributes.subscription_summary(start.order),
        )

    async def _waiting(self, starts: Sequence[SubscriptionStart]) -> None:
        """Until each has set its timer, which the last started may do before others."""

        async def timed(start: SubscriptionStart) -> None:
            handle = self.house.temporal.get_workflow_handle(start.order.id)
            async for _ in looks():
                if (await handle.describe()).history_length >= _EVENTS_UNTIL_TIMED:
                    return
            raise RunFailed(f"{start.order.id} does not wait for its next charge")

        await at_once(starts[-_STARTS_AT_ONCE:], timed)

    async def _all_renewed(self, ids: Sequence[str]) -> datetime:
        """When the last of them was, by the record. Raises RunFailed."""
        query = select(func.count(), func.max(events.c.recorded_at)).where(
            events.c.type == _RENEWED, events.c.object_id.in_(ids)
        )
        async for _ in looks():
            async with self.house.database.begin() as work:
                count, last = (await work.connection.execute(query)).one()
            if count >= len(ids):
                renewed_at: datetime = last
                return renewed_at
        raise RunFailed(f"{count} of {len(ids)} were renewed within {LONGEST_SECONDS} s")

    async def _count(self, ids: Sequence[str], found: Counted) -> None:
        """What was charged for them at the gateway, which knows nothing of subscriptions."""
        async with self.house.database.begin() as work:
            rows = await work.connection.execute(
                select(subscription_charges.c.subscription_id, subscription_charges.c.payment_id)
                .where(subscription_charges.c.subscription_id.in_(ids))
                .order_by(subscription_charges.c.payment_id)
            )
            charges = rows.all()
        taken = Counter(
            charge["reference"]
            for charge in (await self.house.everbill.payer.get("/control/charges")).json()["data"]
        )
        paid = Counter[str]()
        for charge in charges:
            paid[charge.subscription_id] += taken[charge.payment_id]
        found.charged_twice += sum(max(paid[one] - 1, 0) for one in ids)
        found.skipped += sum(paid[one] == 0 for one in ids)

    async def _weigh(self, subscription_id: str, found: Counted) -> None:
        """Keep the largest."""
        history = await self.house.temporal.get_workflow_handle(subscription_id).fetch_history()
        fired = [event.HasField("timer_fired_event_attributes") for event in history.events]
        cycle = history.events[fired.index(True) :]
        found.cycle = max(found.cycle, Size.of(cycle), key=lambda size: size.events)
        async with self.house.database.begin() as work:
            payment_id = await work.connection.scalar(
                select(subscription_charges.c.payment_id).where(
                    subscription_charges.c.subscription_id == subscription_id
                )
            )
        payment = await self.house.temporal.get_workflow_handle(str(payment_id)).fetch_history()
        found.payment = max(found.payment, Size.of(payment.events), key=lambda size: size.events)


def _begun(running: Subscription, due_at: datetime) -> WriteSubscription:
    return WriteSubscription(
        version=1,
        subscription=running,
        event="subscription.trial_started",
        next_at=due_at,
        now=running.created_at,
    )


async def at_once(each: Sequence[_T], act: Callable[[_T], Awaitable[None]]) -> None:
    left = iter(each)

    async def work() -> None:
        for one in left:
            await act(one)

    await asyncio.gather(*(work() for _ in range(_STARTS_AT_ONCE)))


async def looks() -> AsyncIterator[None]:
    """Again and again, until it has taken too long."""
    for _ in range(math.ceil(LONGEST_SECONDS / _LOOK_SECONDS)):
        yield
        await asyncio.sleep(_LOOK_SECONDS)


def due_at(count: int) -> datetime:
    """Late enough for so many to be started before."""
    ahead = timedelta(seconds=_SPARE_SECONDS + count * _SHARE_BEFORE_DUE)
    return (datetime.now(UTC) + ahead).replace(microsecond=0)


def require_ahead(due_at: datetime) -> None:
    late = (datetime.now(UTC) - due_at).total_seconds()
    if late > 0:
        raise RunFailed(f"they were all started {late:.0f} s after they were due: too slow here")


async def saved_card(house: House) -> str:
    method = await Shop(house.everbill.api, house.everbill.payer).save_method(_USER, "stripe")
    return str(method["id"])


async def application_of(house: House) -> str:
    """The one that the driver's key is of."""
    async with house.database.begin() as work:
        found = await work.connection.scalar(select(payment_methods.c.application).limit(1))
    return str(found)
