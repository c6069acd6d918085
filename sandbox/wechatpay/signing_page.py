"""The page at which a payer signs a contract, and what payers and controls do to contracts."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from sandbox.book import Document
from sandbox.core import AgreementLine, ControlRefused, Sandbox, Wanted
from sandbox.html import button, element, paragraph, show_page
from sandbox.wechatpay.contracts import BY_USER, IN_FORCE, Contracts, code_of, reference_of
from sandbox.wechatpay.deductions import Deductions
from sandbox.wechatpay.errors import WechatError
from sandbox.wechatpay.orders import ACCEPT, Orders
from sandbox.wechatpay.parameters import NAME

SIGN_PATH: Final = "/papay/entrustweb"


class Steering(BaseModel):
    """The options of /control/mandate here.

    `decline` is the code that the next `times` deductions fail with, `refuse` the one they are not
    even accepted with; `wait` leaves them accepted until /control/pay or /control/decline; `end`
    is the payer ending the contract.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    decline: str | None = None
    refuse: str | None = None
    wait: bool = False
    times: int = Field(default=1, ge=1)
    end: bool = False


class ContractParty:
    """A payer with WeChat, as one who signs; a `sandbox.core.Agreements`."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._contracts = Contracts(sandbox)
        self._deductions = Deductions(sandbox, Orders(sandbox), self._contracts)

    def is_asked(self, wanted: Wanted) -> bool:
        """Whether a control is about a contract to be signed."""
        action = wanted.next_action or {}
        return urlsplit(str(action.get("url", ""))).path == SIGN_PATH

    def answer(self, wanted: Wanted, *, consents: bool) -> dict[str, Any]:
        """Open the page behind `next_action`, and sign or go away. Raises ControlRefused."""
        assert wanted.next_action is not None
        fields = read_page(str(wanted.next_action["url"]))
        try:
            with self._sandbox.book.transaction():
                if consents:
                    return _told(self._contracts.sign(fields))
                self._contracts.check_request(fields)
        except WechatError as problem:
            status = 409 if problem.code == "INVALID_REQUEST" else 422
            raise ControlRefused(status, f"WeChat Pay's page says: {problem}") from None
        code = fields["contract_code"]
        return {
            "gateway": NAME,
            "reference": reference_of(code),
            "number": code,
            "status": "unsigned",
        }

    def settle(self, order: Document, decline: str | None) -> None:
        """Take the money for a deduction that was to wait, or fail to."""
        self._deductions.settle(order, decline)

    def newest(self, limit: int) -> list[AgreementLine]:
        return [
            AgreementLine(
                gateway=NAME,
                reference=contract["reference"],
                number=contract["contract_id"],
                status="in force" if contract["state"] == IN_FORCE else "ended",
                is_open=contract["state"] == IN_FORCE,
                description=f"contract of plan {contract['plan_id']}",
                signed_at=datetime.fromisoformat(contract["signed_at"]),
                now=self._contracts.now(contract["contract_code"]),
            )
            for contract in self._contracts.newest(limit)
        ]

    def set_clock(self, reference: str, now: datetime | None) -> dict[str, Any]:
        """See `sandbox.core.Agreements`. The clock may be set before the contract is signed."""
        contract = self._contracts.by_reference(reference)
        code = contract["contract_code"] if contract else code_of(reference)
        with self._sandbox.book.transaction():
            self._contracts.set_clock(code, now)
        return {"gateway": NAME, "reference": reference, "now": self._contracts.now(code)}

    def steer(self, reference: str, **options: Any) -> dict[str, Any]:
        """See `sandbox.core.Agreements` and `Steering`."""
        try:
            steering = Steering(**options)
        except ValidationError as problem:
            detail = "; ".join(f"{e['loc'][0]}: {e['msg']}" for e in problem.errors())
            raise ControlRefused(422, detail) from None
        contract = self._contracts.by_reference(reference)
        if contract is None:
            raise ControlRefused(404, f"WeChat Pay has no contract of {reference!r}")
        with self._sandbox.book.transaction():
            if steering.end:
                if contract["state"] != IN_FORCE:
                    raise ControlRefused(409, "this contract has ended already")
                self._contracts.end(contract, BY_USER)
            else:
                self._deductions.steer(contract["contract_code"], steering.model_dump())
        return _told(contract)

    def find_page(self, url: str) -> Mapping[str, str]:
        """The parameters of the page. Raises WechatError where WeChat Pay would show an error."""
        fields = read_page(url)
        self._contracts.check_request(fields)
        return fields

    def contract_of(self, fields: Mapping[str, str]) -> Document | None:
        return self._contracts.by_code(fields["contract_code"])


def read_page(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))


def is_waiting(order: Document) -> bool:
    """Whether it is a deduction that was accepted and neither done nor failed."""
    return bool(order["state"] == ACCEPT)


def page_routes(party: ContractParty) -> APIRouter:
    """What a payer sees in WeChat: sign the contract, or leave it."""
    router = APIRouter()

    @router.get(SIGN_PATH)
    async def page(request: Request) -> Response:
        try:
            fields = party.find_page(str(request.url))
        except WechatError as problem:
            return _shown(paragraph(f"This page does not open: {problem}"), status=400)
        contract = party.contract_of(fields)
        state = "not signed" if contract is None else _word(contract)
        return _shown(
            element("p", f"Account {fields['contract_display_account']}"),
            element("p", f"{fields['contract_code']} · {state}", class_="soft"),
            button("", "Agree", {"deed": "agree"}) if contract is None else "",
        )

    @router.post(SIGN_PATH)
    async def pressed(request: Request) -> Response:
        wanted = Wanted({"type": "redirect", "url": str(request.url)})
        try:
            party.answer(wanted, consents=True)
        except ControlRefused as problem:
            return _shown(paragraph(problem.detail), status=problem.status)
        return _shown(paragraph("Signed. You can close this page."))

    return router


def _shown(*content: object, status: int = 200) -> Response:
    return show_page("WeChat Pay: automatic payment", *content, status=status)


def _word(contract: Document) -> str:
    return "signed" if contract["state"] == IN_FORCE else "ended"


def _told(contract: Document) -> dict[str, Any]:
    return {
        "gateway": NAME,
        "reference": contract["reference"],
        "number": contract["contract_id"],
        "status": _word(contract),
    }
