"""What an application may order, and the order that comes of it."""

import ipaddress
import secrets
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, ValidationInfo

from api.bodies import StrictInput
from billing.cards import contains_card_number
from billing.catalog import PointsOffer
from billing.errors import (
    CardNumberRefused,
    CurrencyNotSupported,
    GatewayNotConfigured,
    InvalidRequest,
    MethodNotSupported,
    MethodNotUsable,
)
from billing.identifiers import METHOD_ID_PATTERN, PAYMENT, make_id
from billing.messages import PaymentOrder, SwitchOrder
from billing.money import CURRENCIES, AmountMinor, CurrencyCode
from billing.payment import (
    GatewayName,
    NoAction,
    Payer,
    Payment,
    PaymentMethod,
    PaymentStatus,
    PaymentType,
)
from gateways.gateway import Capabilities
from runtime.settings import is_loopback

USER_ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,63}$"
LEAST_LIFE_SECONDS: Final = 60
LEAST_SANDBOX_LIFE_SECONDS: Final = 5
LONGEST_LIFE_SECONDS: Final = 7200
LONGEST_CARD_LIFE_SECONDS: Final = 86_400
DEFAULT_LIFE_SECONDS: Final = 1800


def refuse_card_number(text: str, info: ValidationInfo) -> str:
    """Raises CardNumberRefused, which names the field and never the number."""
    if contains_card_number(text):
        field = info.field_name or "text"
        raise CardNumberRefused(
            f"{field} holds what looks like a payment card's number; send none to us, the payer"
            " gives it to the gateway alone",
            param=field,
        )
    return text


def whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _web_address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(url)):
        if parts.hostname and parts.port != 0 and not parts.username and not parts.password:
            return url
        raise ValueError("a web address with a host and without a user name is expected")
    raise ValueError("an https address is expected (http only on this machine)")


def _ip_address(text: str) -> str:
    address = ipaddress.ip_address(text)
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id is not None:
        raise ValueError("an address without a zone is expected")
    return str(address)


WithoutCardNumber: Final = AfterValidator(refuse_card_number)
"""Behind the bounds of a text, or what is told of these speaks of items."""

UserId = Annotated[str, StringConstraints(pattern=USER_ID_PATTERN)]
Seconds = Annotated[
    int,
    Field(ge=LEAST_SANDBOX_LIFE_SECONDS, le=LONGEST_CARD_LIFE_SECONDS, strict=True),
    BeforeValidator(whole),
]
MetadataKey = Annotated[str, Field(min_length=1, max_length=64), WithoutCardNumber]
ReturnUrl = Annotated[
    str, Field(max_length=256, pattern=r"^https?://[^\s]+$"), AfterValidator(_web_address)
]
MetadataValue = Annotated[str, Field(max_length=500), WithoutCardNumber]


class PayerInput(StrictInput):
    """Who pays: `openid` for WeChat Pay `jsapi`, `client_ip` for `h5`."""

    openid: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,128}$")] | None = None
    client_ip: (
        Annotated[str, Field(min_length=2, max_length=45), AfterValidator(_ip_address)] | None
    ) = Field(default=None, description="IPv4 or IPv6")


class _Order(StrictInput):
    """What every order says, whatever it is for."""

    user_id: UserId
    currency: CurrencyCode
    gateway: GatewayName
    method: PaymentMethod
    return_url: ReturnUrl | None = Field(
        default=None, description="Where the gateway sends the payer back: https"
    )
    payer: PayerInput | None = None
    expires_in_seconds: Seconds = Field(
        default=DEFAULT_LIFE_SECONDS,
        description="60 to 7200, `card` to 86400, from 5 against the sandbox",
    )
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=20)] = Field(
        default_factory=dict
    )


class CreatePayment(_Order):
    """An order: `amount` is in minor units (cents, 分) of `currency`."""

    amount: AmountMinor
    description: Annotated[str, Field(min_length=1, max_length=127), WithoutCardNumber]
    payment_method_id: Annotated[str, Field(pattern=METHOD_ID_PATTERN)] | None = Field(
        default=None, description="With the method `saved`: an active one of this user and gateway"
    )


