from pathlib import Path

import pytest

from billing.calendar import Cycle
from billing.catalog import Catalog, load_catalog
from billing.errors import CatalogError, PlanNotOffered
from billing.money import Money
from billing.payment import GatewayName
from billing.plans import Plan, Tier
from billing.pricing import price_list
from tests.billing.test_catalog import GOOD, write

MEMBERSHIP = """
[membership]
zone = "America/New_York"
discounts = { quarterly = 500, yearly = 1667 }
caps = { alipay = 5000, wechatpay = 9000 }

[[membership.tiers]]
tier = "BASIC"
name = "Basic"
rank = 1
trial_days = 7
entitlements = { ad_free = true, devices = 2 }
prices = { CNY = 1999, JPY = 301, KWD = 1255 }

[[membership.tiers]]
tier = "SUPER"
name = "Super"
rank = 9
entitlements = { ad_free = true }
prices = { CNY = 5500 }
yearly = { CNY = 50000 }
"""


def read(folder: Path, text: str = MEMBERSHIP) -> Catalog:
    return load_catalog(write(folder, GOOD + text))


def test_three_tiers_are_shipped_in_yuan_and_dollars() -> None:
    membership = load_catalog().membership
    assert [entry.tier for entry in membership.tiers] == [Tier.BASIC, Tier.PREMIUM, Tier.SUPER]
    for tier in (Tier.BASIC, Tier.PREMIUM, Tier.SUPER):
        for cycle in Cycle:
            for currency in ("CNY", "USD"):
                assert membership.plan(tier, cycle, currency).amount > 0
    ranks = [entry.rank for entry in membership.tiers]
    assert ranks == sorted(set(ranks))


def test_a_catalog_without_memberships_sells_none(tmp_path: Path) -> None:
    membership = read(tmp_path, "").membership
    assert membership.tiers == []
    with pytest.raises(PlanNotOffered, match="BASIC is not on sale") as refusal:
        membership.plan(Tier.BASIC, Cycle.MONTHLY, "CNY")
    assert refusal.value.param == "tier"


@pytest.mark.parametrize(
    ("cycle", "currency", "amount"),
    [
        (Cycle.MONTHLY, "CNY", 1999),
        (Cycle.QUARTERLY, "CNY", 5697),  # 5697.15
        (Cycle.YEARLY, "CNY", 19989),  # 19989.2004
        (Cycle.QUARTERLY, "JPY", 857),  # 857.85
        (Cycle.YEARLY, "KWD", 12549),  # 12549.498
    ],
)
def test_longer_cycles_cost_the_months_less_the_discount_rounded_down(
    tmp_path: Path, cycle: Cycle, currency: str, amount: int
) -> None:
    assert read(tmp_path).membership.plan(Tier.BASIC, cycle, currency).amount == amount


def test_a_set_price_stands_for_the_discount(tmp_path: Path) -> None:
    membership = read(tmp_path).membership
    assert membership.plan(Tier.SUPER, Cycle.YEARLY, "CNY").amount == 50000
    assert membership.plan(Tier.SUPER, Cycle.QUARTERLY, "CNY").amount == 15675


@pytest.mark.parametrize(
    ("tier", "currency", "param"),
    [(Tier.FREE, "CNY", "tier"), (Tier.PREMIUM, "CNY", "tier"), (Tier.BASIC, "USD", "currency")],
)
def test_what_is_not_on_sale_is_refused(
    tmp_path: Path, tier: Tier, currency: str, param: str
) -> None:
    with pytest.raises(PlanNotOffered) as refusal:
        read(tmp_path).membership.plan(tier, Cycle.MONTHLY, currency)
    assert refusal.value.param == param


def plan(tier: Tier = Tier.BASIC, rank: int = 1, amount: int = 1999) -> Plan:
    return Plan.of(tier, rank, Cycle.MONTHLY, Money(amount_minor=amount, currency="CNY"))


def test_a_version_changes_with_what_is_paid_for_and_nothing_else(tmp_path: Path) -> None:
    now = read(tmp_path).membership.plan(Tier.BASIC, Cycle.MONTHLY, "CNY")
    renamed = MEMBERSHIP.replace('"Basic"', '"Plain"').replace("devices = 2", "devices = 3")
    later = read(tmp_path, renamed.replace("rank = 1\n", "rank = 2\n").replace("301", "302"))
    assert later.membership.plan(Tier.BASIC, Cycle.MONTHLY, "CNY").version == now.version
    dearer = read(tmp_path, MEMBERSHIP.replace("1999", "2099"))
    assert dearer.membership.plan(Tier.BASIC, Cycle.MONTHLY, "CNY").version != now.version
    assert plan().version == now.version
    assert plan(tier=Tier.SUPER).version != now.version
    versions = [one.version for one in load_catalog().membership.plans()]
    assert len(set(versions)) == len(versions) == 27


