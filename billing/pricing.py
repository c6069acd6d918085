"""The price list: the catalog as a customer reads it."""

from pydantic import BaseModel, ConfigDict

from billing.calendar import Cycle
from billing.catalog import Catalog, PointsOffer, Product
from billing.plans import BASIS, Membership, Plan, Tier, TierEntry


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class Saving(_Frozen):
    """Against paying month by month: in minor units, and in basis points rounded down."""

    amount: int
    basis_points: int


class PlanPrice(_Frozen):
    """`amount` minor units for each cycle. `plan_version` is what a subscription of it keeps."""

    cycle: Cycle
    currency: str
    amount: int
    saving: Saving
    plan_version: str


class TierOffer(_Frozen):
    tier: Tier
    name: str
    rank: int
    entitlements: dict[str, bool | int]
    trial_days: int
    plans: list[PlanPrice]


class Pricing(_Frozen):
    """Everything on sale under one version, prices in minor units per currency."""

    version: str
    tiers: list[TierOffer]
    products: list[Product]
    points: PointsOffer


def price_list(catalog: Catalog) -> Pricing:
    membership = catalog.membership
    return Pricing(
        version=catalog.version,
        tiers=[_offer(membership, entry) for entry in membership.tiers],
        products=catalog.products,
        points=catalog.points,
    )


def _offer(membership: Membership, entry: TierEntry) -> TierOffer:
    return TierOffer(
        tier=entry.tier,
        name=entry.name,
        rank=entry.rank,
        entitlements=entry.entitlements,
        trial_days=entry.trial_days,
        plans=[
            _price(plan, entry.prices[plan.currency])
            for plan in membership.plans()
            if plan.tier == entry.tier
        ],
    )


def _price(plan: Plan, monthly: int) -> PlanPrice:
    months = monthly * plan.cycle.months
    saved = months - plan.amount
    return PlanPrice(
        cycle=plan.cycle,
        currency=plan.currency,
        amount=plan.amount,
        saving=Saving(amount=saved, basis_points=saved * BASIS // months),
        plan_version=plan.version,
    )