class PurchasePoints(_Order):
    """An order of one of the catalog's packages of points, at its price in `currency`."""

    package: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")] = Field(
        description="The `id` of a package in `GET /pricing`"
    )


class SwitchInput(StrictInput):
    """Another way to pay the same order; `return_url` and `payer` are those of the new way."""

    gateway: GatewayName
    method: PaymentMethod
    return_url: ReturnUrl | None = Field(
        default=None, description="Where the gateway sends the payer back: https"
    )
    payer: PayerInput | None = None


class Offers:
    """What this deployment takes: the gateways that are on, their methods and currencies."""

    def __init__(
        self,
        capabilities: Mapping[GatewayName, Capabilities],
        is_sandbox: Callable[[GatewayName], bool],
    ) -> None:
        self._capabilities = capabilities
        self._is_sandbox = is_sandbox

    def order(self, wanted: CreatePayment, application: str, now: datetime) -> PaymentOrder:
        """A new order with an id of its own. Raises InvalidRequest and its kin.

        Its end is a whole second: gateways take no finer one.
        """
        self._check(wanted)
        end = now + timedelta(seconds=wanted.expires_in_seconds)
        if end.microsecond:
            end = end.replace(microsecond=0) + timedelta(seconds=1)
        return PaymentOrder(
            payment_id=make_id(PAYMENT, int(now.timestamp() * 1000), secrets.token_bytes(10)),
            application=application,
            user_id=wanted.user_id,
            amount_minor=wanted.amount,
            currency=wanted.currency,
            gateway=wanted.gateway,
            method=wanted.method,
            description=wanted.description,
            payment_method_id=wanted.payment_method_id,
            return_url=wanted.return_url,
            payer=_payer(wanted.payer),
            metadata=wanted.metadata,
            created_at=now,
            expires_at=end,
        )

    def purchase(
        self, wanted: PurchasePoints, offer: PointsOffer, application: str, now: datetime
    ) -> PaymentOrder:
        """A new order of a package of points, priced and described by the catalog. Raises as
        `order`, and for a package, or a price of it, that is not there."""
        _refuse_saved(wanted.method)
        package = offer.package(wanted.package)
        if package is None:
            on_sale = ", ".join(one.id for one in offer.packages)
            raise InvalidRequest(f"the packages of points are {on_sale}", param="package")
        amount = package.prices.get(wanted.currency)
        if amount is None:
            raise CurrencyNotSupported(
                f"{package.id} is sold for {', '.join(sorted(package.prices))}, not for"
                f" {wanted.currency}",
                param="currency",
            )
        priced = CreatePayment(
            amount=amount,
            description=package.name,
            **{name: getattr(wanted, name) for name in _Order.model_fields},
        )
        return self.order(priced, application, now).model_copy(
            update={"type": PaymentType.POINTS, "points": package.purchase()}
        )

    def switch(self, wanted: SwitchInput, payment: Payment, application: str) -> SwitchOrder:
        """The command to have `payment` paid in another way. Raises InvalidRequest and its kin."""
        _refuse_saved(wanted.method)
        self._check_way(wanted.gateway, wanted.method, payment.currency)
        _check_payer(wanted.method, wanted.payer)
        return SwitchOrder(
            application=application,
            gateway=wanted.gateway,
            method=wanted.method,
            return_url=wanted.return_url,
            payer=_payer(wanted.payer),
        )

    def _check(self, wanted: CreatePayment) -> None:
        self._check_way(wanted.gateway, wanted.method, wanted.currency)
        _check_payer(wanted.method, wanted.payer)
        if wanted.payment_method_id is not None and wanted.method is not PaymentMethod.SAVED:
            raise InvalidRequest(
                "payment_method_id goes with the method saved alone", param="payment_method_id"
            )
        if wanted.payment_method_id is None and wanted.method is PaymentMethod.SAVED:
            raise MethodNotUsable(
                "the method saved needs the payment_method_id of one of the user's methods",
                param="payment_method_id",
            )
        self._check_life(wanted)

    def way(
        self,
        name: GatewayName,
        method: PaymentMethod,
        currency: str,
        payer: PayerInput | None = None,
    ) -> None:
        """Whether a subscription's customer can pay by hand in this way. Raises InvalidRequest and
        its kin."""
        _refuse_saved(method)
        self._check_way(name, method, currency)
        _check_payer(method, payer)

    def saving_currency(self, name: GatewayName, wanted: str | None) -> str:
        """The currency of a method that is to be saved at the gateway: what it takes alone, or
        USD, unless told. Raises GatewayNotConfigured, MethodNotSupported, CurrencyNotSupported."""
        offered = self._capabilities.get(name)
        if offered is not None and PaymentMethod.SAVED not in offered.methods:
            raise MethodNotSupported(f"{name} saves no payment methods here", param="gateway")
        only = offered.currencies if offered is not None else None
        currency = wanted or (next(iter(only)) if only and len(only) == 1 else "USD")
        self._check_way(name, PaymentMethod.SAVED, currency)
        return currency

    def _check_way(self, name: GatewayName, method: PaymentMethod, currency: str) -> None:
        offered = self._capabilities.get(name)
        if offered is None:
            raise GatewayNotConfigured(
                f"{name} has no keys on this deployment"
                f" (on are: {', '.join(sorted(self._capabilities)) or 'none'})",
                param="gateway",
            )
        if method not in offered.methods:
            raise MethodNotSupported(
                f"{name} is paid by {', '.join(sorted(offered.methods))}, not by {method}",
                param="method",
            )
        taken = CURRENCIES if offered.currencies is None else offered.currencies
        if currency not in taken:
            words = "an ISO 4217 currency" if offered.currencies is None else ", ".join(taken)
            raise CurrencyNotSupported(f"{name} takes {words}, not {currency}", param="currency")

    def _check_life(self, wanted: CreatePayment) -> None:
        method = wanted.method
        least = (
            LEAST_SANDBOX_LIFE_SECONDS if self._is_sandbox(wanted.gateway) else LEAST_LIFE_SECONDS
        )
        longest = (
            LONGEST_CARD_LIFE_SECONDS if method is PaymentMethod.CARD else LONGEST_LIFE_SECONDS
        )
        if not least <= wanted.expires_in_seconds <= longest:
            raise InvalidRequest(
                f"expires_in_seconds is {least} to {longest} for {wanted.gateway} {method}",
                param="expires_in_seconds",
            )


