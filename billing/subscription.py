"""A subscription: its words, its state machine and the form in which everybody sees it.

What commands and the end of a period do to it is decided in `billing.lifecycle` and
`billing.changes`; what is to come is told by `billing.upcoming`.
"""

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from billing.calendar import Cycle, Period, Schedule
from billing.payment import Failure, GatewayName
from billing.plans import Plan
from billing.proration import PaidStretch, Preview


class SubscriptionStatus(StrEnum):
    """INCOMPLETE waits for its first payment. CANCELED was ended by somebody, EXPIRED because it
    was not paid."""

    INCOMPLETE = "incomplete"
    TRIALING = "trialing"
    ACTIVE = "active"
    PAST_DUE = "past_due"
    PAUSED = "paused"
    CANCELED = "canceled"
    EXPIRED = "expired"

    @property
    def is_terminal(self) -> bool:
        return not TRANSITIONS[self]


_S = SubscriptionStatus
TRANSITIONS: Final[dict[SubscriptionStatus, frozenset[SubscriptionStatus]]] = {
    _S.INCOMPLETE: frozenset({_S.TRIALING, _S.ACTIVE, _S.CANCELED, _S.EXPIRED}),
    _S.TRIALING: frozenset({_S.ACTIVE, _S.PAST_DUE, _S.PAUSED, _S.CANCELED}),
    _S.ACTIVE: frozenset({_S.PAST_DUE, _S.PAUSED, _S.CANCELED}),
    _S.PAST_DUE: frozenset({_S.ACTIVE, _S.CANCELED, _S.EXPIRED}),
    _S.PAUSED: frozenset({_S.TRIALING, _S.ACTIVE, _S.PAST_DUE, _S.CANCELED}),
    _S.CANCELED: frozenset(),
    _S.EXPIRED: frozenset(),
}


def sources_of(target: SubscriptionStatus) -> frozenset[SubscriptionStatus]:
    """The states a write of `target` must name as those before it."""
    return frozenset(state for state, targets in TRANSITIONS.items() if target in targets)


class Access(StrEnum):
    """What an unpaid subscription still grants: everything (ACTIVE, and GRACE, which is told to
    the customer), what the application leaves to debtors (RESTRICTED), nothing (ENDED)."""

    ACTIVE = "active"
    GRACE = "grace"
    RESTRICTED = "restricted"
    ENDED = "ended"


class When(StrEnum):
    NOW = "now"
    PERIOD_END = "period_end"


class ChangeKind(StrEnum):
    """CYCLE may bring another tier with it; REPRICE is the same plan at what it costs today."""

    UPGRADE = "upgrade"
    DOWNGRADE = "downgrade"
    CYCLE = "cycle"
    REPRICE = "reprice"
    METHOD = "method"
    GATEWAY = "gateway"

    @property
    def usually(self) -> When:
        """When it takes effect where nobody says otherwise."""
        at_once = (ChangeKind.UPGRADE, ChangeKind.METHOD, ChangeKind.GATEWAY)
        return When.NOW if self in at_once else When.PERIOD_END


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True)


class PendingChange(_Frozen):
    """A plan that the next period will be on."""

    kind: Literal[ChangeKind.UPGRADE, ChangeKind.DOWNGRADE, ChangeKind.CYCLE, ChangeKind.REPRICE]
    plan: Plan


class Pause(_Frozen):
    """`starts_at` is in the future where it was asked for at the period's end; without `ends_at`
    it lasts until somebody resumes."""

    starts_at: AwareDatetime
    ends_at: AwareDatetime | None = None


class Subscription(_Frozen):
    """The subscription as the API and the workflow's answers show it: every field always present.

    `plan` is kept whatever the catalog says later. `period` is the current one, number 0 a trial;
    a pause moves it, so that it keeps its length. `paid` is what was charged for the time up to
    its end, `owed` what is still to be paid for it, and `balance` the customer's credit (minor
    units, negative for a debt). `schedule` counts the periods to come. What the saved method
    declines is tried with `backup_payment_method_id`, of the same gateway, where there is one.
    """

    id: str
    user_id: str
    status: SubscriptionStatus
    plan: Plan
    gateway: GatewayName
    payment_method_id: str | None = None
    backup_payment_method_id: str | None = None
    schedule: Schedule
    period: Period
    paid: PaidStretch | None = None
    owed: Preview | None = None
    balance: int = 0
    pending: PendingChange | None = None
    pause: Pause | None = None
    cancel_at_period_end: bool = False
    access: Access = Access.ACTIVE
    failure: Failure | None = None
    latest_payment_id: str | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime
    canceled_at: AwareDatetime | None = None
    ended_at: AwareDatetime | None = None

    @property
    def zone(self) -> str:
        return self.schedule.anchor.zone

    @property
    def is_trial(self) -> bool:
        """Whether the current period is the trial, which a pause does not change."""
        return self.period.number == 0

    @property
    def paid_since(self) -> int:
        """The first period whose payments are in what was paid for the current one."""
        since = self.paid.since_period if self.paid else None
        return self.period.number if since is None else since


class SubscriptionOrder(_Frozen):
    """What somebody signs up for. `zone` is where days and months are counted."""

    id: str
    user_id: str
    plan: Plan
    gateway: GatewayName
    zone: str
    trial_days: Annotated[int, Field(ge=0)] = 0
    payment_method_id: str | None = None
    backup_payment_method_id: str | None = None
    balance: int = 0


class StepKind(StrEnum):
    """What happens to a subscription: by command, or by itself at an instant."""

    SIGN_UP = "sign_up"
    PAYMENT = "payment"
    RENEWAL = "renewal"
    CHANGE = "change"
    CANCELLATION = "cancellation"
    EXPIRY = "expiry"
    PAUSE = "pause"
    RESUMPTION = "resumption"
    UNDO = "undo"


class Decision(_Frozen):
    """One step: what it costs, when it takes effect, and the subscription once that is paid.

    Until `preview.total` is paid the subscription stays as it was; where it is nothing, it is
    `after` at once. `change` is set where the kind is CHANGE. `refund` (minor units) is what is
    given back of the period that is given up.
    """

    kind: StepKind
    change: ChangeKind | None = None
    effective_at: AwareDatetime
    preview: Preview
    after: Subscription
    refund: Annotated[int, Field(ge=0)] = 0


class Occurrence(_Frozen):
    """One line of what will happen: `amount` (minor units) is what is charged then."""

    kind: StepKind
    at: AwareDatetime
    amount: int
    currency: str
    status: SubscriptionStatus
    plan_version: str
    tier: str
    cycle: Cycle
    period: Period
    balance_after: int
