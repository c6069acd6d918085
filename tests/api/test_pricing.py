from billing.calendar import Cycle
from billing.plans import Tier
from tests.api.conftest import Shop


async def test_the_price_list_shows_plans_their_savings_and_points(shop: Shop) -> None:
    answer = await shop.get("/pricing")
    assert answer.status_code == 200
    body = answer.json()
    catalog = shop.stack.context.catalog
    assert body["version"] == catalog.version
    assert body["points"] == catalog.points.model_dump(mode="json")
    assert body["products"] == [one.model_dump(mode="json") for one in catalog.products]
    assert [one["tier"] for one in body["tiers"]] == ["BASIC", "PREMIUM", "SUPER"]
    basic = body["tiers"][0]
    assert basic["trial_days"] == 7
    assert basic["entitlements"]["ad_free"] is True
    in_yuan = [plan for plan in basic["plans"] if plan["currency"] == "CNY"]
    assert [(plan["cycle"], plan["amount"], plan["saving"]) for plan in in_yuan] == [
        ("monthly", 1900, {"amount": 0, "basis_points": 0}),
        ("quarterly", 5415, {"amount": 285, "basis_points": 500}),
        ("yearly", 19380, {"amount": 3420, "basis_points": 1500}),
    ]
    yearly = catalog.membership.plan(Tier.BASIC, Cycle.YEARLY, "CNY")
    assert in_yuan[2]["plan_version"] == yearly.version
