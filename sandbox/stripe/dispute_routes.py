"""The routes of Stripe's API about disputes, and the controls of the cardholder's bank."""

from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from sandbox.book import Document
from sandbox.core import Sandbox, Wanted
from sandbox.stripe.calls import Calls
from sandbox.stripe.disputes import Disputes
from sandbox.stripe.events import NAME
from sandbox.stripe.intents import DISPUTE
from sandbox.stripe.lists import Lists, expanded
from sandbox.stripe.payer import CardPayer


class DisputeDeed(BaseModel):
    """A cardholder disputes a payment: `amount` in minor units, all that is left unless told. An
    `inquiry` withdraws nothing; disputing again makes a chargeback of it."""

    model_config = ConfigDict(extra="forbid")

    gateway: Literal["stripe"]
    reference: str | None = None
    next_action: dict[str, Any] | None = None
    attempt: int | None = None
    amount: int | None = Field(default=None, ge=1)
    reason: str = "fraudulent"
    inquiry: bool = False


class DisputeClosing(BaseModel):
    """How the bank decides the open dispute of a payment."""

    model_config = ConfigDict(extra="forbid")

    gateway: Literal["stripe"]
    reference: str
    attempt: int | None = None
    outcome: Literal["won", "lost"]


def dispute_routes(
    sandbox: Sandbox, disputes: Disputes, payer: CardPayer, calls: Calls
) -> APIRouter:
    """`/v1/disputes`; every call is the operation `dispute_query`."""
    router = APIRouter()
    lists = Lists(sandbox)

    @router.get("/v1/disputes")
    async def page(request: Request) -> Response:
        return await calls.answer(
            request, "dispute_query", lambda call: lists.disputes(call.form), disputes.reference_of
        )

    @router.get("/v1/disputes/{dispute_id}")
    async def retrieve(request: Request, dispute_id: str) -> Response:
        dispute = sandbox.book.get(DISPUTE, dispute_id)
        return await calls.answer(
            request,
            "dispute_query",
            lambda call: expanded(sandbox.book, disputes.get(dispute_id), call.form),
            lambda form: disputes.reference_of(dispute or {}),
        )

    @router.post("/control/dispute")
    async def dispute(deed: DisputeDeed) -> dict[str, Any]:
        with sandbox.book.transaction():
            kept = payer.find(Wanted(deed.next_action, deed.reference, deed.attempt))
            opened = disputes.open(kept, deed.amount, deed.reason, inquiry=deed.inquiry)
        return _told(kept, opened)

    @router.post("/control/dispute/close")
    async def close(deed: DisputeClosing) -> dict[str, Any]:
        with sandbox.book.transaction():
            kept = payer.find(Wanted(None, deed.reference, deed.attempt))
            closed = disputes.close(kept, won=deed.outcome == "won")
        return _told(kept, closed)

    return router


def _told(kept: Document, dispute: Document) -> dict[str, Any]:
    return {
        "gateway": NAME,
        "reference": kept["reference"],
        "number": dispute["id"],
        "amount": dispute["amount"],
        "status": dispute["status"],
    }
