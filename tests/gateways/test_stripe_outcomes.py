from typing import get_args

import pytest
import stripe
from hypothesis import given
from hypothesis import strategies as st

from billing.money import CURRENCIES
from billing.payment import DeclineClass
from gateways.gateway import ObservedState
from gateways.mandates import MandateState
from gateways.meaning import Meaning
from gateways.stripe.amounts import from_stripe, to_stripe
from gateways.stripe.objects import ErrorView
from gateways.stripe.outcomes import (
    DECLINES,
    GENERIC_MESSAGE,
    SETUP_STATUSES,
    STATUSES,
    class_of,
    decline_of,
    meaning_of,
    message_of,
    needs_payer,
    refusal_of,
    setup_state_of,
    state_of,
)

HARD = """incorrect_number lost_card pickup_card stolen_card revocation_of_authorization
    revocation_of_all_authorizations highest_risk_level transaction_not_allowed invalid_account
    card_not_supported currency_not_supported do_not_try_again stop_payment_order restricted_card
    security_violation fraudulent merchant_blacklist pin_try_exceeded not_permitted
    service_not_allowed invalid_amount testmode_decline duplicate_transaction""".split()
NEEDS_CUSTOMER = """authentication_required expired_card incorrect_cvc invalid_cvc
    invalid_expiry_month invalid_expiry_year incorrect_zip incorrect_address invalid_number
    incorrect_pin new_account_information_available payment_intent_authentication_failure""".split()
SOFT = """insufficient_funds card_velocity_exceeded withdrawal_count_limit_exceeded
    processing_error issuer_not_available try_again_later reenter_transaction approve_with_id
    no_action_taken do_not_honor generic_decline call_issuer""".split()


def statuses_of_the_sdk(kind: type[stripe.StripeObject] = stripe.PaymentIntent) -> set[str]:
    """The statuses the SDK's type of that object names."""
    named = kind.__annotations__["status"]
    return {word for part in get_args(named) for word in get_args(part)}


def test_every_status_of_a_payment_intent_has_a_state() -> None:
    assert statuses_of_the_sdk() == set(STATUSES)
    assert {word for word in STATUSES if state_of(word) is ObservedState.PAID} == {"succeeded"}
    assert {word for word in STATUSES if state_of(word) is ObservedState.DEAD} == {"canceled"}
    assert {word for word in STATUSES if state_of(word) is ObservedState.PROCESSING} == {
        "processing",
        "requires_capture",
    }


@pytest.mark.parametrize("word", ["authentication_required", "authentication_not_handled"])
def test_a_bank_that_wants_its_payer_is_known_by_either_code(word: str) -> None:
    assert needs_payer(ErrorView(code=word))
    assert needs_payer(ErrorView(code="card_declined", decline_code=word))
    assert not needs_payer(ErrorView(code="card_declined", decline_code="do_not_honor"))


@pytest.mark.parametrize("kind", ["payment_intent", "setup_intent"])
def test_what_is_over_cannot_be_canceled(kind: str) -> None:
    error = ErrorView(type="invalid_request_error", code=f"{kind}_unexpected_state")
    assert meaning_of(400, error) is Meaning.ORDERED


def test_every_status_of_a_setup_intent_has_a_state() -> None:
    assert statuses_of_the_sdk(stripe.SetupIntent) == set(SETUP_STATUSES)
    final = {"succeeded": MandateState.ACTIVE, "canceled": MandateState.FAILED}
    waiting = dict.fromkeys(set(SETUP_STATUSES) - set(final), MandateState.PENDING)
    assert final | waiting == SETUP_STATUSES


@given(st.text().filter(lambda word: word not in {*STATUSES, *SETUP_STATUSES}))
def test_a_status_nobody_knows_is_unrecognised(word: str) -> None:
    assert state_of(word) is ObservedState.UNRECOGNISED
    assert setup_state_of(word) is MandateState.UNRECOGNISED


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        *((code, DeclineClass.HARD) for code in HARD),
        *((code, DeclineClass.NEEDS_CUSTOMER) for code in NEEDS_CUSTOMER),
        *((code, DeclineClass.SOFT) for code in SOFT),
    ],
)
def test_a_decline_has_its_class_as_a_decline_code_and_alone(
    code: str, expected: DeclineClass
) -> None:
    assert class_of(ErrorView(code="card_declined", decline_code=code)) is expected
    assert class_of(ErrorView(code=code)) is expected
    assert decline_of(ErrorView(code="card_declined", decline_code=code)).decline_code == code


@pytest.mark.parametrize(
    ("advice", "expected"),
    [
        ("try_again_later", DeclineClass.SOFT),
        ("confirm_card_data", DeclineClass.NEEDS_CUSTOMER),
        ("do_not_try_again", DeclineClass.HARD),
    ],
)
@pytest.mark.parametrize("code", ["insufficient_funds", "stolen_card", "expired_card", "unheard"])
def test_the_issuer_s_advice_beats_the_code(advice: str, expected: DeclineClass, code: str) -> None:
    assert class_of(ErrorView(decline_code=code, advice_code=advice)) is expected


