"""What befalls saved cards, by the controls: their banks, their network, Stripe's dashboard."""

from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sandbox.core import AgreementLine, ControlRefused, Sandbox
from sandbox.stripe.cards import card_that_declines
from sandbox.stripe.events import NAME, Origin
from sandbox.stripe.methods import Methods


class Replacement(BaseModel):
    """A card as it is from now on, by the network or (not `automatic`) by somebody at the
    dashboard; what is not told stays."""

    model_config = ConfigDict(extra="forbid", strict=True)

    last4: str | None = Field(default=None, pattern=r"^[0-9]{4}$")
    exp_month: int | None = Field(default=None, ge=1, le=12)
    exp_year: int | None = Field(default=None, ge=2000, le=2099)
    automatic: bool = True


class Steering(BaseModel):
    """The options of /control/mandate here.

    `decline` is the decline code of the next `times` charges, `authentication_required` has their
    bank want the payer, `ok` lets them succeed unless the card has expired; `times` null: until
    told otherwise. With none of the three the card does what its number says. `end` detaches it as
    the dashboard does, `update` replaces what is printed on it; both leave the charges as they are.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    decline: str | None = None
    authentication_required: bool = False
    ok: bool = False
    times: int | None = Field(default=1, ge=1)
    end: bool = False
    update: Replacement | None = None


class SavedCards:
    """See `sandbox.core.Agreements`."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._methods = Methods(sandbox)

    def newest(self, limit: int) -> list[AgreementLine]:
        lines = []
        for method in self._methods.newest(limit):
            card = method["object"]["card"]
            is_saved = self._methods.is_attached(method)
            face = f"{card['brand']} {card['last4']}"
            lines.append(
                AgreementLine(
                    gateway=NAME,
                    reference=method["reference"],
                    number=method["object"]["id"],
                    status="attached" if is_saved else "detached",
                    is_open=is_saved,
                    description=f"{face}, until {card['exp_month']:02d}/{card['exp_year']}",
                    signed_at=datetime.fromtimestamp(method["object"]["created"], UTC),
                    now=self._methods.now(method["reference"]),
                )
            )
        return lines

    def set_clock(self, reference: str, now: datetime | None) -> dict[str, Any]:
        """By which the card expires. May be set for a method's id before its card is saved."""
        method = self._methods.by_reference(reference)
        known_by = method["reference"] if method and method["reference"] else reference
        with self._sandbox.book.transaction():
            self._methods.set_clock(known_by, now)
        moment = self._methods.now(known_by)
        return {"gateway": NAME, "reference": known_by, "now": moment.isoformat()}

    def steer(self, reference: str, **options: Any) -> dict[str, Any]:
        steering = _read(options)
        method = self._methods.by_reference(reference)
        if method is None:
            raise ControlRefused(404, f"Stripe has no saved card of {reference!r}")
        if not self._methods.is_attached(method):
            raise ControlRefused(409, "this card is not saved for anybody (any more)")
        with self._sandbox.book.transaction():
            if steering.end:
                self._methods.detach(method, Origin())
            elif steering.update:
                changed = steering.update.model_dump(exclude_none=True, exclude={"automatic"})
                self._methods.update(method, automatically=steering.update.automatic, **changed)
            else:
                self._methods.steer(method, _course(steering))
        return {
            "gateway": NAME,
            "reference": method["reference"],
            "number": method["object"]["id"],
            "status": "attached" if self._methods.is_attached(method) else "detached",
        }


def _read(options: dict[str, Any]) -> Steering:
    try:
        steering = Steering(**options)
        if steering.decline is not None:
            card_that_declines(steering.decline)
    except ValidationError as problem:
        detail = "; ".join(f"{e['loc'][0]}: {e['msg']}" for e in problem.errors())
        raise ControlRefused(422, detail) from None
    except ValueError as problem:
        raise ControlRefused(422, str(problem)) from None
    wanted = (steering.decline, steering.authentication_required, steering.ok)
    if sum(map(bool, (*wanted, steering.end, steering.update))) > 1:
        raise ControlRefused(
            422, "decline, authentication_required, ok, end and update exclude each other"
        )
    return steering


def _course(steering: Steering) -> dict[str, Any] | None:
    course = steering.model_dump(include={"decline", "authentication_required", "ok", "times"})
    is_any = steering.decline or steering.authentication_required or steering.ok
    return course if is_any else None
