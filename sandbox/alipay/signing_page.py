"""The page of signing, and what a payer or a test does to agreements from outside."""

from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from sandbox.alipay.agreements import (
    NORMAL,
    SIGN,
    Agreements,
    number_of,
    plan_of,
    read_request,
    reference_of,
)
from sandbox.alipay.calls import Call, read_call, read_parameters
from sandbox.alipay.errors import AlipayError
from sandbox.alipay.terms import yuan
from sandbox.alipay.trades import NAME
from sandbox.book import Document
from sandbox.core import AgreementLine, ControlRefused, Sandbox, Wanted
from sandbox.html import button, element, paragraph, show_page

PAGE_PATH: Final = "/alipay/agreement"


class Steering(BaseModel):
    """The options of /control/mandate here.

    `decline` is the code (without `ACQ.`) that the next `times` charges fail with, `10003` leaves
    them undecided until /control/pay, null lets them succeed; `end` is the payer ending the
    agreement.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    decline: str | None = None
    times: int = Field(default=1, ge=1)
    end: bool = False


class AgreementParty:
    """A payer with Alipay, as one who signs; a `sandbox.core.Agreements`."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._agreements = Agreements(sandbox)

    def is_asked(self, wanted: Wanted) -> bool:
        """Whether a control is about an agreement to be signed."""
        query = urlsplit(str((wanted.next_action or {}).get("url", ""))).query
        try:
            return read_parameters(query, "").get("method") == SIGN
        except AlipayError:
            return False

    def answer(self, wanted: Wanted, *, consents: bool) -> dict[str, Any]:
        """Open the page behind `next_action`, and sign or go away. Raises ControlRefused."""
        assert wanted.next_action is not None
        try:
            call = self.open(urlsplit(str(wanted.next_action["url"])).query)
            if consents:
                with self._sandbox.book.transaction():
                    return _told(self._agreements.sign(call))
        except AlipayError as problem:
            status = 409 if problem.sub_code == "USER_AGREEMENT_EXIST" else 422
            raise ControlRefused(status, f"Alipay's page says: {problem}") from None
        number = call.business["external_agreement_no"]
        return {
            "gateway": NAME,
            "reference": reference_of(number),
            "number": number,
            "status": "not signed",
        }

    def newest(self, limit: int) -> list[AgreementLine]:
        return [
            AgreementLine(
                gateway=NAME,
                reference=agreement["reference"],
                number=agreement["agreement_no"],
                status=agreement["status"],
                is_open=agreement["status"] == NORMAL,
                description=_described(agreement),
                signed_at=datetime.fromisoformat(agreement["signed_at"]),
                now=self._agreements.now(agreement["number"]),
            )
            for agreement in self._agreements.newest(limit)
        ]

    def set_clock(self, reference: str, now: datetime | None) -> dict[str, Any]:
        """May be set for a method's id before its agreement is signed."""
        agreement = self._agreements.by_reference(reference)
        number = agreement["number"] if agreement else number_of(reference)
        with self._sandbox.book.transaction():
            self._agreements.set_clock(number, now)
        now = self._agreements.now(number)
        return {"gateway": NAME, "reference": reference_of(number), "now": now.isoformat()}

    def steer(self, reference: str, **options: Any) -> dict[str, Any]:
        try:
            steering = Steering(**options)
        except ValidationError as problem:
            raise ControlRefused(422, str(problem)) from None
        agreement = self._agreements.by_reference(reference)
        if agreement is None:
            raise ControlRefused(404, f"Alipay has no agreement of {reference!r}")
        with self._sandbox.book.transaction():
            if steering.end:
                try:
                    self._agreements.end(agreement, None)
                except AlipayError as problem:
                    raise ControlRefused(409, str(problem)) from None
            else:
                kept = {"decline": steering.decline, "times": steering.times}
                agreement["steering"] = kept if steering.decline else None
                self._agreements.keep(agreement)
        return _told(agreement)

    def open(self, query: str) -> Call:
        """What the page asks for. Raises AlipayError where it shows an error."""
        keys, now = self._sandbox.keys[NAME], self._sandbox.clock()
        call = read_call(read_parameters(query, ""), keys, now, from_browser=True)
        read_request(call.business)
        return call

    def signed(self, call: Call) -> Document | None:
        return self._agreements.by_number(call.business["external_agreement_no"])


def page_routes(party: AgreementParty) -> APIRouter:
    """What a payer sees at Alipay: sign the agreement, or leave it."""
    router = APIRouter()

    @router.get(PAGE_PATH)
    async def page(request: Request) -> Response:
        try:
            call = party.open(request.url.query)
        except AlipayError as problem:
            return _shown(paragraph(f"This page does not open: {problem}"), status=400)
        agreement = party.signed(call)
        number = call.business["external_agreement_no"]
        return _shown(
            element("p", f"Automatic payment: {call.business['personal_product_code']}"),
            element("p", f"{number} · {agreement['status'] if agreement else 'not signed'}"),
            button("", "Agree", {"deed": "agree"}) if agreement is None else "",
        )

    @router.post(PAGE_PATH)
    async def pressed(request: Request) -> Response:
        wanted = Wanted({"type": "redirect", "url": str(request.url)})
        try:
            party.answer(wanted, consents=True)
        except ControlRefused as problem:
            return _shown(paragraph(problem.detail), status=problem.status)
        return _shown(paragraph("Signed. You can close this page."))

    return router


def _shown(*content: object, status: int = 200) -> Response:
    return show_page("Alipay: automatic payment", *content, status=status)


def _told(agreement: Document) -> dict[str, Any]:
    return {
        "gateway": NAME,
        "reference": agreement["reference"],
        "number": agreement["agreement_no"],
        "status": agreement["status"],
    }


def _described(agreement: Document) -> str:
    plan = plan_of(agreement)
    if plan is None:
        return "general withholding"
    rhythm = f"every {plan.period} {plan.period_type.lower()}"
    return f"{rhythm}, next on {plan.deduct_on}, at most {yuan(plan.most)}"
