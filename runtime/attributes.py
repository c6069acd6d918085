"""Search attributes: readable in the Temporal UI, so no secret and no personal datum in them."""

from typing import Final

from temporalio.common import SearchAttributeKey

CUSTOMER_ID: Final = SearchAttributeKey.for_keyword("CustomerId")
BILLING_STATUS: Final = SearchAttributeKey.for_keyword("BillingStatus")
GATEWAY: Final = SearchAttributeKey.for_keyword("Gateway")
GATEWAY_REFERENCE: Final = SearchAttributeKey.for_keyword("GatewayReference")
CURRENCY: Final = SearchAttributeKey.for_keyword("Currency")
AMOUNT_MINOR: Final = SearchAttributeKey.for_int("AmountMinor")
NEEDS_ATTENTION: Final = SearchAttributeKey.for_bool("NeedsAttention")

ALL: Final = (
    CUSTOMER_ID,
    BILLING_STATUS,
    GATEWAY,
    GATEWAY_REFERENCE,
    CURRENCY,
    AMOUNT_MINOR,
    NEEDS_ATTENTION,
)
