"""Stripe's statuses, error codes and decline codes, and what each means to us: the one table.

Sources: Stripe's pages on error codes, decline codes and smart retries, and the error object of
API version 2026-10-28.endive.
"""

from collections.abc import Mapping
from typing import Final

from billing.payment import DeclineClass, Failure
from gateways.gateway import ObservedState, RefundState
from gateways.mandates import MandateState
from gateways.meaning import Meaning
from gateways.stripe.objects import ErrorView
from runtime.logs import redact

STATUSES: Final[Mapping[str, ObservedState]] = {
    "requires_payment_method": ObservedState.PENDING,
    "requires_confirmation": ObservedState.PENDING,
    "requires_action": ObservedState.PENDING,
    "processing": ObservedState.PROCESSING,
    # Ours capture by themselves; one held back has taken nothing, and closing it lets go of it.
    "requires_capture": ObservedState.PROCESSING,
    "succeeded": ObservedState.PAID,
    "canceled": ObservedState.DEAD,
}

SETUP_STATUSES: Final[Mapping[str, MandateState]] = {
    "requires_payment_method": MandateState.PENDING,
    "requires_confirmation": MandateState.PENDING,
    "requires_action": MandateState.PENDING,
    "processing": MandateState.PENDING,
    "succeeded": MandateState.ACTIVE,
    "canceled": MandateState.FAILED,
}
"""Of a SetupIntent. What succeeded is active for as long as its card is attached."""

CODES: Final[Mapping[str, Meaning]] = {
    **dict.fromkeys(("idempotency_key_in_use", "lock_timeout"), Meaning.UNKNOWN),
    **dict.fromkeys(("rate_limit", "payment_intent_rate_limit_exceeded"), Meaning.THROTTLED),
    **dict.fromkeys(
        (
            "payment_intent_unexpected_state",
            "setup_intent_unexpected_state",
            "intent_invalid_state",
        ),
        Meaning.ORDERED,
    ),
    "resource_missing": Meaning.ABSENT,
    **dict.fromkeys(
        (
            "account_closed",
            "account_invalid",
            "api_key_expired",
            "capability_not_active",
            "country_unsupported",
            "livemode_mismatch",
            "no_account",
            "parameter_missing",
            "parameter_unknown",
            "payment_method_types_no_longer_supported",
            "payment_method_unactivated",
            "platform_account_required",
            "platform_api_key_expired",
            "secret_key_required",
            "testmode_charges_only",
            "tls_version_unsupported",
        ),
        Meaning.MISCONFIGURED,
    ),
}
"""Codes of a 400 or 404; any other is an order that Stripe will not take."""

_HTTP_STATUSES: Final[Mapping[int, Meaning]] = {
    400: Meaning.REFUSED,
    401: Meaning.MISCONFIGURED,
    402: Meaning.DECLINED,
    403: Meaning.MISCONFIGURED,
    404: Meaning.MISCONFIGURED,
    429: Meaning.THROTTLED,
}

ADVICE: Final[Mapping[str, DeclineClass]] = {
    "try_again_later": DeclineClass.SOFT,
    "confirm_card_data": DeclineClass.NEEDS_CUSTOMER,
    "do_not_try_again": DeclineClass.HARD,
}
"""The issuer's own advice, which beats whatever the decline code suggests."""

DECLINES: Final[Mapping[str, DeclineClass]] = {
    **dict.fromkeys(
        (
            "incorrect_number",
            "lost_card",
            "pickup_card",
            "stolen_card",
            "revocation_of_authorization",
            "revocation_of_all_authorizations",
            "highest_risk_level",
            "transaction_not_allowed",
            "invalid_account",
            "card_not_supported",
            "currency_not_supported",
            "do_not_try_again",
            "stop_payment_order",
            "restricted_card",
            "security_violation",
            "fraudulent",
            "merchant_blacklist",
            "pin_try_exceeded",
            "not_permitted",
            "service_not_allowed",
            "invalid_amount",
            "testmode_decline",
            "duplicate_transaction",
        ),
        DeclineClass.HARD,
    ),
    **dict.fromkeys(
        (
            "expired_card",
            "incorrect_cvc",
            "invalid_cvc",
            "invalid_expiry_month",
            "invalid_expiry_year",
            "invalid_number",
            "incorrect_zip",
            "incorrect_address",
            "incorrect_pin",
            "invalid_pin",
            "new_account_information_available",
            # Hard to a machine that retries by itself, but the payer need only confirm.
            "authentication_required",
            "authentication_not_handled",
            "offline_pin_required",
            "online_or_offline_pin_required",
            "payment_intent_authentication_failure",
            "payment_method_customer_decline",
        ),
        DeclineClass.NEEDS_CUSTOMER,
    ),
    **dict.fromkeys(
        (
            "insufficient_funds",
            "card_velocity_exceeded",
            "withdrawal_count_limit_exceeded",
            "processing_error",
            "issuer_not_available",
            "try_again_later",
            "reenter_transaction",
            "approve_with_id",
            "no_action_taken",
            "do_not_honor",
            "generic_decline",
            "call_issuer",
            "card_declined",
            "payment_intent_payment_attempt_failed",
            "payment_method_provider_decline",
            "payment_method_provider_timeout",
        ),
        DeclineClass.SOFT,
    ),
}
"""Decline codes, and the error codes that stand alone; one nobody knows is soft."""

