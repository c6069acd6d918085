"""The journeys of a refund whose histories are kept, each played through the whole house."""

import secrets
from functools import partial
from typing import Any, Final

from tests.end_to_end.claims import claimed_refund
from tests.end_to_end.outcomes import until_delivered
from tests.fixtures.house import House
from tests.replay.steps import Journey

AMOUNT: Final = 900
_PENDING_CARD: Final = "4000000000007726"

Json = dict[str, Any]


async def _full(house: House, gateway: str) -> str:
    return await _ended(house, await _asked(house, await _taken(house, gateway)), "succeeded")


async def _part(house: House, gateway: str) -> str:
    payment = await _taken(house, gateway)
    return await _ended(house, await _asked(house, payment, amount=AMOUNT), "succeeded")


async def _pending(house: House, gateway: str) -> str:
    """Accepted first, and done by the webhook's word; Alipay's first answer is lost."""
    payment = await _taken(house, gateway, **_card(gateway))
    if gateway == "alipay":
        await house.sandbox.fault(gateway, "refund", "cut_after", reference=payment["id"])
    return await _ended(house, await _asked(house, payment, amount=AMOUNT), "succeeded")


async def _polled(house: House, gateway: str) -> str:
    """No webhook: the first poll finds that it is done."""
    payment = await _taken(house, gateway, **_card(gateway))
    await _silence(house, payment)
    if gateway == "alipay":
        await house.sandbox.fault(gateway, "refund", "cut_after", reference=payment["id"])
    return await _ended(house, await _asked(house, payment, amount=AMOUNT), "succeeded")


async def _sent_back(house: House) -> str:
    """The bank cannot place the money, after the refund had succeeded."""
    payment = await _taken(house, "stripe")
    await until_delivered(house, payment["id"])
    await _silence(house, payment)
    refund_id = await _ended(
        house, await _asked(house, payment, amount=AMOUNT), "succeeded", over=True
    )
    await _mend(house)
    wanted = {"gateway": "stripe", "reference": payment["id"], "outcome": "fail"}
    answer = await house.sandbox.control.post("/control/refunds", json=wanted)
    assert answer.status_code == 200, answer.text
    await house.until_refund(refund_id, "failed")
    return refund_id


async def _told_again(house: House, gateway: str) -> str:
    """The webhook comes when it is all over: the gateway is asked, and nothing is new."""
    payment = await _taken(house, gateway, **_card(gateway))
    await until_delivered(house, payment["id"])
    await _silence(house, payment)
    refund_id = await _ended(
        house, await _asked(house, payment, amount=AMOUNT), "succeeded", over=True
    )
    for told in await house.sandbox.webhooks():
        if told["reference"] == payment["id"] and told["state"] == "withheld":
            await house.sandbox.control.post(f"/control/webhooks/{told['id']}/resend")
    return refund_id


async def _closed(house: House) -> str:
    payment = await _taken(house, "wechatpay", refunds="CLOSED")
    return await _ended(house, await _asked(house, payment, amount=AMOUNT), "failed")


async def _repaired(house: House) -> str:
    """The payer's account took nothing, until somebody repaired the refund at the gateway."""
    payment = await _taken(house, "wechatpay", refunds="ABNORMAL")
    refund_id = await _asked(house, payment, amount=AMOUNT)
    await house.until_refund(refund_id, "needs_review")
    answer = await house.sandbox.control.post(f"/control/wechatpay/refunds/{refund_id}/repair")
    assert answer.status_code == 200, answer.text
    return await _ended(house, refund_id, "succeeded")


async def _refused(house: House) -> str:
    payment = await _taken(house, "stripe")
    await _ended(house, await _asked(house, payment, amount=2000), "succeeded")
    key = secrets.token_hex(16)
    refund_id = await claimed_refund(house, payment, key, amount=AMOUNT + 1)
    answer = await house.post_refund(payment["id"], key=key, amount=AMOUNT + 1)
    assert (answer.status_code, answer.json()["code"]) == (409, "refund_exceeds_payment")
    return refund_id


async def _paused(house: House) -> str:
    """Alipay wants three seconds between two refunds of one trade."""
    payment = await _taken(house, "alipay")
    await _asked(house, payment, amount=AMOUNT)
    return await _ended(house, await _asked(house, payment, amount=AMOUNT), "succeeded")


async def _resumed(house: House) -> str:
    payment = await _taken(house, "wechatpay")
    await _silence(house, payment)
    refund_id = await _asked(house, payment, amount=AMOUNT)
    await house.client.get_workflow_handle(refund_id).terminate("lost")
    assert await house.resumption().resume_refund(refund_id)
    return await _ended(house, refund_id, "succeeded")


async def _taken(house: House, gateway: str, **options: str) -> Json:
    """A payment that is paid, by a payer with these options."""
    payment = await house.create(gateway)
    action = payment["next_action"]
    await house.sandbox.pay(gateway=gateway, next_action=action, **options)
    return await house.until_status(payment["id"], "succeeded")


async def _asked(house: House, payment: Json, **fields: Any) -> str:
    answer = await house.post_refund(payment["id"], **fields)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def _ended(house: House, refund_id: str, status: str, *, over: bool = False) -> str:
    """`over` waits until its workflow has ended too."""
    assert (await house.until_refund(refund_id))["status"] == status
    if over:
        await house.client.get_workflow_handle(refund_id).result()
    return refund_id


async def _silence(house: House, payment: Json) -> None:
    await house.sandbox.fault(
        payment["gateway"], "webhook", "never", reference=payment["id"], times=1000
    )


async def _mend(house: House) -> None:
    answer = await house.sandbox.control.delete("/control/faults")
    assert answer.status_code == 200, answer.text


def _card(gateway: str) -> dict[str, str]:
    """The payer's card with which Stripe takes its time."""
    return {"card": _PENDING_CARD} if gateway == "stripe" else {}


_BY_GATEWAY: Final = {"full": _full, "part": _part, "pending": _pending, "polled": _polled}

REFUND_JOURNEYS: Final[dict[str, Journey]] = {
    **{
        f"refund-{name}-{gateway}": Journey(partial(play, gateway=gateway))
        for name, play in _BY_GATEWAY.items()
        for gateway in ("stripe", "alipay", "wechatpay")
    },
    "refund-sent-back-stripe": Journey(_sent_back, has_after=True),
    "refund-told-again-alipay": Journey(partial(_told_again, gateway="alipay"), has_after=True),
    "refund-told-again-wechatpay": Journey(
        partial(_told_again, gateway="wechatpay"), has_after=True
    ),
    "refund-closed-wechatpay": Journey(_closed),
    "refund-repaired-wechatpay": Journey(_repaired),
    "refund-paused-alipay": Journey(_paused),
    "refund-refused": Journey(_refused),
    "refund-resumed": Journey(_resumed),
}
