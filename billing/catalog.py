"""The catalog: what is on sale, read from one TOML file.

Prices are integers in minor units per ISO 4217 currency. The catalog is versioned as a whole, so
that a price shown can be told from the one that replaced it.
"""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from billing.catalog_lines import Location, line_of
from billing.errors import CatalogError
from billing.money import CURRENCIES, AmountMinor
from billing.plans import Membership
from billing.points import MAX_POINTS, ClawbackPolicy, PointsPurchase

POINTS_PACKAGES: Final = 4
SHIPPED: Final = Path(__file__).with_name("catalog.toml")


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class _Priced(_Entry):
    """`prices` maps a currency to an amount in its minor unit."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
    name: Annotated[str, Field(min_length=1, max_length=127)]
    prices: Annotated[dict[str, AmountMinor], Field(min_length=1)]

    @field_validator("prices")
    @classmethod
    def _known_currencies(cls, prices: dict[str, int]) -> dict[str, int]:
        for currency in prices:
            if currency not in CURRENCIES:
                raise ValueError(f"{currency!r} is no ISO 4217 currency in upper case")
        return prices


class Product(_Priced):
    """Something sold once."""

    description: Annotated[str, Field(max_length=500)] = ""


class PointsPackage(_Priced):
    """`points` and, free of charge, `bonus_points`, which expire that many days after the purchase
    where `expires_after_days` is given."""

    points: Annotated[int, Field(ge=1, le=MAX_POINTS)]
    bonus_points: Annotated[int, Field(ge=0, le=MAX_POINTS)] = 0
    expires_after_days: Annotated[int, Field(ge=1, le=36500)] | None = None

    def purchase(self) -> PointsPurchase:
        """What an order of this package brings once it is paid."""
        return PointsPurchase(
            package_id=self.id,
            points=self.points,
            bonus_points=self.bonus_points,
            expires_after_days=self.expires_after_days,
        )


class PointsOffer(_Entry):
    """The packages of points, and what becomes of a refund whose points are spent already."""

    clawback: Annotated[ClawbackPolicy, Field(strict=False)]
    packages: list[PointsPackage]

    @field_validator("packages")
    @classmethod
    def _four(cls, packages: list[PointsPackage]) -> list[PointsPackage]:
        if len(packages) != POINTS_PACKAGES:
            raise ValueError(f"there are {POINTS_PACKAGES} packages, not {len(packages)}")
        _require_distinct("packages", packages)
        return packages

    def package(self, package_id: str) -> PointsPackage | None:
        return next((one for one in self.packages if one.id == package_id), None)


class Catalog(_Entry):
    """Everything on sale under one version."""

    version: Annotated[str, Field(min_length=1, max_length=64)]
    products: Annotated[list[Product], Field(default_factory=list)]
    points: PointsOffer
    membership: Membership = Membership(tiers=[])

    @field_validator("products")
    @classmethod
    def _distinct(cls, products: list[Product]) -> list[Product]:
        _require_distinct("products", products)
        return products


def _require_distinct(what: str, entries: Sequence[_Priced]) -> None:
    seen: set[str] = set()
    for entry in entries:
        if entry.id in seen:
            raise ValueError(f"two {what} have the id {entry.id!r}")
        seen.add(entry.id)


def load_catalog(path: Path | None = None) -> Catalog:
    """The catalog in `path`, or the one shipped with Everbill.

    Raises CatalogError, naming the file, and the line and entry at fault.
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
            f"{_place(text, error['loc'])}: {error['msg'].removeprefix('Value error, ')}"
            for error in problem.errors()
        )
        raise CatalogError(f"{file}: {faults}") from None


def _place(text: str, location: Location) -> str:
    line = line_of(text, location)
    return _entry(location) if line is None else f"line {line}, {_entry(location)}"


def _entry(location: Location) -> str:
    """`products[2].prices.USD`, counting from one as a reader does."""
    path = ""
    for part in location:
        path += f"[{part + 1}]" if isinstance(part, int) else f".{part}"
    return path.removeprefix(".")
