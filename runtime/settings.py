"""Every setting of every process, read from the environment once, at start.

A gateway is on when its keys are set. What is missing or malformed stops the start with a message
that names the setting. The table for people is in docs/OPERATIONS.md.
"""

import base64
import binascii
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, PositiveFloat, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from billing.dunning import DunningSchedule
from billing.errors import SettingError
from billing.payment import GatewayName

DEFAULT_CALLS_A_SECOND = 100.0
"""What Stripe allows a live account; the other two allow no less."""

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


def is_loopback(url: str) -> bool:
    return (urlsplit(url).hostname or "") in _LOOPBACK


def default_rate_limits() -> dict[GatewayName, float]:
    return dict.fromkeys(GatewayName, DEFAULT_CALLS_A_SECOND)


class StripeSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="EVERBILL_STRIPE_", extra="ignore")

    secret_key: SecretStr | None = None
    publishable_key: str | None = None
    webhook_secrets: SecretStr | None = None
    """One or two `whsec_…` separated by a comma: two while a secret is rolled."""
    api_base: str = "https://api.stripe.com"


class AlipaySettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="EVERBILL_ALIPAY_", extra="ignore")

    app_id: str | None = None
    app_private_key: SecretStr | None = None
    """PEM, bare Base64 or a file's path; PKCS#1 or PKCS#8."""
    alipay_public_key: str | None = None
    """Alipay's key from the console, not the application's own public key."""
    seller_id: str | None = None
    gateway_url: str = "https://openapi.alipay.com/gateway.do"
    sign_scene: str = "INDUSTRY|DIGITAL_MEDIA"
    """The scene under which payers sign agreements; the one that the merchant's product has."""


class WechatpaySettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="EVERBILL_WECHATPAY_", extra="ignore")

    mchid: str | None = None
    appid: str | None = None
    merchant_serial: str | None = None
    merchant_private_key: SecretStr | None = None
    """PEM or a file's path (`apiclient_key.pem`)."""
    public_key_id: str | None = None
    public_key: str | None = None
    """WeChat Pay's public key, PEM or a file's path."""
    apiv3_key: SecretStr | None = None
    api_v2_key: SecretStr | None = None
    plan_id: str | None = None
    """With the APIv2 key: payers may be charged by contract, under this approved plan."""
    api_base: str = "https://api.mch.weixin.qq.com"


class EncryptionKeys(BaseModel):
    """The keys of payloads and encrypted columns; the first encrypts, all decrypt."""

    keys: dict[str, bytes]

    @property
    def active_id(self) -> str:
        return next(iter(self.keys))

    @classmethod
    def parse(cls, text: str) -> "EncryptionKeys":
        keys: dict[str, bytes] = {}
        for entry in filter(None, (part.strip() for part in text.split(","))):
            key_id, separator, encoded = entry.partition(":")
            try:
                key = base64.b64decode(encoded, validate=True)
            except binascii.Error:
                key = b""
            if not separator or not key_id or len(key) != 32:
                raise SettingError(
                    "EVERBILL_ENCRYPTION_KEYS: expected entries of `id:key`, the key being 32"
                    " bytes in Base64, separated by commas;"
                    f" entry {len(keys) + 1} is not one"
                )
            keys[key_id] = key
        if not keys:
            raise SettingError(
                "EVERBILL_ENCRYPTION_KEYS is not set: give at least one `id:key`, the key being"
                " 32 random bytes in Base64"
            )
        return cls(keys=keys)


