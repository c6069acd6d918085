from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from billing.errors import SettingError
from billing.payment import GatewayName, PaymentMethod
from gateways.registry import build_gateways, build_verifiers, configured_gateways, notify_url
from runtime.settings import Settings, load_settings
from tests.gateways.parties import KEY_ID, key_of

MakeSettings = Callable[..., Settings]

STRIPE = {
    "EVERBILL_STRIPE_SECRET_KEY": "sk_test_0123456789abcdef",
    "EVERBILL_STRIPE_PUBLISHABLE_KEY": "pk_test_0123456789abcdef",
    "EVERBILL_STRIPE_WEBHOOK_SECRETS": "whsec_0123456789abcdef, whsec_fedcba9876543210",
}
SANDBOX = {
    "EVERBILL_STRIPE_API_BASE": "http://127.0.0.1:8001",
    "EVERBILL_ALIPAY_GATEWAY_URL": "http://127.0.0.1:8001/gateway.do",
    "EVERBILL_WECHATPAY_API_BASE": "http://127.0.0.1:8001",
}
PUBLIC = {"EVERBILL_PUBLIC_URL": "https://pay.example.com"}


def private_pem(owner: str) -> str:
    key = key_of(owner)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def public_pem(owner: str) -> str:
    key = key_of(owner).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def alipay() -> dict[str, str]:
    return {
        "EVERBILL_ALIPAY_APP_ID": "2021000000000001",
        "EVERBILL_ALIPAY_APP_PRIVATE_KEY": private_pem("merchant"),
        "EVERBILL_ALIPAY_ALIPAY_PUBLIC_KEY": public_pem("gateway"),
        "EVERBILL_ALIPAY_SELLER_ID": "2088000000000001",
    }


def wechatpay() -> dict[str, str]:
    return {
        "EVERBILL_WECHATPAY_MCHID": "1900000001",
        "EVERBILL_WECHATPAY_APPID": "wx0000000000000001",
        "EVERBILL_WECHATPAY_MERCHANT_SERIAL": "5157F09EFDC096DE15EBE81A47057A7232F1B8E1",
        "EVERBILL_WECHATPAY_MERCHANT_PRIVATE_KEY": private_pem("merchant"),
        "EVERBILL_WECHATPAY_PUBLIC_KEY_ID": KEY_ID,
        "EVERBILL_WECHATPAY_PUBLIC_KEY": public_pem("gateway"),
        "EVERBILL_WECHATPAY_APIV3_KEY": "0123456789abcdef0123456789ABCDEF",
    }


def everything() -> dict[str, str]:
    return STRIPE | alipay() | wechatpay()


@pytest.fixture
def make_settings(clean_settings: pytest.MonkeyPatch) -> MakeSettings:
    def make(*groups: dict[str, str], **changes: str) -> Settings:
        for group in (*groups, changes):
            for name, value in group.items():
                clean_settings.setenv(name, value)
        return load_settings()

    return make


async def test_a_gateway_is_on_when_its_keys_are_set(make_settings: MakeSettings) -> None:
    assert build_gateways(make_settings()) == {}
    assert build_verifiers(make_settings()) == {}

    settings = make_settings(STRIPE, SANDBOX)
    assert configured_gateways(settings) == {GatewayName.STRIPE}
    assert set(build_gateways(settings)) == set(build_verifiers(settings)) == {GatewayName.STRIPE}

    settings = make_settings(everything())
    gateways, verifiers = build_gateways(settings), build_verifiers(settings)
    assert set(gateways) == set(verifiers) == set(GatewayName)
    for name, gateway in gateways.items():
        assert gateway.name is name
        assert verifiers[name].name is name
        await gateway.aclose()
    assert gateways[GatewayName.STRIPE].capabilities.methods == {
        PaymentMethod.CARD,
        PaymentMethod.SAVED,
    }


@pytest.mark.parametrize("missing", sorted(STRIPE))
def test_a_gateway_set_up_in_part_is_told_what_is_missing(
    make_settings: MakeSettings, missing: str
) -> None:
    settings = make_settings({name: value for name, value in STRIPE.items() if name != missing})
    for build in (configured_gateways, build_gateways, build_verifiers):
        with pytest.raises(SettingError, match=missing) as caught:
            build(settings)
        assert not any(name in str(caught.value) for name in STRIPE if name != missing)


def test_every_problem_is_told_at_once(make_settings: MakeSettings) -> None:
    settings = make_settings(
        EVERBILL_STRIPE_SECRET_KEY="sk_test_0123456789", EVERBILL_ALIPAY_APP_ID="2021"
    )
    with pytest.raises(SettingError) as caught:
        build_gateways(settings)
    assert "EVERBILL_STRIPE_PUBLISHABLE_KEY" in str(caught.value)
    assert "EVERBILL_ALIPAY_SELLER_ID" in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "value", "hint"),
    [
        ("EVERBILL_STRIPE_SECRET_KEY", "pk_test_0123456789abcdef", "begins with pk_"),
        ("EVERBILL_STRIPE_SECRET_KEY", "0123456789", "no secret key"),
        ("EVERBILL_STRIPE_PUBLISHABLE_KEY", "sk_test_0123456789abcdef", "begins with sk_"),
        ("EVERBILL_STRIPE_PUBLISHABLE_KEY", "pk_live_0123456789abcdef", "same mode"),
        ("EVERBILL_STRIPE_API_BASE", "http://api.example.com", "https"),
        ("EVERBILL_STRIPE_API_BASE", "api.stripe.com", "https"),
        ("EVERBILL_STRIPE_API_BASE", "https://api.stripe.com/?x=1", "https"),
    ],
)
def test_a_malformed_key_is_told_without_showing_it(
    make_settings: MakeSettings, setting: str, value: str, hint: str
) -> None:
    with pytest.raises(SettingError, match=hint) as caught:
        build_gateways(make_settings(STRIPE, PUBLIC, {setting: value}))
    assert setting in str(caught.value)
    assert value not in str(caught.value)


