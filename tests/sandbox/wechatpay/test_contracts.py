"""Contracts at the sandbox's WeChat Pay, called from the protocol's description."""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.fixtures.sandbox import SandboxProcess
from tests.sandbox.conftest import Received, WebhookReceiver
from tests.sandbox.wechatpay.merchant import Merchant

CODE = "pm01jd0000000000000000000001"
METHOD_ID = "pm_01jd0000000000000000000001"
NUMBER = "pay_01jd0000000000000000000009"
NOON = datetime(2027, 3, 10, 4, tzinfo=UTC)
"""12:00 in Beijing."""
_FIELD = re.compile(r"<(\w+)><!\[CDATA\[(.*?)\]\]></\1>", re.DOTALL)


def fields_of(body: bytes) -> dict[str, str]:
    return dict(_FIELD.findall(body.decode()))


@dataclass
class Signer:
    """The merchant with its APIv2 key."""

    merchant: Merchant
    sandbox: SandboxProcess

    @property
    def key(self) -> str:
        return self.sandbox.environment["EVERBILL_WECHATPAY_API_V2_KEY"]

    @property
    def plan_id(self) -> str:
        return self.sandbox.environment["EVERBILL_WECHATPAY_PLAN_ID"]

    def signature(self, fields: dict[str, str]) -> str:
        parts = [f"{name}={fields[name]}" for name in sorted(fields) if name != "sign"]
        text = "&".join([*parts, f"key={self.key}"])
        return hashlib.md5(text.encode()).hexdigest().upper()  # noqa: S324

    def page(self, **changed: str) -> str:
        """The path and query of the sign page."""
        fields = {
            "appid": self.merchant.appid,
            "mch_id": self.merchant.mchid,
            "plan_id": self.plan_id,
            "contract_code": CODE,
            "request_serial": "1000",
            "contract_display_account": "会员 1",
            "notify_url": self.merchant.notify_url,
            "version": "1.0",
            "timestamp": "1795408215",
            "return_web": "1",
            **changed,
        }
        fields.setdefault("sign", self.signature(fields))
        return f"/papay/entrustweb?{urlencode(fields)}"

    async def sign(self) -> str:
        """The payer agrees; the contract_id."""
        answer = await self.sandbox.control.post(self.page())
        assert answer.status_code == 200, answer.text
        return (await self.call("/papay/querycontract", **self.named))["contract_id"]

    @property
    def named(self) -> dict[str, str]:
        return {"plan_id": self.plan_id, "contract_code": CODE, "version": "1.0"}

    async def send(self, path: str, body: str) -> dict[str, str]:
        answer = await self.sandbox.control.post(path, content=body.encode())
        assert answer.status_code == 200
        told = fields_of(answer.content)
        if told["return_code"] == "SUCCESS":
            assert told["sign"] == self.signature(told)
        return told

    async def call(self, path: str, **fields: str) -> dict[str, str]:
        sent = {"appid": self.merchant.appid, "mch_id": self.merchant.mchid, **fields}
        sent.setdefault("sign", self.signature(sent))
        parts = "".join(f"<{name}>{value}</{name}>" for name, value in sent.items())
        return await self.send(path, f"<xml>{parts}</xml>")

    async def apply(self, contract_id: str, number: str = NUMBER, **changed: str) -> dict[str, str]:
        fields = {
            "nonce_str": "abc",
            "body": "Gold",
            "out_trade_no": number,
            "total_fee": "2900",
            "spbill_create_ip": "127.0.0.1",
            "notify_url": self.merchant.notify_url,
            "trade_type": "PAP",
            "contract_id": contract_id,
        }
        return await self.call("/pay/pappayapply", **{**fields, **changed})

    async def notify(self, contract_id: str, fen: int = 2900, **changed: Any) -> tuple[int, str]:
        body = {
            "mchid": self.merchant.mchid,
            "appid": self.merchant.appid,
            "deduct_duration": {"count": 7, "unit": "DAY"},
            "estimated_amount": {"amount": fen, "currency": "CNY"},
            **changed,
        }
        path = f"/v3/papay/contracts/{contract_id}/notify"
        told = await self.merchant.call("POST", path, body)
        return told.status, told.fields["code"] if told.fields else ""

    async def control(self, what: str, **options: Any) -> int:
        wanted = {"gateway": "wechatpay", "reference": METHOD_ID, **options}
        return (await self.sandbox.control.post(f"/control/{what}", json=wanted)).status_code

    async def at(self, moment: datetime) -> None:
        assert await self.control("clock", now=moment.isoformat()) == 200


@pytest.fixture
async def signer(merchant: Merchant, sandbox: SandboxProcess) -> Signer:
    signer = Signer(merchant, sandbox)
    await signer.at(NOON)
    return signer


