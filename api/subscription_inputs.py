"""What an application may say about subscriptions, and the commands that come of it."""

import secrets
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from api.bodies import StrictInput
from api.orders import Offers, PayerInput, ReturnUrl, UserId, WithoutCardNumber
from billing.calendar import Cycle
from billing.catalog import Catalog
from billing.charges import DEFAULT_WAYS, least_charge
from billing.dunning import DunningSchedule
from billing.errors import InvalidRequest
from billing.identifiers import METHOD_ID_PATTERN, SUBSCRIPTION, make_id
from billing.money import CurrencyCode
from billing.payment import GatewayName, Payer, PaymentMethod
from billing.plans import Tier
from billing.subscription import Subscription, SubscriptionOrder, When
from billing.subscription_messages import (
    CancelSubscription,
    ChangeMethod,
    ChangeSubscription,
    OperateSubscription,
    OperatorAction,
    PauseSubscription,
    PaymentWay,
    PaySubscription,
    ResumeSubscription,
    SubscriptionCommand,
    SubscriptionStart,
    SubscriptionTerms,
)

MethodId = Annotated[str, Field(pattern=METHOD_ID_PATTERN)]
BackupMethodId = Annotated[
    MethodId | None,
    Field(
        description="Another of this user's at that gateway, charged where the first declines",
    ),
]


class _ByHand(StrictInput):
    """How the customer pays where no saved method is charged."""

    method: PaymentMethod | None = Field(
        default=None,
        description="How the customer pays by hand: `card`, `qr` or `native`, unless said",
    )
    return_url: ReturnUrl | None = Field(
        default=None, description="Where the gateway sends the payer back: https"
    )
    payer: PayerInput | None = None


class Subscribe(_ByHand):
    """A sign-up. The price is the catalog's, and stays the subscription's own."""

    user_id: UserId
    tier: Tier
    cycle: Cycle
    currency: CurrencyCode
    gateway: GatewayName
    payment_method_id: MethodId | None = Field(
        default=None,
        description="An active saved method of this user and gateway, to be charged at each"
        " renewal; without it the customer is asked each time",
    )
    backup_payment_method_id: BackupMethodId = None
    trial_days: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="At most the tier's own, which it is unless said"
    )


class CancelInput(StrictInput):
    at_period_end: bool = Field(
        default=True, description="With the period that is paid for, and at once where that is over"
    )
    refund: bool = Field(
        default=False, description="Give back what is left of the period; with `at_period_end` off"
    )


class PauseInput(StrictInput):
    at_period_end: bool = False
    until: AwareDatetime | None = Field(
        default=None, description="When it goes on by itself; without it, once it is resumed"
    )


class ResumeInput(StrictInput):
    """Ends a pause; or takes back an end, or else a pause, that was to come."""


class ChangeInput(_ByHand):
    """Another plan. With `method` what it costs is paid by hand, else by the saved method."""

    tier: Tier
    cycle: Cycle
    when: When | None = Field(
        default=None, description="Upgrades take effect now, other changes at the period's end"
    )
    quoted_at: AwareDatetime | None = Field(
        default=None,
        description="`effective_at` of a preview of the last ten minutes: what it showed is"
        " charged, to the minor unit",
    )


class MethodInput(StrictInput):
    """Another saved method, or another gateway; without `payment_method_id` the customer is asked
    each time."""

    gateway: GatewayName
    payment_method_id: MethodId | None = None
    backup_payment_method_id: BackupMethodId = None


class PayInput(_ByHand):
    """What is owed, or was asked for ahead, paid by hand; at the subscription's own gateway unless
    said."""

    gateway: GatewayName | None = None


class OperateInput(StrictInput):
    """An operator's command: `retry` charges what is owed now, `waive` forgives it, `move` lets the
    period end later, at `until`, `end` ends the subscription now."""

    action: OperatorAction
    reason: Annotated[str, Field(min_length=1, max_length=500), WithoutCardNumber]
    until: AwareDatetime | None = None


class PreviewInput(StrictInput):
    """A command and what goes with it; nothing is changed."""

    command: Literal["change", "cancel", "pause", "resume"]
    tier: Tier | None = None
    cycle: Cycle | None = None
    when: When | None = None
    at_period_end: bool | None = None
    refund: bool = False
    until: AwareDatetime | None = None


