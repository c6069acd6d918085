"""Money as integer minor units with an ISO 4217 currency; never a float."""

from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

MAX_AMOUNT_MINOR: Final = 99_999_999

_EXPONENT_OTHER_THAN_TWO: Final = {
    **dict.fromkeys(
        ("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI",
         "VND", "VUV", "XAF", "XOF", "XPF",
         # Points, a commodity of our own in the same ledger.
         "PTS"),
        0,
    ),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
}  # fmt: skip

CURRENCIES: Final = frozenset(
    """AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP
    BYN BZD CAD CDF CHF CLP CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL
    GHS GIP GMD GNF GTQ GYD HKD HNL HTG HUF IDR ILS INR IQD IRR ISK JMD JOD JPY KES KGS KHR KMF KPW
    KRW KWD KYD KZT LAK LBP LKR LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN
    NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK
    SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND TOP TRY TTD TWD TZS UAH UGX USD UYI UYU
    UZS VED VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW ZWG""".split()
)


def _integral(value: object) -> object:
    """JSON Schema calls `2900.0` an integer; `true`, `"29"` and `29.5` are not amounts."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


# Field comes before the validator, or the JSON schema loses its bounds.
AmountMinor = Annotated[
    int, Field(ge=1, le=MAX_AMOUNT_MINOR, strict=True), BeforeValidator(_integral)
]
CurrencyCode = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]


class Money(BaseModel):
    """An amount in minor units (cents, 分) of one currency."""

    model_config = ConfigDict(frozen=True)

    amount_minor: int
    currency: str

    def __str__(self) -> str:
        return f"{format_minor(self.amount_minor, self.currency)} {self.currency}"


def exponent(currency: str) -> int:
    """How many decimals the currency's major unit has (ISO 4217)."""
    return _EXPONENT_OTHER_THAN_TWO.get(currency, 2)


def format_minor(amount_minor: int, currency: str) -> str:
    """`2900`, `CNY` to `29.00`, by integer arithmetic alone."""
    digits = exponent(currency)
    sign = "-" if amount_minor < 0 else ""
    if digits == 0:
        return f"{amount_minor}"
    whole, part = divmod(abs(amount_minor), 10**digits)
    return f"{sign}{whole}.{part:0{digits}d}"
