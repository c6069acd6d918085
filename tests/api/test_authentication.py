"""Every route against every kind of caller, generated from the OpenAPI document."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from api.authentication import Caller
from storage.keys import Scope
from tests.api import subscribing
from tests.api.conftest import Shop, Stack, order, purchase
from tests.api.test_validation import check_problem

NO_METHOD = "pm_01hf7yat00fzzvzzzzzzzzzzzz"
NO_REFUND = "ref_01h455vb4pex5vsknk084sn02q"
SCOPE_OF = {
    "create_payment": Scope.WRITE,
    "read_payment": Scope.READ,
    "create_refund": Scope.REFUND,
    "read_refund": Scope.READ,
    "cancel_payment": Scope.WRITE,
    "switch_payment": Scope.WRITE,
    "refresh_payment": Scope.WRITE,
    "review_payment": Scope.OPERATE,
    "purchase_points": Scope.WRITE,
    "spend_points": Scope.WRITE,
    "read_points": Scope.READ,
    "list_points_transactions": Scope.READ,
    "save_method": Scope.WRITE,
    "list_methods": Scope.READ,
    "read_method": Scope.READ,
    "delete_method": Scope.WRITE,
    "make_method_default": Scope.WRITE,
    "subscribe": Scope.WRITE,
    "list_subscriptions": Scope.READ,
    "read_subscription": Scope.READ,
    "read_upcoming": Scope.READ,
    "preview_subscription": Scope.READ,
    "cancel_subscription": Scope.WRITE,
    "pause_subscription": Scope.WRITE,
    "resume_subscription": Scope.WRITE,
    "change_subscription": Scope.WRITE,
    "change_subscription_method": Scope.WRITE,
    "pay_subscription": Scope.WRITE,
    "operate_subscription": Scope.OPERATE,
    "advance_subscription_clock": Scope.OPERATE,
    "read_customer": Scope.READ,
    "preview_refund": Scope.READ,
    "list_payments": Scope.READ,
    "read_stats": Scope.READ,
    "list_events": Scope.READ,
    "read_pricing": Scope.READ,
    "create_token": Scope.READ,
}
OF_PAYMENT = ("create_token", "create_refund", "preview_refund")
"""Those that name a payment in their body."""
OF_NOBODY = (
    "read_refund",
    "read_method",
    "delete_method",
    "make_method_default",
    *(name for name in SCOPE_OF if name.endswith("_subscription") or "subscription_" in name),
    "read_upcoming",
)
"""Those that are asked about what is not there."""
OPEN_TO_ALL = {
    "stripe_webhook",
    "alipay_webhook",
    "wechatpay_webhook",
    "check_alive",
    "check_ready",
    "codec_encode",
    "codec_decode",
    "codec_encode_preflight",
    "codec_decode_preflight",
}


def operations(stack: Stack) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in stack.app.openapi()["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def request_of(operation_id: str, method: str, path: str, payment_id: str) -> dict[str, Any]:
    body = {
        "create_payment": order(),
        "create_token": {"payment_id": payment_id},
        "preview_refund": {"payment_id": payment_id},
        "create_refund": {"payment_id": payment_id, "reason": "the matrix asks"},
        "switch_payment": {"gateway": "wechatpay", "method": "native"},
        "purchase_points": purchase(),
        "save_method": {"user_id": "user_1", "gateway": "alipay"},
        "subscribe": subscribing.wanted(),
        "preview_subscription": {"command": "resume"},
        "cancel_subscription": {},
        "pause_subscription": {},
        "resume_subscription": {},
        "pay_subscription": {},
        "change_subscription": {"tier": "SUPER", "cycle": "monthly"},
        "change_subscription_method": {"gateway": "alipay"},
        "operate_subscription": {"action": "end", "reason": "the matrix asks"},
        "advance_subscription_clock": {"seconds": 1},
        "spend_points": {"user_id": "user_1", "points": 1, "reason": "the matrix asks"},
        "review_payment": {"action": "close", "reason": "the matrix asks"},
    }.get(operation_id)
    headers = {"Idempotency-Key": f"matrix-{payment_id}"} if method == "post" else {}
    params = {
        "list_events": {"wait_seconds": 0},
        "list_methods": {"user_id": "user_1"},
        "list_subscriptions": {"user_id": "user_1"},
    }.get(operation_id)
    url = path.format(
        payment_id=payment_id,
        refund_id=NO_REFUND,
        method_id=NO_METHOD,
        subscription_id=subscribing.NOBODY,
        user_id="user_1",
    )
    return {"method": method, "url": url, "json": body, "headers": headers, "params": params}


async def test_every_route_is_in_the_matrix_and_says_who_may(stack: Stack) -> None:
    documented = {operation["operationId"] for _, _, operation in operations(stack)}
    assert documented == SCOPE_OF.keys() | OPEN_TO_ALL
    for _, _, operation in operations(stack):
        is_open = operation["operationId"] in OPEN_TO_ALL
        assert operation.get("security", []) == ([] if is_open else [{"ApiKey": []}])


@pytest.mark.parametrize("operation_id", SCOPE_OF)
async def test_no_route_serves_who_may_not(shop: Shop, other_shop: Shop, operation_id: str) -> None:
    stack, scope = shop.stack, SCOPE_OF[operation_id]
    payment_id = (await shop.created())["id"]
    method, path = next(
        (method, path)
        for method, path, operation in operations(stack)
        if operation["operationId"] == operation_id
    )
    request = request_of(operation_id, method, path, payment_id)

    async with stack.caller() as nobody:
        answer = await nobody.request(**request)
    check_problem(answer, 401)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")

    for secret in ("ebk_unknown", "x" * 10_000, "会"):
        async with stack.caller(secret) as stranger:
            check_problem(await stranger.request(**request), 401)

    async with stack.caller(await stack.key(shop.name, *(set(Scope) - {scope}))) as limited:
        problem = check_problem(await limited.request(**request), 403)
    assert problem["code"] == "scope_missing"
    assert f"`{scope}`" in problem["detail"]

    async with stack.caller(await revoked_key(stack, shop.name)) as former:
        check_problem(await former.request(**request), 401)

    answer = await other_shop.http.request(**request)
    if "{payment_id}" in path or operation_id in OF_PAYMENT:
        check_problem(answer, 404)
    else:
        assert payment_id not in answer.text

    async with stack.caller(await stack.key(shop.name, scope)) as sufficient:
        answer = await sufficient.request(**request)
    assert answer.status_code in ((404,) if operation_id in OF_NOBODY else (200, 201, 409))
    after = await shop.get(f"/{payment_id}")
    expected = "canceled" if operation_id == "cancel_payment" else "requires_action"
    assert after.json()["status"] == expected


@pytest.mark.parametrize("header", ["Basic dXNlcjpwYXNz", "Bearer", "Bearer ", "ebk_no_scheme"])
async def test_a_header_of_another_form_is_no_key(shop: Shop, header: str) -> None:
    async with shop.stack.caller() as nobody:
        answer = await nobody.get("/api/v1/payment/history", headers={"Authorization": header})
    check_problem(answer, 401)


async def test_who_is_unknown_makes_nobody_read_a_body(shop: Shop) -> None:
    async with shop.stack.caller() as nobody:
        answer = await nobody.post("/api/v1/payment/create", content=b"{" * 100_000)
    check_problem(answer, 401)


async def test_a_rotated_key_ends_and_its_successor_is_the_same_application(shop: Shop) -> None:
    secret = await shop.stack.key(shop.name, Scope.READ)
    async with shop.stack.database.begin() as work:
        key = await work.keys.find(secret)
        assert key is not None
        rotated = await work.keys.rotate(key.id, datetime.now(UTC))
    assert rotated is not None
    payment = await shop.created()
    async with shop.stack.caller(secret) as former, shop.stack.caller(rotated[1]) as successor:
        path = f"/api/v1/payment/{payment['id']}"
        check_problem(await former.get(path), 401)
        assert (await successor.get(path)).status_code == 200


def test_a_caller_says_nothing_of_its_secret() -> None:
    assert "ebk_" not in repr(Caller("shop", "key_1"))


async def revoked_key(stack: Stack, application: str) -> str:
    secret = await stack.key(application, *Scope)
    async with stack.database.begin() as work:
        key = await work.keys.find(secret)
        assert key is not None
        await work.keys.revoke(key.id, datetime.now(UTC))
    return secret
