"""The memberships of the kill matrix: where in them a worker dies, and how each is played."""

import asyncio
import itertools
import secrets
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import httpx

from cli import members
from cli.shop import JourneyFailed, Shop
from tests.faults.crash_points import CrashPoint, CrashPoints
from tests.fixtures.house import BASE, METHODS, House

METHOD_OPEN: Final = "method.open"
METHOD_SETTLE: Final = "method.settle"
METHOD_REVOKE: Final = "method.revoke"
OPEN: Final = "subscription.open"
WRITE: Final = "subscription.write"
GIVE_BACK: Final = "subscription.give_back"
PREPARE: Final = "subscription.prepare"
CHARGE: Final = "payment.open"
AT_GATEWAYS: Final[dict[str, tuple[str, ...]]] = {
    METHOD_OPEN: ("after_set_up",),
    METHOD_SETTLE: ("after",),
    METHOD_REVOKE: ("after_revoke",),
    CHARGE: ("before_open", "after_open", "after"),
}
WINDOWS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "alipay": {PREPARE: ("after",)},
    "wechatpay": {PREPARE: ("after_announce", "after")},
}
AT_GATEWAYS_TOO: Final[dict[str, tuple[str, ...]]] = {
    METHOD_OPEN: ("before", "before_set_up", "after"),
    METHOD_SETTLE: ("before_query",),
    METHOD_REVOKE: ("before_revoke",),
    CHARGE: ("before",),
}
WINDOWS_TOO: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "alipay": {PREPARE: ("before", "after_query")},
    "wechatpay": {PREPARE: ("before_announce",)},
}
"""Where nothing has happened yet, or the same as elsewhere: for the soak."""
IN_CORE: Final = {
    OPEN: ("before", "after"),
    WRITE: ("before", "after"),
    GIVE_BACK: ("before", "after"),
}

_PATIENCE_SECONDS: Final = 180
_UNAVAILABLE: Final = 503


@dataclass(frozen=True)
class MemberCell:
    """A worker dies at this place of this activity of one membership."""

    gateway: str
    activity: str
    place: str

    @property
    def name(self) -> str:
        return "-".join((self.gateway, self.activity, self.place))

    @property
    def queue(self) -> str:
        return "core" if self.activity in IN_CORE else self.gateway


def member_cells(*, is_soak: bool = False) -> Iterator[MemberCell]:
    """Those of the core, whatever the gateway, in turn at each of them."""
    for gateway in METHODS:
        wanted: list[dict[str, tuple[str, ...]]] = [AT_GATEWAYS, WINDOWS.get(gateway, {})]
        if is_soak:
            wanted += [AT_GATEWAYS_TOO, WINDOWS_TOO.get(gateway, {})]
        for table in wanted:
            for activity, places in table.items():
                for place in places:
                    yield MemberCell(gateway, activity, place)
    core = [(activity, place) for activity, places in IN_CORE.items() for place in places]
    for gateway, (activity, place) in zip(itertools.cycle(METHODS), core, strict=False):
        yield MemberCell(gateway, activity, place)


class PatientShop(Shop):
    """An application that sends a request again, under its key, while nobody can say yes."""

    async def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Idempotency-Key": secrets.token_hex(16)}
        answer: httpx.Response | None = None
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while answer is None or answer.status_code == _UNAVAILABLE:
                answer = await self.api.post(f"{BASE}{path}", headers=headers, json=body)
        if answer.is_error:
            raise JourneyFailed(f"{path} answered {answer.status_code}: {answer.text[:500]}")
        found: dict[str, Any] = answer.json()
        return found


class MemberMatrix:
    """`wanted` has what each user must have paid in the end, in minor units."""

    def __init__(self, house: House, points: CrashPoints) -> None:
        self.wanted: dict[str, int] = {}
        self._house = house
        self._shop = PatientShop(house.api, house.sandbox.control)
        self._points = points
        self._killing: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._living = asyncio.Semaphore(6)

    async def play(self, cell: MemberCell) -> None:
        """One membership from the set-up of its method to its end, and one death on the way."""
        user_id = f"member-{cell.name.replace('.', '-')}"
        async with self._living:
            asking = self._shop.ask_method(user_id, cell.gateway, **members.terms_of(cell.gateway))
            if cell.activity == METHOD_OPEN:
                method = await self._dies(cell, user_id, asking)
            else:
                method = await asking
            consenting = self._shop.consent(method)
            if cell.activity == METHOD_SETTLE:
                method = await self._dies(cell, method["id"], consenting)
            else:
                method = await consenting
            if cell.activity == METHOD_REVOKE:
                await self._dies(cell, method["id"], self._deleted(method))
                return
            await self._lives(cell, user_id, method)

    async def _lives(self, cell: MemberCell, user_id: str, method: dict[str, Any]) -> None:
        signing_up = members.signed_up(self._shop, cell.gateway, user_id, method)
        if cell.activity == OPEN:
            member = await self._dies(cell, user_id, signing_up)
        else:
            member = await signing_up
        renewing = members.until_renewed(self._shop, member)
        owner = {CHARGE: user_id, PREPARE: member.subscription["id"]}
        if cell.activity == PREPARE and "_" in cell.place:
            owner[PREPARE] = method["id"]
        if cell.activity in (CHARGE, PREPARE, WRITE):
            await self._dies(cell, owner.get(cell.activity, member.subscription["id"]), renewing)
        else:
            await renewing
        found = member.subscription
        ending = self._shop.command(found, "cancel", at_period_end=False, refund=True)
        if cell.activity == GIVE_BACK:
            await self._dies(cell, found["id"], ending)
        else:
            await ending
        await self._shop.until_subscription(found["id"], lambda now: now["status"] == "canceled")
        self.wanted[user_id] = member.quoted

    async def count(self) -> tuple[int, int]:
        """Users who have paid more than they were quoted, and those who have paid less."""
        more = less = 0
        charges = await self._house.sandbox.charges()
        taken = {charge["reference"]: charge["amount"] for charge in charges}
        for user_id, wanted in self.wanted.items():
            payments = await self._shop.history(user_id)
            paid = sum(taken.get(payment["id"], 0) for payment in payments)
            more += paid > wanted
            less += paid < wanted
        return more, less

    async def _deleted(self, method: dict[str, Any]) -> None:
        answer: httpx.Response | None = None
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while answer is None or answer.status_code in (202, _UNAVAILABLE):
                answer = await self._house.api.delete(f"{BASE}/methods/{method['id']}")
        assert answer.json()["status"] == "ended", answer.text

    async def _dies(self, cell: MemberCell, owner: str, doing: Any) -> Any:
        """What is done, through the death of the worker that does it."""
        point = CrashPoint(cell.activity, cell.place, owner)
        async with self._killing[cell.queue]:
            self._points.arm(point)
            acting = asyncio.ensure_future(doing)
            async with asyncio.timeout(_PATIENCE_SECONDS):
                while not self._points.has_fired(point):
                    assert not acting.done(), f"{cell.name} came past it: {acting}"
                    await asyncio.sleep(0.05)
        return await acting
