"""The official SDK on our own transport, and its errors in our words."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, NoReturn

import httpx
import stripe
from pydantic import ValidationError

from billing.errors import GatewayMisconfigured, GatewayThrottled, OutcomeUnknown
from gateways.meaning import Meaning
from gateways.stripe.objects import ErrorView
from gateways.stripe.outcomes import meaning_of, message_of
from gateways.transport import make_client, retry_after_seconds, send

KEY_LIFE: Final = timedelta(hours=23)
"""Stripe may forget an idempotency key after 24 hours; sent again, it would be a new order."""

CLOCK_SKEW: Final = timedelta(minutes=5)
PAGE_SIZE: Final = 100
MOST_PAGES: Final = 20

_UNSENT_HEADERS: Final = {"user-agent", "x-stripe-client-user-agent"}
"""The SDK's, which describe this machine; ours says who calls."""


class SdkTransport(stripe.HTTPClient):
    """The SDK's calls over `gateways.transport`, with its time-outs, limits and failures.

    An answer that is not the JSON Stripe's API speaks never reaches the SDK, whose errors quote
    what they cannot read, client secrets included.
    """

    name = "everbill"

    def __init__(self, client: httpx.AsyncClient) -> None:
        super().__init__()
        self._client = client

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        answer = await send(
            self._client,
            method,
            url,
            headers={
                name: value
                for name, value in headers.items()
                if name.lower() not in _UNSENT_HEADERS
            },
            content=post_data.encode() if post_data is not None else None,
        )
        _check_readable(answer.status_code, answer.headers, answer.body)
        return answer.body, answer.status_code, answer.headers

    async def close_async(self) -> None:
        await self._client.aclose()


def connect(
    secret_key: str, api_base: str, *, transport: httpx.AsyncBaseTransport | None = None
) -> tuple[stripe.StripeClient, SdkTransport]:
    """The SDK's client, which retries nothing by itself, and the transport to be closed."""
    # Otherwise the SDK writes a machine's id into the home folder and sends it with each call.
    stripe.enable_telemetry = False
    http_client = SdkTransport(make_client(transport=transport))
    client = stripe.StripeClient(
        secret_key,
        base_addresses={"api": api_base},
        max_network_retries=0,
        http_client=http_client,
    )
    return client, http_client


@dataclass(frozen=True)
class ErrorAnswer:
    """An error Stripe answered with. `is_replayed` tells that it was the answer kept under the
    idempotency key, which every repeat would get for a day."""

    meaning: Meaning
    error: ErrorView
    detail: str
    is_replayed: bool
    retry_after_seconds: float | None

    @property
    def is_of_key(self) -> bool:
        """Whether only the idempotency key was objected to."""
        return self.error.type == "idempotency_error"

    def raise_as_error(self) -> NoReturn:
        """Tell it as the GatewayError it is."""
        match self.meaning:
            case Meaning.UNKNOWN:
                raise OutcomeUnknown(self.detail)
            case Meaning.THROTTLED:
                raise GatewayThrottled(self.detail, retry_after_seconds=self.retry_after_seconds)
            case _:
                raise GatewayMisconfigured(
                    f"{self.detail}; check EVERBILL_STRIPE_SECRET_KEY, EVERBILL_STRIPE_API_BASE"
                    " and the account in Stripe's dashboard"
                )


def read_error(problem: stripe.StripeError) -> ErrorAnswer:
    """What an error of the SDK says, without its body, which may hold a client secret."""
    body = problem.json_body
    described = body.get("error") if isinstance(body, dict) else None
    try:
        error = ErrorView.model_validate(described)
    except ValidationError:
        error = ErrorView()
    status, headers = problem.http_status or 0, problem.headers or {}
    words = " ".join(filter(None, (error.type, error.code, error.decline_code)))
    return ErrorAnswer(
        meaning=meaning_of(status, error),
        error=error,
        detail=f"Stripe answered {status} {words} (request {problem.request_id}):"
        f" {message_of(error, 'it gives no message')}",
        is_replayed=headers.get("idempotent-replayed") == "true",
        retry_after_seconds=retry_after_seconds(headers),
    )


def _check_readable(status_code: int, headers: Mapping[str, str], body: bytes) -> None:
    try:
        members = json.loads(body)
    except (ValueError, RecursionError):
        members = None
    if isinstance(members, dict) and (
        200 <= status_code < 300 or isinstance(members.get("error"), dict)
    ):
        return
    if status_code == 429:
        raise GatewayThrottled(
            "Stripe answered 429", retry_after_seconds=retry_after_seconds(headers)
        )
    raise OutcomeUnknown(f"Stripe answered {status_code} with {len(body)} bytes that are no answer")
