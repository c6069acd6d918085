"""What the controls let befall saved cards."""

from typing import Any

import pytest
import stripe

from tests.sandbox.conftest import WebhookReceiver
from tests.sandbox.stripe.saving import METHOD_ID, Saver, events


async def test_the_next_charges_are_declined(saver: Saver) -> None:
    saved = await saver.save()

    assert await saver.steer(decline="do_not_honor", times=2) == 200
    outcomes = [await saver.outcome(saved, f"pay_0{n}") for n in range(3)]

    assert outcomes == ["do_not_honor", "do_not_honor", "succeeded"]


async def test_a_repeated_charge_uses_up_no_decline(saver: Saver) -> None:
    saved = await saver.save()
    await saver.steer(decline="lost_card", times=2)

    for _ in range(3):
        with pytest.raises(stripe.CardError):
            await saver.charge(saved, key="pay_01:1")

    assert await saver.outcome(saved, "pay_02") == "lost_card"
    assert await saver.outcome(saved, "pay_03") == "succeeded"


async def test_until_told_otherwise(saver: Saver) -> None:
    saved = await saver.save()

    await saver.steer(authentication_required=True, times=None)
    wanted = [await saver.outcome(saved, f"pay_0{n}") for n in range(2)]
    await saver.steer()
    paid = await saver.outcome(saved, "pay_09")

    assert (wanted, paid) == (["authentication_required"] * 2, "succeeded")


async def test_a_card_that_declines_may_be_let_through(saver: Saver) -> None:
    saved = await saver.save("4000000000000341")

    assert await saver.steer(saved.id, ok=True) == 200

    assert await saver.outcome(saved, "pay_01") == "succeeded"
    assert await saver.outcome(saved, "pay_02") == "generic_decline"


async def test_the_dashboard_detaches(saver: Saver, receiver: WebhookReceiver) -> None:
    saved = await saver.save()
    await events(receiver, 4)

    assert await saver.steer(end=True) == 200
    [told] = await events(receiver, 1)

    assert (told["type"], told["data"]["object"]["id"]) == ("payment_method.detached", saved.id)
    assert told["request"] == {"id": None, "idempotency_key": None}
    assert await saver.steer(end=True) == 409
    with pytest.raises(stripe.InvalidRequestError):
        await saver.charge(saved)


@pytest.mark.parametrize(
    ("automatic", "event_type"),
    [(True, "payment_method.automatically_updated"), (False, "payment_method.updated")],
)
async def test_the_card_is_replaced(
    saver: Saver,
    client: stripe.StripeClient,
    receiver: WebhookReceiver,
    automatic: bool,
    event_type: str,
) -> None:
    saved = await saver.save()
    assert saved.card is not None
    await events(receiver, 4)

    await saver.steer(update={"last4": "1881", "exp_year": 2039, "automatic": automatic})
    found = await client.v1.payment_methods.retrieve_async(saved.id)
    [told] = await events(receiver, 1)

    assert found.card is not None
    assert (found.card.last4, found.card.exp_month, found.card.exp_year) == ("1881", 12, 2039)
    assert found.card.fingerprint != saved.card.fingerprint
    assert told["type"] == event_type
    assert told["data"]["object"]["card"]["last4"] == "1881"
    assert told["data"]["previous_attributes"] == {
        "card": {"last4": "4242", "exp_year": 2034, "fingerprint": saved.card.fingerprint}
    }
    assert await saver.outcome(saved) == "succeeded"


async def test_an_expired_card_declines_until_it_is_replaced(saver: Saver) -> None:
    saved = await saver.save()

    await saver.steer(update={"exp_month": 1, "exp_year": 2020})
    await saver.steer(ok=True, times=None)
    expired = await saver.outcome(saved, "pay_01")
    await saver.steer(update={"exp_year": 2039})

    assert expired == "expired_card"
    assert await saver.outcome(saved, "pay_02") == "succeeded"


async def test_it_expires_by_its_own_business_time(saver: Saver) -> None:
    async def set_clock(reference: str, now: str | None) -> dict[str, Any]:
        wanted = {"gateway": "stripe", "reference": reference, "now": now}
        answer = await saver.sandbox.control.post("/control/clock", json=wanted)
        told: dict[str, Any] = answer.json()
        return told

    early = await set_clock(METHOD_ID, "2034-12-31T23:00:00Z")
    saved = await saver.save()
    in_its_last_month = await saver.outcome(saved, "pay_01")
    late = await set_clock(saved.id, "2035-01-01T00:00:00Z")
    after_it = await saver.outcome(saved, "pay_02")
    await set_clock(METHOD_ID, None)

    assert (early["reference"], late["reference"]) == (METHOD_ID, METHOD_ID)
    assert late["now"] == "2035-01-01T00:00:00+00:00"
    assert (in_its_last_month, after_it) == ("succeeded", "expired_card")
    assert await saver.outcome(saved, "pay_03") == "succeeded"


async def test_what_makes_no_sense(saver: Saver) -> None:
    await saver.save()
    senseless: list[dict[str, Any]] = [
        {"surprise": True},
        {"decline": "Not A Code"},
        {"decline": "lost_card", "ok": True},
        {"times": 0},
        {"update": {"last4": "12"}},
        {"update": {"exp_month": 13}},
    ]

    for options in senseless:
        assert await saver.steer(**options) == 422, options


async def test_a_card_that_is_not_saved(saver: Saver, client: stripe.StripeClient) -> None:
    setup = await saver.ask(await saver.customer())
    waiting = await client.v1.setup_intents.confirm_async(
        setup.id, {"payment_method": "pm_card_authenticationRequired"}
    )

    assert await saver.steer(ok=True) == 404
    assert await saver.steer(str(waiting.payment_method), ok=True) == 409


async def test_saved_methods_are_shown_and_ended(saver: Saver) -> None:
    await saver.save()
    before = await _page(saver)
    assert METHOD_ID in before
    assert "attached" in before
    named = {"gateway": "stripe", "reference": METHOD_ID}
    [line] = (await saver.sandbox.control.get("/control/mandates")).json()["data"]
    assert {name: line[name] for name in named} == named

    ended = await saver.sandbox.control.post("/page/mandate/end", data=named)
    again = await saver.sandbox.control.post("/page/mandate/end", data=named)
    nobody = {"gateway": "alipay", "reference": METHOD_ID}
    unknown = await saver.sandbox.control.post("/page/mandate/end", data=nobody)

    assert "detached" in ended.headers["Location"]
    assert "not+saved" in again.headers["Location"]
    assert "no+agreement" in unknown.headers["Location"]
    after = await _page(saver)
    assert "detached" in after
    assert "End as the payer" not in after


async def _page(saver: Saver) -> str:
    return (await saver.sandbox.control.get("/")).text
