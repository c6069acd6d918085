"""Search attributes: readable in the Temporal UI, so no secret and no personal datum in them."""

from typing import Final

from temporalio.common import SearchAttributeKey, SearchAttributePair, TypedSearchAttributes

from billing.messages import PaymentOrder, RefundRequest, SpendRequest
from billing.method import MethodStatus
from billing.money import Money
from billing.payment import GatewayName, PaymentStatus
from billing.refund import RefundStatus
from billing.subscription import SubscriptionOrder, SubscriptionStatus

CUSTOMER_ID: Final = SearchAttributeKey.for_keyword("CustomerId")
BILLING_STATUS: Final = SearchAttributeKey.for_keyword("BillingStatus")
GATEWAY: Final = SearchAttributeKey.for_keyword("Gateway")
GATEWAY_REFERENCE: Final = SearchAttributeKey.for_keyword("GatewayReference")
CURRENCY: Final = SearchAttributeKey.for_keyword("Currency")
AMOUNT_MINOR: Final = SearchAttributeKey.for_int("AmountMinor")
NEEDS_ATTENTION: Final = SearchAttributeKey.for_bool("NeedsAttention")
NEXT_CHARGE_AT: Final = SearchAttributeKey.for_datetime("NextChargeAt")

ALL: Final = (
    CUSTOMER_ID,
    BILLING_STATUS,
    GATEWAY,
    GATEWAY_REFERENCE,
    CURRENCY,
    AMOUNT_MINOR,
    NEEDS_ATTENTION,
    NEXT_CHARGE_AT,
)


def at_start(
    order: PaymentOrder, status: PaymentStatus = PaymentStatus.CREATED
) -> TypedSearchAttributes:
    """What operators can search a payment by from its first moment."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(CUSTOMER_ID, order.user_id),
            SearchAttributePair(BILLING_STATUS, status.value),
            SearchAttributePair(GATEWAY, order.gateway.value),
            SearchAttributePair(CURRENCY, order.currency),
            SearchAttributePair(AMOUNT_MINOR, order.amount_minor),
            SearchAttributePair(NEEDS_ATTENTION, False),
        ]
    )


def at_refund_start(
    request: RefundRequest, status: RefundStatus = RefundStatus.PENDING
) -> TypedSearchAttributes:
    """What operators can search a refund by; its amount follows once it is reserved."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(CUSTOMER_ID, request.user_id),
            SearchAttributePair(BILLING_STATUS, status.value),
            SearchAttributePair(GATEWAY, request.gateway.value),
            SearchAttributePair(CURRENCY, request.currency),
            SearchAttributePair(NEEDS_ATTENTION, False),
        ]
    )


def at_spend_start(request: SpendRequest) -> TypedSearchAttributes:
    """What operators can search a spend of points by: it is over before a status could tell."""
    return TypedSearchAttributes([SearchAttributePair(CUSTOMER_ID, request.user_id)])


def at_method_start(
    user_id: str, gateway: GatewayName, status: MethodStatus = MethodStatus.PENDING
) -> TypedSearchAttributes:
    """What operators can search a saved method by."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(CUSTOMER_ID, user_id),
            SearchAttributePair(BILLING_STATUS, status.value),
            SearchAttributePair(GATEWAY, gateway.value),
            SearchAttributePair(NEEDS_ATTENTION, False),
        ]
    )


def at_subscription_start(
    order: SubscriptionOrder, status: SubscriptionStatus = SubscriptionStatus.INCOMPLETE
) -> TypedSearchAttributes:
    """What operators can search a subscription by."""
    return TypedSearchAttributes(
        [
            SearchAttributePair(CUSTOMER_ID, order.user_id),
            SearchAttributePair(BILLING_STATUS, status.value),
            SearchAttributePair(GATEWAY, order.gateway.value),
            SearchAttributePair(CURRENCY, order.plan.currency),
            SearchAttributePair(AMOUNT_MINOR, order.plan.amount),
            SearchAttributePair(NEEDS_ATTENTION, False),
        ]
    )


def subscription_summary(order: SubscriptionOrder) -> str:
    """Such as `PREMIUM monthly, 29.00 CNY by alipay`."""
    plan = order.plan
    money = Money(amount_minor=plan.amount, currency=plan.currency)
    return f"{plan.tier.value} {plan.cycle.value}, {money} by {order.gateway.value}"


def method_summary(gateway: GatewayName) -> str:
    """Such as `saved method at stripe`."""
    return f"saved method at {gateway.value}"


def refund_summary(request: RefundRequest) -> str:
    """Such as `refund of 9.00 CNY by alipay`."""
    if request.amount_minor is None:
        return f"refund of the rest by {request.gateway.value}"
    money = Money(amount_minor=request.amount_minor, currency=request.currency)
    return f"refund of {money} by {request.gateway.value}"


def summary(order: PaymentOrder) -> str:
    """The line a person reads in the list of workflows, such as `29.00 CNY by alipay qr`."""
    money = Money(amount_minor=order.amount_minor, currency=order.currency)
    return f"{money} by {order.gateway.value} {order.method.value}"
