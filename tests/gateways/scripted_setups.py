"""A saved card at the scripted Stripe: what we ask for, and what it answers with."""

from dataclasses import replace
from typing import Any

from gateways.mandates import Mandate, MandateOrder, MandateTerms
from tests.gateways.parties import NOW
from tests.gateways.scripted_stripe import error

METHOD = "pm_01jd9q8x1zf6w8v7r3m2k4n5p6"
NUMBER = "pm01jd9q8x1zf6w8v7r3m2k4n5p6"
CUSTOMER = "cus_R1a2b3c4"
SETUP = "seti_1Q9x8Yabc"
CARD = "pm_1Q9x8Yabc"
SECRET = f"{SETUP}_secret_Zyxw"
ORDER = MandateOrder(
    METHOD,
    NUMBER,
    "user_1",
    MandateTerms("USD", 5000, 1),
    "Automatic payments",
    NOW,
    customer_reference=CUSTOMER,
)
ASKED = Mandate(METHOD, NUMBER, setup_reference=SETUP, customer_reference=CUSTOMER)
SAVED = replace(ASKED, reference=CARD)
CREATE = "POST /v1/setup_intents"
LIST = "GET /v1/setup_intents"
RETRIEVE = f"GET /v1/setup_intents/{SETUP}"
CANCEL = f"POST /v1/setup_intents/{SETUP}/cancel"
DETACH = f"POST /v1/payment_methods/{CARD}/detach"
DECLINED = {"type": "card_error", "code": "card_declined", "decline_code": "insufficient_funds"}
TOO_LATE = error(400, type="invalid_request_error", code="setup_intent_unexpected_state")


def setup(**changes: Any) -> dict[str, Any]:
    return {
        "id": SETUP,
        "object": "setup_intent",
        "client_secret": SECRET,
        "customer": CUSTOMER,
        "last_setup_error": None,
        "livemode": False,
        "metadata": {"method_id": METHOD, "number": NUMBER},
        "payment_method": None,
        "status": "requires_payment_method",
    } | changes


def succeeded(**changes: Any) -> dict[str, Any]:
    return setup(status="succeeded", payment_method=CARD) | changes


def card(**changes: Any) -> dict[str, Any]:
    face = {"brand": "visa", "last4": "4242", "exp_month": 4, "exp_year": 2030, "country": "US"}
    return {"id": CARD, "object": "payment_method", "customer": CUSTOMER, "card": face} | changes


OTHERS: list[dict[str, Any]] = [
    {"metadata": {}},
    {"metadata": {"method_id": METHOD, "number": "another"}},
    {"metadata": {"method_id": "another", "number": NUMBER}},
    {"customer": "cus_another"},
    {"customer": None},
    {"livemode": True},
]
