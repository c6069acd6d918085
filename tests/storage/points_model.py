"""A reference for points that knows no arithmetic: every point is a thing of its own.

Shares nothing with `billing.points`: proportions are fractions, a reduced refund is searched for
one unit at a time, and what a refund took is whatever carries its name.
"""

import math
from dataclasses import dataclass, field
from datetime import datetime
from fractions import Fraction

POLICIES = ("refuse", "reduce", "debt")


class Refused(Exception):
    """The model says no; `word` is the code of the error that must be raised."""

    def __init__(self, word: str) -> None:
        super().__init__(word)
        self.word = word


@dataclass(eq=False)
class Point:
    """`state` is `here`, `spent`, `lapsed`, or `taken` by the refund `taken_by`, which found it in
    the state `was`."""

    payment_id: str
    is_bonus: bool
    expires_at: datetime | None
    state: str = "here"
    taken_by: str | None = None
    was: str = "here"

    def is_good(self, now: datetime) -> bool:
        return self.state == "here" and (self.expires_at is None or self.expires_at > now)

    def give_to(self, refund_id: str) -> None:
        self.was, self.state, self.taken_by = self.state, "taken", refund_id


@dataclass
class Refund:
    payment_id: str
    amount: int
    at: datetime
    points: int = 0
    owed: int = 0
    stands: bool = True