async def test_pages_that_do_not_open(signer: Signer) -> None:
    for changed in (
        {"sign": "0" * 32},
        {"mch_id": "1"},
        {"plan_id": "1"},
        {"version": "2.0"},
        {"request_serial": str(2**63)},
        {"request_serial": "x"},
        {"contract_code": "pm_01"},
        {"notify_url": "http://127.0.0.1:9/n?a=1"},
        {"timestamp": "now"},
        {"surprise": "1"},
    ):
        page = signer.page(**changed)
        assert (await signer.sandbox.control.get(page)).status_code == 400, changed
        wanted = {"gateway": "wechatpay", "next_action": {"type": "redirect", "url": page}}
        answer = await signer.sandbox.control.post("/control/pay", json=wanted)
        assert answer.status_code == 422, changed


async def test_a_contract_from_its_signing_to_its_end(signer: Signer) -> None:
    unknown = await signer.call("/papay/querycontract", **signer.named)
    assert (unknown["result_code"], unknown["err_code"]) == ("FAIL", "CONTRACT_NOT_EXIST")
    contract_id = await signer.sign()
    told = await signer.call("/papay/querycontract", contract_id=contract_id, version="1.0")
    assert told["contract_state"] == "0"
    assert told["contract_signed_time"] == str(int(NOON.timestamp()))
    assert (told["contract_code"], told["contract_display_account"]) == (CODE, "会员 1")
    ending = {"contract_id": contract_id, "contract_termination_remark": "x", "version": "1.0"}
    assert (await signer.call("/papay/deletecontract", **ending))["result_code"] == "SUCCESS"
    assert (await signer.call("/papay/deletecontract", **ending))["err_code"] == (
        "CONTRACT_NOT_EXIST"
    )
    ended = await signer.call("/papay/querycontract", **signer.named)
    assert (ended["contract_state"], ended["contract_termination_mode"]) == ("1", "3")
    assert (await signer.apply(contract_id))["err_code"] == "CONTRACT_NOT_EXIST"
    assert await signer.notify(contract_id) == (403, "CONTRACT_NOT_EXIST")
    assert await signer.control("mandate", end=True) == 409


async def test_a_call_that_is_not_the_merchants_is_refused(signer: Signer) -> None:
    contract_id = await signer.sign()
    assert (await signer.apply(contract_id, sign="0" * 32))["return_msg"] == "签名错误"
    other = await signer.apply(contract_id, mch_id="1")
    assert other["err_code"] == "APPID_MCHID_NOT_MATCH"
    for body in ("", "{}", "<xml><a><b/></a></xml>", '<!DOCTYPE xml [<!ENTITY a "b">]><xml/>'):
        assert (await signer.send("/pay/pappayapply", body))["return_msg"] == "XML格式错误"
    assert await signer.sandbox.charges() == []


async def test_deductions_that_make_no_sense(signer: Signer) -> None:
    contract_id = await signer.sign()
    for changed in (
        {"total_fee": "0"},
        {"total_fee": "29.00"},
        {"trade_type": "JSAPI"},
        {"fee_type": "USD"},
        {"out_trade_no": "x"},
        {"body": "x" * 129},
        {"surprise": "1"},
    ):
        told = await signer.apply(contract_id, **changed)
        assert (told["result_code"], told["err_code"]) == ("FAIL", "PARAM_ERROR"), changed


async def test_one_number_is_charged_once(signer: Signer) -> None:
    contract_id = await signer.sign()
    accepted = await signer.apply(contract_id)
    assert (accepted["result_code"], "trade_state" in accepted) == ("SUCCESS", False)
    assert (await signer.apply(contract_id))["err_code"] == "ORDERPAID"
    assert (await signer.apply(contract_id, total_fee="1"))["err_code"] == "OUT_TRADE_NO_USED"
    second = await signer.apply(contract_id, f"{NUMBER}02")
    assert second["err_code"] == "RULE_LIMIT"
    told = await signer.call("/pay/paporderquery", out_trade_no=NUMBER, nonce_str="a")
    assert (told["trade_state"], told["total_fee"]) == ("SUCCESS", "2900")
    ended_at = datetime.strptime(told["time_end"] + "+0800", "%Y%m%d%H%M%S%z")
    assert abs(datetime.now(UTC) - ended_at) < timedelta(minutes=5)
    assert [charge["amount"] for charge in await signer.sandbox.charges()] == [2900]
    unknown = await signer.call("/pay/paporderquery", out_trade_no=f"{NUMBER}02", nonce_str="a")
    assert unknown["err_code"] == "ORDER_NOT_EXIST"


async def test_a_declined_deduction_leaves_its_notice_for_another(signer: Signer) -> None:
    contract_id = await signer.sign()
    await signer.at(NOON + timedelta(days=1))
    assert await signer.notify(contract_id, 3000) == (204, "")
    await signer.at(NOON + timedelta(days=4))
    assert await signer.control("mandate", decline="NOTENOUGH", times=2) == 200
    assert await signer.control("mandate", refuse="RULELIMIT") == 200
    refused = await signer.apply(contract_id)
    assert refused["err_code"] == "RULELIMIT"
    assert await signer.control("mandate", decline="NOTENOUGH", times=2) == 200
    for attempt in ("", "02"):
        assert (await signer.apply(contract_id, f"{NUMBER}{attempt}"))["result_code"] == "SUCCESS"
        told = await signer.call(
            "/pay/paporderquery", out_trade_no=f"{NUMBER}{attempt}", nonce_str="a"
        )
        assert (told["trade_state"], told["err_code"]) == ("PAY_FAIL", "NOTENOUGH")
    assert (await signer.apply(contract_id))["err_code"] == "ORDER_ACCEPTED"
    assert (await signer.apply(contract_id, f"{NUMBER}03"))["result_code"] == "SUCCESS"
    assert (await signer.apply(contract_id, f"{NUMBER}04"))["err_code"] == "RULE_LIMIT"
    assert [charge["attempt"] for charge in await signer.sandbox.charges()] == [3]


