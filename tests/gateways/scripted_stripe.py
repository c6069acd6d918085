"""A Stripe that answers what a test tells it to, behind the real SDK and its transport."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs

import httpx

from billing.payment import PaymentMethod
from gateways.stripe.adapter import StripeGateway
from gateways.stripe.connection import connect
from tests.gateways.parties import NOW, NUMBER, make_order

ORDER = make_order(PaymentMethod.CARD, currency="USD")
INTENT_ID = "pi_3Q9x8Yabc"
CLIENT_SECRET = f"{INTENT_ID}_secret_Zyxw"
KEY = "sk_test_0123456789abcdef"
Answer = httpx.Response | Exception


def intent(**changes: Any) -> dict[str, Any]:
    return {
        "id": INTENT_ID,
        "object": "payment_intent",
        "amount": ORDER.amount_minor,
        "amount_received": 0,
        "currency": "usd",
        "client_secret": CLIENT_SECRET,
        "created": int(NOW.timestamp()),
        "last_payment_error": None,
        "latest_charge": None,
        "livemode": False,
        "metadata": {"payment_id": NUMBER, "attempt": "1"},
        "status": "requires_payment_method",
    } | changes


def paid(**changes: Any) -> dict[str, Any]:
    charge = {"id": "ch_1", "object": "charge", "created": 1795394000, "payment_intent": INTENT_ID}
    return (
        intent(status="succeeded", amount_received=ORDER.amount_minor, latest_charge=charge)
        | changes
    )


def ok(body: object, **headers: str) -> httpx.Response:
    return httpx.Response(200, json=body, headers=headers)


def page(*listed: dict[str, Any], has_more: bool = False) -> httpx.Response:
    return ok({"object": "list", "data": list(listed), "has_more": has_more})


def error(status: int, *, replayed: bool = False, **described: Any) -> httpx.Response:
    headers = {"request-id": "req_1"} | ({"idempotent-replayed": "true"} if replayed else {})
    return httpx.Response(status, json={"error": described}, headers=headers)


class Stripe:
    """Answers in the order it was told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def calls(self) -> list[str]:
        return [f"{request.method} {request.url.path}" for request in self.requests]

    def form(self, index: int = -1) -> dict[str, str]:
        request = self.requests[index]
        text = request.content.decode() if request.method == "POST" else request.url.query.decode()
        return {name: values[0] for name, values in parse_qs(text).items()}


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


@asynccontextmanager
async def gateway_at(scripted: Stripe, clock: Clock) -> AsyncIterator[StripeGateway]:
    """The adapter in front of it; every answer must have been asked for by the end."""
    client, transport = connect(KEY, "https://stripe.test", transport=httpx.MockTransport(scripted))
    gateway = StripeGateway(
        client, transport, publishable_key="pk_test_0123456789", is_live=False, clock=clock
    )
    yield gateway
    await gateway.aclose()
    assert not scripted.answers


MISMATCHES: list[tuple[str, dict[str, Any]]] = [
    ("amount_mismatch", {"amount": 1}),
    ("currency_mismatch", {"currency": "eur"}),
    ("order_mismatch", {"metadata": {}}),
    ("order_mismatch", {"metadata": {"payment_id": NUMBER, "attempt": "2"}}),
    ("order_mismatch", {"id": "pi_another"}),
    ("merchant_mismatch", {"livemode": True}),
]


UNKNOWN: list[tuple[str, Callable[[], Answer]]] = [
    ("time-out", lambda: httpx.ReadTimeout("late")),
    ("no connection", lambda: httpx.ConnectError("refused")),
    ("500", lambda: error(500, type="api_error")),
    ("503 of a proxy", lambda: httpx.Response(503, content=b"<html>busy</html>")),
    ("403 of a proxy", lambda: httpx.Response(403, content=b"<html>no</html>")),
    ("302", lambda: httpx.Response(302, headers={"location": "https://elsewhere.test"})),
    ("409", lambda: error(409, code="idempotency_key_in_use")),
    ("424", lambda: error(424, type="api_error")),
    ("empty", lambda: httpx.Response(200)),
    ("garbage", lambda: httpx.Response(200, content=b"\x00\xff<<")),
    ("truncated", lambda: httpx.Response(200, content=json.dumps(intent()).encode()[:150])),
    ("too deep", lambda: httpx.Response(200, content=b"[" * 100_000)),
    ("a list", lambda: ok([intent()])),
    ("null", lambda: ok(None)),
    ("error null", lambda: httpx.Response(400, json={"error": None})),
    ("no fields", lambda: ok({"object": "payment_intent"})),
    ("no status", lambda: ok(intent(status=None))),
    ("amount as text", lambda: ok(intent(amount="2905"))),
    ("amount as truth", lambda: ok(intent(amount=True))),
    ("metadata as list", lambda: ok(intent(metadata=[]))),
]