def test_the_version_of_a_plan_never_changes() -> None:
    assert plan().version == "4730ba678101a755"


def test_prices_above_a_mandates_cap_are_named(tmp_path: Path) -> None:
    named = read(tmp_path).membership.above_caps()
    assert named == [
        "BASIC quarterly costs 56.97 CNY, above what alipay charges by mandate (50.00 CNY):"
        " the customer is asked each time",
        *(
            f"{plan} CNY, above what {gateway} charges by mandate ({cap} CNY): the customer is"
            " asked each time"
            for plan, gateway, cap in (
                ("BASIC yearly costs 199.89", "alipay", "50.00"),
                ("BASIC yearly costs 199.89", "wechatpay", "90.00"),
                ("SUPER monthly costs 55.00", "alipay", "50.00"),
                ("SUPER quarterly costs 156.75", "alipay", "50.00"),
                ("SUPER quarterly costs 156.75", "wechatpay", "90.00"),
                ("SUPER yearly costs 500.00", "alipay", "50.00"),
                ("SUPER yearly costs 500.00", "wechatpay", "90.00"),
            )
        ),
    ]


def test_alipays_usual_cap_stands_where_none_is_given(tmp_path: Path) -> None:
    text = MEMBERSHIP.replace("caps = { alipay = 5000, wechatpay = 9000 }", "")
    assert read(tmp_path, text).membership.caps == {GatewayName.ALIPAY: 10_000}


def test_savings_are_against_the_monthly_price(tmp_path: Path) -> None:
    basic, super_ = price_list(read(tmp_path)).tiers
    assert [(one.cycle, one.currency) for one in basic.plans[:4]] == [
        (Cycle.MONTHLY, "CNY"),
        (Cycle.MONTHLY, "JPY"),
        (Cycle.MONTHLY, "KWD"),
        (Cycle.QUARTERLY, "CNY"),
    ]
    assert all(one.saving.amount == 0 for one in basic.plans[:3])
    quarterly = basic.plans[3].saving
    assert (quarterly.amount, quarterly.basis_points) == (300, 500)
    yearly = super_.plans[2].saving
    assert (yearly.amount, yearly.basis_points) == (16000, 2424)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (('tier = "BASIC"', 'tier = "FREE"'), "membership.tiers[1].tier: FREE is the absence"),
        (('tier = "BASIC"', 'tier = "GOLD"'), "membership.tiers[1].tier: Input should be"),
        (('tier = "SUPER"', 'tier = "BASIC"'), "membership.tiers: two tiers are BASIC"),
        (("rank = 9", "rank = 1"), "membership.tiers: BASIC and SUPER have the same rank"),
        (("rank = 9", "rank = 0"), "membership.tiers[2].rank"),
        (("rank = 9", "rank = 1.0"), "membership.tiers[2].rank"),
        (("trial_days = 7", "trial_days = -1"), "membership.tiers[1].trial_days"),
        (("trial_days = 7", "trial_days = 731"), "membership.tiers[1].trial_days"),
        (("devices = 2", 'devices = "2"'), "membership.tiers[1].entitlements.devices"),
        (("devices = 2", "devices = 1.5"), "membership.tiers[1].entitlements.devices"),
        (("ad_free", '"Ad free"'), "membership.tiers[1].entitlements"),
        (("{ CNY = 5500 }", "{}"), "membership.tiers[2].prices"),
        (("5500", "55.50"), "membership.tiers[2].prices.CNY"),
        (("JPY", "JPX"), "membership.tiers[1].prices: 'JPX' is no ISO 4217 currency"),
        (("yearly = { CNY", "yearly = { USD"), "tiers[2]: yearly.USD: there is no price of a"),
        (("50000", "66001"), "membership.tiers[2]: yearly.CNY: dearer than 12 months"),
        (("5500", "99999999"), "tiers[2].prices.CNY: quarterly comes to 284999997"),
        (("yearly = 1667", "yearly = 10000"), "membership.discounts.yearly"),
        (("yearly = 1667", "monthly = 1"), "membership.discounts.monthly"),
        (("yearly = 1667", "yearly = 9999"), "tiers[1].prices.JPY: yearly comes to 0"),
        (("America/New_York", "America/Boston"), "membership.zone: 'America/Boston' is no time"),
        (("alipay = 5000", "stripe = 5000"), "membership.caps: stripe has no cap"),
        (("alipay = 5000", "paypal = 5000"), "membership.caps"),
        (("alipay = 5000", "alipay = 0"), "membership.caps.alipay"),
        (("trial_days", "trial"), "membership.tiers[1].trial: "),
    ],
)
def test_a_broken_membership_names_what_is_wrong(
    tmp_path: Path, change: tuple[str, str], named: str
) -> None:
    text = MEMBERSHIP.replace(*change)
    assert text != MEMBERSHIP
    with pytest.raises(CatalogError) as refusal:
        read(tmp_path, text)
    assert named in str(refusal.value)
