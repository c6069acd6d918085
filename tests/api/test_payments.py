"""Create, read, cancel, refresh and review, over the real workflow."""

from typing import Any

import pytest

from billing.identifiers import is_payment_id
from tests.api.conftest import Shop
from tests.api.paper import REFUSED, UNTRUSTED

FIELDS = (
    "id type status amount currency amount_refunded gateway method user_id description metadata"
    " attempt gateway_reference next_action failure review dispute created_at updated_at expires_at"
    " paid_at"
).split()


async def test_create_answers_with_what_the_payer_needs_next(shop: Shop) -> None:
    payment = await shop.created(metadata={"order": "A-17"})
    assert list(payment) == FIELDS
    assert is_payment_id(payment["id"])
    assert payment["status"] == "requires_action"
    assert payment["next_action"] == {"type": "qr_code", "code_url": f"paper://{payment['id']}"}
    assert payment["metadata"] == {"order": "A-17"}
    assert payment["failure"] is None
    assert payment["created_at"].endswith("Z")


async def test_a_read_after_the_answer_sees_the_same(shop: Shop) -> None:
    payment = await shop.created()
    answer = await shop.get(f"/{payment['id']}")
    assert answer.status_code == 200
    assert answer.json() == payment


async def test_a_gateway_that_refuses_to_open_is_a_failed_payment_not_an_error(shop: Shop) -> None:
    payment = await shop.created(description=REFUSED)
    assert payment["status"] == "failed"
    assert payment["failure"]["code"] == "order_refused"
    assert payment["next_action"] == {"type": "none"}


async def test_the_end_of_an_order_is_a_whole_second(shop: Shop) -> None:
    payment = await shop.created(expires_in_seconds=5.0)
    assert "." not in payment["expires_at"]


async def test_a_canceled_payment_stays_canceled(shop: Shop) -> None:
    payment = await shop.created()
    first = await shop.post(f"/{payment['id']}/cancel")
    assert first.status_code == 200, first.text
    assert first.json()["status"] == "canceled"
    assert first.json()["next_action"] == {"type": "none"}
    again = await shop.post(f"/{payment['id']}/cancel", {})
    assert again.status_code == 200
    assert again.json() == (await shop.get(f"/{payment['id']}")).json()


async def test_a_paid_payment_cannot_be_canceled(shop: Shop) -> None:
    payment = await paid(shop)
    answer = await shop.post(f"/{payment['id']}/cancel")
    assert answer.status_code == 409
    assert answer.json()["code"] == "payment_not_cancelable"


async def test_a_payment_paid_just_before_its_cancel_is_not_canceled(shop: Shop) -> None:
    payment = await shop.created(gateway="stripe", method="card")
    shop.gateway(payment["gateway"]).pay(payment["id"])
    answer = await shop.post(f"/{payment['id']}/cancel")
    assert answer.status_code == 409
    assert (await shop.get(f"/{payment['id']}")).json()["status"] == "succeeded"


async def test_refresh_asks_the_gateway_now_and_then_waits(shop: Shop) -> None:
    payment = await shop.created()
    shop.gateway(payment["gateway"]).pay(payment["id"])
    answer = await shop.post(f"/{payment['id']}/refresh")
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == "succeeded"
    assert answer.json()["paid_at"] is not None
    soon = await shop.post(f"/{payment['id']}/refresh")
    assert soon.status_code == 429
    assert soon.json()["code"] == "too_many_refreshes"
    assert int(soon.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    ("decision", "status"),
    [
        ({"action": "retry", "gateway_number": "2026112322001400000000000001"}, "succeeded"),
        ({"action": "close"}, "failed"),
    ],
)
async def test_an_operator_decides_on_a_parked_payment(
    shop: Shop, decision: dict[str, Any], status: str
) -> None:
    payment = await parked(shop)
    body = {"reason": "asked the gateway's support"} | decision
    answer = await shop.post(f"/{payment['id']}/review", body, key="decision")
    assert answer.status_code == 200, answer.text
    assert answer.json()["status"] == status
    assert answer.json()["review"] is None
    again = await shop.post(f"/{payment['id']}/review", body, key="decision")
    assert again.content == answer.content
    assert again.headers["Idempotent-Replayed"] == "true"
    late = await shop.post(f"/{payment['id']}/review", body)
    assert late.status_code == 409
    assert late.json()["code"] == "payment_not_under_review"


