"""Alipay and WeChat Pay from settings alone: on, off, half set, and each mistake by its name."""

import base64
from collections.abc import Mapping
from types import ModuleType

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from billing.errors import SettingError
from billing.payment import GatewayName, PaymentMethod
from gateways import alipay, wechatpay
from runtime.settings import Settings, load_settings
from tests.gateways.parties import APIV3_KEY, KEY_ID, NOTIFY_URL, key_of


def _private(owner: str) -> str:
    return (
        key_of(owner)
        .private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        .decode()
        .replace("\n", "\\n")
    )


def _public(owner: str) -> str:
    der = key_of(owner).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(der).decode()


_ALIPAY = {
    "EVERBILL_ALIPAY_APP_ID": "2021000000000001",
    "EVERBILL_ALIPAY_APP_PRIVATE_KEY": _private("merchant"),
    "EVERBILL_ALIPAY_ALIPAY_PUBLIC_KEY": _public("gateway"),
    "EVERBILL_ALIPAY_SELLER_ID": "2088000000000001",
}
_WECHATPAY = {
    "EVERBILL_WECHATPAY_MCHID": "1900000001",
    "EVERBILL_WECHATPAY_APPID": "wx0000000000000001",
    "EVERBILL_WECHATPAY_MERCHANT_SERIAL": "5157F09EFDC096DE15EBE81A47057A7232F1B8E1",
    "EVERBILL_WECHATPAY_MERCHANT_PRIVATE_KEY": _private("merchant"),
    "EVERBILL_WECHATPAY_PUBLIC_KEY_ID": KEY_ID,
    "EVERBILL_WECHATPAY_PUBLIC_KEY": _public("gateway"),
    "EVERBILL_WECHATPAY_APIV3_KEY": APIV3_KEY.decode(),
}
_BOTH = [(alipay, _ALIPAY, GatewayName.ALIPAY), (wechatpay, _WECHATPAY, GatewayName.WECHATPAY)]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*_ALIPAY, *_WECHATPAY, *_CONTRACTING):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1/none")


def _settings(monkeypatch: pytest.MonkeyPatch, values: Mapping[str, str]) -> Settings:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return load_settings()


@pytest.mark.parametrize(("package", "values", "name"), _BOTH)
async def test_all_keys_set_switch_it_on(
    package: ModuleType,
    values: dict[str, str],
    name: GatewayName,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = _settings(monkeypatch, values)
    assert package.is_configured(found)
    gateway = package.build_gateway(found, NOTIFY_URL)
    assert gateway.name is name
    assert gateway.capabilities.orders_expire
    await gateway.aclose()
    assert package.build_verifier(found).name is name


@pytest.mark.parametrize(("package", "values", "name"), _BOTH)
def test_no_key_set_leaves_it_off(
    package: ModuleType, values: dict[str, str], name: GatewayName, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _settings(monkeypatch, {})
    assert not package.is_configured(found)
    with pytest.raises(SettingError, match=", ".join(values)):
        package.build_verifier(found)


@pytest.mark.parametrize(
    ("package", "values", "missing"),
    [(package, values, missing) for package, values, _ in _BOTH for missing in values],
)
def test_any_key_missing_is_named(
    package: ModuleType, values: dict[str, str], missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rest = {name: value for name, value in values.items() if name != missing}
    with pytest.raises(SettingError, match=f"set up in part: {missing} not set"):
        package.is_configured(_settings(monkeypatch, rest))


@pytest.mark.parametrize(
    ("package", "values", "setting", "value", "words"),
    [
        (alipay, _ALIPAY, "APP_PRIVATE_KEY", "nonsense!", "neither PEM"),
        (alipay, _ALIPAY, "ALIPAY_PUBLIC_KEY", "nonsense!", "neither PEM"),
        (alipay, _ALIPAY, "ALIPAY_PUBLIC_KEY", _public("merchant"), "application's own"),
        (wechatpay, _WECHATPAY, "MERCHANT_PRIVATE_KEY", "/nowhere/key.pem", "cannot read"),
        (wechatpay, _WECHATPAY, "PUBLIC_KEY", _public("merchant"), "merchant's own"),
        (wechatpay, _WECHATPAY, "PUBLIC_KEY_ID", "5157F09EFDC096DE", "begins with PUB_KEY_ID_"),
        (wechatpay, _WECHATPAY, "APIV3_KEY", "short", "32 characters"),
    ],
)
def test_a_wrong_key_is_named_and_not_shown(
    package: ModuleType,
    values: dict[str, str],
    setting: str,
    value: str,
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = next(full for full in values if full.endswith(f"PAY_{setting}"))
    found = _settings(monkeypatch, {**values, name: value})
    with pytest.raises(SettingError, match=words) as refused:
        package.build_gateway(found, NOTIFY_URL)
    assert str(refused.value).startswith(name)
    assert value not in str(refused.value) or "cannot read" in words
    with pytest.raises(SettingError, match=words):
        package.build_verifier(found)


_CONTRACTING = {
    "EVERBILL_WECHATPAY_API_V2_KEY": "192006250b4c09247ec02edce69f6a2d",
    "EVERBILL_WECHATPAY_PLAN_ID": "12535",
}


async def test_contracts_take_a_key_and_a_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _settings(monkeypatch, _WECHATPAY)
    without = wechatpay.build_gateway(found, NOTIFY_URL)
    assert without.mandates is None
    both = wechatpay.build_gateway(_settings(monkeypatch, _CONTRACTING), NOTIFY_URL)
    assert both.mandates is not None
    assert both.capabilities.methods - without.capabilities.methods == {PaymentMethod.SAVED}
    for gateway in (without, both):
        await gateway.aclose()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"PLAN_ID": None}, "PLAN_ID is not set, but"),
        ({"API_V2_KEY": " "}, "API_V2_KEY is not set, but"),
        ({"API_V2_KEY": "not-thirty-two-characters"}, "API_V2_KEY: expected the 32"),
        ({"API_V2_KEY": "ß" * 32}, "API_V2_KEY: expected the 32"),
        ({"PLAN_ID": "gold"}, "PLAN_ID: expected the number"),
        ({"PLAN_ID": "１"}, "PLAN_ID: expected the number"),
    ],
)
def test_a_key_or_a_plan_alone_or_wrong_is_named(
    changes: dict[str, str | None], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = {f"EVERBILL_WECHATPAY_{name}": value for name, value in changes.items()}
    values = {**_WECHATPAY, **_CONTRACTING, **named}
    found = _settings(monkeypatch, {name: value for name, value in values.items() if value})
    with pytest.raises(SettingError, match=f"^EVERBILL_WECHATPAY_{words}") as refused:
        wechatpay.is_configured(found)
    assert _CONTRACTING["EVERBILL_WECHATPAY_API_V2_KEY"] not in str(refused.value)


@pytest.mark.parametrize(
    ("package", "values", "name"),
    [
        (alipay, _ALIPAY, "EVERBILL_ALIPAY_GATEWAY_URL"),
        (wechatpay, _WECHATPAY, "EVERBILL_WECHATPAY_API_BASE"),
    ],
)
def test_a_gateway_is_spoken_to_over_https_alone(
    package: ModuleType, values: dict[str, str], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _settings(monkeypatch, {**values, name: "http://gateway.example.com"})
    with pytest.raises(SettingError, match=f"^{name}: expected an https address"):
        package.build_gateway(found, NOTIFY_URL)
