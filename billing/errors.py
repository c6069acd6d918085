"""Facts that stop a command, named for the fact.

BillingError
├── InvalidRequest            what was sent cannot be accepted
│   ├── CardNumberRefused     a card number where free text is expected
│   ├── CurrencyNotSupported  this gateway does not take that currency
│   ├── GatewayNotConfigured  the gateway has no keys on this deployment
│   ├── MethodNotSupported    the gateway does not offer that method
│   ├── MethodNotUsable       the saved method cannot pay for this order
│   └── PlanNotOffered        no such tier on sale, or not in that currency
├── PaymentNotFound           no such payment
├── PaymentNotRefundable      unpaid, too old or refunded too often for its gateway
├── RefundExceedsPayment      more than is left of what was captured
├── RefundNotFound            no such refund
├── MethodNotFound            no such saved method
├── MethodNotActive           the saved method waits for consent, or has ended
├── MethodInUse               something that has not ended is charged to the saved method
├── CustomerNotFound          nobody by that name ever ordered a payment
├── InsufficientPoints        fewer points than are to be spent, or a debt of them
├── PointsAlreadySpent        a refund whose points are gone, and policy does not let it pass
├── PaymentNotCancelable      it ended in another way
├── PaymentNotUnderReview     a review decision for a payment nobody parked
├── PaymentNotSwitchable      its payer is not waited for (any more)
├── SwitchRefused             the gateway that was to be switched to will not take the order
├── SwitchUnanswered          it gave no answer; the old way to pay stays open
├── NothingToReturn           no money came in that is not kept, on its way back or returned
├── SubscriptionNotFound      no such subscription
├── SubscriptionEnded         canceled or expired: nothing about it changes any more
├── SubscriptionNotChangeable its state does not allow the change
├── SubscriptionNotResumable  neither paused nor about to end
├── IdempotencyKeyReused      the key was used for another request
└── GatewayError              what a call to a gateway can come to, apart from an answer
    ├── OutcomeUnknown        nobody knows whether it took effect; ask under the same number
    │   ├── GatewayThrottled  it certainly did not; come back later
    │   └── BalanceInsufficient  it did not, until the merchant's account is topped up
    ├── InstructionsLost      the order stands, but its instructions cannot be fetched again
    ├── AnswerUntrusted       the answer does not fit the order it speaks of
    └── GatewayMisconfigured  refused for a reason that only an operator can change

SettingError                  a setting is missing or malformed; stops the start
CatalogError                  the catalog file is malformed; stops the start
"""

from typing import ClassVar


class BillingError(Exception):
    """The root of what callers may expect; `code` is the word the API answers with."""

    code: ClassVar[str] = "billing_error"

    def __init__(self, detail: str, *, param: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.param = param


class InvalidRequest(BillingError):
    code = "invalid_request"


class CardNumberRefused(InvalidRequest):
    code = "card_number_refused"


class CurrencyNotSupported(InvalidRequest):
    code = "currency_not_supported"


class GatewayNotConfigured(InvalidRequest):
    code = "gateway_not_configured"


class MethodNotSupported(InvalidRequest):
    code = "method_not_supported"


class MethodNotUsable(InvalidRequest):
    code = "payment_method_not_usable"


class PlanNotOffered(InvalidRequest):
    code = "plan_not_offered"


class PaymentNotFound(BillingError):
    code = "payment_not_found"


class PaymentNotRefundable(BillingError):
    code = "payment_not_refundable"


class RefundExceedsPayment(BillingError):
    code = "refund_exceeds_payment"


class RefundNotFound(BillingError):
    code = "refund_not_found"


class MethodNotFound(BillingError):
    code = "payment_method_not_found"


class MethodNotActive(BillingError):
    code = "payment_method_not_active"


class MethodInUse(BillingError):
    code = "method_in_use"


class CustomerNotFound(BillingError):
    code = "customer_not_found"


class InsufficientPoints(BillingError):
    code = "insufficient_points"


class PointsAlreadySpent(BillingError):
    code = "points_already_spent"


class PaymentNotCancelable(BillingError):
    code = "payment_not_cancelable"


class PaymentNotUnderReview(BillingError):
    code = "payment_not_under_review"


class PaymentNotSwitchable(BillingError):
    code = "payment_not_switchable"


class SwitchRefused(BillingError):
    code = "switch_refused"


class SwitchUnanswered(BillingError):
    code = "switch_unanswered"


class NothingToReturn(BillingError):
    code = "nothing_to_return"


class SubscriptionNotFound(BillingError):
    code = "subscription_not_found"


class SubscriptionEnded(BillingError):
    code = "subscription_ended"


class SubscriptionNotChangeable(BillingError):
    code = "subscription_not_changeable"


class SubscriptionNotResumable(BillingError):
    code = "subscription_not_resumable"


class IdempotencyKeyReused(BillingError):
    code = "idempotency_key_reused"


class GatewayError(BillingError):
    code = "gateway_error"


class OutcomeUnknown(GatewayError):
    """A time-out, a 5xx, a broken or unverifiable answer."""

    code = "outcome_unknown"


class GatewayThrottled(OutcomeUnknown):
    """Refused for its rate before anything took effect."""

    code = "gateway_throttled"

    def __init__(self, detail: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_seconds = retry_after_seconds


class BalanceInsufficient(OutcomeUnknown):
    """The merchant's account at the gateway does not cover the refund; nothing took effect."""

    code = "balance_insufficient"


class InstructionsLost(GatewayError):
    code = "instructions_lost"


class AnswerUntrusted(GatewayError):
    """A verified answer that names another amount, currency, merchant or order.

    `reason` is the machine's word for what differs, such as `amount_mismatch`.
    """

    code = "answer_untrusted"

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class GatewayMisconfigured(GatewayError):
    """A wrong key, a missing permission, a closed merchant account."""

    code = "gateway_misconfigured"


class SettingError(Exception):
    """Names the setting, what is wrong with it, and what would do."""


class CatalogError(Exception):
    """Names the file, the line or entry at fault, and what is expected there."""
