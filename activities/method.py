"""What the workflows of a saved method have done: open, settle, revoke, make it the default.

Every activity can be repeated at any point: the row is inserted once, the gateway knows the mandate
by a number that never changes, and each status write names the states before it. No transaction is
open while a gateway is called.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final

import structlog
from temporalio import activity
from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from activities.asking import asking
from billing.errors import (
    AnswerUntrusted,
    BillingError,
    GatewayMisconfigured,
    MethodInUse,
    MethodNotActive,
)
from billing.method import MethodStatus
from billing.method_messages import (
    MakeDefault,
    MethodStanding,
    OpenMethod,
    RevokeMethod,
    SettleMethod,
)
from billing.payment import Failure, GatewayName, NoAction
from gateways.gateway import AlreadyOrdered, Gateway, Opened, Refused
from gateways.mandates import (
    Mandate,
    MandateObservation,
    MandateOrder,
    Mandates,
    MandateState,
    MandateTerms,
)
from storage.database import Database, UnitOfWork
from storage.method_rows import MandateRecord, MethodRecord
from storage.method_use import require_unused

METHOD_REFUSALS: Final = (MethodNotActive, MethodInUse)
"""What a command about a method comes to where nothing was changed."""

DESCRIPTION: Final = "Automatic payments"
"""What payers read of what they consent to."""

_REFUSED: Final = Failure(code="consent_refused", message="the payer did not consent")
_STILL_ACTIVE: Final = "mandate_still_active"

log = structlog.get_logger()


class MethodActivities:
    """`gateways` are the ones switched on."""

    def __init__(self, database: Database, gateways: Mapping[GatewayName, Gateway]) -> None:
        self._database = database
        self._gateways = gateways

    @activity.defn(name="method.open")
    async def open(self, request: OpenMethod) -> MethodStanding:
        """Write the row, make the customer known, ask for consent, store what the payer needs."""
        async with self._database.begin() as work:
            record = await work.methods.insert(request.order, request.now)
        is_opened = record.method.next_action != NoAction()
        if is_opened or record.method.status is not MethodStatus.PENDING:
            return _standing(record)
        name = record.method.gateway
        try:
            mandates = self._mandates(name)
            with asking(name):
                customer = await self._enrol(mandates, record, request.now)
                outcome = await mandates.set_up(_order_of(record, customer))
        except GatewayMisconfigured as problem:
            outcome = Refused(Failure(code=problem.code, message=problem.detail))
        if isinstance(outcome, AlreadyOrdered):
            return await self._observe(await self._record(record.method.id), request.now)
        return await self._store(record.method.id, outcome, request.now)

    @activity.defn(name="method.settle")
    async def settle(self, request: SettleMethod) -> MethodStanding:
        """Ask what became of the mandate, and record it."""
        return await self._observe(await self._record(request.method_id), request.now)

    @activity.defn(name="method.revoke")
    async def revoke(self, request: RevokeMethod) -> MethodStanding:
        """End it here, so that nothing is charged to it any more, and then at its gateway.

        Raises ApplicationError, to be repeated, until the gateway says that it has ended too; and
        of the refusal's own type, not to be repeated, where it is in use.
        """
        try:
            record = await self._end(request)
        except METHOD_REFUSALS as refusal:
            raise _refused(refusal) from refusal
        if not record.method.status.is_terminal or record.is_released:
            return _standing(record)
        mandates = self._mandates(record.method.gateway)
        with asking(record.method.gateway):
            await mandates.revoke(mandate_of(record.mandate))
        standing = await self._observe(record, request.now)
        if not standing.is_released and not standing.needs_attention:
            raise ApplicationError(
                f"{record.method.gateway.value}: the mandate is still active",
                type=_STILL_ACTIVE,
                category=ApplicationErrorCategory.BENIGN,
            )
        return standing

    @activity.defn(name="method.make_default")
    async def make_default(self, request: MakeDefault) -> MethodStanding:
        """Raises ApplicationError of the refusal's own type, not to be repeated."""
        try:
            async with self._database.begin() as work:
                await work.methods.make_default(request.method_id, request.now)
                return _standing(await work.methods.found(request.method_id))
        except METHOD_REFUSALS as refusal:
            raise _refused(refusal) from refusal

    async def _enrol(self, mandates: Mandates, record: MethodRecord, now: datetime) -> str | None:
        """What the gateway calls the customer: made there once, kept, and the same ever after."""
        order = record.order
        if record.mandate.customer_reference is not None:
            return record.mandate.customer_reference
        user = (order.application, order.user_id)
        async with self._database.single() as work:
            reference = (await work.gateway_customers.of(*user)).get(order.gateway)
        if reference is None:
            reference = await mandates.enrol(*user, order.created_at)
        if reference is None:
            return None
        async with self._database.begin() as work:
            kept = await work.gateway_customers.keep(*user, order.gateway, reference, now)
            await work.methods.note_customer(order.method_id, kept)
        return kept

    async def _store(
        self, method_id: str, outcome: Opened | Refused, now: datetime
    ) -> MethodStanding:
        async with self._database.begin() as work:
            await work.methods.hold(method_id)
            if isinstance(outcome, Opened):
                await work.methods.record_opened(
                    method_id,
                    setup_reference=outcome.reference,
                    next_action=outcome.next_action,
                    now=now,
                )
            else:
                await work.methods.end(
                    method_id, MethodStatus.FAILED, failure=outcome.failure, now=now
                )
                await work.methods.set_released(method_id, now)
            return _standing(await work.methods.found(method_id))

    async def _end(self, request: RevokeMethod) -> MethodRecord:
        async with self._database.begin() as work:
            if request.order is not None:
                await work.methods.insert(request.order, request.now)
            await work.methods.hold(request.method_id)
            found = await work.methods.found(request.method_id)
            if not request.is_forced and not found.method.status.is_terminal:
                await require_unused(work, request.method_id)
            await work.methods.end(
                request.method_id, request.status, failure=request.failure, now=request.now
            )
            return await work.methods.found(request.method_id)

    async def _observe(self, record: MethodRecord, now: datetime) -> MethodStanding:
        """Ask the gateway and record its answer in one transaction."""
        name, method_id = record.method.gateway, record.method.id
        try:
            with asking(name):
                seen = await self._mandates(name).query(mandate_of(record.mandate))
        except AnswerUntrusted as problem:
            log.warning("mandate_untrusted", method_id=method_id, reason=problem.reason)
            return _standing(record, needs_attention=True)
        async with self._database.begin() as work:
            await work.methods.hold(method_id)
            makes_sense = await _apply(work, await work.methods.found(method_id), seen, now)
            return _standing(await work.methods.found(method_id), needs_attention=not makes_sense)

    async def _record(self, method_id: str) -> MethodRecord:
        async with self._database.single() as work:
            return await work.methods.found(method_id)

    def _mandates(self, name: GatewayName) -> Mandates:
        """Raises GatewayMisconfigured."""
        gateway = self._gateways.get(name)
        if gateway is None or gateway.mandates is None:
            raise GatewayMisconfigured(
                f"{name.value} is not configured for saved methods on this worker: set its keys"
                " and restart it"
            )
        return gateway.mandates


