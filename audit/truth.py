"""Two ways to learn what gateways took: from the sandbox's book, or by asking each gateway."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

import httpx

from activities.discovery import hints_of
from activities.placing import order_of
from activities.refund import order_of as refund_order_of
from audit.evidence import Charge
from billing.errors import AnswerUntrusted, GatewayError, OutcomeUnknown
from billing.payment import GatewayName
from billing.refund import RefundCause
from gateways.gateway import Gateway, RefundState
from storage.database import Database
from storage.payments import AttemptRecord, PaymentRecord

_TIMEOUT_SECONDS: Final = 20.0
_PAUSE_SECONDS: Final = 0.05


class SandboxTruth:
    """The sandbox keeps a book of its own, which covers every payment."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def charges(self) -> Sequence[Charge]:
        try:
            async with httpx.AsyncClient(
                base_url=self._url, timeout=_TIMEOUT_SECONDS, trust_env=False
            ) as client:
                answer = await client.get("/control/charges")
                answer.raise_for_status()
        except httpx.HTTPError as problem:
            raise OutcomeUnknown(f"the sandbox at {self._url} does not answer: {problem}") from None
        return [
            Charge(
                gateway=GatewayName(charge["gateway"]),
                payment_id=charge["reference"],
                attempt=charge["attempt"],
                amount_minor=charge["amount"],
                refunded_minor=charge["refunded"],
                currency=charge["currency"],
                paid_at=datetime.fromisoformat(charge["paid_at"]),
                disputed_minor=charge["disputed"],
            )
            for charge in answer.json()["data"]
        ]

    def covers(self, payment_id: str) -> bool:
        return True


class GatewayQueryTruth:
    """Asks the gateways about every payment of a window, one at a time and with pauses.

    A gateway that gives no answer about a payment leaves that payment uncovered, and the checker
    says so. `progress` is told how many were asked, of how many.
    """

    def __init__(
        self,
        gateways: Mapping[GatewayName, Gateway],
        database: Database,
        payment_ids: Sequence[str],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self._gateways = gateways
        self._database = database
        self._payment_ids = payment_ids
        self._progress = progress
        self._covered: set[str] = set()
        self.unanswered: dict[str, str] = {}

    async def charges(self) -> Sequence[Charge]:
        found: list[Charge] = []
        for done, payment_id in enumerate(self._payment_ids, start=1):
            async with self._database.begin() as work:
                record = await work.payments.find(payment_id)
            if record is not None:
                found += await self._charges_of(record)
            self._progress(done, len(self._payment_ids))
            await asyncio.sleep(_PAUSE_SECONDS)
        return found

    def covers(self, payment_id: str) -> bool:
        return payment_id in self._covered

    async def _charges_of(self, record: PaymentRecord) -> list[Charge]:
        try:
            charges = [await self._charge(record, attempt) for attempt in record.attempts]
        except GatewayError as problem:
            self.unanswered[record.payment.id] = problem.detail
            return []
        self._covered.add(record.payment.id)
        return [charge for charge in charges if charge is not None]

    async def _charge(self, record: PaymentRecord, attempt: AttemptRecord) -> Charge | None:
        gateway = self._gateways.get(attempt.gateway)
        if gateway is None:
            raise OutcomeUnknown(f"{attempt.gateway.value} has no keys here")
        try:
            observation = await gateway.query(order_of(record, attempt))
        except AnswerUntrusted as problem:
            raise OutcomeUnknown(f"{problem.reason}: {problem.detail}") from None
        receipt = observation.receipt
        if receipt is None:
            return None
        return Charge(
            gateway=attempt.gateway,
            payment_id=record.payment.id,
            attempt=attempt.attempt,
            amount_minor=receipt.amount_minor,
            refunded_minor=await self._refunded(gateway, record, attempt),
            currency=receipt.currency,
            paid_at=receipt.paid_at,
            disputed_minor=await _disputed(gateway, record, attempt),
        )

    async def _refunded(
        self, gateway: Gateway, record: PaymentRecord, attempt: AttemptRecord
    ) -> int:
        """What the gateway says it gave back: of ours, and of those made elsewhere as far as it
        tells. Raises OutcomeUnknown where it tells that there is one, and not which."""
        async with self._database.single() as work:
            known = [
                one
                for one in await work.refunds.of_payment(record.payment.id)
                if one.attempt == attempt.attempt
            ]
            hints = await hints_of(work, record.payment.id, attempt)
        try:
            told = await gateway.list_refunds(order_of(record, attempt), hints)
        except AnswerUntrusted as problem:
            raise OutcomeUnknown(f"{problem.reason}: {problem.detail}") from None
        if told.returned_minor is not None:
            return told.returned_minor
        ours = {
            one.refund.id: one for one in known if one.refund.cause is not RefundCause.ELSEWHERE
        }
        is_explained = bool(told.refunds)
        total = sum(
            one.amount_minor
            for one in told.refunds
            if one.observation.state is RefundState.SUCCEEDED
            and ours.keys().isdisjoint((one.number, one.our_number))
        )
        for refund in ours.values():
            answer = await gateway.query_refund(refund_order_of(refund))
            total += refund.refund.amount if answer.state is RefundState.SUCCEEDED else 0
            is_explained = is_explained or answer.state is not RefundState.ABSENT
        if told.is_any and not is_explained:
            raise OutcomeUnknown(f"{attempt.number} was refunded, and not by which refund is known")
        return total


async def _disputed(gateway: Gateway, record: PaymentRecord, attempt: AttemptRecord) -> int:
    """What the gateway says that disputes have of the money."""
    try:
        disputes = await gateway.list_disputes(order_of(record, attempt))
    except AnswerUntrusted as problem:
        raise OutcomeUnknown(f"{problem.reason}: {problem.detail}") from None
    return sum(one.withdrawn_minor - one.reinstated_minor for one in disputes)
