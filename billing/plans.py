"""Memberships on sale: tiers, what they are priced at for each cycle, and plans.

A tier has a monthly price per currency. A longer cycle costs as many monthly prices as it has
months, less the catalog's discount in basis points, rounded down to the minor unit (never dearer
than the discount says), unless its price is set.

A plan is one tier for one cycle in one currency at one price: what a subscription is bound to. Its
version is a hash of exactly that, so that a subscription keeps its price whatever the catalog says
later, and can tell whether it says something else (docs/decisions/0011).
"""

import hashlib
import json
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, model_validator
from pydantic import field_validator as validates

from billing.calendar import MAX_TRIAL_DAYS, Cycle, ZoneName
from billing.errors import PlanNotOffered
from billing.money import CURRENCIES, MAX_AMOUNT_MINOR, AmountMinor, Money
from billing.payment import GatewayName

BASIS: Final = 10_000
ALIPAY_CYCLE_PAY_CAP_MINOR: Final = 10_000
"""What Alipay usually lets one charge of a cycle pay agreement come to (fen)."""


class Tier(StrEnum):
    """FREE is the absence of a membership: it is not on sale."""

    FREE = "FREE"
    BASIC = "BASIC"
    PREMIUM = "PREMIUM"
    SUPER = "SUPER"


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Plan(BaseModel):
    """What a subscription pays: `amount` minor units for each cycle. `rank` orders tiers."""

    model_config = ConfigDict(frozen=True)

    tier: Tier
    rank: int
    cycle: Cycle
    currency: str
    amount: AmountMinor
    version: str

    @classmethod
    def of(cls, tier: Tier, rank: int, cycle: Cycle, price: Money) -> "Plan":
        amount, currency = price.amount_minor, price.currency
        terms = json.dumps([tier, cycle, currency, amount], separators=(",", ":"))
        return cls(
            tier=tier,
            rank=rank,
            cycle=cycle,
            currency=currency,
            amount=amount,
            version=hashlib.sha256(terms.encode()).hexdigest()[:16],
        )


Prices = Annotated[dict[str, AmountMinor], Field(min_length=1)]


class TierEntry(_Entry):
    """`prices` are for a month; `quarterly` and `yearly`, where set, stand for the discount.
    `entitlements` are what the application grants: yes or no, or a number."""

    tier: Annotated[Tier, Field(strict=False)]
    name: Annotated[str, Field(min_length=1, max_length=127)]
    rank: Annotated[int, Field(ge=1, le=99)]
    entitlements: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")], StrictBool | StrictInt],
        Field(min_length=1),
    ]
    trial_days: Annotated[int, Field(ge=0, le=MAX_TRIAL_DAYS)] = 0
    prices: Prices
    quarterly: Prices | None = None
    yearly: Prices | None = None

    @validates("tier")
    @classmethod
    def _on_sale(cls, tier: Tier) -> Tier:
        if tier is Tier.FREE:
            raise ValueError("FREE is the absence of a membership")
        return tier

    @validates("prices", "quarterly", "yearly")
    @classmethod
    def _known_currencies(cls, prices: dict[str, int] | None) -> dict[str, int] | None:
        for currency in prices or {}:
            if currency not in CURRENCIES:
                raise ValueError(f"{currency!r} is no ISO 4217 currency in upper case")
        return prices

    @model_validator(mode="after")
    def _against_the_month(self) -> Self:
        for cycle in (Cycle.QUARTERLY, Cycle.YEARLY):
            for currency, amount in self.set_prices(cycle).items():
                monthly = self.prices.get(currency)
                if monthly is None:
                    raise ValueError(f"{cycle}.{currency}: there is no price of a month in it")
                if amount > monthly * cycle.months:
                    raise ValueError(f"{cycle}.{currency}: dearer than {cycle.months} months")
        return self

    def set_prices(self, cycle: Cycle) -> dict[str, int]:
        by_cycle = {
            Cycle.MONTHLY: self.prices,
            Cycle.QUARTERLY: self.quarterly,
            Cycle.YEARLY: self.yearly,
        }
        return by_cycle[cycle] or {}


