"""WeChat Pay APIv3 for a direct merchant in mainland China, in public-key mode."""

import httpx

from billing.errors import SettingError
from gateways.gateway import Gateway, WebhookVerifier
from gateways.keys import all_set, are_a_pair, load_private_key, load_public_key, read_address
from gateways.transport import make_client
from gateways.wechatpay.adapter import WechatpayGateway
from gateways.wechatpay.failover import MAIN_HOST, Failover
from gateways.wechatpay.requests import Account, Contracting
from gateways.wechatpay.webhook import WechatpayWebhookVerifier
from runtime.settings import Settings

_PREFIX = "EVERBILL_WECHATPAY_"
_PRIVATE_KEY = f"{_PREFIX}MERCHANT_PRIVATE_KEY"
_PUBLIC_KEY = f"{_PREFIX}PUBLIC_KEY"
_PUBLIC_KEY_ID = f"{_PREFIX}PUBLIC_KEY_ID"
_APIV3_KEY = f"{_PREFIX}APIV3_KEY"
_API_V2_KEY = f"{_PREFIX}API_V2_KEY"
_PLAN_ID = f"{_PREFIX}PLAN_ID"
_LONGEST_PLAN_ID = 28


def is_configured(settings: Settings) -> bool:
    """Whether WeChat Pay is switched on. Raises SettingError where only some keys are set."""
    _contracting(settings)
    return all_set("WeChat Pay", _required(settings))


def build_gateway(settings: Settings, notify_url: str) -> Gateway:
    """Raises SettingError naming the setting at fault."""
    account = _account(settings)
    is_real = httpx.URL(account.api_base).host == MAIN_HOST
    transport = Failover(httpx.AsyncHTTPTransport(trust_env=False)) if is_real else None
    return WechatpayGateway(make_client(transport=transport), account, notify_url)


def build_verifier(settings: Settings) -> WebhookVerifier:
    """Raises SettingError naming the setting at fault."""
    return WechatpayWebhookVerifier(_account(settings))


def _required(settings: Settings) -> dict[str, str | None]:
    keys = settings.wechatpay
    private_key, apiv3_key = keys.merchant_private_key, keys.apiv3_key
    return {
        f"{_PREFIX}MCHID": keys.mchid,
        f"{_PREFIX}APPID": keys.appid,
        f"{_PREFIX}MERCHANT_SERIAL": keys.merchant_serial,
        _PRIVATE_KEY: private_key.get_secret_value() if private_key else None,
        _PUBLIC_KEY_ID: keys.public_key_id,
        _PUBLIC_KEY: keys.public_key,
        _APIV3_KEY: apiv3_key.get_secret_value() if apiv3_key else None,
    }


def _account(settings: Settings) -> Account:
    required = _required(settings)
    if not all_set("WeChat Pay", required):
        raise SettingError(f"WeChat Pay is not set up: set {', '.join(required)}")
    values = {name: (value or "").strip() for name, value in required.items()}
    private_key = load_private_key(values[_PRIVATE_KEY], _PRIVATE_KEY)
    public_key = load_public_key(values[_PUBLIC_KEY], _PUBLIC_KEY)
    if are_a_pair(private_key, public_key):
        raise SettingError(
            f"{_PUBLIC_KEY} is the merchant's own public key; give WeChat Pay's, downloaded from"
            " the merchant platform together with its id"
        )
    key_id = values[_PUBLIC_KEY_ID]
    if not key_id.startswith("PUB_KEY_ID_"):
        raise SettingError(f"{_PUBLIC_KEY_ID}: expected an id that begins with PUB_KEY_ID_")
    apiv3_key = values[_APIV3_KEY].encode()
    if len(apiv3_key) != 32:
        raise SettingError(
            f"{_APIV3_KEY}: expected the 32 characters set at the merchant platform,"
            f" this has {len(apiv3_key)}"
        )
    return Account(
        mchid=values[f"{_PREFIX}MCHID"],
        appid=values[f"{_PREFIX}APPID"],
        merchant_serial=values[f"{_PREFIX}MERCHANT_SERIAL"],
        private_key=private_key,
        public_key_id=key_id,
        public_keys={key_id: public_key},
        apiv3_key=apiv3_key,
        api_base=read_address(settings.wechatpay.api_base, f"{_PREFIX}API_BASE"),
        contracting=_contracting(settings),
    )


def _contracting(settings: Settings) -> Contracting | None:
    """What charges by contract take; None where they are not set up. Raises SettingError."""
    keys = settings.wechatpay
    key = (keys.api_v2_key.get_secret_value() if keys.api_v2_key else "").strip()
    plan_id = (keys.plan_id or "").strip()
    if not key and not plan_id:
        return None
    if not key or not plan_id:
        raise SettingError(
            f"{_PLAN_ID if key else _API_V2_KEY} is not set, but"
            f" {_API_V2_KEY if key else _PLAN_ID} is: charges by contract take both; unset it to"
            " do without them"
        )
    if len(key) != 32 or not (key.isascii() and key.isalnum()):
        raise SettingError(
            f"{_API_V2_KEY}: expected the 32 letters and digits set at the merchant platform"
        )
    if not (plan_id.isascii() and plan_id.isdecimal() and len(plan_id) <= _LONGEST_PLAN_ID):
        raise SettingError(f"{_PLAN_ID}: expected the number of a plan, such as 12535")
    return Contracting(key.encode(), plan_id)