async def test_a_review_of_a_payment_nobody_parked_is_a_conflict_for_good(shop: Shop) -> None:
    payment = await shop.created(description=UNTRUSTED)
    body = {"action": "close", "reason": "by mistake"}
    answer = await shop.post(f"/{payment['id']}/review", body, key="too-early")
    assert answer.status_code == 409
    await shop.post(f"/{payment['id']}/refresh")
    assert (await shop.get(f"/{payment['id']}")).json()["status"] == "needs_review"
    repeat = await shop.post(f"/{payment['id']}/review", body, key="too-early")
    assert repeat.content == answer.content
    assert repeat.headers["Content-Type"] == "application/problem+json"
    assert (await shop.get(f"/{payment['id']}")).json()["status"] == "needs_review"


async def test_nothing_is_returned_that_the_gateway_does_not_confirm(shop: Shop) -> None:
    payment = await parked(shop)
    answer = await shop.post(f"/{payment['id']}/review", {"action": "return", "reason": "unasked"})
    assert answer.status_code == 409
    assert answer.json()["code"] == "nothing_to_return"
    assert (await shop.get(f"/{payment['id']}")).json()["status"] == "needs_review"


async def test_a_parked_payment_is_not_canceled_by_the_application(shop: Shop) -> None:
    payment = await parked(shop)
    answer = await shop.post(f"/{payment['id']}/cancel")
    assert answer.status_code == 409
    assert (await shop.get(f"/{payment['id']}")).json()["status"] == "needs_review"


async def test_a_token_is_the_next_action_alone(shop: Shop) -> None:
    payment = await shop.created(gateway="stripe", method="card", currency="USD")
    answer = await shop.post("/token", {"payment_id": payment["id"]})
    assert answer.status_code == 200
    assert answer.json() == {
        "payment_id": payment["id"],
        "payment_method_id": None,
        "next_action": {
            "type": "client_secret",
            "client_secret": "paper_secret",
            "publishable_key": "paper_key",
        },
    }


@pytest.mark.parametrize(
    "payment_id",
    [
        "pay_01hf7yat00fzzvzzzzzzzzzzzz",
        "pay_",
        "pay_01HF7YAT00FZZVZZZZZZZZZZZZ",
        "pay_%00",
        "ref_01hf7yat00fzzvzzzzzzzzzzzz",
        "1",
    ],
)
async def test_an_unknown_or_malformed_id_is_not_found(shop: Shop, payment_id: str) -> None:
    answer = await shop.get(f"/{payment_id}")
    assert answer.status_code == 404
    assert answer.json()["code"] in ("payment_not_found", "not_found")


async def test_nothing_of_another_application_can_be_seen_or_touched(
    shop: Shop, other_shop: Shop
) -> None:
    payment = await shop.created()
    path = f"/{payment['id']}"
    answers = [
        await other_shop.get(path),
        await other_shop.post(f"{path}/cancel"),
        await other_shop.post(f"{path}/refresh"),
        await other_shop.post(f"{path}/review", {"action": "close", "reason": "mine now"}),
        await other_shop.post("/token", {"payment_id": payment["id"]}),
    ]
    assert [answer.status_code for answer in answers] == [404] * 5
    assert (await other_shop.get("/history")).json()["data"] == []
    assert (await other_shop.get("/events", wait_seconds=0)).json()["data"] == []
    assert (await shop.get(path)).json()["status"] == "requires_action"


async def paid(shop: Shop) -> dict[str, Any]:
    payment = await shop.created()
    shop.gateway(payment["gateway"]).pay(payment["id"])
    answer = await shop.post(f"/{payment['id']}/refresh")
    assert answer.json()["status"] == "succeeded"
    return payment


async def parked(shop: Shop) -> dict[str, Any]:
    payment = await shop.created(description=UNTRUSTED)
    answer = await shop.post(f"/{payment['id']}/refresh")
    assert answer.json()["status"] == "needs_review", answer.text
    return payment
