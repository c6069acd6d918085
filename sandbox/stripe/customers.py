"""Customers: whom saved cards belong to.

What changes something belongs into a transaction of the book.
"""

from typing import Final

from sandbox.book import Document
from sandbox.core import Sandbox
from sandbox.stripe.errors import StripeError, missing
from sandbox.stripe.events import Events, Origin
from sandbox.stripe.forms import Form
from sandbox.stripe.objects import new_customer, unix
from sandbox.stripe.parameters import check_known, read_metadata

CUSTOMER: Final = "stripe_customer"
_COPIED: Final = ("description", "email", "name", "phone")
_CREATE: Final = frozenset({*_COPIED, "expand", "metadata"})


class Customers:
    """The customers of the sandbox's one Stripe account."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._book = sandbox.book
        self._events = Events(sandbox)

    def create(self, form: Form, origin: Origin) -> Document:
        """Raises StripeError."""
        check_known(form, _CREATE)
        customer = new_customer(unix(self._sandbox.clock()))
        customer |= {name: form[name] for name in _COPIED if name in form}
        customer["metadata"] = read_metadata(form)
        self._book.put(CUSTOMER, customer["id"], customer)
        self._events.tell(customer["id"], customer["id"], "customer.created", customer, origin)
        return customer

    def get(self, customer_id: str) -> Document:
        """Raises StripeError (404)."""
        customer = self._book.get(CUSTOMER, customer_id)
        if customer is None:
            raise missing("customer", customer_id, "id")
        return customer

    def check_named(self, form: Form) -> None:
        """Raises StripeError (400) where a parameter names a customer that is not there."""
        named = form.get("customer")
        if named is not None and self._book.get(CUSTOMER, str(named)) is None:
            raise StripeError(
                400, f"No such customer: '{named}'", code="resource_missing", param="customer"
            )
