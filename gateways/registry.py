"""Which gateways this deployment has: those whose keys are set."""

from collections.abc import Callable, Container, Mapping
from typing import Final, Protocol, TypeVar
from urllib.parse import urlsplit

from billing.errors import SettingError
from billing.payment import GatewayName
from gateways import alipay, stripe, wechatpay
from gateways.gateway import Gateway, WebhookVerifier
from runtime.settings import Settings, is_loopback

_PUBLIC_URL: Final = "EVERBILL_PUBLIC_URL"
_WEBHOOK_PATH: Final = "/api/v1/payment/webhook"
_LONGEST_ADDRESS: Final = 255
"""What WeChat Pay takes as `notify_url`; Alipay takes one more."""

_Built = TypeVar("_Built")


class _Provider(Protocol):
    """What the package of each gateway has at its top."""

    def is_configured(self, settings: Settings) -> bool: ...

    def build_gateway(self, settings: Settings, notify_url: str) -> Gateway: ...

    def build_verifier(self, settings: Settings) -> WebhookVerifier: ...


_PROVIDERS: Final[Mapping[GatewayName, _Provider]] = {
    GatewayName.STRIPE: stripe,
    GatewayName.ALIPAY: alipay,
    GatewayName.WECHATPAY: wechatpay,
}


def configured_gateways(settings: Settings) -> frozenset[GatewayName]:
    """The gateways that are switched on. Raises SettingError where one is set up in part."""
    found = _each(_PROVIDERS, lambda name: _PROVIDERS[name].is_configured(settings))
    return frozenset(name for name, is_on in found.items() if is_on)


def build_gateways(settings: Settings) -> dict[GatewayName, Gateway]:
    """The adapters of the gateways that are switched on, to be closed with `aclose()`; nothing
    connects yet. Raises SettingError naming every setting at fault."""
    return _each(
        configured_gateways(settings),
        lambda name: _PROVIDERS[name].build_gateway(settings, notify_url(settings, name)),
    )


def build_verifiers(settings: Settings) -> dict[GatewayName, WebhookVerifier]:
    """The verifiers of their webhooks. Raises SettingError naming every setting at fault."""
    return _each(
        configured_gateways(settings), lambda name: _PROVIDERS[name].build_verifier(settings)
    )


def notify_url(settings: Settings, gateway: GatewayName) -> str:
    """Where this gateway's webhooks arrive: to be entered in Stripe's dashboard, and sent with
    each order to Alipay and WeChat Pay.

    Raises SettingError where the public address is missing or no gateway could reach it.
    """
    address = f"{_public_url(settings)}{_WEBHOOK_PATH}/{gateway.value}"
    if len(address) > _LONGEST_ADDRESS:
        raise SettingError(
            f"{_PUBLIC_URL} is too long: {address} has {len(address)} characters, gateways take"
            f" {_LONGEST_ADDRESS}"
        )
    return address


def _public_url(settings: Settings) -> str:
    real = sorted(
        name.value for name in configured_gateways(settings) if not settings.is_sandbox(name)
    )
    given = (settings.public_url or "").strip().rstrip("/")
    if not given:
        if real:
            raise SettingError(
                f"{_PUBLIC_URL} is not set, but {', '.join(real)} must reach this API: give the"
                " https address under which the internet sees it"
            )
        return f"http://127.0.0.1:{settings.api_port}"
    scheme = _scheme(given)
    if scheme is None:
        raise SettingError(
            f"{_PUBLIC_URL}: expected an address such as https://pay.example.com, without a query,"
            " a fragment, a user or spaces"
        )
    if scheme == "https" or (scheme == "http" and not real and is_loopback(given)):
        return given
    if real:
        raise SettingError(
            f"{_PUBLIC_URL}: {', '.join(real)} must reach this API over https, this is {scheme}"
        )
    raise SettingError(f"{_PUBLIC_URL}: expected https, or http on this machine only")


def _scheme(address: str) -> str | None:
    """The scheme of a usable address; None of any other."""
    try:
        parts = urlsplit(address)
        is_usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        return None
    has_more = parts.query or parts.fragment or parts.username is not None or "?" in address
    is_plain = address.isascii() and address.isprintable() and " " not in address
    return parts.scheme if is_usable and is_plain and not has_more else None


def _each(
    names: Container[GatewayName],
    build: Callable[[GatewayName], _Built],
) -> dict[GatewayName, _Built]:
    """What `build` makes of each, or all that keeps it from it."""
    built: dict[GatewayName, _Built] = {}
    problems: list[str] = []
    for name in GatewayName:
        if name not in names:
            continue
        try:
            built[name] = build(name)
        except SettingError as problem:
            problems.append(str(problem))
    if problems:
        raise SettingError("\n".join(dict.fromkeys(problems)))
    return built
