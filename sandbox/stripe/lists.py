"""Stripe's lists, newest first, and the balance."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from sandbox.book import Book, Document
from sandbox.core import Sandbox
from sandbox.delivery import DELIVERED, KIND
from sandbox.stripe.customers import CUSTOMER
from sandbox.stripe.errors import StripeError, missing
from sandbox.stripe.events import EVENT, NAME
from sandbox.stripe.forms import Form
from sandbox.stripe.intents import CHARGE, DISPUTE, INTENT, REFUND
from sandbox.stripe.methods import METHOD
from sandbox.stripe.parameters import LIST, check_known, read_integer
from sandbox.stripe.setups import SETUP

_CHUNK: Final = 100
_SEARCH: Final = frozenset({"expand", "limit", "page", "query"})
_TERM: Final = re.compile(r'metadata\["(?P<name>[^"]+)"\]:"(?P<value>[^"]*)"')
_KEPT: Final = (INTENT, METHOD, SETUP)
"""Kinds whose objects are kept with more than Stripe shows of them."""

_EXPANDABLE: Final = {
    "charge": CHARGE,
    "customer": CUSTOMER,
    "latest_charge": CHARGE,
    "payment_intent": INTENT,
    "payment_method": METHOD,
}
_COMPARISONS: Final[dict[str, Callable[[int, int], bool]]] = {
    "gt": lambda created, bound: created > bound,
    "gte": lambda created, bound: created >= bound,
    "lt": lambda created, bound: created < bound,
    "lte": lambda created, bound: created <= bound,
}


class Lists:
    def __init__(self, sandbox: Sandbox) -> None:
        self._book = sandbox.book

    def intents(self, form: Form) -> Document:
        return self._page("/v1/payment_intents", INTENT, form, ("customer",))

    def search_intents(self, form: Form) -> Document:
        """Those with all of the metadata that the query names; of Stripe's query language it knows
        `metadata["name"]:"value"` and AND, and unlike Stripe's, its index lags behind nothing."""
        check_known(form, _SEARCH)
        terms = [_TERM.fullmatch(term) for term in str(form.get("query", "")).split(" AND ")]
        wanted = {term["name"]: term["value"] for term in terms if term is not None}
        if len(wanted) != len(terms):
            raise StripeError(400, "We were unable to parse your search query.", param="query")
        paged: Form = {name: form[name] for name in ("expand", "limit") if name in form}
        if "page" in form:
            if self._book.get(INTENT, str(form["page"])) is None:
                raise StripeError(400, "Invalid page token.", param="page")
            paged["starting_after"] = form["page"]
        page = self._page(
            "/v1/payment_intents/search",
            INTENT,
            paged,
            (),
            lambda intent: wanted.items() <= intent["metadata"].items(),
        )
        next_page = page["data"][-1]["id"] if page["has_more"] else None
        return page | {"object": "search_result", "next_page": next_page}

    def charges(self, form: Form) -> Document:
        return self._page("/v1/charges", CHARGE, form, ("customer", "payment_intent"))

    def customers(self, form: Form) -> Document:
        return self._page("/v1/customers", CUSTOMER, form, ())

    def setups(self, form: Form) -> Document:
        return self._page("/v1/setup_intents", SETUP, form, ("customer", "payment_method"))

    def methods(self, form: Form, parent: str) -> Document:
        """Those that customers have saved; the list's URL begins with `parent`."""
        return self._page(
            f"{parent}/payment_methods",
            METHOD,
            form,
            ("customer", "type"),
            lambda method: method["customer"] is not None,
        )

    def refunds(self, form: Form) -> Document:
        return self._of_charges("/v1/refunds", REFUND, form)

    def disputes(self, form: Form) -> Document:
        return self._of_charges("/v1/disputes", DISPUTE, form)

    def events(self, form: Form) -> Document:
        types = form.get("types")
        wanted = set(types) if isinstance(types, list) else None

        def fits(event: Document) -> bool:
            return (wanted is None or event["type"] in wanted) and (
                "delivery_success" not in form
                or form["delivery_success"] == str(self._was_delivered(event)).lower()
            )

        return self._page("/v1/events", EVENT, form, ("type",), fits)

    def balance(self) -> Document:
        taken: Counter[str] = Counter()
        for charge in self._book.charges():
            if charge["gateway"] == NAME:
                taken[charge["currency"].lower()] += charge["amount"] - charge["refunded"]
                taken[charge["currency"].lower()] -= charge["disputed"]
        pending = [
            {"amount": amount, "currency": currency, "source_types": {"card": amount}}
            for currency, amount in (taken or {"usd": 0}).items()
        ]
        available = [entry | {"amount": 0, "source_types": {"card": 0}} for entry in pending]
        return {"object": "balance", "available": available, "livemode": False, "pending": pending}

    def _of_charges(self, url: str, kind: str, form: Form) -> Document:
        for name, named in (("charge", CHARGE), ("payment_intent", INTENT)):
            if name in form and self._book.get(named, str(form[name])) is None:
                raise missing(name, str(form[name]), name)
        return self._page(url, kind, form, ("charge", "payment_intent"))

    def _page(
        self,
        url: str,
        kind: str,
        form: Form,
        equal: tuple[str, ...],
        fits: Callable[[Document], bool] = lambda item: True,
    ) -> Document:
        check_known(form, LIST)
        limit = read_integer(form, "limit") if "limit" in form else 10
        if not 1 <= limit <= 100:
            raise StripeError(400, "This value must be between 1 and 100.", param="limit")
        after = form.get("starting_after")
        if after is not None and self._book.get(kind, after) is None:
            raise missing(kind.removeprefix("stripe_"), after, "starting_after")
        in_time = _created_filter(form.get("created"))
        found: list[Document] = []
        while chunk := self._book.newest(kind, _CHUNK, after=after):
            items = [_shown(kind, entry) for entry in chunk]
            found += [
                item
                for item in items
                if in_time(item["created"])
                and all(form.get(name, item[name]) == item[name] for name in equal)
                and fits(item)
            ]
            if len(found) > limit:
                break
            after = items[-1]["id"]
        inner = {"expand": [path.removeprefix("data.") for path in form.get("expand", [])]}
        data = [expanded(self._book, item, inner) for item in found[:limit]]
        return {"object": "list", "data": data, "has_more": len(found) > limit, "url": url}

    def _was_delivered(self, event: Document) -> bool:
        subject = event["data"]["object"]
        number = subject.get("payment_intent", subject["id"])
        return any(
            delivery["payload"]["id"] == event["id"] and delivery["state"] == DELIVERED
            for delivery in self._book.find(KIND, number=number)
        )


def expanded(book: Book, item: Document, form: Form) -> Document:
    """The object with what `expand` names put in its place. Raises StripeError."""
    for path in form.get("expand", []):
        if path not in _EXPANDABLE or path not in item:
            raise StripeError(400, f"This property cannot be expanded ({path}).", param="expand")
        if item[path]:
            kind = _EXPANDABLE[path]
            item = item | {path: _shown(kind, book.get(kind, item[path]) or {})}
    return item


def _shown(kind: str, entry: Document) -> Document:
    """The object of an entry of the book."""
    shown: Document = entry["object"] if kind in _KEPT else entry
    return shown


def _created_filter(created: Any) -> Callable[[int], bool]:
    bounds = created if isinstance(created, dict) else {"gte": created, "lte": created}
    if created is None:
        bounds = {}
    checks = []
    for name in bounds:
        if name not in _COMPARISONS:
            raise StripeError(
                400,
                f"Received unknown parameter: created[{name}]",
                code="parameter_unknown",
                param="created",
            )
        checks.append((_COMPARISONS[name], read_integer(bounds, name)))
    return lambda moment: all(compare(moment, bound) for compare, bound in checks)