def _refuse_saved(method: PaymentMethod) -> None:
    if method is PaymentMethod.SAVED:
        raise MethodNotSupported(
            "the method saved goes with POST /create alone, and with its payment_method_id",
            param="method",
        )


def _check_payer(method: PaymentMethod, payer: PayerInput | None) -> None:
    if method is PaymentMethod.JSAPI and (payer is None or payer.openid is None):
        raise InvalidRequest("jsapi needs the payer's openid", param="payer.openid")
    if method is PaymentMethod.H5 and (payer is None or payer.client_ip is None):
        raise InvalidRequest("h5 needs the payer's client_ip", param="payer.client_ip")


def _payer(given: PayerInput | None) -> Payer | None:
    return Payer(openid=given.openid, client_ip=given.client_ip) if given else None


def unrecorded(order: PaymentOrder) -> Payment:
    """The payment as it stands before its row is written: claimed, and nothing known yet."""
    return Payment(
        id=order.payment_id,
        type=order.type,
        status=PaymentStatus.CREATED,
        amount=order.amount_minor,
        currency=order.currency,
        gateway=order.gateway,
        method=order.method,
        user_id=order.user_id,
        description=order.description,
        metadata=order.metadata,
        attempt=1,
        gateway_reference=None,
        next_action=NoAction(),
        failure=None,
        review=None,
        created_at=order.created_at,
        updated_at=order.created_at,
        expires_at=order.expires_at,
        paid_at=None,
    )
