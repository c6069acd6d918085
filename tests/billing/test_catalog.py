from pathlib import Path

import pytest

from billing.catalog import SHIPPED, load_catalog
from billing.errors import CatalogError
from billing.points import ClawbackPolicy, PointsPurchase

PRODUCT = """
[[products]]
id = "pass"
name = "Pass"
prices = { USD = 199 }
"""
PACKAGE = """
[[points.packages]]
id = "small"
name = "Small"
points = 100
bonus_points = 5
expires_after_days = 30
prices = { CNY = 600 }
"""
PACKAGES = PACKAGE + "".join(
    f"""
[[points.packages]]
id = "more_{number}"
name = "More"
points = {number}
prices = {{ CNY = {number} }}
"""
    for number in (2, 3, 4)
)
GOOD = f"""
version = "1"
{PRODUCT}
[points]
clawback = "refuse"
{PACKAGES}
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "catalog.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_shipped_catalog_has_a_price_in_yuan_for_every_product() -> None:
    catalog = load_catalog()
    assert catalog.products
    assert all(product.prices["CNY"] > 0 for product in catalog.products)


def test_the_shipped_catalog_has_four_packages_of_points_priced_in_three_currencies() -> None:
    points = load_catalog().points
    assert points.clawback is ClawbackPolicy.REDUCE
    assert [(one.points, one.bonus_points) for one in points.packages] == [
        (100, 5),
        (500, 50),
        (1200, 180),
        (3000, 600),
    ]
    assert all(set(one.prices) == {"CNY", "USD", "EUR"} for one in points.packages)


def test_a_package_is_found_by_its_id_and_bought_as_it_stands(tmp_path: Path) -> None:
    points = load_catalog(write(tmp_path, GOOD)).points
    assert points.package("absent") is None
    small, plain = points.package("small"), points.package("more_2")
    assert small is not None
    assert plain is not None
    assert small.purchase() == PointsPurchase(
        package_id="small", points=100, bonus_points=5, expires_after_days=30
    )
    assert plain.purchase() == PointsPurchase(package_id="more_2", points=2)


def test_a_catalog_of_ones_own_is_read_from_its_file(tmp_path: Path) -> None:
    catalog = load_catalog(write(tmp_path, GOOD))
    assert catalog.version == "1"
    assert [(product.id, product.prices) for product in catalog.products] == [
        ("pass", {"USD": 199})
    ]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("version = ", "version "), "line 2"),
        (('version = "1"', ""), "version: Field required"),
        (("199", "1.99"), "products[1].prices.USD"),
        (("199", '"199"'), "products[1].prices.USD"),
        (("199", "true"), "products[1].prices.USD"),
        (("199", "0"), "products[1].prices.USD"),
        (("USD", "usd"), "products[1].prices: 'usd' is no ISO 4217 currency"),
        (("USD", "XXX"), "products[1].prices: 'XXX' is no ISO 4217 currency"),
        (("{ USD = 199 }", "{}"), "products[1].prices"),
        (('"pass"', '"A pass"'), "products[1].id"),
        (("name", "nmae"), "products[1].nmae"),
        (("[[products]]", "[products]"), "products"),
        (('"refuse"', '"forgive"'), "points.clawback: Input should be 'refuse', 'reduce' or"),
        (('clawback = "refuse"', ""), "points.clawback: Field required"),
        (("points = 100", "points = 0"), "points.packages[1].points"),
        (("points = 100", "points = 1.5"), "points.packages[1].points"),
        (("bonus_points = 5", "bonus_points = -1"), "points.packages[1].bonus_points"),
        (("expires_after_days = 30", "expires_after_days = 0"), "packages[1].expires_after_days"),
        (("CNY = 2", "CNY = 0"), "points.packages[2].prices.CNY"),
        (("CNY = 3", "cny = 3"), "points.packages[3].prices: 'cny' is no ISO 4217 currency"),
        ((PACKAGE, ""), "points.packages: there are 4 packages, not 3"),
        ((PACKAGE, PACKAGE + PACKAGE), "points.packages: there are 4 packages, not 5"),
        (('"more_2"', '"small"'), "points.packages: two packages have the id 'small'"),
    ],
)
def test_a_broken_catalog_names_what_is_wrong(
    tmp_path: Path, change: tuple[str, str], named: str
) -> None:
    file = write(tmp_path, GOOD.replace(*change))
    with pytest.raises(CatalogError) as refusal:
        load_catalog(file)
    assert named in str(refusal.value)
    assert str(file) in str(refusal.value)


@pytest.mark.parametrize(
    ("good", "bad"),
    [
        ("CNY = 3900", "CNY = -5"),
        ("CNY = 6900", "CNY = 69.5"),
        ('tier = "SUPER"', 'tier = "FREE"'),
        ('name = "Premium"', 'nome = "Premium"'),
        ("caps = { alipay", "caps = { stripe"),
    ],
)
def test_a_broken_membership_is_refused_with_the_line_at_fault(
    tmp_path: Path, good: str, bad: str
) -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    [line] = [number for number, one in enumerate(text.splitlines(), 1) if good in one]
    with pytest.raises(CatalogError, match=rf"line {line}, membership\."):
        load_catalog(write(tmp_path, text.replace(good, bad)))


def test_two_products_of_one_id_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="two products have the id 'pass'"):
        load_catalog(write(tmp_path, GOOD.replace(PRODUCT, PRODUCT + PRODUCT)))


def test_a_missing_file_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"absent\.toml.*EVERBILL_CATALOG_FILE"):
        load_catalog(tmp_path / "absent.toml")


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "catalog.toml"
    file.write_bytes(b'version = "\xff"')
    with pytest.raises(CatalogError, match="not UTF-8"):
        load_catalog(file)
