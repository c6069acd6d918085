"""Stripe's webhooks: `Stripe-Signature: t=<unix>,v1=<hex>[,v1=…]`, HMAC-SHA256 over `t.body`.

The SDK's own check is not used: it decodes the body first, and takes a time-stamp of next year.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from pydantic import BaseModel, Field

from billing.identifiers import (
    attempt_number,
    is_payment_id,
    is_refund_id,
    parse_attempt_number,
    parse_mandate_number,
)
from billing.payment import GatewayName
from gateways.gateway import Notification, Reply, WebhookRefused
from gateways.strict_json import read_object
from gateways.stripe.objects import MANDATE_NUMBER, REFUND_NUMBER, REFUND_PAYMENT

TOLERANCE_SECONDS: Final = 300
_JSON: Final = "application/json"
_MOST_SIGNATURES: Final = 10
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")
_SIGNATURE: Final = re.compile(r"[0-9a-f]{64}")
_INTENT: Final = re.compile(r"pi_[A-Za-z0-9_]{1,250}")
_CARD: Final = re.compile(r"[a-z]{1,10}_[A-Za-z0-9_]{1,100}")
_REFUND: Final = re.compile(r"[a-z]{1,10}_[A-Za-z0-9_]{1,50}")
_OF_AN_ORDER: Final = ("payment_intent", "charge", "dispute")
_ATTEMPT: Final = re.compile(r"[1-9][0-9]?")

# Each of these accompanies an event of the PaymentIntent or of the refund that says the same;
# following both would ask Stripe twice for one fact.
_ECHOES: Final = frozenset(
    {
        "payment_intent.created",
        "charge.succeeded",
        "charge.failed",
        "charge.pending",
        "charge.updated",
        "charge.refund.updated",
    }
)


_SETUP_EVENTS: Final = frozenset(
    {
        "setup_intent.succeeded",
        "setup_intent.setup_failed",
        "setup_intent.canceled",
        "setup_intent.requires_action",
    }
)
_CARD_EVENTS: Final = frozenset(
    {
        "payment_method.attached",
        "payment_method.detached",
        "payment_method.updated",
        "payment_method.automatically_updated",
    }
)


SUBSCRIBED: Final = (
    "payment_intent.processing",
    "payment_intent.requires_action",
    "payment_intent.succeeded",
    "payment_intent.payment_failed",
    "payment_intent.canceled",
    "refund.created",
    "refund.updated",
    "refund.failed",
    "charge.dispute.created",
    "charge.dispute.updated",
    "charge.dispute.closed",
    "charge.dispute.funds_withdrawn",
    "charge.dispute.funds_reinstated",
    *sorted(_SETUP_EVENTS),
    *sorted(_CARD_EVENTS),
)
"""What the endpoint at Stripe is to be subscribed to (docs/OPERATIONS.md): whatever else comes is
kept, and costs a request that tells nothing."""


class _Data(BaseModel):
    object: dict[str, Any]


class _Event(BaseModel):
    """As much of an event as is read; its signature has been checked by then."""

    id: str = Field(pattern=r"^evt_[A-Za-z0-9_]{1,200}$")
    object: str = Field(pattern=r"^event$")
    type: str = Field(pattern=r"^[a-z0-9_.]{1,100}$")
    data: _Data


class StripeWebhookVerifier:
    """`secrets` are the endpoint's, whole (`whsec_…`): two while one is rolled."""

    name: GatewayName = GatewayName.STRIPE
    accepted: Reply = Reply(200, b'{"received":true}', _JSON)

    def __init__(self, secrets: Sequence[str]) -> None:
        self._secrets = tuple(secret.encode() for secret in secrets)

    def verify(self, headers: Mapping[str, str], body: bytes, now: datetime) -> Notification:
        """See `WebhookVerifier.verify`."""
        timestamp, signatures = _read_header(headers.get("stripe-signature", ""))
        signed = timestamp.encode() + b"." + body
        expected = [hmac.new(key, signed, hashlib.sha256).hexdigest() for key in self._secrets]
        matches = [hmac.compare_digest(ours, given) for ours in expected for given in signatures]
        if not any(matches):
            raise WebhookRefused("no signature in Stripe-Signature is of this endpoint's secret")
        if abs(now.timestamp() - int(timestamp)) > TOLERANCE_SECONDS:
            raise WebhookRefused(
                f"the time-stamp is more than {TOLERANCE_SECONDS} s away from this clock"
            )
        event = _read_event(body)
        subject = event.data.object
        if event.type in _ECHOES:
            return Notification(event.id, event.type, None)
        if subject.get("object") == "refund":
            return _of_refund(event)
        if event.type in _SETUP_EVENTS or event.type in _CARD_EVENTS:
            return _of_mandate(event)
        disputed = _disputed_reference(subject)
        return Notification(event.id, event.type, _number_of(subject), disputed_reference=disputed)

    def refused(self, status_code: int, reason: str) -> Reply:
        """See `WebhookVerifier.refused`. Stripe repeats after anything but a 2xx."""
        return Reply(status_code, json.dumps({"error": reason}).encode(), _JSON)


