"""Stripe's objects as its API version 2026-10-28.endive shows them."""

import hashlib
import secrets
import string
from datetime import datetime
from typing import Final

from sandbox.book import Document
from sandbox.stripe.cards import Card, Problem

API_VERSION: Final = "2026-10-28.endive"

_ALPHABET: Final = string.ascii_letters + string.digits
_EVIDENCE_SECONDS: Final = 9 * 24 * 3600
"""How long the merchant may answer a dispute."""

_HIDDEN_FROM_BROWSERS: Final = (
    "amount_received",
    "application",
    "customer",
    "latest_attempt",
    "latest_charge",
    "mandate",
    "metadata",
    "on_behalf_of",
    "single_use_mandate",
    "statement_descriptor",
    "statement_descriptor_suffix",
    "transfer_group",
)


def make_id(prefix: str, length: int = 24) -> str:
    """A random identifier or key. A little uneven, which 100 bits and more can afford."""
    letters = (_ALPHABET[byte % len(_ALPHABET)] for byte in secrets.token_bytes(length))
    return f"{prefix}_{''.join(letters)}"


def unix(moment: datetime) -> int:
    return int(moment.timestamp())


def new_intent(amount: int, currency: str, created: int) -> Document:
    """A PaymentIntent that waits for a payment method."""
    intent_id = make_id("pi")
    return {
        "id": intent_id,
        "object": "payment_intent",
        "allowed_payment_method_types": None,
        "amount": amount,
        "amount_capturable": 0,
        "amount_details": {"tip": {}},
        "amount_received": 0,
        "application": None,
        "application_fee_amount": None,
        "automatic_payment_methods": {"allow_redirects": "always", "enabled": True},
        "canceled_at": None,
        "cancellation_reason": None,
        "capture_method": "automatic_async",
        "client_secret": make_id(f"{intent_id}_secret", 25),
        "confirmation_method": "automatic",
        "created": created,
        "currency": currency,
        "customer": None,
        "description": None,
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": {},
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": ["card"],
        "processing": None,
        "receipt_email": None,
        "review": None,
        "setup_future_usage": None,
        "shipping": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": "requires_payment_method",
        "transfer_data": None,
        "transfer_group": None,
    }


def browser_view(intent: Document) -> Document:
    """The part of a PaymentIntent or SetupIntent that a publishable key may see."""
    return {name: value for name, value in intent.items() if name not in _HIDDEN_FROM_BROWSERS}


def new_payment_method(card: Card, created: int) -> Document:
    return {
        "id": make_id("pm"),
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": _no_billing_details(),
        "card": shown_card(card),
        "created": created,
        "customer": None,
        "livemode": False,
        "metadata": {},
        "type": "card",
    }


def shown_card(card: Card) -> Document:
    """The card of a PaymentMethod."""
    return _card_details(card) | {"networks": {"available": [card.brand], "preferred": None}}


def new_customer(created: int) -> Document:
    return {
        "id": make_id("cus", 14),
        "object": "customer",
        "address": None,
        "balance": 0,
        "created": created,
        "currency": None,
        "default_source": None,
        "delinquent": False,
        "description": None,
        "discount": None,
        "email": None,
        "invoice_prefix": secrets.token_hex(4).upper(),
        "invoice_settings": {
            "custom_fields": None,
            "default_payment_method": None,
            "footer": None,
            "rendering_options": None,
        },
        "livemode": False,
        "metadata": {},
        "name": None,
        "next_invoice_sequence": 1,
        "phone": None,
        "preferred_locales": [],
        "shipping": None,
        "tax_exempt": "none",
        "test_clock": None,
    }


def new_setup(created: int) -> Document:
    """A SetupIntent that waits for a payment method."""
    setup_id = make_id("seti")
    return {
        "id": setup_id,
        "object": "setup_intent",
        "allowed_payment_method_types": None,
        "application": None,
        "automatic_payment_methods": {"allow_redirects": "always", "enabled": True},
        "cancellation_reason": None,
        "client_secret": make_id(f"{setup_id}_secret", 25),
        "created": created,
        "customer": None,
        "description": None,
        "flow_directions": None,
        "last_setup_error": None,
        "latest_attempt": None,
        "livemode": False,
        "mandate": None,
        "metadata": {},
        "next_action": None,
        "on_behalf_of": None,
        "payment_method": None,
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": ["card"],
        "single_use_mandate": None,
        "status": "requires_payment_method",
        "usage": "off_session",
    }


