"""Whatever is asked, told and commanded in whatever order: the record keeps its promises."""

import itertools

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from activities.payment import PaymentActivities
from billing.messages import (
    ClosePayment,
    EndPayment,
    OpenPayment,
    ReviewAction,
    ReviewDecision,
    SettlePayment,
    Standing,
)
from billing.payment import AttemptState, GatewayName, PaymentStatus
from gateways.gateway import ObservedState
from storage.database import Database
from tests.activities.scripted import AMOUNT, NOW, ScriptedGateway, order

DECISION = ReviewDecision(action=ReviewAction.RETRY, reason="checked", reviewed_by="key_1")

# What the gateway may come to say; money once taken is never untaken.
tellings = st.sampled_from([state for state in ObservedState if state is not ObservedState.PAID])
steps = st.lists(
    st.one_of(
        st.tuples(st.just("tell"), tellings),
        st.tuples(st.just("pay"), st.just(None)),
        st.tuples(st.just("settle"), st.booleans()),
        st.tuples(st.just("review"), st.just(None)),
        st.tuples(st.just("close"), st.sampled_from(["canceled", "expired", None])),
        st.tuples(st.just("end"), st.sampled_from(["canceled", "expired", "failed"])),
        st.tuples(st.just("open"), st.just(None)),
    ),
    max_size=12,
)
_numbers = itertools.count(1000)


@given(steps=steps)
@settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
async def test_the_record_keeps_its_promises(
    database: Database, steps: list[tuple[str, object]]
) -> None:
    gateway = ScriptedGateway()
    activities = PaymentActivities(database, {GatewayName.ALIPAY: gateway})
    ordered = order(next(_numbers))
    payment_id = ordered.payment_id
    standing = await activities.open(OpenPayment(order=ordered, now=NOW))
    seen = [standing.payment.status]

    async def settle(*, thorough: bool, review: ReviewDecision | None = None) -> Standing:
        return await activities.settle(
            SettlePayment(
                payment_id=payment_id,
                gateway=GatewayName.ALIPAY,
                now=NOW,
                thorough=thorough,
                review=review,
            )
        )

    for step, what in steps:
        match step, what:
            case "tell", ObservedState() if gateway.states[1] is not ObservedState.PAID:
                gateway.states[1] = what
                continue
            case "pay", _:
                gateway.states[1] = ObservedState.PAID
                continue
            case "settle", bool():
                standing = await settle(thorough=what)
            case "review", _:
                standing = await settle(thorough=True, review=DECISION)
            case "close", str() | None:
                status = PaymentStatus(what) if what is not None else None
                standing = await activities.close(
                    ClosePayment(
                        payment_id=payment_id, gateway=GatewayName.ALIPAY, status=status, now=NOW
                    )
                )
            case "end", str():
                standing = await activities.end(
                    EndPayment(payment_id=payment_id, status=PaymentStatus(what), now=NOW)
                )
            case "open", _:
                standing = await activities.open(OpenPayment(order=ordered, now=NOW))
        seen.append(standing.payment.status)
    final = await settle(thorough=True)
    await _check(database, payment_id, [*seen, final.payment.status], gateway)


async def _check(
    database: Database, payment_id: str, seen: list[PaymentStatus], gateway: ScriptedGateway
) -> None:
    async with database.begin() as work:
        record = await work.payments.find(payment_id)
        receipts = await work.receipts.of(payment_id)
    assert record is not None
    first_end = next((n for n, status in enumerate(seen) if status.is_terminal), None)
    if first_end is not None:
        assert set(seen[first_end:]) == {seen[first_end]}, "a final status was left"
    is_paid = gateway.states[1] is ObservedState.PAID
    is_parked = record.payment.status is PaymentStatus.NEEDS_REVIEW
    if is_paid and not is_parked:
        [receipt] = receipts
        assert receipt.amount_minor == AMOUNT
        assert receipt.kept == (record.payment.status is PaymentStatus.SUCCEEDED)
        assert record.attempts[0].state is AttemptState.PAID
    if not is_paid:
        assert receipts == []
        assert record.payment.status is not PaymentStatus.SUCCEEDED
    assert (record.payment.review is not None) == is_parked
