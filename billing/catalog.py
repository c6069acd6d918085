"""The catalog: what is on sale, read from one TOML file.

Prices are integers in minor units per ISO 4217 currency. The catalog is versioned as a whole, so
that a price shown can be told from the one that replaced it.
"""

import tomllib
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from billing.errors import CatalogError
from billing.money import CURRENCIES, AmountMinor

SHIPPED: Final = Path(__file__).with_name("catalog.toml")


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Product(_Entry):
    """Something sold once. `prices` maps a currency to an amount in its minor unit."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    name: Annotated[str, Field(min_length=1, max_length=127)]
    description: Annotated[str, Field(max_length=500)] = ""
    prices: Annotated[dict[str, AmountMinor], Field(min_length=1)]

    @field_validator("prices")
    @classmethod
    def _known_currencies(cls, prices: dict[str, int]) -> dict[str, int]:
        for currency in prices:
            if currency not in CURRENCIES:
                raise ValueError(f"{currency!r} is no ISO 4217 currency in upper case")
        return prices


class Catalog(_Entry):
    """Everything on sale under one version."""

    version: Annotated[str, Field(min_length=1, max_length=64)]
    products: Annotated[list[Product], Field(default_factory=list)]

    @field_validator("products")
    @classmethod
    def _distinct(cls, products: list[Product]) -> list[Product]:
        seen: set[str] = set()
        for product in products:
            if product.id in seen:
                raise ValueError(f"two products have the id {product.id!r}")
            seen.add(product.id)
        return products


def load_catalog(path: Path | None = None) -> Catalog:
    """The catalog in `path`, or the one shipped with Everbill.

    Raises CatalogError, naming the file and the line or entry at fault.
    """
    file = path or SHIPPED
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as problem:
        raise CatalogError(
            f"{file}: cannot be read: {problem.strerror}; EVERBILL_CATALOG_FILE names the catalog"
        ) from None
    except UnicodeDecodeError as problem:
        raise CatalogError(f"{file}: not UTF-8 at byte {problem.start}") from None
    try:
        return Catalog.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as problem:
        raise CatalogError(f"{file}: not TOML: {problem}") from None
    except ValidationError as problem:
        faults = "; ".join(
            f"{_entry(error['loc'])}: {error['msg'].removeprefix('Value error, ')}"
            for error in problem.errors()
        )
        raise CatalogError(f"{file}: {faults}") from None


def _entry(location: tuple[int | str, ...]) -> str:
    """`products[2].prices.USD`, counting from one as a reader does."""
    path = ""
    for part in location:
        path += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".")