def _read_header(header: str) -> tuple[str, list[str]]:
    """The time-stamp as it was signed, and the v1 signatures; other schemes mean nothing."""
    pairs = [part.strip().partition("=") for part in header.split(",")]
    timestamps = [value for name, _, value in pairs if name == "t"]
    signatures = [value for name, _, value in pairs if name == "v1"][:_MOST_SIGNATURES]
    if len(timestamps) != 1 or not _TIMESTAMP.fullmatch(timestamps[0]):
        raise WebhookRefused("Stripe-Signature is missing or has no time-stamp")
    return timestamps[0], [value for value in signatures if _SIGNATURE.fullmatch(value)]


def _read_event(body: bytes) -> _Event:
    try:
        return _Event.model_validate(read_object(body.decode()), strict=True)
    except ValueError:
        raise WebhookRefused("the body is no Stripe event") from None


def _number_of(subject: Mapping[str, Any]) -> str | None:
    """Our number, from the metadata that a charge copies from its PaymentIntent; a dispute has
    it only if somebody wrote it there."""
    metadata = subject.get("metadata")
    if subject.get("object") not in _OF_AN_ORDER or not isinstance(metadata, dict):
        return None
    payment_id, attempt = metadata.get("payment_id"), metadata.get("attempt")
    if not isinstance(payment_id, str) or not is_payment_id(payment_id):
        return None
    if not isinstance(attempt, str) or not _ATTEMPT.fullmatch(attempt):
        return None
    return attempt_number(payment_id, int(attempt))


def _disputed_reference(subject: Mapping[str, Any]) -> str | None:
    """The PaymentIntent that a dispute is about."""
    if subject.get("object") != "dispute":
        return None
    intent_id = subject.get("payment_intent")
    return intent_id if isinstance(intent_id, str) and _INTENT.fullmatch(intent_id) else None


def _of_mandate(event: _Event) -> Notification:
    """What befalls a SetupIntent, which names its mandate, or a PaymentMethod, which does not."""
    subject = event.data.object
    number, card = None, subject.get("id")
    if event.type in _SETUP_EVENTS:
        number, card = _mandate_number(subject), subject.get("payment_method")
    is_named = number is not None or event.type in _CARD_EVENTS
    is_read = isinstance(card, str) and _CARD.fullmatch(card) is not None
    return Notification(
        event.id,
        event.type,
        None,
        mandate_number=number,
        # The account may set up cards for others too.
        mandate_reference=card if is_named and is_read else None,
    )


def _mandate_number(subject: Mapping[str, Any]) -> str | None:
    """Our number, from the metadata that we gave the SetupIntent."""
    metadata = subject.get("metadata")
    number = metadata.get(MANDATE_NUMBER) if isinstance(metadata, dict) else None
    return number if isinstance(number, str) and parse_mandate_number(number) else None


def _of_refund(event: _Event) -> Notification:
    subject = event.data.object
    number, refund_number = _numbers_of_refund(subject)
    refund_id, intent_id = subject.get("id"), subject.get("payment_intent")
    is_read = isinstance(refund_id, str) and _REFUND.fullmatch(refund_id) is not None
    is_of_intent = isinstance(intent_id, str) and _INTENT.fullmatch(intent_id) is not None
    if refund_number is not None:
        # The record may not have it, and then knows its payment by nothing else.
        reference = intent_id if number is None and is_of_intent else None
        return Notification(
            event.id, event.type, number, refund_number, refunded_reference=reference
        )
    return Notification(
        event.id,
        event.type,
        number,
        foreign_refund=refund_id if is_read and is_of_intent else None,
        refunded_reference=intent_id if is_read and is_of_intent else None,
    )


def _numbers_of_refund(subject: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The order's number and the refund's, from the metadata that we gave the refund; one made in
    the dashboard has neither."""
    metadata = subject.get("metadata")
    if not isinstance(metadata, dict):
        return None, None
    number, refund_number = metadata.get(REFUND_PAYMENT), metadata.get(REFUND_NUMBER)
    is_order = isinstance(number, str) and parse_attempt_number(number) is not None
    is_refund = isinstance(refund_number, str) and is_refund_id(refund_number)
    return number if is_order else None, refund_number if is_refund else None
