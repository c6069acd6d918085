"""Stripe: payments through PaymentIntents, saved cards through SetupIntents, with its SDK."""

import re
from typing import Final
from urllib.parse import urlsplit

from billing.errors import SettingError
from gateways.clock import utc_now
from gateways.gateway import Gateway, WebhookVerifier
from gateways.keys import all_set
from gateways.stripe.adapter import StripeGateway
from gateways.stripe.connection import connect
from gateways.stripe.webhook import StripeWebhookVerifier
from runtime.settings import Settings, is_loopback

_SECRET_KEY: Final = "EVERBILL_STRIPE_SECRET_KEY"  # noqa: S105 (its name, not its value)
_PUBLISHABLE_KEY: Final = "EVERBILL_STRIPE_PUBLISHABLE_KEY"
_WEBHOOK_SECRETS: Final = "EVERBILL_STRIPE_WEBHOOK_SECRETS"
_API_BASE: Final = "EVERBILL_STRIPE_API_BASE"
_KEY: Final = re.compile(r"(sk|rk|pk)_(live|test)_[A-Za-z0-9_]{8,}")
_WEBHOOK_SECRET: Final = re.compile(r"whsec_[A-Za-z0-9_+/=-]{8,}")


def is_configured(settings: Settings) -> bool:
    """Whether Stripe is switched on. Raises SettingError where only some keys are set."""
    return all_set("Stripe", _required(settings))


def build_gateway(settings: Settings, notify_url: str) -> Gateway:
    """Raises SettingError naming the setting at fault.

    Stripe is told `notify_url` in its dashboard, not with each order.
    """
    values = _values(settings)
    mode = _mode(values, _SECRET_KEY, "secret key", ("sk", "rk"))
    public_mode = _mode(values, _PUBLISHABLE_KEY, "publishable key", ("pk",))
    if mode != public_mode:
        raise SettingError(
            f"{_PUBLISHABLE_KEY} is of {public_mode} mode, {_SECRET_KEY} of {mode} mode;"
            " give two of the same mode"
        )
    client, transport = connect(values[_SECRET_KEY], _api_base(settings))
    return StripeGateway(
        client,
        transport,
        publishable_key=values[_PUBLISHABLE_KEY],
        is_live=mode == "live",
        clock=utc_now,
    )


def build_verifier(settings: Settings) -> WebhookVerifier:
    """Raises SettingError naming the setting at fault."""
    secrets = [part.strip() for part in _values(settings)[_WEBHOOK_SECRETS].split(",")]
    for place, secret in enumerate(secrets, start=1):
        if not _WEBHOOK_SECRET.fullmatch(secret):
            raise SettingError(
                f"{_WEBHOOK_SECRETS}: expected the endpoint's signing secrets (whsec_…) from the"
                f" dashboard, separated by commas; number {place} is not one"
            )
    return StripeWebhookVerifier(secrets)


def _required(settings: Settings) -> dict[str, str | None]:
    keys = settings.stripe
    return {
        _SECRET_KEY: keys.secret_key.get_secret_value() if keys.secret_key else None,
        _PUBLISHABLE_KEY: keys.publishable_key,
        _WEBHOOK_SECRETS: keys.webhook_secrets.get_secret_value() if keys.webhook_secrets else None,
    }


def _values(settings: Settings) -> dict[str, str]:
    required = _required(settings)
    if not all_set("Stripe", required):
        raise SettingError(f"Stripe is not set up: set {', '.join(required)}")
    return {name: (value or "").strip() for name, value in required.items()}


def _mode(values: dict[str, str], setting: str, kind: str, prefixes: tuple[str, ...]) -> str:
    """`live` or `test`, from the key of that setting."""
    expected = " or ".join(f"{prefix}_…" for prefix in prefixes)
    match = _KEY.fullmatch(values[setting])
    if match is None:
        raise SettingError(f"{setting}: this is no {kind} of Stripe's ({expected})")
    if match[1] not in prefixes:
        raise SettingError(
            f"{setting}: expected a {kind} ({expected}), this is a key that begins with {match[1]}_"
        )
    return match[2]


def _api_base(settings: Settings) -> str:
    base = settings.stripe.api_base.strip().rstrip("/")
    parts = urlsplit(base)
    is_safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(base))
    if not is_safe or not parts.hostname or parts.query or parts.fragment:
        raise SettingError(
            f"{_API_BASE}: expected an https address without a query (http on this machine only)"
        )
    return base
