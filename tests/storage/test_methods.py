"""Saved methods in the record: written once, moved by the states before, one default a user."""

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from billing.errors import InvalidRequest, MethodNotActive, MethodNotFound
from billing.identifiers import mandate_number
from billing.method import MethodStatus
from billing.payment import Failure, GatewayName, NoAction, PaymentMethod, PaymentStatus, Redirect
from storage.database import Database
from storage.method_rows import MethodRecord
from storage.method_tables import payment_methods
from storage.tables import events
from tests.storage.method_samples import CARD, activate, make_method, save
from tests.storage.samples import NOW, make_order

LATER = NOW + timedelta(minutes=5)
REFUSED = Failure(code="consent_refused", message="no")


def a_user() -> str:
    return f"user-{secrets.token_hex(6)}"


async def read(database: Database, method_id: str) -> MethodRecord:
    async with database.single() as work:
        return await work.methods.found(method_id)


async def events_of(database: Database, method_id: str) -> list[str]:
    async with database.single() as work:
        found = await work.connection.execute(
            select(events.c.type).where(events.c.object_id == method_id).order_by(events.c.sequence)
        )
        return list(found.scalars())


async def end(
    database: Database,
    method_id: str,
    to: MethodStatus = MethodStatus.ENDED,
    failure: Failure | None = None,
) -> MethodStatus:
    async with database.begin() as work:
        await work.methods.hold(method_id)
        return await work.methods.end(method_id, to, now=LATER, failure=failure)


async def test_a_row_is_written_once_with_its_event_and_its_customer(database: Database) -> None:
    order = make_method(user_id=a_user(), most_minor=9900, every_months=1)
    for now in (NOW, LATER):
        async with database.begin() as work:
            record = await work.methods.insert(order, now)
    assert record.order == order
    assert (record.method.status, record.method.most) == (MethodStatus.PENDING, 9900)
    assert (record.method.next_action, record.method.updated_at) == (NoAction(), NOW)
    assert record.mandate.number == mandate_number(order.method_id)
    assert record.mandate.rhythm_months == 1
    assert await events_of(database, order.method_id) == ["method.created"]
    async with database.single() as work:
        assert await work.customers.since("shop", order.user_id) == NOW
        assert await work.methods.find(order.method_id, application="other") is None


async def test_there_is_no_method_without_a_row(database: Database) -> None:
    with pytest.raises(MethodNotFound):
        await read(database, make_method().method_id)


async def test_instructions_are_sealed_and_gone_with_the_wait(database: Database) -> None:
    order = make_method(user_id=a_user())
    action = Redirect(url="https://gateway.example/sign")
    async with database.begin() as work:
        await work.methods.insert(order, NOW)
        await work.methods.record_opened(
            order.method_id, setup_reference="seti_1", next_action=action, now=LATER
        )
    assert (await read(database, order.method_id)).method.next_action == action
    async with database.single() as work:
        row = (
            (
                await work.connection.execute(
                    select(payment_methods).where(payment_methods.c.id == order.method_id)
                )
            )
            .mappings()
            .one()
        )
    for column in ("next_action", "order_document"):
        assert b"example" not in row[column]
    assert await activate(database, order) is MethodStatus.ACTIVE
    async with database.begin() as work:
        await work.methods.record_opened(
            order.method_id, setup_reference="seti_2", next_action=action, now=LATER
        )
    record = await read(database, order.method_id)
    assert record.method.next_action == NoAction()
    assert record.mandate.setup_reference == "seti_1"


async def test_the_first_active_one_is_the_default_until_another_takes_its_place(
    database: Database,
) -> None:
    user = a_user()
    first, second = [await save(database, user_id=user) for _ in range(2)]
    other = await save(database, user_id=a_user())
    assert (await read(database, first.method_id)).method.is_default
    assert not (await read(database, second.method_id)).method.is_default
    assert (await read(database, other.method_id)).method.is_default
    for _ in range(2):
        async with database.begin() as work:
            await work.methods.make_default(second.method_id, LATER)
    async with database.single() as work:
        assert await work.methods.default_of("shop", user) == second.method_id
    changed = "method.default_changed"
    assert await events_of(database, first.method_id) == [
        "method.created",
        "method.activated",
        changed,
    ]
    assert (await events_of(database, second.method_id))[2:] == [changed]
    await end(database, second.method_id)
    async with database.single() as work:
        assert await work.methods.default_of("shop", user) is None


async def test_many_at_once_leave_one_default(database: Database) -> None:
    user = a_user()
    orders = [make_method(user_id=user) for _ in range(6)]
    async with database.begin() as work:
        for order in orders:
            await work.methods.insert(order, NOW)
    await asyncio.gather(*(activate(database, order) for order in orders))

    async def choose(method_id: str) -> None:
        async with database.begin() as work:
            await work.methods.make_default(method_id, LATER)

    await asyncio.gather(*(choose(order.method_id) for order in orders))
    records = [await read(database, order.method_id) for order in orders]
    assert sum(record.method.is_default for record in records) == 1