@given(st.none() | st.text().filter(lambda code: code not in DECLINES))
def test_what_nobody_knows_is_soft(code: str | None) -> None:
    assert class_of(ErrorView(decline_code=code)) is DeclineClass.SOFT
    assert class_of(ErrorView(code=code, advice_code="no_such_advice")) is DeclineClass.SOFT


@pytest.mark.parametrize("code", ["fraudulent", "lost_card", "stolen_card", "merchant_blacklist"])
def test_a_suspicion_is_not_told_to_the_payer(code: str) -> None:
    failure = decline_of(ErrorView(decline_code=code, message="This card was reported stolen."))
    assert failure.message == GENERIC_MESSAGE


def test_a_failure_carries_stripe_s_words_without_secrets() -> None:
    error = ErrorView(
        code="amount_too_small",
        message="Amount must be at least 50 cents, not 4242424242424242 and pi_123_secret_456.",
    )
    failure = refusal_of(error)
    assert (failure.code, failure.decline_code) == ("order_refused", "amount_too_small")
    assert failure.message.startswith("Amount must be at least 50 cents")
    assert "secret_456" not in failure.message
    assert "4242424242424242" not in failure.message
    assert message_of(ErrorView(), "otherwise") == "otherwise"
    assert len(message_of(ErrorView(message="x" * 10_000), "")) == 500


@pytest.mark.parametrize(
    ("status", "type", "code", "meaning"),
    [
        (400, "invalid_request_error", "amount_too_small", Meaning.REFUSED),
        (400, "invalid_request_error", "amount_too_large", Meaning.REFUSED),
        (400, "invalid_request_error", None, Meaning.REFUSED),
        (400, "invalid_request_error", "a_code_of_next_year", Meaning.REFUSED),
        (400, "invalid_request_error", "payment_intent_unexpected_state", Meaning.ORDERED),
        (400, "invalid_request_error", "rate_limit", Meaning.THROTTLED),
        (400, "invalid_request_error", "lock_timeout", Meaning.UNKNOWN),
        (400, "invalid_request_error", "parameter_unknown", Meaning.MISCONFIGURED),
        (400, "invalid_request_error", "testmode_charges_only", Meaning.MISCONFIGURED),
        (400, "idempotency_error", None, Meaning.ORDERED),
        (401, "invalid_request_error", None, Meaning.MISCONFIGURED),
        (401, "invalid_request_error", "api_key_expired", Meaning.MISCONFIGURED),
        (402, "card_error", "card_declined", Meaning.DECLINED),
        (403, "invalid_request_error", "secret_key_required", Meaning.MISCONFIGURED),
        (404, "invalid_request_error", "resource_missing", Meaning.ABSENT),
        (404, "invalid_request_error", None, Meaning.MISCONFIGURED),
        (409, "idempotency_error", "idempotency_key_in_use", Meaning.UNKNOWN),
        (409, "invalid_request_error", "idempotency_key_in_use", Meaning.UNKNOWN),
        (409, "invalid_request_error", "lock_timeout", Meaning.UNKNOWN),
        (424, "api_error", None, Meaning.UNKNOWN),
        (429, "invalid_request_error", "rate_limit", Meaning.THROTTLED),
        (429, "invalid_request_error", "lock_timeout", Meaning.THROTTLED),
        (500, "api_error", None, Meaning.UNKNOWN),
        (503, "api_error", "amount_too_small", Meaning.UNKNOWN),
        (302, None, None, Meaning.UNKNOWN),
        (200, None, None, Meaning.UNKNOWN),
        (0, None, None, Meaning.UNKNOWN),
    ],
)
def test_an_error_answer_has_one_meaning(
    status: int, type: str | None, code: str | None, meaning: Meaning
) -> None:
    assert meaning_of(status, ErrorView(type=type, code=code)) is meaning


@pytest.mark.parametrize(
    ("amount_minor", "currency", "amount"),
    [
        (2900, "USD", 2900),
        (500, "JPY", 500),
        (5120, "KWD", 5120),
        (5, "ISK", 500),
        (5, "UGX", 500),
        (500, "MGA", 5),
        (501, "MGA", None),
    ],
)
def test_amounts_are_told_in_stripe_s_units(
    amount_minor: int, currency: str, amount: int | None
) -> None:
    assert to_stripe(amount_minor, currency) == amount


@pytest.mark.parametrize(("amount", "currency"), [(501, "ISK"), (99, "UGX")])
def test_a_fraction_of_a_minor_unit_is_no_amount(amount: int, currency: str) -> None:
    assert from_stripe(amount, currency) is None


@given(st.integers(1, 99_999_999), st.sampled_from(sorted(CURRENCIES)))
def test_an_amount_comes_back_as_it_went(amount_minor: int, currency: str) -> None:
    amount = to_stripe(amount_minor, currency)
    assert amount is None or from_stripe(amount, currency) == amount_minor
    assert amount is not None or currency == "MGA"
