"""The routes of APIv3 for a direct merchant, and the signed answers."""

import json
import secrets
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from sandbox.core import Keys, Sandbox
from sandbox.faults import Fault, faulted
from sandbox.numbers import split_number
from sandbox.wechatpay.calls import Call, read_call
from sandbox.wechatpay.errors import Unverified, WechatError, order_missing, parameter_error
from sandbox.wechatpay.orders import Orders, order_fields
from sandbox.wechatpay.parameters import APP, H5, JSAPI, NAME, NATIVE, TRADE_TYPES
from sandbox.wechatpay.refunds import REFUND_KIND, Refunds
from sandbox.wechatpay.signing import signed_headers

Work = Callable[[Call], dict[str, Any] | None]
"""Does a call inside a transaction; what it answers, None for 204. Raises WechatError."""

_TRANSACTIONS = "/v3/pay/transactions"
_REFUNDS = "/v3/refund/domestic/refunds"


def api_routes(sandbox: Sandbox, orders: Orders) -> APIRouter:
    """`/v3/...`, and the control that does what a merchant does at the merchant platform."""
    router = APIRouter()
    merchant = Merchant(sandbox, orders)

    @router.post(f"{_TRANSACTIONS}/{{method}}")
    async def place(request: Request, method: str) -> Response:
        def work(call: Call) -> dict[str, Any]:
            return merchant.place(method, call)

        return await merchant.answer(request, "open", work)

    @router.get(f"{_TRANSACTIONS}/out-trade-no/{{number}}")
    async def by_number(request: Request, number: str) -> Response:
        def work(call: Call) -> dict[str, Any]:
            return merchant.query(call, number, orders.by_number(number))

        return await merchant.answer(request, "query", work, split_number(number)[0])

    @router.get(f"{_TRANSACTIONS}/id/{{transaction_id}}")
    async def by_transaction(request: Request, transaction_id: str) -> Response:
        def work(call: Call) -> dict[str, Any]:
            order = orders.by_field(transaction_id=transaction_id)
            return merchant.query(call, transaction_id, order)

        order = orders.by_field(transaction_id=transaction_id)
        return await merchant.answer(request, "query", work, order["reference"] if order else None)

    @router.post(f"{_TRANSACTIONS}/out-trade-no/{{number}}/close")
    async def close(request: Request, number: str) -> Response:
        def work(call: Call) -> None:
            merchant.close(call, number)

        return await merchant.answer(request, "close", work, split_number(number)[0])

    @router.post(_REFUNDS)
    async def refund(request: Request) -> Response:
        def work(call: Call) -> dict[str, Any]:
            return merchant.refunds.refund(call.body)

        return await merchant.answer(request, "refund", work)

    @router.get(f"{_REFUNDS}/{{number}}")
    async def find_refund(request: Request, number: str) -> Response:
        def work(call: Call) -> dict[str, Any]:
            return merchant.refunds.find(number)

        kept = sandbox.book.get(REFUND_KIND, number)
        reference = kept["reference"] if kept else None
        return await merchant.answer(request, "refund_query", work, reference)

    @router.post("/control/wechatpay/refunds/{number}/repair")
    async def repair(number: str) -> dict[str, Any]:
        with sandbox.book.transaction():
            refund = merchant.refunds.repair(number)
        return {
            "gateway": NAME,
            "reference": split_number(refund["out_trade_no"])[0],
            "number": number,
            "status": refund["status"],
        }

    @router.api_route("/v3/{path:path}", methods=["GET", "POST", "PUT", "DELETE"])
    async def unknown(request: Request, path: str) -> Response:
        def work(call: Call) -> None:
            raise WechatError(
                404,
                "RESOURCE_NOT_EXISTS",
                f"this sandbox has no {request.method} /v3/{path}: it speaks of"
                " pay/transactions and refund/domestic/refunds",
            )

        return await merchant.answer(request, "other", work)

    return router


