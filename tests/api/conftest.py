"""The API over real PostgreSQL, Temporal and workflow; only the gateways are paper."""

import contextlib
import secrets
import socket
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psycopg
import pytest
from fastapi import FastAPI
from psycopg import sql
from sqlalchemy import make_url, select
from temporalio.client import Client
from temporalio.service import RPCError

from api.app import BASE, create_app, wire
from api.commands import Commands
from api.context import Context
from billing.payment import GatewayName
from embedded.postgres import PostgresServer
from embedded.temporal import TemporalServer
from gateways.alipay.webhook import AlipayWebhookVerifier
from gateways.stripe.webhook import StripeWebhookVerifier
from gateways.wechatpay.webhook import WechatpayWebhookVerifier
from runtime.cipher import Cipher
from runtime.settings import AlipaySettings, Settings
from runtime.temporal import encrypting_converter
from storage.database import Database
from storage.keys import Scope
from storage.provision import OWNER
from storage.subscription_tables import subscriptions
from tests.api.paper import PaperGateway, PaperVerifier
from tests.fixtures.database import DatabaseUrls
from tests.gateways.parties import alipay_account, wechatpay_account
from worker import build_workers

STRIPE_SECRET = "whsec_0123456789abcdefghij"
CODEC_SECRET = "0123456789abcdef0123456789abcdef"
UI_PORT = 8233


@dataclass
class Stack:
    """What one API process has, and the gateways behind the worker."""

    settings: Settings
    context: Context
    app: FastAPI
    gateways: Mapping[GatewayName, PaperGateway]

    @property
    def database(self) -> Database:
        return self.context.database

    def having(self, **changes: Any) -> "Stack":
        """The same with other parts."""
        context = replace(self.context, **changes)
        return replace(self, context=context, app=create_app(context))

    async def key(self, application: str, *scopes: Scope) -> str:
        async with self.database.begin() as work:
            _, secret = await work.keys.create(application, "test", scopes, datetime.now(UTC))
        return secret

    def caller(self, secret: str | None = None) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, raise_app_exceptions=False),
            base_url="http://everbill.test",
            headers=[(b"Authorization", f"Bearer {secret}".encode())] if secret else [],
        )


@dataclass
class Shop:
    """One application with a key of every scope."""

    name: str
    http: httpx.AsyncClient
    stack: Stack = field(repr=False)

    def gateway(self, name: str) -> PaperGateway:
        return self.stack.gateways[GatewayName(name)]

    async def post(
        self, path: str, body: Any = None, key: str | None = None, **headers: str
    ) -> httpx.Response:
        if key is not None:
            headers["Idempotency-Key"] = key
        return await self.http.post(BASE + path, json=body, headers=headers)

    async def get(self, path: str, **params: Any) -> httpx.Response:
        return await self.http.get(BASE + path, params=params)

    async def create(self, key: str | None = None, **changes: Any) -> httpx.Response:
        return await self.post("/create", order(**changes), key or secrets.token_hex(16))

    async def created(self, **changes: Any) -> dict[str, Any]:
        answer = await self.create(**changes)
        assert answer.status_code == 201, answer.text
        payment: dict[str, Any] = answer.json()
        return payment


def order(**changes: Any) -> dict[str, Any]:
    body = {
        "user_id": "user_1",
        "amount": 2900,
        "currency": "CNY",
        "gateway": "alipay",
        "method": "qr",
        "description": "A month of BASIC",
    }
    return {name: value for name, value in (body | changes).items() if value is not ...}


def purchase(**changes: Any) -> dict[str, Any]:
    body = {
        "user_id": "user_1",
        "package": "points_500",
        "currency": "CNY",
        "gateway": "alipay",
        "method": "qr",
    }
    return {name: value for name, value in (body | changes).items() if value is not ...}


@pytest.fixture(scope="package")
async def stack_database(
    postgres_server: PostgresServer, template_urls: DatabaseUrls, cipher: Cipher
) -> AsyncIterator[Database]:
    """One database for the folder: tests are kept apart by their applications."""
    name = f"api_{secrets.token_hex(6)}"
    async with await psycopg.AsyncConnection.connect(
        postgres_server.url("postgres"), autocommit=True
    ) as connection:
        await connection.execute(
            sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE everbill_template").format(
                sql.Identifier(name), sql.Identifier(OWNER)
            )
        )
        url = make_url(template_urls.app).set(database=name)
        database = Database(url.render_as_string(hide_password=False), cipher)
        try:
            yield database
        finally:
            await database.dispose()
            await connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            )


