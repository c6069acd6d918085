"""The routes of Stripe's API about refunds, and the control that lets one fail."""

from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from sandbox.core import ControlRefused, Sandbox
from sandbox.stripe.calls import Calls
from sandbox.stripe.intents import REFUND
from sandbox.stripe.lists import Lists, expanded
from sandbox.stripe.refunds import Refunds


class RefundDeed(BaseModel):
    """What becomes of the newest refund of a payment that has not failed yet."""

    model_config = ConfigDict(extra="forbid")

    gateway: Literal["stripe"]
    reference: str
    outcome: Literal["fail"]


def refund_routes(sandbox: Sandbox, refunds: Refunds, calls: Calls) -> APIRouter:
    """`/v1/refunds`; creating one is the operation `refund`, reading `refund_query`."""
    router = APIRouter()
    lists = Lists(sandbox)

    @router.post("/v1/refunds")
    async def create(request: Request) -> Response:
        return await calls.answer(
            request,
            "refund",
            lambda call: expanded(sandbox.book, refunds.create(call.form, call.origin), call.form),
            refunds.reference_of,
        )

    @router.get("/v1/refunds")
    async def page(request: Request) -> Response:
        return await calls.answer(
            request, "refund_query", lambda call: lists.refunds(call.form), refunds.reference_of
        )

    @router.get("/v1/refunds/{refund_id}")
    async def retrieve(request: Request, refund_id: str) -> Response:
        refund = sandbox.book.get(REFUND, refund_id)
        return await calls.answer(
            request,
            "refund_query",
            lambda call: expanded(sandbox.book, refunds.get(refund_id), call.form),
            lambda form: refunds.reference_of(refund or {}),
        )

    @router.post("/control/refunds")
    async def fail(deed: RefundDeed) -> dict[str, Any]:
        with sandbox.book.transaction():
            standing = [
                refund
                for refund in refunds.of_payment(deed.reference)
                if refund["status"] != "failed"
            ]
            if not standing:
                raise ControlRefused(409, f"no refund of {deed.reference} can fail")
            failed = refunds.fail(standing[-1])
        return {
            "gateway": deed.gateway,
            "reference": deed.reference,
            "number": failed["id"],
            "status": failed["status"],
        }

    return router
