"""What a gateway's package gets from the sandbox, and what it has to offer.

A package (`sandbox.stripe`, `sandbox.alipay`, `sandbox.wechatpay`) is a `Provider` as a module:
it has the members of that protocol at its top and stands in `sandbox.app.PROVIDERS`.

A handler does all of its changes in one `with sandbox.book.transaction():` without an await in
it, enqueues its webhooks inside, and answers afterwards. Calls our adapters make go through
`sandbox.faults.faulted`; a payer's pages and controls do not.
"""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from fastapi import APIRouter

from sandbox.book import Book
from sandbox.delivery import Delivery, WebhookRules
from sandbox.faults import Faults

Keys = dict[str, str]
"""A gateway's key material by name; PEM with real line ends."""


@dataclass(frozen=True)
class Sandbox:
    """One running sandbox. `url` is its own base URL, `public_url` that of the application (where
    Stripe sends webhooks), both without a slash at the end. `keys` are those of each gateway, as
    its `make_keys` made them."""

    book: Book
    faults: Faults
    delivery: Delivery
    keys: dict[str, Keys]
    public_url: str
    url: str
    stripe_events: frozenset[str] | None = None
    """What the endpoint at Stripe is subscribed to; None: everything."""

    def clock(self) -> datetime:
        """Now, UTC: protocol time is wall time."""
        return datetime.now(UTC)


@dataclass(frozen=True)
class Wanted:
    """The order a control is about: by the payment's `next_action` exactly as the API returned
    it, or by reference (the payment id) and attempt; without an attempt, the newest."""

    next_action: dict[str, Any] | None = None
    reference: str | None = None
    attempt: int | None = None


class ControlRefused(Exception):
    """The payer's device would fail: 404 no such order, 409 not payable any more, 422 the
    instructions make no sense or their signature is wrong."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class Payer(Protocol):
    """A payer's device. Both return once committed, with at least `reference` and `status` (the
    order's new status in the gateway's own word). Both raise ControlRefused."""

    async def pay(self, wanted: Wanted, **options: Any) -> dict[str, Any]:
        """Do with the instructions what the device would, and pay."""

    async def decline(
        self, wanted: Wanted, decline_code: str | None = None, **options: Any
    ) -> dict[str, Any]:
        """Try to pay and fail."""


@dataclass(frozen=True)
class AgreementLine:
    """One agreement as the page and `GET /control/mandates` show it. `status` is the gateway's own
    word, `is_open` whether it may be charged; `now` is its business time."""

    gateway: str
    reference: str
    number: str
    status: str
    is_open: bool
    description: str
    signed_at: datetime
    now: datetime


class Agreements(Protocol):
    """What payers have agreed to be charged by: mandates, agreements, contracts. `reference` is
    the method's id, or a number of the gateway's own. What sets and steers returns once committed,
    with at least `reference`, and raises ControlRefused."""

    def newest(self, limit: int) -> list[AgreementLine]:
        """The newest, newest first."""

    def set_clock(self, reference: str, now: datetime | None) -> dict[str, Any]:
        """Business time of this one is `now` until set again; None: it is wall time."""

    def steer(self, reference: str, **options: Any) -> dict[str, Any]:
        """What becomes of the next charges, or of the agreement itself; the gateway's options."""


class Merchant(Protocol):
    """Somebody of the merchant's at the gateway's dashboard, of whom the application knows
    nothing. Both return once committed, with at least `reference`, `number` (the gateway's own)
    and `status`. Both raise ControlRefused."""

    def refund(self, wanted: Wanted, amount: int | None) -> dict[str, Any]:
        """Give back `amount` (minor units; None: all that is left), under a number of the
        gateway's own."""

    def close(self, wanted: Wanted) -> dict[str, Any]:
        """End an order that nobody has paid."""


@dataclass(frozen=True)
class OrderLine:
    """One order as the page and `GET /control/orders` show it. `status` is the gateway's own
    word, `is_open` whether a payer may still pay or decline it, `amount` in minor units."""

    gateway: str
    reference: str
    attempt: int
    number: str
    status: str
    is_open: bool
    amount: int
    currency: str
    description: str
    created_at: datetime
    pages: dict[str, str]
    """Pages of a payer for this order: the button's text and its address."""


class Provider(Protocol):
    """The members a gateway's package has at its top."""

    NAME: str

    def make_keys(self) -> Keys:
        """Fresh key material of both sides, made once in a data folder's life."""

    def settings(self, keys: Keys, url: str) -> dict[str, str]:
        """The `EVERBILL_<GATEWAY>_*` settings with which Everbill talks to this sandbox. PEM with
        real line ends: gateways.env escapes them."""

    def routes(self, sandbox: Sandbox) -> APIRouter:
        """The gateway's API and its payer's pages."""

    def payer(self, sandbox: Sandbox) -> Payer:
        """The device behind /control/pay and /control/decline."""

    def merchant(self, sandbox: Sandbox) -> Merchant:
        """The dashboard behind /control/refund and /control/close."""

    def webhook_rules(self, sandbox: Sandbox) -> WebhookRules:
        """How this gateway signs its webhooks, reads the replies and repeats."""

    def orders(self, sandbox: Sandbox, limit: int) -> list[OrderLine]:
        """The newest orders, newest first."""


@runtime_checkable
class AgreementProvider(Protocol):
    """A provider that keeps agreements."""

    def agreements(self, sandbox: Sandbox) -> Agreements:
        """What is behind /control/clock and /control/mandate."""


@runtime_checkable
class AgingProvider(Protocol):
    """A provider that gives money back for so long only, or at most so often."""

    def age(self, sandbox: Sandbox, wanted: Wanted, by: timedelta) -> dict[str, Any]:
        """Have the payment of an order, and all refunds of it, lie that much further back. Returns
        once committed, with at least `reference` and `paid_at`. Raises ControlRefused."""


@dataclass(frozen=True)
class Options:
    """How `python -m sandbox` was started."""

    data_dir: Path
    port: int
    public_url: str
    host: str = "127.0.0.1"
    stripe_events: frozenset[str] | None = None
