"""What WeChat Pay is told of contracts and what its answers come to, against a scripted host."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from billing.errors import (
    AnswerUntrusted,
    CurrencyNotSupported,
    OutcomeUnknown,
)
from billing.payment import Redirect
from gateways.gateway import Opened
from gateways.mandates import (
    Mandate,
    MandateObservation,
    MandateOrder,
    MandateRefused,
    MandateState,
    MandateTerms,
)
from tests.gateways.parties import (
    NOTIFY_URL,
    NOW,
)
from tests.gateways.wechatpay_server import check_request, error
from tests.gateways.wechatpay_v2 import (
    CODE,
    CONTRACT,
    METHOD_ID,
    OURS,
    SIGNED,
    UNSIGNED,
    Host,
    refusal,
    signature_of,
    xml,
)

_CONTRACT = OURS | {
    "contract_id": CONTRACT,
    "plan_id": "12535",
    "openid": "oHZx6uMbIG46UXQ3SKxVYEgw1LZs",
    "request_serial": "1000",
    "contract_code": CODE,
    "contract_display_account": "test",
    "contract_state": "0",
    "contract_signed_time": "1438141845",
    "contract_expired_time": "1453953047",
}


async def contract(mandate: Mandate = SIGNED, **changes: Any) -> MandateObservation:
    return (
        await Host({"/papay/querycontract": [xml(_CONTRACT, **changes)]}).mandates().query(mandate)
    )


def asking(**changes: Any) -> MandateOrder:
    order = MandateOrder(
        method_id=METHOD_ID,
        number=CODE,
        user_id="user_1",
        terms=MandateTerms("CNY", 2900, 1),
        description="Gold membership",
        created_at=NOW,
    )
    return replace(order, **changes)


async def test_a_signed_address_and_no_call() -> None:
    host = Host({})
    outcome = await host.mandates().set_up(asking())
    assert outcome == await host.mandates().set_up(asking())
    assert isinstance(outcome, Opened)
    assert outcome.reference is None
    assert isinstance(outcome.next_action, Redirect)
    address = urlsplit(outcome.next_action.url)
    assert (address.scheme, address.netloc, address.path) == (
        "http",
        "127.0.0.1:9",
        "/papay/entrustweb",
    )
    sent = dict(parse_qsl(address.query, strict_parsing=True))
    assert "notify_url=https%3A%2F%2Fpay.example.com%2Fapi" in address.query
    assert sent.pop("sign") == signature_of(sent)
    assert 1 <= int(sent.pop("request_serial")) < 2**63
    assert sent == {
        "appid": "wx0000000000000001",
        "mch_id": "1900000001",
        "plan_id": "12535",
        "contract_code": CODE,
        "contract_display_account": "user_1",
        "notify_url": NOTIFY_URL,
        "version": "1.0",
        "timestamp": "1795408215",
    }
    assert host.requests == []


async def test_what_the_payer_reads_cannot_pass_for_another_parameter() -> None:
    order = asking(user_id="a&mch_id=1 会员" + "x" * 40, return_url="https://shop.example.com/")
    outcome = await Host({}).mandates().set_up(order)
    assert isinstance(outcome, Opened)
    assert isinstance(outcome.next_action, Redirect)
    sent = dict(parse_qsl(urlsplit(outcome.next_action.url).query, strict_parsing=True))
    assert sent["contract_display_account"] == ("a_mch_id_1_会员" + "x" * 40)[:32]
    assert sent["return_web"] == "1"


async def test_another_currency_is_not_asked_for() -> None:
    mandates = Host({}).mandates()
    with pytest.raises(CurrencyNotSupported):
        await mandates.set_up(asking(terms=MandateTerms("USD")))
    with pytest.raises(CurrencyNotSupported):
        await mandates.announce(SIGNED, 1, "USD")


async def test_what_takes_no_call() -> None:
    host = Host({})
    await host.mandates().enrol("shop", "user", NOW)
    await host.mandates().postpone(SIGNED, date(2027, 1, 1))
    assert host.requests == []


@pytest.mark.parametrize(
    ("mandate", "named"),
    [
        (SIGNED, {"contract_id": CONTRACT}),
        (UNSIGNED, {"plan_id": "12535", "contract_code": CODE}),
    ],
)
async def test_a_contract_is_asked_about_and_ended_by_its_number(
    mandate: Mandate, named: dict[str, str]
) -> None:
    host = Host({"/papay/querycontract": [xml(_CONTRACT)], "/papay/deletecontract": [xml(OURS)]})
    seen = await host.mandates().query(mandate)
    assert host.fields == {**named, "version": "1.0"}
    assert seen == MandateObservation(
        MandateState.ACTIVE,
        "0",
        reference=CONTRACT,
        signed_at=datetime(2015, 7, 29, 3, 50, 45, tzinfo=UTC),
        ends_at=datetime(2016, 1, 28, 3, 50, 47, tzinfo=UTC),
    )
    await host.mandates().revoke(mandate)
    assert host.fields == {
        **named,
        "contract_termination_remark": "ended by the merchant",
        "version": "1.0",
    }


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("0", MandateState.ACTIVE),
        ("1", MandateState.ENDED),
        ("9", MandateState.PENDING),
        ("2", MandateState.UNRECOGNISED),
        ("00", MandateState.UNRECOGNISED),
        (None, MandateState.UNRECOGNISED),
    ],
)
async def test_only_zero_may_be_charged(status: str | None, state: MandateState) -> None:
    seen = await contract(contract_state=status)
    assert (seen.state, seen.status) == (state, status or "(none)")


async def test_an_ended_contract_says_when() -> None:
    seen = await contract(contract_state="1", contract_terminated_time="2015-07-29 16:11:26")
    assert seen.ends_at == datetime(2015, 7, 29, 8, 11, 26, tzinfo=UTC)
    never = await contract(UNSIGNED, contract_state="1", contract_id=None)
    assert never.state is MandateState.ABSENT
    with pytest.raises(OutcomeUnknown):
        await contract(UNSIGNED, contract_id=None)


async def test_a_contract_that_is_not_there_never_was_or_is_no_more() -> None:
    host = Host({"/papay/querycontract": [refusal("CONTRACT_NOT_EXIST")]})
    assert (await host.mandates().query(UNSIGNED)).state is MandateState.ABSENT
    assert (await host.mandates().query(SIGNED)).state is MandateState.ENDED
    refused = Host({"/papay/querycontract": [refusal("PARAM_ERROR")]})
    with pytest.raises(OutcomeUnknown):
        await refused.mandates().query(SIGNED)


@pytest.mark.parametrize(
    "changes",
    [{"contract_code": f"{CODE}0"}, {"contract_code": None}, {"contract_id": "1"}],
)
async def test_an_answer_about_another_contract(changes: dict[str, Any]) -> None:
    with pytest.raises(AnswerUntrusted) as untrusted:
        await contract(**changes)
    assert untrusted.value.reason == "mandate_mismatch"


@pytest.mark.parametrize("code", ["CONTRACT_NOT_EXIST", "CONTRACTERROR", "INVALID_REQUEST"])
async def test_what_has_ended_can_be_ended_again(code: str) -> None:
    host = Host({"/papay/deletecontract": [refusal(code)]})
    await host.mandates().revoke(SIGNED)
    assert host.paths == ["/papay/deletecontract"]


async def test_a_notice_is_a_call_of_apiv3() -> None:
    path = f"/v3/papay/contracts/{CONTRACT}/notify"
    host = Host({path: [httpx.Response(204)]})
    await host.mandates().announce(SIGNED, 2905, "CNY")
    check_request(host.requests[0])
    assert json.loads(host.requests[0].content) == {
        "mchid": "1900000001",
        "appid": "wx0000000000000001",
        "deduct_duration": {"count": 7, "unit": "DAY"},
        "estimated_amount": {"amount": 2905, "currency": "CNY"},
    }


@pytest.mark.parametrize(
    ("status", "code", "ours"),
    [
        (403, "RULE_LIMIT", "outside_window"),
        (403, "CONTRACT_NOT_EXIST", "mandate_ended"),
        (404, "RESOURCE_NOT_EXISTS", "mandate_ended"),
        (400, "PARAM_ERROR", "order_refused"),
    ],
)
async def test_a_notice_that_is_refused(status: int, code: str, ours: str) -> None:
    host = Host({f"/v3/papay/contracts/{CONTRACT}/notify": [error(status, code)]})
    with pytest.raises(MandateRefused) as refused:
        await host.mandates().announce(SIGNED, 2905, "CNY")
    assert (refused.value.failure.code, refused.value.failure.decline_code) == (ours, code)


async def test_a_notice_whose_outcome_is_unknown() -> None:
    host = Host({f"/v3/papay/contracts/{CONTRACT}/notify": [error(500, "SYSTEM_ERROR")]})
    with pytest.raises(OutcomeUnknown):
        await host.mandates().announce(SIGNED, 2905, "CNY")