def start_of(
    wanted: Subscribe,
    offers: Offers,
    catalog: Catalog,
    schedule: DunningSchedule,
    application: str,
    now: datetime,
) -> SubscriptionStart:
    """A new subscription with an id of its own. Raises InvalidRequest and its kin."""
    membership = catalog.membership
    plan = membership.plan(wanted.tier, wanted.cycle, wanted.currency)
    entry = membership.entry(wanted.tier)
    longest = 0 if entry is None else entry.trial_days
    trial_days = longest if wanted.trial_days is None else wanted.trial_days
    if trial_days > longest:
        raise InvalidRequest(f"{wanted.tier} has a trial of {longest} days", param="trial_days")
    way = _way(wanted, offers, wanted.gateway, wanted.currency)
    return SubscriptionStart(
        order=SubscriptionOrder(
            id=make_id(SUBSCRIPTION, int(now.timestamp() * 1000), secrets.token_bytes(10)),
            user_id=wanted.user_id,
            plan=plan,
            gateway=wanted.gateway,
            zone=membership.zone,
            trial_days=trial_days,
            payment_method_id=wanted.payment_method_id,
            backup_payment_method_id=wanted.backup_payment_method_id,
        ),
        application=application,
        terms=SubscriptionTerms(
            way=way,
            schedule=schedule,
            minimum=least_charge(wanted.gateway, wanted.currency),
        ),
        created_at=now,
    )


def cancel_of(wanted: CancelInput) -> CancelSubscription:
    return CancelSubscription(at_period_end=wanted.at_period_end, refund=wanted.refund)


def pause_of(wanted: PauseInput) -> PauseSubscription:
    return PauseSubscription(at_period_end=wanted.at_period_end, until=wanted.until)


def change_of(
    wanted: ChangeInput, offers: Offers, catalog: Catalog, found: Subscription
) -> ChangeSubscription:
    """Raises InvalidRequest and its kin."""
    plan = catalog.membership.plan(wanted.tier, wanted.cycle, found.plan.currency)
    way = None
    if wanted.method is not None:
        way = _way(wanted, offers, found.gateway, found.plan.currency)
    return ChangeSubscription(plan=plan, when=wanted.when, way=way, quoted_at=wanted.quoted_at)


def method_of(wanted: MethodInput, offers: Offers, found: Subscription) -> ChangeMethod:
    """Raises InvalidRequest and its kin."""
    offers.way(wanted.gateway, DEFAULT_WAYS[wanted.gateway], found.plan.currency)
    return ChangeMethod(
        gateway=wanted.gateway,
        payment_method_id=wanted.payment_method_id,
        backup_payment_method_id=wanted.backup_payment_method_id,
    )


def pay_of(wanted: PayInput, offers: Offers, found: Subscription) -> PaySubscription:
    """Raises InvalidRequest and its kin."""
    gateway = wanted.gateway or found.gateway
    return PaySubscription(way=_way(wanted, offers, gateway, found.plan.currency))


def operate_of(wanted: OperateInput, operated_by: str) -> OperateSubscription:
    return OperateSubscription(
        action=wanted.action, reason=wanted.reason, operated_by=operated_by, until=wanted.until
    )


def previewed(wanted: PreviewInput, catalog: Catalog, found: Subscription) -> SubscriptionCommand:
    """The command that is to be previewed. Raises InvalidRequest and its kin."""
    match wanted.command:
        case "resume":
            return ResumeSubscription()
        case "pause":
            at_end = bool(wanted.at_period_end)
            return PauseSubscription(at_period_end=at_end, until=wanted.until)
        case "cancel":
            at_end = wanted.at_period_end is not False
            return CancelSubscription(at_period_end=at_end, refund=wanted.refund)
        case "change":
            if wanted.tier is None or wanted.cycle is None:
                missing = "tier" if wanted.tier is None else "cycle"
                raise InvalidRequest(f"a change needs the {missing}", param=missing)
            plan = catalog.membership.plan(wanted.tier, wanted.cycle, found.plan.currency)
            return ChangeSubscription(plan=plan, when=wanted.when)


def _way(wanted: _ByHand, offers: Offers, gateway: GatewayName, currency: str) -> PaymentWay:
    method = wanted.method or DEFAULT_WAYS[gateway]
    offers.way(gateway, method, currency, wanted.payer)
    payer = None
    if wanted.payer is not None:
        payer = Payer(openid=wanted.payer.openid, client_ip=wanted.payer.client_ip)
    return PaymentWay(gateway=gateway, method=method, return_url=wanted.return_url, payer=payer)