def _refused(refusal: BillingError) -> ApplicationError:
    return ApplicationError(refusal.detail, type=refusal.code, non_retryable=True)


async def _apply(
    work: UnitOfWork, record: MethodRecord, seen: MandateObservation, now: datetime
) -> bool:
    """What the gateway's answer does to the record; False where it makes no sense."""
    method_id, status, state = record.method.id, record.method.status, seen.state
    await work.methods.note_asked(method_id, seen.status, now)
    if state is MandateState.UNRECOGNISED:
        log.warning("mandate_status_unknown", method_id=method_id, status=seen.status)
        return False
    if status.is_terminal:
        await work.methods.set_released(method_id, None if state is MandateState.ACTIVE else now)
        return True
    if state is MandateState.ACTIVE:
        write = work.methods.activate if status is MethodStatus.PENDING else work.methods.renew
        await write(
            method_id,
            reference=seen.reference,
            card=seen.card,
            most_minor=seen.most_minor,
            ends_at=seen.ends_at,
            now=now,
        )
        return True
    if state in (MandateState.ENDED, MandateState.FAILED):
        if state is MandateState.FAILED and status is MethodStatus.PENDING:
            failure = seen.failure or _REFUSED
            await work.methods.end(method_id, MethodStatus.FAILED, failure=failure, now=now)
        else:
            await work.methods.end(method_id, MethodStatus.ENDED, now=now)
        await work.methods.set_released(method_id, now)
        return True
    # Nothing yet; of a mandate that was active, a person must find out what that means.
    return status is MethodStatus.PENDING


def mandate_of(known: MandateRecord) -> Mandate:
    """A mandate as its gateway is to know it."""
    return Mandate(
        method_id=known.method_id,
        number=known.number,
        reference=known.reference,
        setup_reference=known.setup_reference,
        customer_reference=known.customer_reference,
        rhythm_months=known.rhythm_months,
    )


def _order_of(record: MethodRecord, customer_reference: str | None) -> MandateOrder:
    """The same parameters at every repeat."""
    order = record.order
    return MandateOrder(
        method_id=order.method_id,
        number=record.mandate.number,
        user_id=order.user_id,
        terms=MandateTerms(
            currency=order.currency,
            most_minor=order.most_minor,
            every_months=order.every_months,
            first_charge_on=order.first_charge_on,
        ),
        description=DESCRIPTION,
        created_at=order.created_at,
        return_url=order.return_url,
        customer_reference=customer_reference,
    )


def _standing(record: MethodRecord, *, needs_attention: bool = False) -> MethodStanding:
    return MethodStanding(
        method=record.method, is_released=record.is_released, needs_attention=needs_attention
    )
