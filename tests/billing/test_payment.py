"""The payment's state machine."""

from billing.payment import TRANSITIONS, PaymentStatus, sources_of

ENDINGS = {"succeeded", "failed", "canceled", "expired"}


def test_every_status_has_its_row() -> None:
    assert set(TRANSITIONS) == set(PaymentStatus)


def test_a_terminal_status_is_never_left() -> None:
    assert {status.value for status in PaymentStatus if status.is_terminal} == ENDINGS
    for target in PaymentStatus:
        assert not any(source.is_terminal for source in sources_of(target))


def test_nothing_becomes_created_again() -> None:
    assert sources_of(PaymentStatus.CREATED) == frozenset()


def test_every_waiting_payment_can_end_in_every_way() -> None:
    for status in PaymentStatus:
        if not status.is_terminal:
            assert {target.value for target in TRANSITIONS[status]} >= ENDINGS


def test_a_status_never_follows_itself() -> None:
    assert all(status not in targets for status, targets in TRANSITIONS.items())
