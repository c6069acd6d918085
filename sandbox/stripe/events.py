"""Events of the sandbox's one Stripe account: written, and sent to the application."""

from dataclasses import dataclass
from typing import Final

from sandbox.book import Document
from sandbox.core import Sandbox
from sandbox.stripe.objects import new_event, unix

NAME: Final = "stripe"
EVENT: Final = "stripe_event"
_WEBHOOK_PATH: Final = "/api/v1/payment/webhook/stripe"


@dataclass(frozen=True)
class Origin:
    """The request behind a change, as its events name it."""

    request_id: str | None = None
    idempotency_key: str | None = None


class Events:
    """For use inside a transaction of the book."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def tell(
        self,
        number: str,
        reference: str,
        event_type: str,
        subject: Document,
        origin: Origin,
        previous: Document | None = None,
    ) -> None:
        """Write an event about `subject`, and have it sent if the endpoint is subscribed to it.
        `number` is Stripe's of the order it is part of, `reference` ours; `previous` are the
        changed attributes as they were before."""
        event = new_event(
            event_type,
            subject,
            unix(self._sandbox.clock()),
            origin.request_id,
            origin.idempotency_key,
        )
        if previous is not None:
            event["data"]["previous_attributes"] = previous
        self._sandbox.book.put(EVENT, event["id"], event)
        subscribed = self._sandbox.stripe_events
        if subscribed is not None and event_type not in subscribed:
            return
        self._sandbox.delivery.enqueue(
            NAME,
            url=f"{self._sandbox.public_url}{_WEBHOOK_PATH}",
            number=number,
            reference=reference,
            event_type=event_type,
            payload=event,
        )
