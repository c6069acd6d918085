"""The API's wiring: settings in, an ASGI application out. Nothing connects at import."""

import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Final

import structlog
from fastapi import APIRouter, FastAPI
from temporalio.client import Client

from activities.delivery import Delivery
from activities.resumption import Resumption
from api import (
    codec,
    customers,
    events,
    health,
    history,
    methods,
    openapi,
    payments,
    points,
    pricing,
    problems,
    refunds,
    stats,
    subscription_clock,
    subscription_previews,
    subscriptions,
    tokens,
    webhooks,
)
from api.commands import Commands
from api.context import Context
from api.deliveries import Deliveries
from api.feed import Feed
from api.orders import Offers
from api.pace import Pace
from api.request_ids import RequestIds
from billing.catalog import load_catalog
from billing.payment import GatewayName
from gateways.gateway import Capabilities, WebhookVerifier
from gateways.registry import build_gateways, build_verifiers, notify_url
from runtime.cipher import Cipher
from runtime.settings import Settings
from runtime.temporal import connect, warn_of_short_retention
from storage.database import Database

BASE: Final = "/api/v1/payment"
REFRESH_INTERVAL_SECONDS: Final = 2.0

_DESCRIPTION: Final = """Durable payments through Stripe, Alipay and WeChat Pay.

Amounts are integers in minor units (cents, 分) with an ISO 4217 currency; times are RFC 3339 in
UTC. Errors are problem details (RFC 9457) with a `code`. A decline is not an HTTP error: see the
payment's `status` and `failure`."""

log = structlog.get_logger()


def wire(
    settings: Settings,
    *,
    client: Client,
    database: Database,
    cipher: Cipher,
    capabilities: Mapping[GatewayName, Capabilities],
    verifiers: Mapping[GatewayName, WebhookVerifier],
) -> Context:
    """What the routes work with. Raises CatalogError."""
    return Context(
        settings=settings,
        cipher=cipher,
        client=client,
        database=database,
        catalog=load_catalog(settings.catalog_file),
        offers=Offers(capabilities, settings.is_sandbox),
        verifiers=verifiers,
        commands=Commands(client),
        deliveries=Deliveries(Delivery(client, database)),
        resumption=Resumption(client, database),
        feed=Feed(database),
        pace=Pace(REFRESH_INTERVAL_SECONDS),
    )


@asynccontextmanager
async def wired(settings: Settings) -> AsyncIterator[Context]:
    """Connect to everything, and let what is under way finish before disconnecting.

    Raises SettingError, CatalogError, and RuntimeError where Temporal does not answer.
    """
    cipher = Cipher(settings.encryption_keys)
    verifiers = build_verifiers(settings)
    gateways = build_gateways(settings)
    capabilities = {name: gateway.capabilities for name, gateway in gateways.items()}
    for gateway in gateways.values():
        await gateway.aclose()
    database = Database(
        settings.database_url.get_secret_value(), cipher, application_name="everbill api"
    )
    try:
        client = await connect(cipher, identity=f"api-{os.getpid()}")
        await warn_of_short_retention(client)
        tell_webhook_addresses(settings, verifiers)
        context = wire(
            settings,
            client=client,
            database=database,
            cipher=cipher,
            capabilities=capabilities,
            verifiers=verifiers,
        )
        for plan in context.catalog.membership.above_caps():
            log.warning("plan_above_cap", plan=plan)
        yield context
        await context.deliveries.drain()
    finally:
        await database.dispose()


def tell_webhook_addresses(settings: Settings, on: Iterable[GatewayName]) -> None:
    """Log where each gateway that is on reaches us: Stripe's is entered in its dashboard."""
    log.info("webhook_addresses", addresses={name.value: notify_url(settings, name) for name in on})


def create_app(context: Context) -> FastAPI:
    """The application over what was wired."""
    app = FastAPI(
        title="Everbill",
        version="1",
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.context = context
    base = APIRouter(prefix=BASE)
    for module in (
        payments, refunds, points, methods, subscriptions, subscription_previews,
        subscription_clock, customers, history, events, stats, pricing, tokens, webhooks,
    ):  # fmt: skip
        base.include_router(module.router)
    app.include_router(base)
    app.include_router(health.router)
    if context.settings.codec_secret is not None:
        app.include_router(codec.router)
    problems.install(app)
    openapi.install(
        app,
        [
            *payments.INPUTS,
            *refunds.INPUTS,
            *points.INPUTS,
            *methods.INPUTS,
            *subscriptions.INPUTS,
            *subscription_previews.INPUTS,
            *subscription_clock.INPUTS,
            *tokens.INPUTS,
        ],
    )
    app.add_middleware(RequestIds)
    return app
