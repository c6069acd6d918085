"""Points: lots that are bought, spent oldest first, taken back with a refund, and expire.

A purchase makes a lot of what was paid for and one of its bonus. A refund takes back the purchase's
points in proportion to the money, and a refund that fails restores exactly what it took.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

from billing.errors import InsufficientPoints, InvalidRequest, PointsAlreadySpent

COMMODITY: Final = "PTS"
MAX_POINTS: Final = 99_999_999


class LotKind(StrEnum):
    PAID = "paid"
    BONUS = "bonus"


class PointsMovement(StrEnum):
    """What changed a balance: PURCHASE and BONUS came with a payment, CLAWBACK went with a refund,
    RESTORE came back as that refund failed, or another that it had been rounded up beside."""

    PURCHASE = "purchase"
    BONUS = "bonus"
    SPEND = "spend"
    CLAWBACK = "clawback"
    RESTORE = "restore"
    EXPIRY = "expiry"

    @property
    def is_credit(self) -> bool:
        return self in (PointsMovement.PURCHASE, PointsMovement.BONUS, PointsMovement.RESTORE)


class ClawbackPolicy(StrEnum):
    """What becomes of a refund whose points are spent already: none of it, as much of it as is
    covered, or all of it, the user owing the points that are missing."""

    REFUSE = "refuse"
    REDUCE = "reduce"
    DEBT = "debt"


class PointsPurchase(BaseModel):
    """What an order of points brings once it is paid, as the catalog had it then."""

    model_config = ConfigDict(frozen=True)

    package_id: str
    points: Annotated[int, Field(ge=1, le=MAX_POINTS)]
    bonus_points: Annotated[int, Field(ge=0, le=MAX_POINTS)] = 0
    expires_after_days: Annotated[int, Field(ge=1)] | None = None

    def lots(self) -> dict[LotKind, int]:
        """How many points of each kind, without the kinds of which there are none."""
        points = {LotKind.PAID: self.points, LotKind.BONUS: self.bonus_points}
        return {kind: number for kind, number in points.items() if number > 0}

    def expires_at(self, credited_at: datetime) -> datetime | None:
        if self.expires_after_days is None:
            return None
        return credited_at + timedelta(days=self.expires_after_days)


class PointsTransaction(BaseModel):
    """One movement as the API shows it: `amount` is signed, `balance_after` negative in debt."""

    model_config = ConfigDict(frozen=True)

    id: str
    user_id: str
    kind: PointsMovement
    amount: int
    balance_after: int
    payment_id: str | None
    refund_id: str | None
    description: str | None
    created_at: datetime


class PointsBalance(BaseModel):
    """What a user has: `balance` is what the lots hold less what is `owed`, `spendable` what a
    spend may come to now."""

    model_config = ConfigDict(frozen=True)

    user_id: str
    balance: int
    spendable: int
    owed: int


class HeldLot(BaseModel):
    """What is left of the points of one kind that one payment brought."""

    model_config = ConfigDict(frozen=True)

    payment_id: str
    kind: LotKind
    granted: int
    remaining: int
    expires_at: datetime | None


class PointsHoldings(PointsBalance):
    """The same, and the lots it is in, oldest first: those that are spent from first."""

    lots: list[HeldLot]


class ClawbackPreview(BaseModel):
    """What a refund would do: `amount` (minor units) is what the policy lets pass of it, `points`
    what the balance would lose: so many `bonus` and `paid` ones, and those that would be `owed`."""

    model_config = ConfigDict(frozen=True)

    amount: int
    points: int
    bonus: int
    paid: int
    owed: int
    balance_after: int


@dataclass(frozen=True)
class PointsLot:
    """Points of one kind from one purchase; a lower `id` is an older lot.

    `remaining` are the user's still; `expired` are those that lapsed and were not yet counted
    against a refund: nobody used them, so that a refund of their price leaves nothing missing.
    """

    id: int
    payment_id: str
    kind: LotKind
    granted: int
    remaining: int
    expired: int
    expires_at: datetime | None

    def is_spendable(self, now: datetime) -> bool:
        return self.remaining > 0 and (self.expires_at is None or now < self.expires_at)

    def is_due(self, now: datetime) -> bool:
        """Whether what remains has lapsed and is to be written off."""
        return self.remaining > 0 and not self.is_spendable(now)


@dataclass(frozen=True)
class Taking:
    """Out of one lot: `points` from what remains, `lapsed` from what had expired unused."""

    lot_id: int
    points: int
    lapsed: int = 0


@dataclass(frozen=True)
class PurchaseStanding:
    """What the refunds of a purchase that stand (done or under way) have come to: `refunded_minor`
    of the `paid_minor` (minor units), and the `taken` points."""

    payment_id: str
    paid_minor: int
    refunded_minor: int
    taken: int


@dataclass(frozen=True)
class Clawback:
    """What a refund of `amount_minor` takes back; `owed` is what no lot has."""

    amount_minor: int
    takings: tuple[Taking, ...]
    owed: int

    @property
    def points(self) -> int:
        """All that counts as taken back."""
        return self.owed + sum(taking.points + taking.lapsed for taking in self.takings)

    @property
    def movement(self) -> int:
        """What the balance loses: points that lapsed have left it before."""
        return self.owed + sum(taking.points for taking in self.takings)


def draw(lots: Iterable[PointsLot], points: int, now: datetime) -> list[Taking]:
    """Up to `points` out of the lots that may be spent, oldest first."""
    takings = []
    for lot in sorted(lots, key=lambda one: one.id):
        if points == 0:
            break
        if lot.is_spendable(now):
            part = min(points, lot.remaining)
            takings.append(Taking(lot.id, part))
            points -= part
    return takings


def choose_lots(
    lots: Sequence[PointsLot], points: int, *, debt: int, now: datetime
) -> list[Taking]:
    """The lots that a spend is taken from. Raises InvalidRequest for less than one point, and
    InsufficientPoints where there are fewer than that, or any are owed."""
    if points < 1:
        raise InvalidRequest("points are spent one at least", param="points")
    if debt > 0:
        raise InsufficientPoints(f"{debt} points are owed: nothing can be spent", param="points")
    takings = draw(lots, points, now)
    there = sum(taking.points for taking in takings)
    if there < points:
        raise InsufficientPoints(f"{there} points can be spent, not {points}", param="points")
    return takings


def points_due(granted: int, paid_minor: int, refunded_minor: int) -> int:
    """How many points are to be gone once `refunded_minor` of `paid_minor` are refunded.

    Rounded up, and of the whole each time: no split of a refund gains or loses a point, and no
    money is refunded whose points are not there.
    """
    return -(-granted * refunded_minor // paid_minor)


def amount_covered(granted: int, paid_minor: int, points: int) -> int:
    """The largest amount refunded in all (minor units) for which `points` suffice."""
    return points * paid_minor // granted


def plan_clawback(
    lots: Sequence[PointsLot],
    standing: PurchaseStanding,
    amount_minor: int,
    policy: ClawbackPolicy,
    now: datetime,
    *,
    most: int | None = None,
) -> Clawback:
    """What a refund of `amount_minor` takes from the user's `lots`, the purchase's own (bonus
    first) and, for a debt, whatever else may be spent (oldest first); no more than
    `most` points.

    Raises PointsAlreadySpent where the policy allows no refund.
    """
    own = sorted(
        (lot for lot in lots if lot.payment_id == standing.payment_id),
        key=lambda lot: (lot.kind is not LotKind.BONUS, lot.id),
    )
    granted = sum(lot.granted for lot in own)
    there = sum(lot.remaining + lot.expired for lot in own)

    def needed(amount: int) -> int:
        # What gateways gave back or had withdrawn by themselves may come to more than was paid.
        gone = min(standing.refunded_minor + amount, standing.paid_minor)
        due = points_due(granted, standing.paid_minor, gone)
        return max(0, due - standing.taken)

    if needed(amount_minor) > there and policy is not ClawbackPolicy.DEBT:
        covered = amount_covered(granted, standing.paid_minor, standing.taken + there)
        amount = covered - standing.refunded_minor
        if policy is ClawbackPolicy.REFUSE or amount < 1:
            raise PointsAlreadySpent(
                f"{needed(amount_minor)} points would be taken back, and {there} of this purchase"
                " are left",
                param="amount",
            )
        amount_minor = amount
    points = needed(amount_minor) if most is None else min(needed(amount_minor), most)
    takings = _take(own, points)
    missing = points - sum(taking.points + taking.lapsed for taking in takings)
    others = draw((lot for lot in lots if lot not in own), missing, now)
    missing -= sum(taking.points for taking in others)
    return Clawback(amount_minor, (*takings, *others), missing)


def _take(lots: Iterable[PointsLot], points: int) -> list[Taking]:
    takings = []
    for lot in lots:
        remaining = min(points, lot.remaining)
        lapsed = min(points - remaining, lot.expired)
        if remaining + lapsed > 0:
            takings.append(Taking(lot.id, remaining, lapsed))
            points -= remaining + lapsed
    return takings


def plan_return(
    takings: Sequence[Taking], own: Sequence[PointsLot], points: int, *, owed: int
) -> Clawback:
    """Which `points` of what a clawback has taken go back, the last first: those that are `owed`,
    those out of other purchases' lots, then the purchase's `own`, its bonus last."""
    kinds = {lot.id: lot.kind for lot in own}
    forgiven = min(points, owed)
    points -= forgiven
    returned = []
    for taking in sorted(
        takings,
        key=lambda one: (one.lot_id in kinds, kinds.get(one.lot_id) is LotKind.BONUS, -one.lot_id),
    ):
        lapsed = min(points, taking.lapsed)
        remaining = min(points - lapsed, taking.points)
        if lapsed + remaining > 0:
            returned.append(Taking(taking.lot_id, remaining, lapsed))
            points -= lapsed + remaining
    return Clawback(0, tuple(returned), forgiven)
