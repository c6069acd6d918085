"""Stripe: PaymentIntents with cards, their refunds and disputes, and cards saved by SetupIntents; a
`sandbox.core.Provider` that keeps agreements."""

import hashlib
import hmac
import json
import time
from typing import Any

from fastapi import APIRouter

from sandbox.core import Agreements, Keys, Merchant, OrderLine, Payer, Sandbox
from sandbox.delivery import Message, WebhookRules
from sandbox.stripe.calls import Calls
from sandbox.stripe.customer_routes import customer_routes
from sandbox.stripe.dispute_routes import dispute_routes
from sandbox.stripe.disputes import Disputes
from sandbox.stripe.events import NAME
from sandbox.stripe.intents import Intents
from sandbox.stripe.merchant import StripeMerchant
from sandbox.stripe.objects import make_id
from sandbox.stripe.payer import CardPayer, order_lines, payer_routes
from sandbox.stripe.refund_routes import refund_routes
from sandbox.stripe.refunds import Refunds
from sandbox.stripe.routes import api_routes
from sandbox.stripe.saved_cards import SavedCards
from sandbox.stripe.setup_routes import setup_routes
from sandbox.stripe.setups import Setups

__all__ = [
    "NAME",
    "agreements",
    "make_keys",
    "merchant",
    "orders",
    "payer",
    "routes",
    "settings",
    "webhook_rules",
]

_RETRY_DELAYS = (1.0, 3.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Stripe repeats for three days with a growing pause; this is the same shape in ten minutes."""


def make_keys() -> Keys:
    return {
        "secret_key": make_id("sk_test", 48),
        "publishable_key": make_id("pk_test", 48),
        "webhook_secret": make_id("whsec", 32),
    }


def settings(keys: Keys, url: str) -> dict[str, str]:
    return {
        "EVERBILL_STRIPE_SECRET_KEY": keys["secret_key"],
        "EVERBILL_STRIPE_PUBLISHABLE_KEY": keys["publishable_key"],
        "EVERBILL_STRIPE_WEBHOOK_SECRETS": keys["webhook_secret"],
        "EVERBILL_STRIPE_API_BASE": url,
    }


def routes(sandbox: Sandbox) -> APIRouter:
    intents, disputes = _account(sandbox)
    router = APIRouter()
    card_payer = CardPayer(sandbox, intents)
    router.include_router(payer_routes(sandbox, card_payer))
    calls = Calls(sandbox)
    router.include_router(customer_routes(sandbox, calls))
    router.include_router(setup_routes(sandbox, Setups(sandbox), calls))
    router.include_router(dispute_routes(sandbox, disputes, card_payer, calls))
    router.include_router(refund_routes(sandbox, Refunds(sandbox, intents), calls))
    router.include_router(api_routes(sandbox, intents, calls))
    return router


def payer(sandbox: Sandbox) -> Payer:
    intents, _ = _account(sandbox)
    return CardPayer(sandbox, intents)


def _account(sandbox: Sandbox) -> tuple[Intents, Disputes]:
    intents = Intents(sandbox)
    disputes = Disputes(sandbox, intents)
    intents.after_charges(disputes.follow)
    return intents, disputes


def merchant(sandbox: Sandbox) -> Merchant:
    return StripeMerchant(sandbox, _account(sandbox)[0])


def agreements(sandbox: Sandbox) -> Agreements:
    return SavedCards(sandbox)


def webhook_rules(sandbox: Sandbox) -> WebhookRules:
    secret = sandbox.keys[NAME]["webhook_secret"]

    def sign(event: dict[str, Any], forged: bool) -> Message:
        content = json.dumps(event, indent=2).encode()
        moment = int(time.time())
        key = f"{secret}forged" if forged else secret
        digest = hmac.new(key.encode(), b"%d." % moment + content, hashlib.sha256).hexdigest()
        return Message(
            {
                "Content-Type": "application/json; charset=utf-8",
                "Stripe-Signature": f"t={moment},v1={digest}",
                "User-Agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
            },
            content,
        )

    return WebhookRules(sign, lambda status, body: 200 <= status < 300, _RETRY_DELAYS)


def orders(sandbox: Sandbox, limit: int) -> list[OrderLine]:
    return order_lines(sandbox, limit)
