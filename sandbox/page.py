"""The page: what the gateways hold and took, the webhooks, the faults, and the buttons."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from fastapi import APIRouter, Request
from pydantic import ValidationError
from starlette.responses import HTMLResponse, RedirectResponse, Response

from sandbox.book import Document
from sandbox.control import FaultWanted, agreements_of, known, plan_fault
from sandbox.core import (
    AgreementLine,
    Agreements,
    ControlRefused,
    OrderLine,
    Payer,
    Provider,
    Sandbox,
    Wanted,
)
from sandbox.faults import CALL_FAULTS, OPERATIONS, WEBHOOK_FAULTS, Fault
from sandbox.html import Markup, button, element, joined, show_page, table

_SHOWN: Final = 25
_WITHOUT_MINOR_UNIT: Final = frozenset(
    "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF".split()
)
_WITH_THREE_DECIMALS: Final = frozenset("BHD IQD JOD KWD LYD OMR TND".split())
_GOOD_STATES: Final = {
    "succeeded",
    "attached",
    "NORMAL",
    "in force",
    "TRADE_SUCCESS",
    "TRADE_FINISHED",
    "SUCCESS",
    "delivered",
}
_BAD_STATES: Final = {
    "canceled",
    "detached",
    "STOP",
    "ended",
    "TRADE_CLOSED",
    "CLOSED",
    "PAYERROR",
    "given_up",
    "withheld",
}
_REFRESH: Final = Markup(
    """<script>
