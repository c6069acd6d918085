"""The part of the port for charges without the payer: consent once given, and its use.

A mandate is what a gateway calls a saved card (Stripe), an agreement (Alipay) or a contract
(WeChat Pay). A charge by mandate is an ordinary `Order` of method `saved` whose `mandate` is set:
`Gateway.open` asks for the money itself, and the answer is

- `AlreadyOrdered` where it was accepted, whether paid or still under way (query it);
- `Refused`, with the decline, where nothing was or will be taken under this number;
- `Opened` where the payer's bank wants the payer: the instructions are theirs.
"""

from dataclasses import dataclass
from datetime import date, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from billing.method import CardFace
from billing.payment import Failure

if TYPE_CHECKING:
    from gateways.gateway import AlreadyOrdered, Opened, Refused


@dataclass(frozen=True)
class MandateTerms:
    """What the payer is asked to consent to.

    `most_minor` (minor units of `currency`) is the most that one charge may come to, None for no
    limit; gateways that must have one say so in their answer. `every_months` is how often it will
    be charged, None for no rhythm. `first_charge_on` is the first day of a rhythm, in Beijing.
    """

    currency: str
    most_minor: int | None = None
    every_months: int | None = None
    first_charge_on: date | None = None


@dataclass(frozen=True)
class MandateOrder:
    """One request for consent, as a gateway is to know it.

    `number` is our own number of it (`billing.identifiers.mandate_number`), `customer_reference`
    what the gateway calls the payer where it keeps customers, `description` what the payer reads.
    """

    method_id: str
    number: str
    user_id: str
    terms: MandateTerms
    description: str
    created_at: datetime
    return_url: str | None = None
    customer_reference: str | None = None


@dataclass(frozen=True)
class Mandate:
    """Consent that was asked for. `setup_reference` is the gateway's own number of the asking,
    `reference` that of the consent; each is there once the gateway has told it. `rhythm_months` is
    None where it may be charged at any time."""

    method_id: str
    number: str
    reference: str | None = None
    setup_reference: str | None = None
    customer_reference: str | None = None
    rhythm_months: int | None = None


class MandateState(StrEnum):
    """What a gateway says of a mandate, in our words.

    ABSENT: it knows no such mandate (yet). PENDING: it waits for the payer. ACTIVE: it may be
    charged. FAILED: the payer did not consent, and under this number never will. ENDED: it may not
    be charged any more. UNRECOGNISED: a status that no table of ours names.
    """

    ABSENT = "absent"
    PENDING = "pending"
    ACTIVE = "active"
    FAILED = "failed"
    ENDED = "ended"
    UNRECOGNISED = "unrecognised"


@dataclass(frozen=True)
class MandateObservation:
    """The gateway's truth about one mandate at one moment; `status` is its own word.

    `charge_on` is the day for which the gateway next expects a charge, where it keeps one;
    `most_minor` what it lets one charge come to, where it says so.
    """

    state: MandateState
    status: str
    reference: str | None = None
    card: CardFace | None = None
    most_minor: int | None = None
    signed_at: datetime | None = None
    ends_at: datetime | None = None
    charge_on: date | None = None
    failure: Failure | None = None


class Mandates(Protocol):
    """One provider's mandates, on one merchant account.

    Every method raises OutcomeUnknown (repeat it), GatewayThrottled and GatewayMisconfigured;
    those that ask raise AnswerUntrusted where a verified answer is about something else.
    """

    async def enrol(self, application: str, user_id: str, created_at: datetime) -> str | None:
        """What the gateway calls this customer, made there the first time and the same at every
        repeat; None, without a call, where it keeps no customers."""

    async def set_up(self, order: MandateOrder) -> "Opened | Refused | AlreadyOrdered":
        """Ask the payer for consent, or repeat it under its own number with identical parameters.
        AlreadyOrdered where the payer has answered already: query it."""

    async def query(self, mandate: Mandate) -> MandateObservation:
        """Ask what became of it, and what may be charged now."""

    async def revoke(self, mandate: Mandate) -> None:
        """End it. Returns also where it had ended, or never began: only a query tells."""

    async def announce(self, mandate: Mandate, amount_minor: int, currency: str) -> None:
        """Have the payer told of a charge to come of at most that amount (minor units); nothing,
        without a call, where the gateway asks for no notice. Raises MandateRefused."""

    async def postpone(self, mandate: Mandate, charge_on: date) -> None:
        """Move the day of the next charge, which is only ever moved later; nothing, without a
        call, where the gateway keeps no such day. Raises MandateRefused."""


class MandateRefused(Exception):
    """The gateway will not do that with this mandate, now or at all; nothing was changed."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure
