"""The routes of contracts: XML of APIv2 for signing, ending and deducting, APIv3 for notices."""

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from sandbox.core import Sandbox
from sandbox.faults import Fault, faulted
from sandbox.numbers import split_number
from sandbox.wechatpay import xml
from sandbox.wechatpay.calls import Call
from sandbox.wechatpay.contracts import BY_MERCHANT, Contracts, contract_fields
from sandbox.wechatpay.deductions import Deductions
from sandbox.wechatpay.errors import WechatError, parameter_error
from sandbox.wechatpay.gateway import Merchant
from sandbox.wechatpay.orders import Orders
from sandbox.wechatpay.parameters import NAME

Fields = dict[str, str]
Work = Callable[[Fields], Fields]
"""Does a call inside a transaction; what it answers. Raises WechatError."""


def contract_routes(sandbox: Sandbox, orders: Orders) -> APIRouter:
    router = APIRouter()
    contracts = Contracts(sandbox)
    deductions = Deductions(sandbox, orders, contracts)
    line = XmlLine(sandbox, contracts)
    merchant = Merchant(sandbox, orders)

    @router.post("/papay/querycontract")
    async def query_contract(request: Request) -> Response:
        return await line.answer(request, "mandate", lambda f: contract_fields(contracts.named(f)))

    @router.post("/papay/deletecontract")
    async def delete_contract(request: Request) -> Response:
        def work(fields: Fields) -> Fields:
            remark = fields.get("contract_termination_remark")
            if not remark:
                raise parameter_error("contract_termination_remark", "is required")
            contract = contracts.named(fields)
            contracts.end(contract, BY_MERCHANT, remark)
            return {name: contract[name] for name in ("contract_id", "plan_id", "contract_code")}

        return await line.answer(request, "mandate", work)

    @router.post("/pay/pappayapply")
    async def apply(request: Request) -> Response:
        return await line.answer(request, "open", deductions.apply)

    @router.post("/pay/paporderquery")
    async def query_order(request: Request) -> Response:
        return await line.answer(request, "query", deductions.query)

    @router.post("/v3/papay/contracts/{contract_id}/notify")
    async def notify(request: Request, contract_id: str) -> Response:
        def work(call: Call) -> None:
            line.check_merchant(call.body, "mchid")
            contracts.notify(contract_id, call.body)

        return await merchant.answer(request, "mandate", work, line.reference_of(contract_id))

    @router.post("/v3/papay/contracts/{contract_id}/fail-notify")
    async def fail_notify(request: Request, contract_id: str) -> Response:
        def work(call: Call) -> None:
            line.check_merchant(call.body, "mchid")
            contracts.tell_of_failure(contract_id, call.body)

        return await merchant.answer(request, "mandate", work, line.reference_of(contract_id))

    return router


class XmlLine:
    """Reads what the merchant has signed with the APIv2 key, and signs the answers with it."""

    def __init__(self, sandbox: Sandbox, contracts: Contracts) -> None:
        self._sandbox = sandbox
        self._contracts = contracts
        self._keys = sandbox.keys[NAME]
        self._key = xml.apiv2_key(self._keys)

    async def answer(self, request: Request, operation: str, work: Work) -> Response:
        """One call, with the fault waiting for it. HTTP's status is 200 whatever is said."""
        try:
            fields = xml.read(await request.body())
        except xml.NotXml:
            return _respond({"return_code": "FAIL", "return_msg": "XML格式错误"}, None)
        if not xml.is_signed(fields, self._key):
            return _respond({"return_code": "FAIL", "return_msg": "签名错误"}, None)

        async def handle(fault: Fault | None) -> Response:
            said = {
                "return_code": "SUCCESS",
                "appid": self._keys["appid"],
                "mch_id": self._keys["mchid"],
            }
            try:
                self.check_merchant(fields, "mch_id")
                with self._sandbox.book.transaction():
                    told = work(fields)
            except WechatError as problem:
                refusal = {"err_code": problem.code, "err_code_des": problem.message}
                return _respond(said | {"result_code": "FAIL"} | refusal, self._key)
            said |= {"result_code": "SUCCESS", **told}
            is_forged = fault is not None and fault.name == "bad_signature"
            if fault:
                _alter(said, fault.name)
            return _respond(said, self._key, forged=is_forged)

        number = fields.get("out_trade_no")
        reference = split_number(number)[0] if number else self._reference_of(fields)
        return await faulted(self._sandbox, NAME, operation, reference, handle, _unavailable)

    def check_merchant(self, fields: Mapping[str, Any], name: str) -> None:
        if (fields.get("appid"), fields.get(name)) != (self._keys["appid"], self._keys["mchid"]):
            raise WechatError(400, "APPID_MCHID_NOT_MATCH", "appid和mch_id不匹配")

    def reference_of(self, contract_id: str) -> str | None:
        contract = self._contracts.by_id(contract_id)
        return contract["reference"] if contract else None

    def _reference_of(self, fields: Fields) -> str | None:
        try:
            reference: str = self._contracts.named(fields)["reference"]
        except WechatError:
            return None
        return reference


def _respond(fields: Fields, key: str | None, *, forged: bool = False) -> Response:
    return Response(xml.written(fields, key, forged=forged), media_type="text/xml")


def _unavailable(status: int) -> Response:
    content = xml.written({"return_code": "FAIL", "return_msg": "系统繁忙，请稍后再试"}, None)
    return Response(content, status, media_type="text/xml")


def _alter(said: Fields, fault: str) -> None:
    """Make the answer speak of something else, before it is signed."""
    if fault == "wrong_amount" and "total_fee" in said:
        said["total_fee"] = str(int(said["total_fee"]) + 1)
    elif fault == "wrong_currency" and "fee_type" in said:
        said["fee_type"] = "USD"
    elif fault == "wrong_merchant":
        said["mch_id"] = f"{said['mch_id']}0"
    elif fault == "wrong_order":
        for name in ("out_trade_no", "contract_code"):
            if name in said:
                said[name] = f"{said[name]}0"
    elif fault == "unknown_status":
        for name in ("trade_state", "contract_state"):
            if name in said:
                said[name] = "PONDERING"
