"""Has a mandate ready for a charge, within the windows that its gateway keeps (`billing.rails`)."""

from collections.abc import Mapping
from datetime import date
from typing import Final

from temporalio import activity

from activities.asking import asking
from activities.method import mandate_of
from billing.charges import OF_A_PERIOD
from billing.errors import MethodNotFound
from billing.method import MethodStatus
from billing.payment import GatewayName
from billing.rails import (
    ALIPAY_LONGEST_WAIT,
    AlipayStanding,
    WechatNotice,
    WechatStanding,
    alipay_moved_date,
    alipay_window,
    is_by_day,
    next_alipay_deduct,
    next_by_day,
    next_wechat_deduct,
    wechat_open_until,
    wechat_window,
)
from billing.subscription import StepKind
from billing.subscription_messages import Announced, PrepareCharge, PreparedCharge
from gateways.gateway import Gateway
from gateways.mandates import (
    Mandate,
    MandateObservation,
    MandateRefused,
    Mandates,
    MandateState,
)
from storage.database import Database

_NOT_CARRIED: Final = PreparedCharge(is_ready=False)


class PreparingActivities:
    """`gateways` are the ones switched on."""

    def __init__(self, database: Database, gateways: Mapping[GatewayName, Gateway]) -> None:
        self._database = database
        self._gateways = gateways

    @activity.defn(name="subscription.prepare")
    async def prepare(self, request: PrepareCharge) -> PreparedCharge:
        """Announce the charge to WeChat Pay, or move Alipay's deduct date, where that is needed.

        Repeating it announces or moves nothing twice within a window: what the gateway knows, and
        what was announced, are looked at first. At the end of a mandate, or of what it carries,
        the customer is to be asked.
        """
        async with self._database.single() as work:
            record = await work.methods.find(request.method_id)
            was_charged = await work.methods.was_charged(request.method_id)
        if record is None:
            raise MethodNotFound(f"there is no payment method {request.method_id}")
        gateway = self._gateways.get(request.gateway)
        mandates = None if gateway is None else gateway.mandates
        if mandates is None or record.method.status is not MethodStatus.ACTIVE:
            return _NOT_CARRIED
        mandate = mandate_of(record.mandate)
        if request.gateway is GatewayName.STRIPE:
            is_covered = record.mandate.allows(request.amount, request.currency)
            return PreparedCharge(is_ready=is_covered, at=request.now if is_covered else None)
        with asking(request.gateway):
            observed = await mandates.query(mandate)
        if observed.state is not MandateState.ACTIVE:
            return _NOT_CARRIED
        most = observed.most_minor or record.method.most
        if most is not None and request.amount > most:
            return _NOT_CARRIED
        if request.gateway is GatewayName.WECHATPAY:
            return await self._by_contract(
                request, mandates, mandate, observed, was_charged=was_charged
            )
        return await self._by_agreement(request, mandates, mandate, observed)

    async def _by_contract(
        self,
        request: PrepareCharge,
        mandates: Mandates,
        mandate: Mandate,
        observed: MandateObservation,
        *,
        was_charged: bool,
    ) -> PreparedCharge:
        if request.kind not in OF_A_PERIOD or observed.signed_at is None:
            return _NOT_CARRIED
        standing = WechatStanding(
            signed_at=observed.signed_at,
            notice=_notice_of(request),
            deducted_since_signing=was_charged,
        )
        not_before = max(request.now, request.due_at)
        at = next_wechat_deduct(standing, request.amount, not_before)
        if at is not None:
            return PreparedCharge(
                is_ready=at <= request.now,
                at=at,
                until=wechat_open_until(standing, at),
                announced=request.announced,
            )
        if request.kind is StepKind.SIGN_UP or not request.may_wait:
            return _NOT_CARRIED
        if not is_by_day(request.now):
            return PreparedCharge(is_ready=False, at=next_by_day(request.now))
        try:
            with asking(request.gateway):
                await mandates.announce(mandate, request.amount, request.currency)
        except MandateRefused:
            return _NOT_CARRIED
        announced = Announced(
            number=request.number,
            method_id=request.method_id,
            sent_at=request.now,
            amount=request.amount,
        )
        opens_at = wechat_window(announced).opens_at
        return PreparedCharge(
            is_ready=False, at=next_by_day(max(opens_at, request.due_at)), announced=announced
        )

    async def _by_agreement(
        self,
        request: PrepareCharge,
        mandates: Mandates,
        mandate: Mandate,
        observed: MandateObservation,
    ) -> PreparedCharge:
        if mandate.rhythm_months is None or observed.charge_on is None:
            return PreparedCharge(is_ready=request.now >= request.due_at, at=request.due_at)
        if request.kind not in OF_A_PERIOD:
            return _NOT_CARRIED
        not_before = max(request.now, request.due_at)
        most = observed.most_minor or request.amount
        standing = await self._agreement(request.method_id, observed.charge_on, most)
        at = next_alipay_deduct(standing, request.amount, not_before)
        while at is None:
            moved = alipay_moved_date(standing, not_before)
            if moved is None:
                return _NOT_CARRIED
            standing = await self._agreement(request.method_id, moved, most)
            at = next_alipay_deduct(standing, request.amount, not_before)
        if at - not_before > ALIPAY_LONGEST_WAIT:
            return _NOT_CARRIED
        if standing.deduct_on > observed.charge_on:
            if at > request.now and not request.may_wait:
                return _NOT_CARRIED
            try:
                with asking(request.gateway):
                    await mandates.postpone(mandate, standing.deduct_on)
            except MandateRefused:
                return _NOT_CARRIED
        closes_at = alipay_window(standing.deduct_on).closes_at
        return PreparedCharge(is_ready=at <= request.now, at=at, until=closes_at)

    async def _agreement(self, method_id: str, deduct_on: date, most: int) -> AlipayStanding:
        """An agreement whose next deduct date is that day, with the tries in the day's window."""
        opened_at = alipay_window(deduct_on).opens_at
        async with self._database.single() as work:
            tries = await work.methods.charges_since(method_id, opened_at)
        return AlipayStanding(deduct_on=deduct_on, single_amount=most, tries=tries)


def _notice_of(request: PrepareCharge) -> WechatNotice | None:
    """What was announced of this charge to this contract; before contracts were kept with it, it
    was forgotten with the contract."""
    announced = request.announced
    if announced is None or announced.number != request.number:
        return None
    return announced if announced.method_id in (None, request.method_id) else None