def new_charge(
    intent: Document, method_id: str, card: Card, problem: Problem | None, created: int
) -> Document:
    """The try to take an intent's money: taken, or failed for `problem`."""
    return {
        "id": make_id("ch"),
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": 0 if problem else intent["amount"],
        "amount_refunded": 0,
        "application": None,
        "balance_transaction": None,
        "billing_details": _no_billing_details(),
        "calculated_statement_descriptor": "EVERBILL SANDBOX",
        "captured": problem is None,
        "created": created,
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "failure_balance_transaction": None,
        "failure_code": problem.code if problem else None,
        "failure_message": problem.message if problem else None,
        "fraud_details": {},
        "livemode": False,
        "metadata": intent["metadata"],
        "on_behalf_of": None,
        "outcome": _outcome(problem),
        "paid": problem is None,
        "payment_intent": intent["id"],
        "payment_method": method_id,
        "payment_method_details": {"card": _card_details(card), "type": "card"},
        "receipt_email": intent["receipt_email"],
        "receipt_url": None,
        "refunded": False,
        "review": None,
        "shipping": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": intent["statement_descriptor_suffix"],
        "status": "failed" if problem else "succeeded",
        "transfer_data": None,
        "transfer_group": None,
    }


def new_refund(
    charge: Document, amount: int, reason: str | None, metadata: Document, created: int
) -> Document:
    """A refund of a charge that has succeeded."""
    return {
        "id": make_id("re"),
        "object": "refund",
        "amount": amount,
        "balance_transaction": make_id("txn"),
        "charge": charge["id"],
        "created": created,
        "currency": charge["currency"],
        "customer": None,
        "destination_details": {"card": {"type": "refund"}, "type": "card"},
        "metadata": metadata,
        "payment_intent": charge["payment_intent"],
        "payment_method": charge["payment_method"],
        "reason": reason,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": "succeeded",
        "transfer_reversal": None,
    }


def new_dispute(charge: Document, amount: int, reason: str, card: Card, created: int) -> Document:
    """A dispute of a charge that has succeeded, which has withdrawn nothing yet."""
    return {
        "id": make_id("dp"),
        "object": "dispute",
        "amount": amount,
        "balance_transactions": [],
        "charge": charge["id"],
        "created": created,
        "currency": charge["currency"],
        "enhanced_eligibility_types": [],
        "evidence": {},
        "evidence_details": {
            "due_by": created + _EVIDENCE_SECONDS,
            "enhanced_eligibility": {},
            "has_evidence": False,
            "past_due": False,
            "submission_count": 0,
        },
        "is_charge_refundable": True,
        "livemode": False,
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "payment_method_details": {
            "card": {"brand": card.brand, "case_type": "chargeback", "network_reason_code": None},
            "type": "card",
        },
        "reason": reason,
        "status": "needs_response",
    }


def new_dispute_transaction(dispute: Document, amount: int, fee: int, created: int) -> Document:
    """Money that a dispute takes from the account's balance (`amount` below zero) or returns."""
    return {
        "id": make_id("txn"),
        "object": "balance_transaction",
        "amount": amount,
        "available_on": created,
        "created": created,
        "currency": dispute["currency"],
        "description": f"Chargeback {'withdrawal' if amount < 0 else 'reversal'}",
        "exchange_rate": None,
        "fee": fee,
        "fee_details": [
            {
                "amount": fee,
                "application": None,
                "currency": dispute["currency"],
                "description": "Dispute fee",
                "type": "stripe_fee",
            }
        ]
        if fee
        else [],
        "net": amount - fee,
        "reporting_category": "dispute" if amount < 0 else "dispute_reversal",
        "source": dispute["id"],
        "status": "available",
        "type": "adjustment",
    }


def new_event(
    event_type: str,
    subject: Document,
    created: int,
    request_id: str | None,
    idempotency_key: str | None,
) -> Document:
    return {
        "id": make_id("evt"),
        "object": "event",
        "api_version": API_VERSION,
        "created": created,
        "data": {"object": subject},
        "livemode": False,
        "pending_webhooks": 1,
        "request": {"id": request_id, "idempotency_key": idempotency_key},
        "type": event_type,
    }


def _outcome(problem: Problem | None) -> Document:
    if problem is None:
        return {
            "network_status": "approved_by_network",
            "reason": None,
            "risk_level": "normal",
            "seller_message": "Payment complete.",
            "type": "authorized",
        }
    return {
        "advice_code": problem.advice_code,
        "network_status": "declined_by_network",
        "reason": problem.decline_code,
        "risk_level": "normal",
        "seller_message": "The bank did not return any further details with this decline.",
        "type": "issuer_declined",
    }


def _card_details(card: Card) -> Document:
    return {
        "brand": card.brand,
        "checks": {
            "address_line1_check": None,
            "address_postal_code_check": None,
            "cvc_check": "fail" if card.decline == "incorrect_cvc" else "pass",
        },
        "country": "US",
        "exp_month": card.exp_month,
        "exp_year": card.exp_year,
        "fingerprint": hashlib.sha256(card.number.encode()).hexdigest()[:16],
        "funding": "credit",
        "last4": card.last4,
        "three_d_secure": None,
        "wallet": None,
    }


def _no_billing_details() -> Document:
    return {"address": None, "email": None, "name": None, "phone": None}