async def test_notices_that_make_no_sense(signer: Signer) -> None:
    contract_id = await signer.sign()
    wrong: list[dict[str, Any]] = [
        {"estimated_amount": {"amount": 0, "currency": "CNY"}},
        {"estimated_amount": {"amount": 1, "currency": "USD"}},
        {"estimated_amount": 1},
        {"deduct_duration": {"count": 8, "unit": "DAY"}},
        {"deduct_duration": {"count": 7, "unit": "MONTH"}},
        {"surprise": "1"},
    ]
    for changed in wrong:
        assert await signer.notify(contract_id, **changed) == (400, "PARAM_ERROR"), changed


async def test_notices_are_signed_and_sent_by_day(signer: Signer) -> None:
    contract_id = await signer.sign()
    await signer.at(NOON + timedelta(hours=10))
    assert await signer.notify(contract_id) == (403, "RULE_LIMIT")
    assert await signer.notify(contract_id, mchid="1") == (400, "APPID_MCHID_NOT_MATCH")
    path = f"/v3/papay/contracts/{contract_id}/fail-notify"
    body = {"mchid": signer.merchant.mchid, "appid": signer.merchant.appid}
    told = await signer.merchant.call("POST", path, body)
    assert (told.status, told.is_signed) == (204, True)
    unsigned = await signer.sandbox.control.post(path, json=body)
    assert unsigned.status_code == 401


async def test_controls_that_make_no_sense(signer: Signer) -> None:
    assert await signer.control("mandate", end=True) == 404
    await signer.sign()
    for options in ({"times": 0}, {"wait": "yes"}, {"surprise": 1}):
        assert await signer.control("mandate", **options) == 422
    assert await signer.control("clock", now="2027-03-10T12:00:00") == 422
    assert await signer.control("clock", gateway="paypal", now=None) == 422
    assert await signer.control("clock", now=None) == 200


async def test_without_a_clock_business_time_is_wall_time(signer: Signer) -> None:
    assert await signer.control("clock", now=None) == 200
    await signer.sign()
    told = await signer.call("/papay/querycontract", **signer.named)
    signed_at = datetime.fromtimestamp(int(told["contract_signed_time"]), UTC)
    assert abs(datetime.now(UTC) - signed_at) < timedelta(minutes=5)


class TestTold:
    @pytest.fixture
    def merchant(self, sandbox: SandboxProcess, receiver: WebhookReceiver) -> Merchant:
        return Merchant(sandbox, f"{receiver.url}/notify")

    @staticmethod
    async def told(signer: Signer, receiver: WebhookReceiver) -> tuple[Received, dict[str, str]]:
        received = await receiver.next()
        fields = fields_of(received.body)
        assert fields["sign"] == signer.signature(fields)
        assert received.headers["content-type"].startswith("text/xml")
        return received, fields

    async def test_changes_of_a_contract_and_its_deductions(
        self, signer: Signer, receiver: WebhookReceiver
    ) -> None:
        taken = (200, b"<xml><return_code><![CDATA[SUCCESS]]></return_code></xml>")
        receiver.answers = [taken] * 4
        contract_id = await signer.sign()
        _, added = await self.told(signer, receiver)
        assert (added["change_type"], added["contract_id"]) == ("ADD", contract_id)
        assert added["operate_time"] == "2027-03-10 12:00:00"
        await signer.apply(contract_id)
        _, paid = await self.told(signer, receiver)
        assert (paid["result_code"], paid["out_trade_no"]) == ("SUCCESS", NUMBER)
        await signer.notify(contract_id)
        await signer.at(NOON + timedelta(days=3))
        await signer.control("mandate", decline="NOTENOUGH")
        await signer.apply(contract_id, f"{NUMBER}02")
        _, failed = await self.told(signer, receiver)
        assert (failed["result_code"], failed["err_code"]) == ("FAIL", "NOTENOUGH")
        await signer.control("mandate", end=True)
        _, deleted = await self.told(signer, receiver)
        assert (deleted["change_type"], deleted["contract_termination_mode"]) == ("DELETE", "2")

    async def test_only_their_own_words_take_a_message(
        self, signer: Signer, receiver: WebhookReceiver
    ) -> None:
        receiver.answers = [(204, b""), (200, b"<xml><return_code>SUCCESS</return_code></xml>")]
        await signer.sign()
        first, _ = await self.told(signer, receiver)
        second, _ = await self.told(signer, receiver)
        assert first.body == second.body