@dataclass
class Model:
    """One user. `points` are in the order in which they came."""

    points: list[Point] = field(default_factory=list)
    prices: dict[str, int] = field(default_factory=dict)
    refunds: dict[str, Refund] = field(default_factory=dict)
    movements: list[tuple[str, int]] = field(default_factory=list)

    @property
    def debt(self) -> int:
        return sum(refund.owed for refund in self.refunds.values())

    @property
    def balance(self) -> int:
        return sum(point.state == "here" for point in self.points) - self.debt

    def spendable(self, now: datetime) -> int:
        return 0 if self.debt else len(self._good(now))

    def lots(self) -> list[tuple[str, str, int, int, int, int]]:
        """As the record has them: payment, kind, and how many are here, spent, taken, lapsed."""
        counts: dict[tuple[str, str], list[int]] = {}
        states = ("here", "spent", "taken", "lapsed")
        for point in self.points:
            key = point.payment_id, "bonus" if point.is_bonus else "paid"
            counts.setdefault(key, [0, 0, 0, 0])[states.index(point.state)] += 1
        return [(*key, *numbers) for key, numbers in counts.items()]  # type: ignore[misc]

    def buy(
        self,
        payment_id: str,
        price: int,
        points: int,
        bonus: int,
        expires_at: datetime | None,
        now: datetime,
    ) -> None:
        self.prices[payment_id] = price
        self.points += [Point(payment_id, False, expires_at) for _ in range(points)]
        self.points += [Point(payment_id, True, expires_at) for _ in range(bonus)]
        self._tell("purchase", points)
        self._tell("bonus", bonus)
        self._pay_debt(now)

    def spend(self, points: int, now: datetime) -> None:
        good = self._good(now)
        if self.debt or len(good) < points:
            raise Refused("insufficient_points")
        for point in good[:points]:
            point.state = "spent"
        self._tell("spend", -points)

    def expire(self, now: datetime) -> None:
        due = [one for one in self.points if one.state == "here" and not one.is_good(now)]
        lots: dict[tuple[str, bool], int] = {}
        for point in due:
            point.state = "lapsed"
            lot = point.payment_id, point.is_bonus
            lots[lot] = lots.get(lot, 0) + 1
        for number in lots.values():
            self._tell("expiry", -number)

    def left(self, payment_id: str) -> int:
        """How much of the money (minor units) can still be refunded."""
        return self.prices[payment_id] - sum(each.amount for each in self._standing(payment_id))

    def refund(
        self, refund_id: str, payment_id: str, amount: int, policy: str, now: datetime
    ) -> int:
        """What passes of `amount`, which is no more than what is left."""
        own = [one for one in self.points if one.payment_id == payment_id]
        there = [one for one in own if one.state in ("here", "lapsed")]
        if self._needed(payment_id, amount) > len(there) and policy != "debt":
            if policy == "refuse":
                raise Refused("points_already_spent")
            while amount > 0 and self._needed(payment_id, amount) > len(there):
                amount -= 1
            if amount == 0:
                raise Refused("points_already_spent")
        needed = self._needed(payment_id, amount)
        self.refunds[refund_id] = Refund(payment_id, amount, now)
        self._take(refund_id, needed, now)
        return amount

    def fail(self, refund_id: str, now: datetime) -> None:
        refund = self.refunds[refund_id]
        if not refund.stands:
            return
        before = self.balance
        for point in self.points:
            if point.taken_by == refund_id:
                point.state, point.taken_by = point.was, None
        refund.stands, refund.owed = False, 0
        self._tell("restore", self.balance - before)
        self._catch_up(refund.payment_id, now)
        self._give_back(refund.payment_id)
        self._pay_debt(now)

    def due(self) -> dict[str, int]:
        """By payment, the points that are to be gone with what is refunded of its money, whatever
        was done one after the other: those of payments of which anything was ever refunded."""
        payments = {refund.payment_id for refund in self.refunds.values()}
        return {payment_id: self._due(payment_id, 0) for payment_id in payments}

    def _standing(self, payment_id: str) -> list[Refund]:
        return [
            each for each in self.refunds.values() if each.payment_id == payment_id and each.stands
        ]

    def _needed(self, payment_id: str, amount: int) -> int:
        return max(0, self._due(payment_id, amount) - self._gone(payment_id))

    def _due(self, payment_id: str, amount: int) -> int:
        """What goes with the money of all that stands, and with `amount` more."""
        standing = self._standing(payment_id)
        share = Fraction(amount + sum(each.amount for each in standing), self.prices[payment_id])
        return math.ceil(self._granted(payment_id) * share)

    def _gone(self, payment_id: str) -> int:
        return sum(each.points for each in self._standing(payment_id))

    def _take(self, refund_id: str, needed: int, now: datetime) -> None:
        refund = self.refunds[refund_id]
        own = [one for one in self.points if one.payment_id == refund.payment_id]
        there = [one for one in own if one.state in ("here", "lapsed")]
        # Within a lot what is still here goes first, the bonus lot before the paid one.
        there.sort(key=lambda one: (not one.is_bonus, one.state == "lapsed"))
        gone = there[:needed]
        gone += [one for one in self._good(now) if one.payment_id != refund.payment_id][
            : needed - len(gone)
        ]
        missing = needed - len(gone)
        moved = sum(one.state == "here" for one in gone) + missing
        for point in gone:
            point.give_to(refund_id)
        refund.points += needed
        refund.owed += missing
        self._tell("clawback", -moved)

    def _catch_up(self, payment_id: str, now: datetime) -> None:
        """What stands has no fewer points than go with its money: the latest refund takes first
        what is missing, and each no more than goes with its own."""
        granted, price = self._granted(payment_id), self.prices[payment_id]
        for name in self._latest_first(payment_id):
            one = self.refunds[name]
            room = math.ceil(granted * Fraction(one.amount, price)) - one.points
            self._take(name, max(0, min(room, self._needed(payment_id, 0))), now)

    def _give_back(self, payment_id: str) -> None:
        """Nor has it more: the latest refund gives back first, what it took last."""
        for name in self._latest_first(payment_id):
            one = self.refunds[name]
            surplus = min(one.points, self._gone(payment_id) - self._due(payment_id, 0))
            if surplus <= 0:
                continue
            before = self.balance
            forgiven = min(surplus, one.owed)
            one.owed -= forgiven
            one.points -= surplus
            for point in self._last_taken_first(name)[: surplus - forgiven]:
                point.state, point.taken_by = point.was, None
            self._tell("restore", self.balance - before)

    def _latest_first(self, payment_id: str) -> list[str]:
        names = sorted(
            name
            for name, one in self.refunds.items()
            if one.payment_id == payment_id and one.stands
        )
        return sorted(names, key=lambda name: self.refunds[name].at, reverse=True)

    def _last_taken_first(self, refund_id: str) -> list[Point]:
        """The other way round than they were taken: those of other payments first, then the paid
        lot's, then the bonus; of a lot, what had lapsed first."""
        own = self.refunds[refund_id].payment_id
        taken = [one for one in reversed(self.points) if one.taken_by == refund_id]
        taken.sort(key=lambda one: (one.payment_id == own, one.payment_id == own and one.is_bonus))
        lots = [(one.payment_id, one.is_bonus) for one in taken]
        taken.sort(
            key=lambda one: (lots.index((one.payment_id, one.is_bonus)), one.was != "lapsed")
        )
        return taken

    def _granted(self, payment_id: str) -> int:
        return sum(one.payment_id == payment_id for one in self.points)

    def _good(self, now: datetime) -> list[Point]:
        return [one for one in self.points if one.is_good(now)]

    def _pay_debt(self, now: datetime) -> None:
        for refund_id in sorted(self.refunds):
            for point in self._good(now)[: self.refunds[refund_id].owed]:
                point.give_to(refund_id)
                self.refunds[refund_id].owed -= 1

    def _tell(self, kind: str, amount: int) -> None:
        if amount:
            self.movements.append((kind, amount))