@pytest.mark.parametrize("value", ["whsec_", "we_0123456789", "whsec_0123456789abcdef,", "a,b"])
def test_a_malformed_webhook_secret_is_told(make_settings: MakeSettings, value: str) -> None:
    settings = make_settings(STRIPE, SANDBOX, EVERBILL_STRIPE_WEBHOOK_SECRETS=value)
    with pytest.raises(SettingError, match="EVERBILL_STRIPE_WEBHOOK_SECRETS"):
        build_verifiers(settings)


def test_the_application_s_own_key_is_no_key_of_alipay_s(make_settings: MakeSettings) -> None:
    settings = make_settings(
        alipay(), SANDBOX, EVERBILL_ALIPAY_ALIPAY_PUBLIC_KEY=public_pem("merchant")
    )
    for build in (build_gateways, build_verifiers):
        with pytest.raises(SettingError, match="EVERBILL_ALIPAY_ALIPAY_PUBLIC_KEY") as caught:
            build(settings)
        assert "own public key" in str(caught.value)


@pytest.mark.parametrize("key", ["merchant", "gateway"])
def test_a_key_in_the_wrong_place_is_named(make_settings: MakeSettings, key: str) -> None:
    settings = make_settings(
        wechatpay(), SANDBOX, EVERBILL_WECHATPAY_MERCHANT_PRIVATE_KEY=public_pem(key)
    )
    with pytest.raises(SettingError, match="EVERBILL_WECHATPAY_MERCHANT_PRIVATE_KEY"):
        build_gateways(settings)


def test_live_keys_go_with_live_keys(make_settings: MakeSettings) -> None:
    live = {
        "EVERBILL_STRIPE_SECRET_KEY": "rk_live_0123456789abcdef",
        "EVERBILL_STRIPE_PUBLISHABLE_KEY": "pk_live_0123456789abcdef",
    }
    assert set(build_gateways(make_settings(STRIPE, PUBLIC, live))) == {GatewayName.STRIPE}


def test_each_gateway_has_its_address(make_settings: MakeSettings) -> None:
    settings = make_settings(everything(), EVERBILL_PUBLIC_URL="https://pay.example.com/billing/")
    assert [notify_url(settings, name) for name in GatewayName] == [
        f"https://pay.example.com/billing/api/v1/payment/webhook/{name}"
        for name in ("stripe", "alipay", "wechatpay")
    ]


def test_against_the_sandbox_alone_this_machine_is_the_address(make_settings: MakeSettings) -> None:
    settings = make_settings(everything(), SANDBOX, EVERBILL_API_PORT="8123")
    address = notify_url(settings, GatewayName.ALIPAY)
    assert address == "http://127.0.0.1:8123/api/v1/payment/webhook/alipay"
    settings = make_settings(EVERBILL_PUBLIC_URL="http://localhost:8000")
    assert notify_url(settings, GatewayName.ALIPAY).startswith("http://localhost:8000/api/")


REAL_ALIPAY = SANDBOX | {"EVERBILL_ALIPAY_GATEWAY_URL": "https://openapi.alipay.com/gateway.do"}


@pytest.mark.parametrize(
    ("address", "endpoints", "hint"),
    [
        ("", REAL_ALIPAY, "alipay must reach"),
        ("http://127.0.0.1:8000", REAL_ALIPAY, "alipay must reach this API over https"),
        ("http://pay.example.com", REAL_ALIPAY, "https"),
        ("http://pay.example.com", SANDBOX, "this machine only"),
        ("ftp://127.0.0.1", SANDBOX, "expected https"),
        ("https://pay.example.com?x=1", SANDBOX, "without a query"),
        ("https://pay.example.com/?", SANDBOX, "without a query"),
        ("https://pay.example.com/#a", SANDBOX, "without a query"),
        ("https://me:secret@pay.example.com", SANDBOX, "a user"),
        ("https://pay.example.com/a b", SANDBOX, "spaces"),
        ("https://支付.example.com", SANDBOX, "expected an address"),
        ("https://", SANDBOX, "expected an address"),
        ("https://[::1", SANDBOX, "expected an address"),
        ("https://pay.example.com:99999", SANDBOX, "expected an address"),
        ("pay.example.com", SANDBOX, "expected an address"),
        ("https://pay.example.com/" + "a" * 240, SANDBOX, "too long"),
    ],
)
def test_an_address_no_gateway_could_reach_is_refused(
    make_settings: MakeSettings, address: str, endpoints: dict[str, str], hint: str
) -> None:
    changes: dict[str, Any] = {"EVERBILL_PUBLIC_URL": address} if address else {}
    settings = make_settings(everything(), endpoints, changes)
    with pytest.raises(SettingError, match=hint) as caught:
        build_gateways(settings)
    assert "EVERBILL_PUBLIC_URL" in str(caught.value)
    assert "secret@" not in str(caught.value)
