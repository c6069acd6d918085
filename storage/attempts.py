"""Attempts: the orders placed for a payment at its gateways, one after the other."""

from datetime import datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import DateTime, Update, bindparam, case, func, select, update
from sqlalchemy.dialects import postgresql
from sqlalchemy.ext.asyncio import AsyncConnection

from billing.identifiers import attempt_number
from billing.payment import AttemptState, GatewayName, PaymentMethod
from runtime.cipher import Cipher
from storage.payment_rows import AttemptDetails, seal_details
from storage.tables import payment_attempts, payments

_HOLD: Final = (
    select(payments.c.id).where(payments.c.id == bindparam("of_payment")).with_for_update()
)


class Attempts:
    """The repository of one unit of work; it keeps the lock on their payments."""

    def __init__(self, connection: AsyncConnection, cipher: Cipher) -> None:
        self._connection = connection
        self._cipher = cipher
        self._held: set[str] = set()

    async def hold(self, payment_id: str) -> None:
        """Lock the payment before its attempts or refunds are written: in that order everywhere,
        so that two transactions wait for each other and never deadlock."""
        if payment_id not in self._held:
            await self._connection.execute(_HOLD, {"of_payment": payment_id})
            self.note_held(payment_id)

    def note_held(self, payment_id: str) -> None:
        """This transaction has written the payment's row, and so has it locked."""
        self._held.add(payment_id)

    async def add(
        self,
        payment_id: str,
        attempt: int,
        gateway: GatewayName,
        method: PaymentMethod,
        expires_at: datetime,
        now: datetime,
        *,
        details: AttemptDetails | None = None,
    ) -> bool:
        """Write the next attempt; False, and nothing changed, if it is there.

        `details` are those in which it differs from the order.
        """
        await self.hold(payment_id)
        values = attempt_values(payment_id, attempt, gateway, method, expires_at, now)
        if details is not None:
            values["details"] = seal_details(self._cipher, values["number"], details)
        inserted = await self._connection.execute(
            postgresql.insert(payment_attempts)
            .values(values)
            .on_conflict_do_nothing()
            .returning(payment_attempts.c.attempt)
        )
        return inserted.first() is not None

    async def replace(
        self,
        payment_id: str,
        attempt: int,
        gateway: GatewayName,
        method: PaymentMethod,
        expires_at: datetime,
        now: datetime,
    ) -> None:
        """Add the next attempt, which becomes the payment's own; a repeat changes nothing."""
        if not await self.add(payment_id, attempt, gateway, method, expires_at, now):
            return
        await self._connection.execute(
            update(payments)
            .where(payments.c.id == payment_id, payments.c.attempt < attempt)
            .values(
                attempt=attempt,
                gateway=gateway.value,
                method=method.value,
                updated_at=func.greatest(payments.c.updated_at, now),
            )
        )

    async def set(
        self,
        payment_id: str,
        attempt: int,
        *,
        now: datetime,
        state: AttemptState | None = None,
        gateway_status: str | None = None,
        reference: str | None = None,
        opened: bool = False,
    ) -> None:
        """Write what was learned of an attempt; what has paid stays paid, and the dead stay dead
        unless they turn out to have paid."""
        await self.hold(payment_id)
        values: dict[str, Any] = {"updated_at": now}
        if gateway_status is not None:
            values["gateway_status"] = gateway_status
        if reference is not None:
            values["reference"] = reference
        await self._connection.execute(
            _setting(state, opened=opened),
            {"of_payment": payment_id, "of_attempt": attempt, "now": now, **values},
        )


@cache
def _setting(state: AttemptState | None, *, opened: bool) -> Update:
    changed: dict[str, Any] = {}
    if opened:
        now = bindparam("now", type_=DateTime(timezone=True))
        changed["opened_at"] = func.coalesce(payment_attempts.c.opened_at, now)
    if state is not None:
        keeps = [AttemptState.PAID.value]
        if state is not AttemptState.PAID:
            keeps.append(AttemptState.DEAD.value)
        changed["state"] = case(
            (payment_attempts.c.state.in_(keeps), payment_attempts.c.state),
            else_=state.value,
        )
    return (
        update(payment_attempts)
        .where(
            payment_attempts.c.payment_id == bindparam("of_payment"),
            payment_attempts.c.attempt == bindparam("of_attempt"),
        )
        .values(changed)
    )


def attempt_values(
    payment_id: str,
    attempt: int,
    gateway: GatewayName,
    method: PaymentMethod,
    expires_at: datetime,
    now: datetime,
) -> dict[str, Any]:
    """The row of an attempt that was not placed yet."""
    return {
        "payment_id": payment_id,
        "attempt": attempt,
        "number": attempt_number(payment_id, attempt),
        "gateway": gateway.value,
        "method": method.value,
        "state": AttemptState.OPEN.value,
        "expires_at": expires_at,
        "updated_at": now,
    }
