"""The sandbox as one ASGI application: the gateways, the controls and the page."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sandbox import alipay, stripe, wechatpay
from sandbox.book import Book
from sandbox.control import answer_refusals, control_routes
from sandbox.core import Keys, Options, Provider, Sandbox
from sandbox.delivery import Delivery
from sandbox.faults import Faults
from sandbox.page import page_routes

PROVIDERS: Final[dict[str, Provider]] = {
    provider.NAME: provider for provider in (stripe, alipay, wechatpay)
}


def make_sandbox(options: Options, url: str, keys: dict[str, Keys]) -> Sandbox:
    """Everything a running sandbox needs, over the book in the data folder."""
    book = Book(options.data_dir / "book.sqlite3")
    faults = Faults(book)
    delivery = Delivery(book, faults)
    return Sandbox(
        book,
        faults,
        delivery,
        keys,
        options.public_url.rstrip("/"),
        url,
        options.stripe_events,
    )


def make_app(sandbox: Sandbox) -> ASGIApp:
    """The application; webhooks are delivered while its lifespan is entered."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with sandbox.delivery.running():
            yield
        sandbox.book.close()

    app = FastAPI(title="Sandbox gateways", lifespan=lifespan, openapi_url=None)
    for name, provider in PROVIDERS.items():
        sandbox.delivery.rules[name] = provider.webhook_rules(sandbox)
        app.include_router(provider.routes(sandbox))
    payers = {name: provider.payer(sandbox) for name, provider in PROVIDERS.items()}
    answer_refusals(app)
    app.include_router(control_routes(sandbox, PROVIDERS, payers))
    app.include_router(page_routes(sandbox, PROVIDERS, payers))

    @app.get("/healthz")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    return _WebhooksAfterAnswers(app, sandbox.delivery)


class _WebhooksAfterAnswers:
    """Holds a request's webhooks until it is answered, or sends those asked for before that."""

    def __init__(self, app: ASGIApp, delivery: Delivery) -> None:
        self._app = app
        self._delivery = delivery

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                await self._delivery.before_answer()
            await send(message)

        with self._delivery.request():
            await self._app(scope, receive, answer)
