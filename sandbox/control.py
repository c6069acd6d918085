"""The controls: a payer's deeds, the truth, webhooks and faults, over HTTP and JSON."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import Any, Final, TypeVar

from fastapi import APIRouter, FastAPI, HTTPException, Query, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse

from sandbox.book import Document
from sandbox.core import (
    AgingProvider,
    AgreementProvider,
    Agreements,
    ControlRefused,
    Payer,
    Provider,
    Sandbox,
    Wanted,
)

_IMPOSSIBLE: Final = {
    ("stripe", "wrong_merchant"): "an answer of Stripe names no merchant: the key decides",
    ("stripe", "bad_signature"): "an answer of Stripe carries no signature",
}
_WECHATPAY_ONLY: Final = {"close_too_early": "close", "signtest": "webhook"}
"""Faults with the one operation they are of."""

_T = TypeVar("_T")


class PayerDeed(BaseModel):
    """What a payer does with an order; further fields are the gateway's own options."""

    model_config = ConfigDict(extra="allow")

    gateway: str
    next_action: dict[str, Any] | None = None
    reference: str | None = None
    attempt: int | None = None

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.next_action, self.reference, self.attempt)

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class MerchantDeed(BaseModel):
    """What a merchant does at the gateway's dashboard, to the newest order of a payment unless
    told; `amount` in minor units, all that is left unless told."""

    model_config = ConfigDict(extra="forbid")

    gateway: str
    reference: str
    attempt: int | None = None

    @property
    def wanted(self) -> Wanted:
        return Wanted(None, self.reference, self.attempt)


class MerchantRefund(MerchantDeed):
    amount: int | None = Field(default=None, ge=1)


class PaymentAge(MerchantDeed):
    """How much further back (seconds) a payment is to lie, with its refunds."""

    seconds: float = Field(gt=0, le=10 * 366 * 86_400)


class ClockSetting(BaseModel):
    """Business time for one agreement; null: wall time."""

    model_config = ConfigDict(extra="forbid")

    gateway: str
    reference: str
    now: AwareDatetime | None


class AgreementDeed(BaseModel):
    """What an agreement is to do, or its payer does to it, in the gateway's own options."""

    model_config = ConfigDict(extra="allow")

    gateway: str
    reference: str


class FaultWanted(BaseModel):
    """A fault to come; the fields after `reference` are parameters of some faults."""

    model_config = ConfigDict(extra="forbid")

    gateway: str
    operation: str
    fault: str
    times: int = Field(default=1, ge=1)
    reference: str | None = None
    seconds: float | None = Field(default=None, ge=0)
    retry_after: float | None = Field(default=None, ge=0)
    copies: int | None = Field(default=None, ge=0)
    stored: bool | None = None

    @property
    def parameters(self) -> dict[str, Any]:
        return self.model_dump(
            include={"seconds", "retry_after", "copies", "stored"}, exclude_none=True
        )


def agreements_of(sandbox: Sandbox, providers: Mapping[str, Provider]) -> dict[str, Agreements]:
    """What each gateway that keeps agreements has of them, by its name."""
    return {
        name: provider.agreements(sandbox)
        for name, provider in providers.items()
        if isinstance(provider, AgreementProvider)
    }