async def test_postgresql_itself_takes_no_second_default(database: Database) -> None:
    user = a_user()
    orders = [await save(database, user_id=user) for _ in range(2)]
    with pytest.raises(IntegrityError, match="payment_methods_default_key"):
        async with database.begin() as work:
            await work.connection.execute(
                update(payment_methods)
                .where(payment_methods.c.id == orders[1].method_id)
                .values(is_default=True)
            )


@pytest.mark.parametrize("status", [MethodStatus.PENDING, MethodStatus.FAILED, MethodStatus.ENDED])
async def test_only_an_active_one_can_be_the_default(
    database: Database, status: MethodStatus
) -> None:
    order = make_method(user_id=a_user())
    async with database.begin() as work:
        await work.methods.insert(order, NOW)
    if status is not MethodStatus.PENDING:
        failure = REFUSED if status is MethodStatus.FAILED else None
        await end(database, order.method_id, status, failure)
    with pytest.raises(MethodNotActive):
        async with database.begin() as work:
            await work.methods.make_default(order.method_id, LATER)


async def test_a_final_status_is_never_left(database: Database) -> None:
    order = make_method(user_id=a_user())
    async with database.begin() as work:
        await work.methods.insert(order, NOW)
    assert await end(database, order.method_id, MethodStatus.FAILED, REFUSED) is MethodStatus.FAILED
    assert await activate(database, order) is MethodStatus.FAILED
    assert await end(database, order.method_id) is MethodStatus.FAILED
    record = await read(database, order.method_id)
    assert (record.method.failure, record.method.ended_at) == (REFUSED, LATER)
    assert await events_of(database, order.method_id) == ["method.created", "method.failed"]
    active = await save(database, user_id=a_user())
    assert await end(database, active.method_id, MethodStatus.FAILED, REFUSED) is (
        MethodStatus.ACTIVE
    )


async def test_a_new_card_in_the_old_ones_place_is_told_once(database: Database) -> None:
    order = await save(database, user_id=a_user())
    renewed = CARD.model_copy(update={"last4": "1881", "expires_year": 2031})
    values: dict[str, Any] = {
        "reference": None,
        "most_minor": None,
        "ends_at": None,
        "now": LATER,
    }
    for card in (None, CARD, renewed, renewed):
        async with database.begin() as work:
            await work.methods.renew(order.method_id, card=card, **values)
    record = await read(database, order.method_id)
    assert (record.method.card, record.method.updated_at) == (renewed, LATER)
    assert record.mandate.reference == f"gw_{order.method_id}"
    assert (await events_of(database, order.method_id))[2:] == ["method.updated"]


async def test_what_a_gateway_calls_a_customer_is_kept_as_it_was_first_told(
    database: Database,
) -> None:
    order = make_method(user_id=a_user())
    user = ("shop", order.user_id)
    kept = []
    for reference in ("cus_1", "cus_2"):
        async with database.begin() as work:
            await work.methods.insert(order, NOW)
            kept.append(
                await work.gateway_customers.keep(*user, GatewayName.STRIPE, reference, NOW)
            )
            await work.methods.note_customer(order.method_id, reference)
    assert kept == ["cus_1", "cus_1"]
    assert (await read(database, order.method_id)).mandate.customer_reference == "cus_1"
    async with database.single() as work:
        assert await work.gateway_customers.of(*user) == {GatewayName.STRIPE: "cus_1"}
        assert await work.gateway_customers.of("other", order.user_id) == {}


async def test_it_is_found_by_either_number_of_the_gateway(database: Database) -> None:
    order = await save(database, user_id=a_user())
    setup = f"seti_{order.method_id}"
    async with database.begin() as work:
        pending = make_method(user_id=order.user_id)
        await work.methods.insert(pending, NOW)
        await work.methods.record_opened(
            pending.method_id, setup_reference=setup, next_action=NoAction(), now=NOW
        )
        behind = work.methods.behind
        assert await behind(GatewayName.STRIPE, f"gw_{order.method_id}") == order.method_id
        assert await behind(GatewayName.STRIPE, setup) == pending.method_id
        assert await behind(GatewayName.ALIPAY, setup) is None
        assert await behind(GatewayName.STRIPE, "pm_unknown") is None


