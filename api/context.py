"""What the routes work with: wired once in `api/app.py`, carried by the application."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import Request
from temporalio.client import Client

from activities.resumption import Resumption
from api.commands import Commands
from api.deliveries import Deliveries
from api.feed import Feed
from api.orders import Offers
from api.pace import Pace
from billing.catalog import Catalog
from billing.payment import GatewayName
from gateways.gateway import WebhookVerifier
from runtime.cipher import Cipher
from runtime.settings import Settings
from storage.database import Database


@dataclass(frozen=True)
class Context:
    settings: Settings
    cipher: Cipher
    client: Client
    database: Database
    catalog: Catalog
    offers: Offers
    verifiers: Mapping[GatewayName, WebhookVerifier]
    commands: Commands
    deliveries: Deliveries
    resumption: Resumption
    feed: Feed
    pace: Pace


def context(request: Request) -> Context:
    wired = request.app.state.context
    assert isinstance(wired, Context)
    return wired
