from pathlib import Path

import pytest

from billing.catalog import load_catalog
from billing.errors import CatalogError

GOOD = """
version = "1"
[[products]]
id = "pass"
name = "Pass"
prices = { USD = 199 }
"""


def write(folder: Path, text: str) -> Path:
    file = folder / "catalog.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_the_shipped_catalog_has_a_price_in_yuan_for_every_product() -> None:
    catalog = load_catalog()
    assert catalog.products
    assert all(product.prices["CNY"] > 0 for product in catalog.products)


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


def test_two_products_of_one_id_are_refused(tmp_path: Path) -> None:
    twice = GOOD + GOOD[GOOD.index("[[") :]
    with pytest.raises(CatalogError, match="two products have the id 'pass'"):
        load_catalog(write(tmp_path, twice))


def test_a_missing_file_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"absent\.toml.*EVERBILL_CATALOG_FILE"):
        load_catalog(tmp_path / "absent.toml")


def test_a_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "catalog.toml"
    file.write_bytes(b'version = "\xff"')
    with pytest.raises(CatalogError, match="not UTF-8"):
        load_catalog(file)