class Merchant:
    """The calls of the one merchant there is."""

    def __init__(self, sandbox: Sandbox, orders: Orders) -> None:
        self._sandbox = sandbox
        self._orders = orders
        self._keys: Keys = sandbox.keys[NAME]
        self.refunds = Refunds(sandbox, orders)

    async def answer(
        self, request: Request, operation: str, work: Work, reference: str | None = None
    ) -> Response:
        """One call, with the fault waiting for it; `reference` unless its body tells it."""
        try:
            call = await read_call(request, self._keys, self._sandbox.clock())
        except WechatError as problem:
            return self._refusal(problem)

        async def handle(fault: Fault | None) -> Response:
            if fault and fault.name == "close_too_early":
                return self._refusal(
                    WechatError(400, "INVALID_REQUEST", "订单生成后不能马上调用关单接口")
                )
            if fault and fault.name == "balance_insufficient":
                return self._refusal(
                    WechatError(403, "NOT_ENOUGH", "基本账户余额不足，请充值后重新发起")
                )
            try:
                with self._sandbox.book.transaction():
                    fields = work(call)
            except WechatError as problem:
                return self._refusal(problem)
            if fault and fields:
                _alter(fields, fault.name)
            return self._respond(fields, forged=fault is not None and fault.name == "bad_signature")

        told = reference or self._reference_of(call.body)
        return await faulted(self._sandbox, NAME, operation, told, handle, _unavailable)

    def _reference_of(self, body: dict[str, Any]) -> str | None:
        """The payment that a body is about, by the order's number or WeChat Pay's own."""
        number, transaction_id = body.get("out_trade_no"), body.get("transaction_id")
        if isinstance(number, str):
            return split_number(number)[0]
        if not isinstance(transaction_id, str):
            return None
        order = self._orders.by_field(transaction_id=transaction_id)
        return order["reference"] if order else None

    def place(self, method: str, call: Call) -> dict[str, Any]:
        """Instructions for the payer, in the form of the method."""
        trade_type = TRADE_TYPES.get(method)
        if trade_type is None:
            raise WechatError(404, "RESOURCE_NOT_EXISTS", f"no /v3/pay/transactions/{method}")
        order = self._orders.place(trade_type, call.body)
        if trade_type == NATIVE:
            return {"code_url": f"weixin://wxpay/bizpayurl?pr={order['code']}"}
        if trade_type == H5:
            page = f"{self._sandbox.url}/wechatpay/h5/checkmweb"
            return {"h5_url": f"{page}?prepay_id={order['prepay_id']}&package={order['code']}"}
        assert trade_type in (JSAPI, APP)
        return {"prepay_id": order["prepay_id"]}

    def query(self, call: Call, number: str, order: dict[str, Any] | None) -> dict[str, Any]:
        self._check_mchid(call.mchid, "mchid")
        if order is None:
            raise order_missing(number)
        return order_fields(order, self._sandbox)

    def close(self, call: Call, number: str) -> None:
        self._check_mchid(call.body.get("mchid"), "mchid")
        self._orders.close(number)

    def _check_mchid(self, given: object, field: str) -> None:
        if given != self._keys["mchid"]:
            raise parameter_error(field, "is the merchant who signs")

    def _respond(self, fields: dict[str, Any] | None, *, forged: bool) -> Response:
        if fields is None:
            return Response(
                status_code=204,
                headers={"Request-ID": _request_id()}
                | signed_headers(b"", self._keys, forged=forged),
            )
        content = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
        return _json(content, 200, signed_headers(content, self._keys, forged=forged))

    def _refusal(self, problem: WechatError) -> Response:
        content = json.dumps(problem.body, ensure_ascii=False).encode()
        unsigned = isinstance(problem, Unverified)
        return _json(
            content, problem.status, {} if unsigned else signed_headers(content, self._keys)
        )


def _json(content: bytes, status: int, headers: dict[str, str]) -> Response:
    return Response(
        content,
        status,
        {"Content-Type": "application/json; charset=utf-8", "Request-ID": _request_id(), **headers},
    )


def _unavailable(status: int) -> Response:
    """429 and 500 come unsigned."""
    told = {
        429: {"code": "FREQUENCY_LIMITED", "message": "频率超限"},
        500: {"code": "SYSTEM_ERROR", "message": "系统异常，请稍后重试"},
    }[status]
    return _json(json.dumps(told, ensure_ascii=False).encode(), status, {})


def _request_id() -> str:
    return f"08{secrets.token_hex(10).upper()}-0"


def _alter(fields: dict[str, Any], fault: str) -> None:
    """Make the answer speak of something else, before it is signed."""
    if fault == "wrong_amount" and "amount" in fields:
        fields["amount"]["refund" if "refund" in fields["amount"] else "total"] += 1
    elif fault == "wrong_currency" and "amount" in fields:
        fields["amount"]["currency"] = "USD"
    elif fault == "wrong_merchant" and "mchid" in fields:
        fields["mchid"] = _another(fields["mchid"])
    elif fault == "wrong_order" and "out_trade_no" in fields:
        fields["out_trade_no"] = _another(fields["out_trade_no"])
    elif fault == "unknown_status" and "trade_state" in fields:
        fields["trade_state"] = "PONDERING"
    elif fault == "unknown_status" and "status" in fields:
        fields["status"] = "PONDERING"


def _another(identifier: str) -> str:
    return identifier[:-1] + ("1" if identifier.endswith("0") else "0")