class Settings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="EVERBILL_", extra="ignore")

    database_url: SecretStr = Field(validation_alias="DATABASE_URL")
    encryption_keys_text: SecretStr = Field(
        default=SecretStr(""), validation_alias="EVERBILL_ENCRYPTION_KEYS"
    )
    public_url: str | None = None
    catalog_file: Path | None = None
    """The catalog of prices; the one shipped with Everbill where unset."""
    api_host: str = "127.0.0.1"
    api_port: int = Field(default=8000, ge=1, le=65535)
    codec_path: SecretStr | None = None
    """The codec server's secret path, `/codec/…`; without it there is no codec server."""
    temporal_ui_url: str | None = None
    """Where operators see Temporal's UI; its pages may ask the codec server."""
    temporal_ui_port: int = Field(default=8233, ge=1, le=65535)
    """Its port on this machine, where no address is given."""
    log_level: str = "INFO"
    gateway_rate_limits: Annotated[dict[GatewayName, PositiveFloat], NoDecode] = Field(
        default_factory=default_rate_limits
    )
    """Calls a second per gateway, `stripe=80,alipay=50`; the others keep the default of 100.
    Retuned live with Temporal's own command."""

    @field_validator("gateway_rate_limits", mode="before")
    @classmethod
    def _read_rate_limits(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        entries = [entry.strip() for entry in value.split(",") if entry.strip()]
        if malformed := [entry for entry in entries if "=" not in entry]:
            raise ValueError(f"expected entries like stripe=80, not {malformed[0]!r}")
        limits = default_rate_limits()
        for name, _, calls in (entry.partition("=") for entry in entries):
            limits[GatewayName(name)] = float(calls)
        return limits

    dunning: Annotated[DunningSchedule, NoDecode] = Field(default_factory=DunningSchedule)
    """What new subscriptions are dunned by, as a JSON object; what it leaves out is as shipped."""

    @field_validator("dunning", mode="before")
    @classmethod
    def _read_dunning(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            document = json.loads(value)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ValueError('expected a JSON object such as {"end_after_hours": 336}')
        if unknown := sorted(document.keys() - DunningSchedule.model_fields.keys()):
            raise ValueError(
                f"there is no {unknown[0]!r} in it: there are"
                f" {', '.join(DunningSchedule.model_fields)}"
            )
        try:
            return DunningSchedule.model_validate(document)
        except ValidationError as problem:
            error = problem.errors()[0]
            where = ".".join(str(part) for part in error["loc"])
            raise ValueError(f"{where}: {error['msg']}" if where else error["msg"]) from None

    stripe: StripeSettings = Field(default_factory=StripeSettings)
    alipay: AlipaySettings = Field(default_factory=AlipaySettings)
    wechatpay: WechatpaySettings = Field(default_factory=WechatpaySettings)

    @cached_property
    def encryption_keys(self) -> EncryptionKeys:
        return EncryptionKeys.parse(self.encryption_keys_text.get_secret_value())

    @property
    def codec_secret(self) -> str | None:
        """The last part of the codec server's path."""
        if self.codec_path is None:
            return None
        return self.codec_path.get_secret_value().rstrip("/").rpartition("/")[2] or None

    @property
    def ui_origins(self) -> frozenset[str]:
        """The origins of Temporal's UI: on this machine, in both spellings of it."""
        url = self.temporal_ui_url or f"http://127.0.0.1:{self.temporal_ui_port}"
        parts = urlsplit(url)
        if not is_loopback(url):
            return frozenset({f"{parts.scheme}://{parts.netloc}"})
        port = f":{parts.port}" if parts.port else ""
        return frozenset(f"{parts.scheme}://{host}{port}" for host in ("127.0.0.1", "localhost"))

    def gateway_endpoint(self, gateway: GatewayName) -> str:
        return {
            GatewayName.STRIPE: self.stripe.api_base,
            GatewayName.ALIPAY: self.alipay.gateway_url,
            GatewayName.WECHATPAY: self.wechatpay.api_base,
        }[gateway]

    def is_sandbox(self, gateway: GatewayName) -> bool:
        """Whether calls to this gateway stay on this machine."""
        return is_loopback(self.gateway_endpoint(gateway))


def load_settings() -> Settings:
    """The settings of this process. Raises SettingError naming each one at fault."""
    try:
        return Settings()
    except ValidationError as problem:
        lines = [f"{_variable(error['loc'])}: {error['msg']}" for error in problem.errors()]
        raise SettingError("\n".join(lines)) from None


def _variable(location: tuple[int | str, ...]) -> str:
    name = "_".join(str(part) for part in location).upper()
    return name if name.startswith(("EVERBILL_", "DATABASE_")) else f"EVERBILL_{name}"


def read_key_text(value: str, setting: str) -> str:
    """The key itself, whether the setting holds it or names its file."""
    if "-----BEGIN" in value or not value.startswith(("/", "./", "~")):
        return value.replace("\\n", "\n")
    path = Path(value).expanduser()
    try:
        return path.read_text()
    except OSError as problem:
        raise SettingError(f"{setting}: cannot read {path}: {problem.strerror}") from None