_AUTHENTICATION: Final = frozenset({"authentication_required", "authentication_not_handled"})
_OF_THE_CARD: Final = frozenset({"payment_method", "customer"})
_ENDED_CODES: Final = frozenset({"resource_missing", "payment_method_unexpected_state"})

REFUND_STATUSES: Final[Mapping[str, RefundState]] = {
    "pending": RefundState.PROCESSING,
    "requires_action": RefundState.PROCESSING,
    "succeeded": RefundState.SUCCEEDED,
    "failed": RefundState.FAILED,
    "canceled": RefundState.FAILED,
}

BALANCE_CODES: Final = frozenset({"balance_insufficient", "insufficient_funds"})
"""Error codes of a refund that the account's own balance does not cover."""

REFUND_FAILURES: Final[Mapping[str, str]] = {
    "charge_for_pending_refund_disputed": "The payer has disputed the payment meanwhile.",
    "declined": "The payer's bank has declined the refund.",
    "expired_or_canceled_card": "The payer's card is expired or canceled.",
    "insufficient_funds": "The account at Stripe did not cover the refund.",
    "lost_or_stolen_card": "The payer's card is lost or stolen.",
    "merchant_request": "The refund was canceled in Stripe's dashboard.",
}
"""Reasons a refund fails for after it was accepted."""

CONFIDENTIAL: Final = frozenset(
    {
        "fraudulent",
        "highest_risk_level",
        "lost_card",
        "merchant_blacklist",
        "pickup_card",
        "restricted_card",
        "security_violation",
        "stolen_card",
    }
)
"""Reasons Stripe asks merchants not to tell the payer: they get the generic message."""

REFUSED_REFUND: Final = "refund_refused"
GENERIC_MESSAGE: Final = "The card was declined."
_LONGEST_MESSAGE: Final = 500


def state_of(status: str) -> ObservedState:
    return STATUSES.get(status, ObservedState.UNRECOGNISED)


def meaning_of(http_status: int, error: ErrorView) -> Meaning:
    """What an error answer says of its call. A status nobody knows, any 5xx included, says
    nothing: the call may have taken effect."""
    if http_status == 400 and error.type == "idempotency_error":
        return Meaning.ORDERED
    by_status = _HTTP_STATUSES.get(http_status, Meaning.UNKNOWN)
    if http_status in (400, 404):
        return CODES.get(error.code or "", by_status)
    return by_status


def class_of(error: ErrorView) -> DeclineClass:
    """How far from hopeless a declined try is."""
    advised = ADVICE.get(error.advice_code or "")
    return advised or DECLINES.get(error.decline_code or error.code or "", DeclineClass.SOFT)


def decline_of(error: ErrorView) -> Failure:
    """A payer's failed try as the application sees it."""
    word = error.decline_code or error.code
    is_confidential = {error.decline_code, error.code} & CONFIDENTIAL
    return Failure(
        code="payment_declined",
        decline_code=word,
        advice=class_of(error),
        message=GENERIC_MESSAGE if is_confidential else message_of(error, GENERIC_MESSAGE),
    )


def refusal_of(error: ErrorView) -> Failure:
    """An order that Stripe will not take, as the application sees it."""
    return Failure(
        code="order_refused",
        decline_code=error.code,
        advice=DeclineClass.HARD,
        message=message_of(error, "Stripe will not take this order."),
    )


def setup_state_of(status: str) -> MandateState:
    return SETUP_STATUSES.get(status, MandateState.UNRECOGNISED)


def needs_payer(error: ErrorView) -> bool:
    """Whether a declined charge is one that its payer need only confirm."""
    return bool({error.code, error.decline_code} & _AUTHENTICATION)


def charge_refusal_of(error: ErrorView) -> Failure:
    """A charge that Stripe will not even try: `mandate_ended` where the saved card is gone, so
    that the payer has to give another."""
    if error.code not in _ENDED_CODES and error.param not in _OF_THE_CARD:
        return refusal_of(error)
    return Failure(
        code="mandate_ended",
        decline_code=error.code,
        advice=DeclineClass.NEEDS_CUSTOMER,
        message="The payer's saved card cannot be charged any more.",
    )


def setup_refusal_of(error: ErrorView) -> Failure:
    """Consent that Stripe will not ask for."""
    return Failure(
        code="mandate_refused",
        decline_code=error.code,
        advice=DeclineClass.HARD,
        message=message_of(error, "Stripe will not save a card for this order."),
    )


def not_whole(currency: str) -> Failure:
    """An order of an amount that Stripe has no way to say."""
    return Failure(
        code="order_refused",
        advice=DeclineClass.HARD,
        message=f"Stripe takes whole {currency} only.",
    )


def refund_state_of(status: str | None) -> RefundState:
    return REFUND_STATUSES.get(status or "", RefundState.UNRECOGNISED)


def refund_failure_of(status: str, reason: str | None) -> Failure:
    """A refund that came to nothing after Stripe had accepted it."""
    return Failure(
        code="refund_failed",
        decline_code=reason,
        message=REFUND_FAILURES.get(reason or "", f"Stripe says that the refund is {status}."),
    )


def refund_refusal_of(error: ErrorView) -> Failure:
    """A refund that Stripe will not make."""
    return Failure(
        code=REFUSED_REFUND,
        decline_code=error.code,
        message=message_of(error, "Stripe will not make this refund."),
    )


def message_of(error: ErrorView, otherwise: str) -> str:
    """Stripe's own words, without whatever looks like a secret or a card number."""
    return str(redact(error.message))[:_LONGEST_MESSAGE] if error.message else otherwise