@pytest.fixture(scope="package")
async def temporal_client(temporal_server: TemporalServer, cipher: Cipher) -> Client:
    return await Client.connect(
        temporal_server.address, namespace="api", data_converter=encrypting_converter(cipher)
    )


@pytest.fixture(scope="package")
async def stack(
    stack_database: Database, temporal_client: Client, cipher: Cipher
) -> AsyncIterator[Stack]:
    gateways = {name: PaperGateway(name) for name in GatewayName}
    settings = Settings.model_validate(
        {
            "DATABASE_URL": "postgresql://wired.by.the.test/none",
            "codec_path": f"/codec/{CODEC_SECRET}",
            "temporal_ui_port": UI_PORT,
            "alipay": AlipaySettings(gateway_url="http://127.0.0.1:9/gateway.do"),
        }
    )
    context = wire(
        settings,
        client=temporal_client,
        database=stack_database,
        cipher=cipher,
        capabilities={name: gateway.capabilities for name, gateway in gateways.items()},
        verifiers={
            GatewayName.STRIPE: StripeWebhookVerifier([STRIPE_SECRET]),
            GatewayName.ALIPAY: AlipayWebhookVerifier(alipay_account()),
            GatewayName.WECHATPAY: WechatpayWebhookVerifier(wechatpay_account()),
        },
    )
    workers = build_workers(temporal_client, stack_database, gateways, settings)
    async with contextlib.AsyncExitStack() as running:
        for worker in workers:
            await running.enter_async_context(worker)
        yield Stack(settings, context, create_app(context), gateways)
        await context.deliveries.drain()
        await _end_all(temporal_client, stack_database)


async def _end_all(client: Client, database: Database) -> None:
    """Others use this Temporal after us: leave no process behind that waits for our worker."""
    async with database.begin() as work:
        unfinished = await work.payments.unfinished(None, 10_000)
        unfinished += await work.methods.unfinished(None, 10_000)
        alive = await work.connection.execute(select(subscriptions.c.id))
        unfinished += list(alive.scalars())
    for object_id in unfinished:
        # One that a test has ended itself is not there to be ended.
        with contextlib.suppress(RPCError):
            await client.get_workflow_handle(object_id).terminate()


@pytest.fixture
async def shop(stack: Stack) -> AsyncIterator[Shop]:
    name = f"shop-{secrets.token_hex(4)}"
    async with stack.caller(await stack.key(name, *Scope)) as http:
        yield Shop(name, http, stack)


@pytest.fixture
async def slow_shop(stack: Stack) -> AsyncIterator[Shop]:
    """A shop whose API gives up waiting for an answer almost at once."""
    hurried = Commands(stack.context.client, answer_within=timedelta(milliseconds=400))
    hasty = stack.having(commands=hurried)
    name = f"slow-{secrets.token_hex(4)}"
    async with hasty.caller(await stack.key(name, *Scope)) as http:
        yield Shop(name, http, hasty)


@pytest.fixture
async def without_database(stack: Stack, cipher: Cipher) -> AsyncIterator[Stack]:
    """A stack whose PostgreSQL is gone: nothing listens on its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    database = Database(f"postgresql://nobody:secret@127.0.0.1:{port}/none", cipher)
    yield stack.having(database=database)
    await database.dispose()


@pytest.fixture
async def other_shop(stack: Stack) -> AsyncIterator[Shop]:
    name = f"other-{secrets.token_hex(4)}"
    async with stack.caller(await stack.key(name, *Scope)) as http:
        yield Shop(name, http, stack)


@pytest.fixture
async def told(shop: Shop, stack: Stack) -> AsyncIterator[Shop]:
    """A shop whose webhooks speak of mandates."""
    trusting = stack.having(verifiers={GatewayName.STRIPE: PaperVerifier()})
    async with trusting.caller(await stack.key(shop.name)) as http:
        yield Shop(shop.name, http, trusting)
