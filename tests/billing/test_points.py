"""The rules of points: which lots a spend and a refund take, and what is missing."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from billing.errors import InsufficientPoints, InvalidRequest, PointsAlreadySpent
from billing.points import (
    Clawback,
    ClawbackPolicy,
    LotKind,
    PointsLot,
    PointsMovement,
    PointsPurchase,
    PurchaseStanding,
    Taking,
    amount_covered,
    choose_lots,
    plan_clawback,
    plan_return,
    points_due,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
P = ClawbackPolicy


def lot(
    number: int,
    remaining: int,
    *,
    of: str = "pay_a",
    kind: LotKind = LotKind.PAID,
    granted: int | None = None,
    expired: int = 0,
    expires_at: datetime | None = None,
) -> PointsLot:
    return PointsLot(
        number, of, kind, remaining if granted is None else granted, remaining, expired, expires_at
    )


def standing(*, paid: int = 1000, refunded: int = 0, taken: int = 0) -> PurchaseStanding:
    return PurchaseStanding("pay_a", paid, refunded, taken)


class TestSpending:
    def test_the_oldest_lot_is_spent_first(self) -> None:
        lots = [lot(3, 50), lot(1, 10), lot(2, 20)]
        assert choose_lots(lots, 25, debt=0, now=NOW) == [Taking(1, 10), Taking(2, 15)]

    def test_all_of_them_can_be_spent_and_not_one_more(self) -> None:
        lots = [lot(1, 10), lot(2, 20)]
        assert choose_lots(lots, 30, debt=0, now=NOW) == [Taking(1, 10), Taking(2, 20)]
        with pytest.raises(InsufficientPoints, match="30 points can be spent, not 31"):
            choose_lots(lots, 31, debt=0, now=NOW)

    def test_a_lot_is_spent_until_the_moment_in_which_it_expires(self) -> None:
        lots = [lot(1, 10, expires_at=NOW), lot(2, 20, expires_at=NOW + timedelta(microseconds=1))]
        assert choose_lots(lots, 20, debt=0, now=NOW) == [Taking(2, 20)]
        with pytest.raises(InsufficientPoints):
            choose_lots(lots, 21, debt=0, now=NOW)
        assert [one.is_due(NOW) for one in lots] == [True, False]

    def test_a_debtor_cannot_spend(self) -> None:
        with pytest.raises(InsufficientPoints, match="5 points are owed"):
            choose_lots([lot(1, 10)], 1, debt=5, now=NOW)

    @pytest.mark.parametrize("points", [0, -1])
    def test_less_than_one_point_is_no_spend(self, points: int) -> None:
        with pytest.raises(InvalidRequest):
            choose_lots([lot(1, 10)], points, debt=0, now=NOW)


class TestProportion:
    def test_a_part_of_the_money_takes_the_part_of_the_points_rounded_up(self) -> None:
        assert [points_due(100, 2900, amount) for amount in (0, 1, 29, 30, 2899, 2900)] == [
            0, 1, 1, 2, 100, 100,
        ]  # fmt: skip

    @given(
        granted=st.integers(1, 5000),
        paid=st.integers(1, 5000),
        cuts=st.lists(st.floats(0, 1), max_size=8),
    )
    def test_no_split_of_a_full_refund_gains_or_loses_a_point(
        self, granted: int, paid: int, cuts: list[float]
    ) -> None:
        sums = [0, *sorted(int(cut * paid) for cut in cuts), paid]
        taken = [
            points_due(granted, paid, after) - points_due(granted, paid, before)
            for before, after in pairwise(sums)
        ]
        assert min(taken) >= 0
        assert sum(taken) == granted

    @given(granted=st.integers(1, 5000), paid=st.integers(1, 5000), share=st.floats(0, 1))
    def test_the_amount_covered_is_the_largest_one(
        self, granted: int, paid: int, share: float
    ) -> None:
        points = int(share * granted)
        amount = amount_covered(granted, paid, points)
        assert points_due(granted, paid, amount) <= points
        assert amount == paid or points_due(granted, paid, amount + 1) > points


class TestTakingBack:
    def test_the_bonus_goes_first(self) -> None:
        lots = [lot(1, 100), lot(2, 20, kind=LotKind.BONUS), lot(3, 500, of="pay_b")]
        assert plan_clawback(lots, standing(), 250, P.REFUSE, NOW) == Clawback(
            250, (Taking(2, 20), Taking(1, 10)), 0
        )

    @pytest.mark.parametrize("policy", P)
    def test_a_full_refund_takes_all_of_the_purchase_and_nothing_else(self, policy: P) -> None:
        lots = [lot(1, 100), lot(2, 20, kind=LotKind.BONUS), lot(3, 500, of="pay_b")]
        plan = plan_clawback(lots, standing(), 1000, policy, NOW)
        assert plan == Clawback(1000, (Taking(2, 20), Taking(1, 100)), 0)
        assert plan.points == plan.movement == 120

    def test_what_refunds_before_it_took_is_counted(self) -> None:
        lots = [lot(1, 70, granted=100)]
        plan = plan_clawback(lots, standing(refunded=300, taken=30), 700, P.REFUSE, NOW)
        assert plan == Clawback(700, (Taking(1, 70),), 0)

    def test_more_taken_than_is_due_is_made_up_for(self) -> None:
        """As after other refunds of the purchase have failed."""
        plan = plan_clawback(
            [lot(1, 98, granted=100)], standing(refunded=1, taken=2), 1, P.REFUSE, NOW
        )
        assert plan == Clawback(1, (), 0)

    def test_points_that_are_spent_refuse_the_refund(self) -> None:
        lots = [lot(1, 40, granted=100), lot(2, 500, of="pay_b")]
        with pytest.raises(PointsAlreadySpent, match="41 points would be taken back, and 40"):
            plan_clawback(lots, standing(), 401, P.REFUSE, NOW)
        assert plan_clawback(lots, standing(), 400, P.REFUSE, NOW).points == 40

    def test_points_that_are_spent_reduce_the_refund_to_what_is_covered(self) -> None:
        lots = [lot(1, 40, granted=100), lot(2, 500, of="pay_b")]
        assert plan_clawback(lots, standing(), 1000, P.REDUCE, NOW) == Clawback(
            400, (Taking(1, 40),), 0
        )

    def test_an_uneven_price_is_reduced_to_the_last_unit_that_is_covered(self) -> None:
        plan = plan_clawback([lot(1, 1, granted=3)], standing(), 1000, P.REDUCE, NOW)
        assert plan == Clawback(333, (Taking(1, 1),), 0)

    def test_a_refund_of_which_nothing_is_covered_is_refused(self) -> None:
        with pytest.raises(PointsAlreadySpent):
            plan_clawback([lot(1, 0, granted=100)], standing(), 1, P.REDUCE, NOW)

    def test_missing_points_are_owed(self) -> None:
        plan = plan_clawback([lot(1, 40, granted=100)], standing(), 1000, P.DEBT, NOW)
        assert plan == Clawback(1000, (Taking(1, 40),), 60)
        assert plan.points == plan.movement == 100

    def test_what_the_user_has_otherwise_goes_before_a_debt(self) -> None:
        lots = [
            lot(1, 40, granted=100),
            lot(2, 30, of="pay_b", expires_at=NOW),
            lot(4, 30, of="pay_d"),
            lot(3, 20, of="pay_c"),
        ]
        assert plan_clawback(lots, standing(), 1000, P.DEBT, NOW) == Clawback(
            1000, (Taking(1, 40), Taking(3, 20), Taking(4, 30)), 10
        )

    @pytest.mark.parametrize("policy", P)
    def test_points_that_expired_unused_are_not_missing(self, policy: P) -> None:
        plan = plan_clawback([lot(1, 0, granted=100, expired=100)], standing(), 500, policy, NOW)
        assert plan == Clawback(500, (Taking(1, 0, 50),), 0)
        assert (plan.points, plan.movement) == (50, 0)

    @given(
        granted=st.integers(1, 300),
        left=st.integers(0, 300),
        amounts=st.lists(st.integers(1, 1000), min_size=1, max_size=6),
        policy=st.sampled_from(P),
    )
    def test_a_reduced_refund_is_covered_and_the_next_larger_is_not(
        self, granted: int, left: int, amounts: list[int], policy: P
    ) -> None:
        lots = [lot(1, min(left, granted), granted=granted)]
        for amount in amounts:
            wanted = min(amount, 1000)
            try:
                plan = plan_clawback(lots, standing(), wanted, policy, NOW)
            except PointsAlreadySpent:
                assert points_due(granted, 1000, 1 if policy is P.REDUCE else wanted) > min(
                    left, granted
                )
                continue
            assert plan.points == points_due(granted, 1000, plan.amount_minor)
            assert sum(taking.points for taking in plan.takings) <= lots[0].remaining
            if plan.amount_minor < wanted:
                assert policy is P.REDUCE
                assert points_due(granted, 1000, plan.amount_minor + 1) > lots[0].remaining


class TestGivingBack:
    OWN = (lot(2, 0, granted=9), lot(3, 0, kind=LotKind.BONUS, granted=9))
    TAKEN = (Taking(1, 2), Taking(2, 2, 1), Taking(3, 2), Taking(5, 1))

    @pytest.mark.parametrize(
        ("points", "expected", "owed"),
        [
            (1, [], 1),
            (3, [Taking(5, 1)], 2),
            (5, [Taking(5, 1), Taking(1, 2)], 2),
            (6, [Taking(5, 1), Taking(1, 2), Taking(2, 0, 1)], 2),
            (9, [Taking(5, 1), Taking(1, 2), Taking(2, 2, 1), Taking(3, 1)], 2),
        ],
    )
    def test_what_was_taken_last_goes_back_first(
        self, points: int, expected: list[Taking], owed: int
    ) -> None:
        plan = plan_return(self.TAKEN, self.OWN, points, owed=2)
        assert (list(plan.takings), plan.owed) == (expected, owed)
        assert plan.points == points

    @given(st.integers(0, 10), st.integers(0, 4))
    def test_it_gives_back_as_many_as_it_is_told(self, points: int, owed: int) -> None:
        plan = plan_return(self.TAKEN, self.OWN, min(points, 8 + owed), owed=owed)
        assert plan.points == min(points, 8 + owed)


class TestWords:
    def test_a_purchase_without_a_bonus_makes_one_lot(self) -> None:
        assert PointsPurchase(package_id="small", points=100).lots() == {LotKind.PAID: 100}
        both = PointsPurchase(package_id="small", points=100, bonus_points=5)
        assert both.lots() == {LotKind.PAID: 100, LotKind.BONUS: 5}

    def test_points_expire_as_many_days_after_they_are_credited(self) -> None:
        purchase = PointsPurchase(package_id="small", points=100, expires_after_days=30)
        assert purchase.expires_at(NOW) == NOW + timedelta(days=30)
        assert PointsPurchase(package_id="small", points=100).expires_at(NOW) is None

    def test_a_purchase_of_nothing_is_none(self) -> None:
        with pytest.raises(ValidationError):
            PointsPurchase(package_id="small", points=0)

    def test_what_comes_in_and_what_goes_out(self) -> None:
        assert {kind for kind in PointsMovement if kind.is_credit} == {
            PointsMovement.PURCHASE,
            PointsMovement.BONUS,
            PointsMovement.RESTORE,
        }