setInterval(async () => {
  try {
    const text = await (await fetch("/")).text();
    const fresh = new DOMParser().parseFromString(text, "text/html").getElementById("live");
    const live = document.getElementById("live");
    if (fresh && !live.contains(document.activeElement)) live.replaceWith(fresh);
  } catch { /* the sandbox is restarting; the next round asks again */ }
}, 2000);
</script>"""
)


def page_routes(
    sandbox: Sandbox, providers: Mapping[str, Provider], payers: Mapping[str, Payer]
) -> APIRouter:
    router = APIRouter()
    agreements = agreements_of(sandbox, providers)

    @router.get("/")
    async def page(notice: str = "") -> HTMLResponse:
        return show_page(
            "Sandbox gateways",
            element("p", f"At {sandbox.url}, for {sandbox.public_url}", class_="soft"),
            element("p", notice, class_="notice") if notice else "",
            element("div", *_live(sandbox, providers, agreements), id="live"),
            element("h2", "Add a fault"),
            _fault_form(providers),
            _REFRESH,
        )

    @router.post("/page/pay")
    async def pay(request: Request) -> Response:
        form = await _form(request)
        return await _done(payers, form, "pay")

    @router.post("/page/decline")
    async def decline(request: Request) -> Response:
        form = await _form(request)
        return await _done(payers, form, "decline")

    @router.post("/page/mandate/end")
    async def end_mandate(request: Request) -> Response:
        form = await _form(request)
        reference = form.get("reference", "")
        try:
            told = known(agreements, form.get("gateway", "")).steer(reference, end=True)
        except ControlRefused as problem:
            return _back(problem.detail)
        return _back(f"{reference}: {told['status']}")

    @router.post("/page/resend")
    async def resend(request: Request) -> Response:
        delivery_id = (await _form(request)).get("id", "")
        sent = sandbox.delivery.resend(delivery_id)
        return _back("Sent again." if sent else f"There is no webhook {delivery_id}.")

    @router.post("/page/faults")
    async def add_fault(request: Request) -> Response:
        given = {name: value for name, value in (await _form(request)).items() if value}
        try:
            plan_fault(sandbox, providers, FaultWanted.model_validate(given))
        except ControlRefused as problem:
            return _back(problem.detail)
        except ValidationError as problem:
            return _back("; ".join(f"{e['loc'][0]}: {e['msg']}" for e in problem.errors()))
        return _back("The fault waits for its call.")

    @router.post("/page/faults/clear")
    async def clear_faults() -> Response:
        return _back(f"{sandbox.faults.clear()} faults cleared.")

    return router


def format_amount(amount: int, currency: str) -> str:
    """Minor units as people write them: `29.00 USD`, `2900 JPY`."""
    if currency.upper() in _WITHOUT_MINOR_UNIT:
        return f"{amount} {currency.upper()}"
    sign, digits = "-" if amount < 0 else "", 3 if currency.upper() in _WITH_THREE_DECIMALS else 2
    whole, part = divmod(abs(amount), 10**digits)
    return f"{sign}{whole}.{part:0{digits}d} {currency.upper()}"


def _live(
    sandbox: Sandbox, providers: Mapping[str, Provider], agreements: Mapping[str, Agreements]
) -> Iterable[Markup]:
    for name, provider in providers.items():
        yield element("h2", f"Orders at {name}")
        yield table(
            ("Order", "Status", "#Amount", "Opened", ""),
            [_order_cells(line) for line in provider.orders(sandbox, _SHOWN)],
            "None yet.",
        )
    yield element("h2", "Saved methods")
    yield table(
        ("Gateway", "Method", "Status", "What", "Saved", "Its business time", ""),
        [_agreement_cells(line) for kept in agreements.values() for line in kept.newest(_SHOWN)],
        "None yet.",
    )
    charges = sandbox.book.charges()
    yield element("h2", f"Money taken ({len(charges)})")
    yield table(
        ("Gateway", "Payment", "#Attempt", "#Amount", "#Refunded", "#Disputed", "At"),
        [_charge_cells(charge) for charge in charges[: -_SHOWN - 1 : -1]],
        "None yet.",
    )
    yield element("h2", "Webhooks")
    yield table(
        ("Event", "Payment", "State", "Tries and answers", ""),
        [_webhook_cells(webhook) for webhook in sandbox.delivery.newest(_SHOWN)],
        "None yet.",
    )
    waiting = sandbox.faults.waiting()
    yield element("h2", f"Faults waiting ({len(waiting)})")
    yield table(
        ("Gateway", "Operation", "Fault", "#Times", "Payment", "Parameters"),
        [_fault_cells(fault) for fault in waiting],
        "None: every call goes well.",
    )
    if waiting:
        yield button("/page/faults/clear", "Clear all", {})


def _order_cells(line: OrderLine) -> tuple[object, ...]:
    order = {
        "gateway": line.gateway,
        "reference": line.reference,
        "attempt": str(line.attempt),
    }
    deeds = [
        button("/page/pay", "Pay", order),
        button("/page/decline", "Decline", order),
        *(element("a", text, href=url) for text, url in line.pages.items()),
    ]
    named = f"{line.reference} · attempt {line.attempt}"
    return (
        joined((element("code", named), Markup("<br>"), line.description)),
        _state(line.status),
        format_amount(line.amount, line.currency),
        _clock_time(line.created_at),
        joined(deeds) if line.is_open else "",
    )


def _agreement_cells(line: AgreementLine) -> tuple[object, ...]:
    named = {"gateway": line.gateway, "reference": line.reference}
    return (
        line.gateway,
        joined((element("code", line.reference), Markup("<br>"), line.number)),
        _state(line.status),
        line.description,
        _clock_time(line.signed_at),
        f"{line.now:%Y-%m-%d} {_clock_time(line.now)}",
        button("/page/mandate/end", "End as the payer", named) if line.is_open else "",
    )


def _charge_cells(charge: Document) -> tuple[object, ...]:
    return (
        charge["gateway"],
        element("code", charge["reference"]),
        charge["attempt"],
        format_amount(charge["amount"], charge["currency"]),
        format_amount(charge["refunded"], charge["currency"]),
        format_amount(charge["disputed"], charge["currency"]),
        _clock_time(datetime.fromisoformat(charge["paid_at"])),
    )


def _webhook_cells(webhook: Document) -> tuple[object, ...]:
    tries = [
        element(
            "div",
            f"{_clock_time(datetime.fromtimestamp(attempt['at'], UTC))} "
            f"{attempt.get('status', '')} {attempt.get('answer', attempt.get('error', ''))[:80]}",
        )
        for attempt in webhook["tries"]
    ]
    fault = f" ({webhook['fault']})" if webhook["fault"] else ""
    return (
        f"{webhook['gateway']} {webhook['event_type']}{fault}",
        element("code", webhook["reference"]),
        _state(webhook["state"]),
        joined(tries),
        button("/page/resend", "Resend", {"id": webhook["id"]}),
    )


def _fault_cells(fault: Fault) -> tuple[object, ...]:
    values = asdict(fault)
    parameters = ", ".join(f"{name}={value}" for name, value in values["parameters"].items())
    return (
        fault.gateway,
        fault.operation,
        fault.name,
        fault.times,
        element("code", fault.reference or "any"),
        parameters,
    )


def _fault_form(providers: Mapping[str, Provider]) -> Markup:
    faults = dict.fromkeys((*CALL_FAULTS, *WEBHOOK_FAULTS))
    return element(
        "form",
        _choice("gateway", providers),
        _choice("operation", OPERATIONS),
        _choice("fault", faults),
        _number("times", "1"),
        _number("seconds", ""),
        _number("copies", ""),
        element("label", "payment id (any)", Markup('<input name="reference">')),
        element("button", "Add"),
        method="post",
        action="/page/faults",
    )


def _choice(name: str, values: Iterable[str]) -> Markup:
    options = [element("option", value) for value in values]
    return element("label", name, element("select", *options, name=name))


def _number(name: str, value: str) -> Markup:
    field = f'<input type="number" min="0" step="any" name="{name}" value="{value}">'
    return element("label", name, Markup(field))


def _state(word: str) -> Markup:
    tone = " good" if word in _GOOD_STATES else " bad" if word in _BAD_STATES else ""
    return element("span", word, class_=f"state{tone}")


def _clock_time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%H:%M:%S} UTC"


async def _form(request: Request) -> dict[str, str]:
    return dict(parse_qsl((await request.body()).decode(errors="replace")))


async def _done(payers: Mapping[str, Payer], form: dict[str, str], deed: str) -> Response:
    try:
        payer = known(payers, form.get("gateway", ""))
        wanted = Wanted(None, form.get("reference"), int(form.get("attempt", "1")))
        told: dict[str, Any] = await (payer.pay(wanted) if deed == "pay" else payer.decline(wanted))
    except ControlRefused as problem:
        return _back(problem.detail)
    return _back(f"{told['reference']}: {told['status']}")


def _back(notice: str) -> Response:
    return RedirectResponse(f"/?{urlencode({'notice': notice})}", 303)
