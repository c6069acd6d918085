"""Alipay Open Platform, mainland China: gateway.do with RSA2 signatures in public-key mode."""

import re

from billing.errors import SettingError
from gateways.alipay.adapter import AlipayGateway
from gateways.alipay.requests import Account
from gateways.alipay.webhook import AlipayWebhookVerifier
from gateways.gateway import Gateway, WebhookVerifier
from gateways.keys import all_set, are_a_pair, load_private_key, load_public_key, read_address
from gateways.transport import make_client
from runtime.settings import Settings

_PRIVATE_KEY = "EVERBILL_ALIPAY_APP_PRIVATE_KEY"
_PUBLIC_KEY = "EVERBILL_ALIPAY_ALIPAY_PUBLIC_KEY"
_SCENE = re.compile(r"[A-Z0-9_]{1,31}\|[A-Z0-9_]{1,32}", re.ASCII)


def is_configured(settings: Settings) -> bool:
    """Whether Alipay is switched on. Raises SettingError where only some keys are set."""
    return all_set("Alipay", _required(settings))


def build_gateway(settings: Settings, notify_url: str) -> Gateway:
    """Raises SettingError naming the setting at fault."""
    return AlipayGateway(make_client(), _account(settings), notify_url)


def build_verifier(settings: Settings) -> WebhookVerifier:
    """Raises SettingError naming the setting at fault."""
    return AlipayWebhookVerifier(_account(settings))


def _required(settings: Settings) -> dict[str, str | None]:
    keys = settings.alipay
    return {
        "EVERBILL_ALIPAY_APP_ID": keys.app_id,
        _PRIVATE_KEY: keys.app_private_key.get_secret_value() if keys.app_private_key else None,
        _PUBLIC_KEY: keys.alipay_public_key,
        "EVERBILL_ALIPAY_SELLER_ID": keys.seller_id,
    }


def _account(settings: Settings) -> Account:
    required = _required(settings)
    if not all_set("Alipay", required):
        raise SettingError(f"Alipay is not set up: set {', '.join(required)}")
    values = {name: value or "" for name, value in required.items()}
    private_key = load_private_key(values[_PRIVATE_KEY], _PRIVATE_KEY)
    public_key = load_public_key(values[_PUBLIC_KEY], _PUBLIC_KEY)
    if are_a_pair(private_key, public_key):
        raise SettingError(
            f"{_PUBLIC_KEY} is the application's own public key; give the Alipay public key, which"
            " the console shows once the application's has been uploaded"
        )
    return Account(
        app_id=values["EVERBILL_ALIPAY_APP_ID"].strip(),
        seller_id=values["EVERBILL_ALIPAY_SELLER_ID"].strip(),
        private_key=private_key,
        alipay_public_key=public_key,
        gateway_url=read_address(settings.alipay.gateway_url, "EVERBILL_ALIPAY_GATEWAY_URL"),
        sign_scene=_sign_scene(settings),
    )


def _sign_scene(settings: Settings) -> str:
    scene = settings.alipay.sign_scene.strip()
    if not _SCENE.fullmatch(scene):
        raise SettingError(
            "EVERBILL_ALIPAY_SIGN_SCENE: expected a scene such as INDUSTRY|DIGITAL_MEDIA"
        )
    return scene