def control_routes(
    sandbox: Sandbox, providers: Mapping[str, Provider], payers: Mapping[str, Payer]
) -> APIRouter:
    router = APIRouter(prefix="/control")
    agreements = agreements_of(sandbox, providers)
    merchants = {name: provider.merchant(sandbox) for name, provider in providers.items()}
    aging = {
        name: provider
        for name, provider in providers.items()
        if isinstance(provider, AgingProvider)
    }

    @router.post("/refund")
    async def refund(deed: MerchantRefund) -> dict[str, Any]:
        return known(merchants, deed.gateway).refund(deed.wanted, deed.amount)

    @router.post("/close")
    async def close(deed: MerchantDeed) -> dict[str, Any]:
        return known(merchants, deed.gateway).close(deed.wanted)

    @router.post("/age")
    async def age(deed: PaymentAge) -> dict[str, Any]:
        by = timedelta(seconds=deed.seconds)
        return known(aging, deed.gateway).age(sandbox, deed.wanted, by)

    @router.post("/pay")
    async def pay(deed: PayerDeed) -> dict[str, Any]:
        return await known(payers, deed.gateway).pay(deed.wanted, **deed.options)

    @router.post("/decline")
    async def decline(deed: PayerDeed) -> dict[str, Any]:
        return await known(payers, deed.gateway).decline(deed.wanted, **deed.options)

    @router.post("/clock")
    async def clock(wanted: ClockSetting) -> dict[str, Any]:
        return known(agreements, wanted.gateway).set_clock(wanted.reference, wanted.now)

    @router.post("/mandate")
    async def mandate(deed: AgreementDeed) -> dict[str, Any]:
        options = dict(deed.model_extra or {})
        return known(agreements, deed.gateway).steer(deed.reference, **options)

    @router.get("/mandates")
    async def mandates(
        limit: int = Query(default=50, ge=1, le=1000),
    ) -> dict[str, list[dict[str, Any]]]:
        found = [line for kept in agreements.values() for line in kept.newest(limit)]
        return {"data": [asdict(line) for line in found]}

    @router.get("/charges")
    async def charges() -> dict[str, list[Document]]:
        return {"data": sandbox.book.charges()}

    @router.get("/orders")
    async def orders(
        gateway: str | None = None, limit: int = Query(default=50, ge=1, le=1000)
    ) -> dict[str, list[dict[str, Any]]]:
        names = list(providers) if gateway is None else [gateway]
        return {
            "data": [
                asdict(line)
                for name in names
                for line in known(providers, name).orders(sandbox, limit)
            ]
        }

    @router.get("/webhooks")
    async def webhooks(
        limit: int = Query(default=100, ge=1, le=1000),
    ) -> dict[str, list[Document]]:
        return {"data": sandbox.delivery.newest(limit)}

    @router.post("/webhooks/{delivery_id}/resend")
    async def resend(delivery_id: str) -> dict[str, str]:
        if not sandbox.delivery.resend(delivery_id):
            raise HTTPException(404, f"no webhook {delivery_id}: see GET /control/webhooks")
        return {"id": delivery_id}

    @router.post("/faults")
    async def add_fault(wanted: FaultWanted) -> dict[str, str]:
        return {"id": plan_fault(sandbox, providers, wanted)}

    @router.get("/faults")
    async def faults() -> dict[str, list[dict[str, Any]]]:
        return {"data": [asdict(fault) for fault in sandbox.faults.waiting()]}

    @router.delete("/faults")
    async def clear_faults() -> dict[str, int]:
        return {"cleared": sandbox.faults.clear()}

    @router.post("/reset")
    async def reset() -> dict[str, str]:
        with sandbox.book.transaction():
            sandbox.book.clear()
        sandbox.faults.forget()
        sandbox.delivery.forget()
        return {"status": "the book is empty; the keys are the same"}

    return router


def plan_fault(sandbox: Sandbox, providers: Mapping[str, Provider], wanted: FaultWanted) -> str:
    """The new fault's id. Raises ControlRefused where no such fault can be."""
    known(providers, wanted.gateway)
    only = _WECHATPAY_ONLY.get(wanted.fault)
    if only and (wanted.gateway, wanted.operation) != ("wechatpay", only):
        raise ControlRefused(422, f"{wanted.fault} is a fault of wechatpay's {only} alone")
    if wanted.fault == "balance_insufficient" and wanted.operation != "refund":
        raise ControlRefused(422, "balance_insufficient is a fault of refund alone")
    impossible = _IMPOSSIBLE.get((wanted.gateway, wanted.fault))
    if impossible and wanted.operation != "webhook":
        raise ControlRefused(422, f"no fault {wanted.fault} on this gateway: {impossible}")
    try:
        return sandbox.faults.add(
            wanted.gateway,
            wanted.operation,
            wanted.fault,
            times=wanted.times,
            reference=wanted.reference,
            parameters=wanted.parameters,
        )
    except ValueError as problem:
        raise ControlRefused(422, str(problem)) from None


def known(by_name: Mapping[str, _T], gateway: str) -> _T:
    """That gateway's. Raises ControlRefused where the sandbox has no such gateway."""
    found = by_name.get(gateway)
    if found is None:
        raise ControlRefused(
            422, f"no gateway {gateway!r} here: there are {', '.join(sorted(by_name))}"
        )
    return found


def answer_refusals(app: FastAPI) -> None:
    """Let the controls answer ControlRefused with its status and `{"detail"}`."""

    @app.exception_handler(ControlRefused)
    async def refused(_: Request, problem: Exception) -> JSONResponse:
        assert isinstance(problem, ControlRefused)
        return JSONResponse({"detail": problem.detail}, problem.status)
