"""The one place where HTTP clients towards gateways are made, and how their failures are told.

A call takes at most 20 s from its first byte to the last of its answer, follows no redirect and
uses no proxy of the environment: a signed order goes where the settings say, or nowhere.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx

from billing.errors import OutcomeUnknown
from runtime.version import VERSION

TOTAL_SECONDS: Final = 20.0
CONNECT_SECONDS: Final = 3.0
MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
USER_AGENT: Final = f"Everbill/{VERSION}"

_LONGEST_PAUSE_SECONDS: Final = 3600.0
_LIMITS: Final = httpx.Limits(
    max_connections=64,
    max_keepalive_connections=32,
    # Shorter than the gateways keep theirs: a call must not meet a connection just closed.
    keepalive_expiry=15.0,
)


@dataclass(frozen=True)
class Answer:
    """What came back, read to its end."""

    status_code: int
    headers: httpx.Headers
    body: bytes


def make_client(*, transport: httpx.AsyncBaseTransport | None = None) -> httpx.AsyncClient:
    """A client for one gateway, to be closed with `aclose()`. Nothing connects yet.

    `transport` replaces the network, in tests.
    """
    return httpx.AsyncClient(
        timeout=httpx.Timeout(TOTAL_SECONDS, connect=CONNECT_SECONDS),
        limits=_LIMITS,
        headers={"User-Agent": USER_AGENT},
        follow_redirects=False,
        trust_env=False,
        transport=transport,
    )


async def send(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    content: bytes | None = None,
    total_seconds: float = TOTAL_SECONDS,
) -> Answer:
    """Send one request and read the whole answer, whatever its status.

    Raises OutcomeUnknown where no whole answer came: the request may have taken effect.
    """
    try:
        async with (
            asyncio.timeout(total_seconds),
            client.stream(method, url, headers=headers, content=content) as response,
        ):
            body = bytearray()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_ANSWER_BYTES:
                    raise OutcomeUnknown(
                        f"the answer to {_place(method, url)} is longer than"
                        f" {MAX_ANSWER_BYTES} bytes"
                    )
            return Answer(response.status_code, response.headers, bytes(body))
    except TimeoutError:
        raise OutcomeUnknown(
            f"no whole answer to {_place(method, url)} within {total_seconds:g} s"
        ) from None
    except (httpx.HTTPError, httpx.StreamError) as problem:
        # The text of some of these quotes the request, which may be a secret.
        raise OutcomeUnknown(
            f"no whole answer to {_place(method, url)}: {type(problem).__name__}"
        ) from None


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """The pause a throttled answer asks for, in seconds, at most an hour; None where it names
    none. The form with a date is not used by any gateway and not read."""
    value = headers.get("retry-after", "").strip()
    if not value.isascii() or not value.isdigit():
        return None
    return min(float(value), _LONGEST_PAUSE_SECONDS)


def _place(method: str, url: str) -> str:
    """The request without its query, where secrets and personal data could stand."""
    parts = httpx.URL(url)
    return f"{method.upper()} {parts.host}{parts.path}"