async def test_pages_are_of_one_user_newest_first(database: Database) -> None:
    user = a_user()
    orders = [
        await save(database, user_id=user, created_at=NOW + timedelta(seconds=number // 2))
        for number in range(5)
    ]
    await save(database, user_id=a_user())
    await save(database, user_id=user, application="other")
    await end(database, orders[0].method_id)
    seen: list[str] = []
    cursor = None
    async with database.begin() as work:
        while True:
            page = await work.methods.page(application="shop", user_id=user, limit=2, cursor=cursor)
            seen += [one.id for one in page.data]
            cursor = page.next_cursor
            if not page.has_more:
                break
        ended = await work.methods.page(
            application="shop", user_id=user, limit=2, status=MethodStatus.ENDED
        )
    newest_first = sorted(orders, key=lambda one: (one.created_at, one.method_id), reverse=True)
    assert seen == [order.method_id for order in newest_first]
    assert [one.id for one in ended.data] == [orders[0].method_id]


@pytest.mark.parametrize("kind", ["malformed", "unknown", "another user's"])
async def test_a_cursor_of_no_list_of_theirs_is_refused(database: Database, kind: str) -> None:
    stranger = await save(database, user_id=a_user())
    cursor = {
        "malformed": "pm_1",
        "unknown": make_method().method_id,
        "another user's": stranger.method_id,
    }[kind]
    with pytest.raises(InvalidRequest) as refused:
        async with database.begin() as work:
            await work.methods.page(application="shop", user_id=a_user(), limit=2, cursor=cursor)
    assert refused.value.param == "cursor"


async def test_unfinished_are_those_that_wait_or_are_still_to_be_revoked(
    database: Database,
) -> None:
    pending = make_method(user_id=a_user())
    async with database.begin() as work:
        await work.methods.insert(pending, NOW)
    active, ended = [await save(database, user_id=a_user()) for _ in range(2)]
    await end(database, ended.method_id)

    async def unfinished() -> set[str]:
        async with database.single() as work:
            every = await work.methods.unfinished(None, 10_000)
            assert every == sorted(every)
            rest = await work.methods.unfinished(every[0], 10_000)
        assert rest == every[1:]
        return set(every) & {pending.method_id, active.method_id, ended.method_id}

    assert await unfinished() == {pending.method_id, ended.method_id}
    async with database.begin() as work:
        await work.methods.set_released(ended.method_id, LATER)
        await work.methods.set_released(pending.method_id, LATER)
    assert await unfinished() == {pending.method_id}
    async with database.begin() as work:
        await work.methods.set_released(ended.method_id, None)
    assert await unfinished() == {pending.method_id, ended.method_id}


async def test_unfinished_are_active_ones_past_their_end_until_the_gateway_was_asked(
    database: Database,
) -> None:
    now = datetime.now(UTC)
    ends = {"over": now - timedelta(days=9), "to come": now + timedelta(days=9)}
    orders = {}
    for name, ends_at in ends.items():
        order = orders[name] = make_method(user_id=a_user())
        async with database.begin() as work:
            await work.methods.insert(order, NOW)
            await work.methods.note_asked(order.method_id, "active", ends_at - timedelta(days=2))
        await activate(database, order, ends_at=ends_at)
    over, to_come = (orders[name].method_id for name in ends)

    async def found_when_asked(ago: timedelta) -> bool:
        async with database.begin() as work:
            await work.methods.note_asked(over, "active", now - ago)
            unfinished = await work.methods.unfinished(None, 10_000)
        assert to_come not in unfinished
        return over in unfinished

    assert await found_when_asked(timedelta(days=10))
    assert not await found_when_asked(timedelta(hours=23))
    assert await found_when_asked(timedelta(hours=25))


@pytest.mark.parametrize("status", [None, PaymentStatus.SUCCEEDED, PaymentStatus.FAILED])
async def test_it_was_charged_by_whatever_has_not_failed(
    database: Database, status: PaymentStatus | None
) -> None:
    order, other = [await save(database, user_id=a_user()) for _ in range(2)]
    payment = make_order(
        user_id=order.user_id,
        method=PaymentMethod.SAVED,
        gateway=GatewayName.STRIPE,
        payment_method_id=order.method_id,
    )
    async with database.begin() as work:
        assert not await work.methods.was_charged(order.method_id)
        await work.payments.insert(payment, NOW)
        if status is not None:
            paid_at = NOW if status is PaymentStatus.SUCCEEDED else None
            await work.payments.move(payment.payment_id, status, paid_at=paid_at, now=NOW)
        assert await work.methods.was_charged(order.method_id) is (
            status is not PaymentStatus.FAILED
        )
        assert not await work.methods.was_charged(other.method_id)


async def test_charges_under_way_are_payments_that_have_not_ended(database: Database) -> None:
    order = await save(database, user_id=a_user())
    saved = {
        "user_id": order.user_id,
        "method": PaymentMethod.SAVED,
        "gateway": GatewayName.STRIPE,
        "payment_method_id": order.method_id,
    }
    payments = [make_order(**saved) for _ in range(2)]
    async with database.begin() as work:
        for payment in (*payments, make_order()):
            await work.payments.insert(payment, NOW)
        await work.payments.move(payments[0].payment_id, PaymentStatus.CANCELED, now=NOW)
        assert await work.methods.charges_under_way(order.method_id) == [payments[1].payment_id]
        record = await work.payments.find(payments[1].payment_id)
    assert record is not None
    assert record.mandate is not None
    assert record.mandate.method_id == order.method_id
    assert record.mandate.status is MethodStatus.ACTIVE