class Discounts(_Entry):
    """Off the price of so many single months, in basis points (1500 are 15 %)."""

    quarterly: Annotated[int, Field(ge=0, lt=BASIS)] = 0
    yearly: Annotated[int, Field(ge=0, lt=BASIS)] = 0

    def of(self, cycle: Cycle) -> int:
        by_cycle = {Cycle.QUARTERLY: self.quarterly, Cycle.YEARLY: self.yearly}
        return by_cycle.get(cycle, 0)


class Membership(_Entry):
    """The tiers on sale. `zone` is where their days and months are counted; `caps` is the most one
    charge by mandate may come to at a gateway (CNY, minor units)."""

    zone: ZoneName = "UTC"
    discounts: Discounts = Discounts()
    caps: dict[Annotated[GatewayName, Field(strict=False)], AmountMinor] = {
        GatewayName.ALIPAY: ALIPAY_CYCLE_PAY_CAP_MINOR
    }
    tiers: Annotated[list[TierEntry], Field(default_factory=list)]

    @validates("caps")
    @classmethod
    def _of_mandates(cls, caps: dict[GatewayName, int]) -> dict[GatewayName, int]:
        if GatewayName.STRIPE in caps:
            raise ValueError("stripe has no cap")
        return caps

    @validates("tiers")
    @classmethod
    def _distinct(cls, tiers: list[TierEntry]) -> list[TierEntry]:
        for number, entry in enumerate(tiers, start=1):
            for other in tiers[: number - 1]:
                if entry.tier == other.tier:
                    raise ValueError(f"two tiers are {entry.tier}")
                if entry.rank == other.rank:
                    raise ValueError(f"{other.tier} and {entry.tier} have the same rank")
        return tiers

    @model_validator(mode="after")
    def _chargeable(self) -> Self:
        for number, entry in enumerate(self.tiers, start=1):
            for cycle in Cycle:
                for currency in entry.prices:
                    amount = self.amount(entry, cycle, currency)
                    if not 1 <= amount <= MAX_AMOUNT_MINOR:
                        raise ValueError(
                            f"tiers[{number}].prices.{currency}: {cycle} comes to {amount},"
                            f" which cannot be charged"
                        )
        return self

    def amount(self, entry: TierEntry, cycle: Cycle, currency: str) -> int:
        """The price of a cycle (minor units). Raises KeyError where the tier has none."""
        set_price = entry.set_prices(cycle).get(currency)
        if set_price is not None:
            return set_price
        months = entry.prices[currency] * cycle.months
        return months * (BASIS - self.discounts.of(cycle)) // BASIS

    def entry(self, tier: Tier) -> TierEntry | None:
        return next((one for one in self.tiers if one.tier == tier), None)

    def plan(self, tier: Tier, cycle: Cycle, currency: str) -> Plan:
        """Raises PlanNotOffered for a tier that is not on sale, or not in that currency."""
        entry = self.entry(tier)
        if entry is None:
            raise PlanNotOffered(f"{tier} is not on sale", param="tier")
        if currency not in entry.prices:
            raise PlanNotOffered(f"{tier} has no price in {currency}", param="currency")
        return self._plan(entry, cycle, currency)

    def plans(self) -> Iterator[Plan]:
        """All plans on sale, in the catalog's order."""
        for entry in self.tiers:
            for cycle in Cycle:
                for currency in entry.prices:
                    yield self._plan(entry, cycle, currency)

    def above_caps(self) -> list[str]:
        """The plans that a mandate cannot carry, one sentence each: their renewals are payments
        that the customer is asked for."""
        return [
            f"{plan.tier} {plan.cycle} costs {Money(amount_minor=plan.amount, currency='CNY')},"
            f" above what {gateway} charges by mandate"
            f" ({Money(amount_minor=cap, currency='CNY')}): the customer is asked each time"
            for plan in self.plans()
            if plan.currency == "CNY"
            for gateway, cap in self.caps.items()
            if plan.amount > cap
        ]

    def _plan(self, entry: TierEntry, cycle: Cycle, currency: str) -> Plan:
        price = Money(amount_minor=self.amount(entry, cycle, currency), currency=currency)
        return Plan.of(entry.tier, entry.rank, cycle, price)
