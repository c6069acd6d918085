import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.identifiers import attempt_number
from gateways.gateway import WebhookRefused
from gateways.stripe.webhook import StripeWebhookVerifier

SECRET = "whsec_4f7d1c0e9b2a4d3f8c6e5a7b"
OTHER_SECRET = "whsec_9b8a7c6d5e4f3a2b1c0d"
PAYMENT_ID = "pay_01jd7zq4h9e8v9k2m3n4p5q6r7"
UNIX = 1795392000
NOW = datetime.fromtimestamp(UNIX, UTC)

FROZEN_BODY = (
    '{"id":"evt_1","object":"event","type":"payment_intent.succeeded","data":{"object":{"object":'
    '"payment_intent","metadata":{"payment_id":"pay_01jd7zq4h9e8v9k2m3n4p5q6r7","attempt":"2"},'
    '"description":"会员 & 积分=1+1 {\\"}"}}}'
).encode()
FROZEN_SIGNATURE = "dd1e3206fc1cef9f34842da0faa9c82b9285f7246ed7f44fdddb82f3dd575c81"

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
awkward_text = st.text(alphabet=st.sampled_from('{}"\\&+= \n\u4f1a\u00e9\U0001f600ab'), max_size=40)


def sign(body: bytes, secret: str = SECRET, timestamp: int = UNIX) -> str:
    return hmac.new(secret.encode(), f"{timestamp}.".encode() + body, hashlib.sha256).hexdigest()


def headers(body: bytes, secret: str = SECRET, timestamp: int = UNIX) -> dict[str, str]:
    return {"stripe-signature": f"t={timestamp},v1={sign(body, secret, timestamp)}"}


def event(event_type: str = "payment_intent.succeeded", **subject: Any) -> bytes:
    described = {"object": "payment_intent", "metadata": {}} | subject
    body = {"id": "evt_1", "object": "event", "type": event_type, "data": {"object": described}}
    return json.dumps(body, ensure_ascii=False).encode()


@pytest.fixture
def verifier() -> StripeWebhookVerifier:
    return StripeWebhookVerifier([SECRET])


def test_a_signature_made_by_another_tool_is_accepted(verifier: StripeWebhookVerifier) -> None:
    given_headers = {"stripe-signature": f"t={UNIX},v1={FROZEN_SIGNATURE}"}
    told = verifier.verify(given_headers, FROZEN_BODY, NOW)
    assert told.event_id == "evt_1"
    assert told.event_type == "payment_intent.succeeded"
    assert told.number == f"{PAYMENT_ID}02"


@given(
    extra=st.dictionaries(st.text(), json_values | awkward_text, max_size=6), ascii=st.booleans()
)
def test_any_content_is_read_as_it_was_signed(extra: dict[str, Any], ascii: bool) -> None:
    subject = extra | {
        "object": "charge",
        "metadata": {"payment_id": PAYMENT_ID, "attempt": "7", "": ""},
    }
    text = json.dumps(
        {"id": "evt_x", "object": "event", "type": "charge.refunded", "data": {"object": subject}},
        ensure_ascii=ascii,
    )
    body = text.encode()
    verifier = StripeWebhookVerifier([SECRET])
    assert verifier.verify(headers(body), body, NOW).number == attempt_number(PAYMENT_ID, 7)


@given(body=st.binary(max_size=200), place=st.integers(min_value=0), bit=st.integers(0, 7))
def test_a_changed_bit_is_refused(body: bytes, place: int, bit: int) -> None:
    signed = event(description="x") + body
    at = place % len(signed)
    changed = signed[:at] + bytes([signed[at] ^ 1 << bit]) + signed[at + 1 :]
    with pytest.raises(WebhookRefused, match="no signature"):
        StripeWebhookVerifier([SECRET]).verify(headers(signed), changed, NOW)


@given(header=st.text(max_size=120), body=st.binary(max_size=80))
def test_no_header_and_no_body_does_more_than_be_refused(header: str, body: bytes) -> None:
    with pytest.raises(WebhookRefused):
        StripeWebhookVerifier([SECRET]).verify({"stripe-signature": header}, body, NOW)


@given(
    body=st.binary(max_size=80)
    | st.text(max_size=60).map(str.encode)
    | json_values.map(lambda value: json.dumps(value).encode())
)
def test_a_signed_body_that_is_no_event_is_refused(body: bytes) -> None:
    with pytest.raises(WebhookRefused, match="no Stripe event"):
        StripeWebhookVerifier([SECRET]).verify(headers(body), body, NOW)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        event().replace(b"evt_1", b"evt_1\\u0000"),
        event().replace(b"evt_1", b""),
        event().replace(b'"object": "event"', b'"object": "v2.core.event"'),
        event(event_type="payment_intent.succeeded\n"),
        event().replace(b"{", b'{"id": "evt_2", ', 1),
        event().replace(b'"data"', b'"data_"'),
    ],
)
def test_a_signed_event_that_cannot_be_kept_is_refused(
    verifier: StripeWebhookVerifier, body: bytes
) -> None:
    with pytest.raises(WebhookRefused, match="no Stripe event"):
        verifier.verify(headers(body), body, NOW)


@pytest.mark.parametrize("drift", [-301, 301, 86400, -86400])
def test_a_time_stamp_far_from_now_is_refused(verifier: StripeWebhookVerifier, drift: int) -> None:
    body = event()
    with pytest.raises(WebhookRefused, match="time-stamp"):
        verifier.verify(headers(body, timestamp=UNIX + drift), body, NOW)


@pytest.mark.parametrize("drift", [-300, 0, 300])
def test_a_time_stamp_near_now_is_accepted(verifier: StripeWebhookVerifier, drift: int) -> None:
    body = event()
    assert verifier.verify(headers(body, timestamp=UNIX + drift), body, NOW).event_id == "evt_1"


@pytest.mark.parametrize("secret", [SECRET, OTHER_SECRET])
def test_either_secret_is_good_while_one_is_rolled(secret: str) -> None:
    body = event()
    verifier = StripeWebhookVerifier([OTHER_SECRET, SECRET])
    assert verifier.verify(headers(body, secret), body, NOW).event_id == "evt_1"


def test_one_good_signature_among_several_is_enough(verifier: StripeWebhookVerifier) -> None:
    body = event()
    header = f"t={UNIX},v1={sign(body, OTHER_SECRET)},v0=ff,v1={sign(body)}"
    assert verifier.verify({"stripe-signature": header}, body, NOW).event_id == "evt_1"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "t=,v1=@",
        "v1=@",
        f"t={UNIX}",
        f"t={UNIX},v0=@",
        f"t={UNIX},t={UNIX + 1},v1=@",
        f"t=-{UNIX},v1=@",
        f"t={UNIX}.5,v1=@",
        "t=" + "9" * 5000 + ",v1=@",
        f"t={UNIX},v1=é",
        "t=１７,v1=@",
    ],
)
def test_a_header_without_one_time_stamp_and_a_v1_is_refused(
    verifier: StripeWebhookVerifier, header: str
) -> None:
    body = event()
    with pytest.raises(WebhookRefused):
        verifier.verify({"stripe-signature": header.replace("@", sign(body))}, body, NOW)


def test_no_header_at_all_is_refused(verifier: StripeWebhookVerifier) -> None:
    with pytest.raises(WebhookRefused):
        verifier.verify({}, event(), NOW)


@pytest.mark.parametrize(
    ("event_type", "subject", "number"),
    [
        ("payment_intent.canceled", {"metadata": {"payment_id": PAYMENT_ID, "attempt": "1"}},
         PAYMENT_ID),
        ("charge.refunded",
         {"object": "charge", "metadata": {"payment_id": PAYMENT_ID, "attempt": "99"}},
         f"{PAYMENT_ID}99"),
        ("charge.succeeded",
         {"object": "charge", "metadata": {"payment_id": PAYMENT_ID, "attempt": "99"}}, None),
        ("charge.dispute.created",
         {"object": "dispute", "metadata": {"payment_id": PAYMENT_ID, "attempt": "1"}},
         PAYMENT_ID),
        ("payout.paid", {"object": "payout"}, None),
        ("payment_intent.canceled", {"metadata": {}}, None),
        ("payment_intent.canceled", {"metadata": None}, None),
        ("payment_intent.canceled", {"metadata": {"payment_id": PAYMENT_ID}}, None),
        ("payment_intent.canceled", {"metadata": {"payment_id": "order-7", "attempt": "1"}}, None),
        ("payment_intent.canceled", {"metadata": {"payment_id": 7, "attempt": "1"}}, None),
        ("payment_intent.canceled", {"metadata": {"payment_id": PAYMENT_ID, "attempt": 1}}, None),
        ("payment_intent.canceled", {"metadata": {"payment_id": PAYMENT_ID, "attempt": "0"}}, None),
        ("payment_intent.canceled", {"metadata": {"payment_id": PAYMENT_ID, "attempt": "100"}},
         None),
        ("payment_intent.canceled", {"metadata": {"payment_id": PAYMENT_ID, "attempt": "²"}}, None),
    ],
)  # fmt: skip
def test_the_number_is_read_from_the_metadata_of_what_takes_money(
    verifier: StripeWebhookVerifier,
    event_type: str,
    subject: dict[str, Any],
    number: str | None,
) -> None:
    body = event(event_type, **subject)
    told = verifier.verify(headers(body), body, NOW)
    assert (told.event_type, told.number) == (event_type, number)


def test_replies_are_json(verifier: StripeWebhookVerifier) -> None:
    assert verifier.accepted.status_code == 200
    assert json.loads(verifier.accepted.body) == {"received": True}
    refused = verifier.refused(400, 'no "signature"')
    assert (refused.status_code, refused.media_type) == (400, "application/json")
    assert json.loads(refused.body) == {"error": 'no "signature"'}


REFUND_ID = "ref_01jd7zq4h9e8v9k2m3n4p5q6r7"
_NONE = (None, None)


@pytest.mark.parametrize(
    "event_type", ["refund.created", "refund.updated", "refund.failed", "refund.of_tomorrow"]
)
def test_a_refunds_events_name_it_and_its_order(
    verifier: StripeWebhookVerifier, event_type: str
) -> None:
    metadata = {"refund_id": REFUND_ID, "payment_number": f"{PAYMENT_ID}02"}
    body = event(event_type, object="refund", metadata=metadata)
    told = verifier.verify(headers(body), body, NOW)
    assert (told.number, told.refund_number) == (f"{PAYMENT_ID}02", REFUND_ID)


@pytest.mark.parametrize(
    ("metadata", "number", "refund_number"),
    [
        ({"refund_id": REFUND_ID}, None, REFUND_ID),
        ({"payment_number": PAYMENT_ID}, PAYMENT_ID, None),
        ({"refund_id": f"{REFUND_ID}x", "payment_number": "42"}, None, None),
        ({"refund_id": PAYMENT_ID, "payment_number": f"{PAYMENT_ID}01"}, None, None),
        ({"refund_id": [REFUND_ID], "payment_number": {}}, None, None),
        ({"payment_id": PAYMENT_ID, "attempt": "1"}, None, None),
        ({}, None, None),
        (None, None, None),
        ([], None, None),
    ],
)
def test_a_refund_not_of_our_making_has_no_number(
    verifier: StripeWebhookVerifier, metadata: object, number: str | None, refund_number: str | None
) -> None:
    body = event("refund.updated", object="refund", metadata=metadata)
    told = verifier.verify(headers(body), body, NOW)
    assert (told.number, told.refund_number) == (number, refund_number)


@pytest.mark.parametrize(
    ("subject", "foreign", "reference"),
    [
        ({"id": "re_1", "payment_intent": "pi_1"}, "re_1", "pi_1"),
        ({"id": "re_1", "payment_intent": None, "charge": "ch_1"}, None, None),
        ({"id": "re_1'; --", "payment_intent": "pi_1"}, None, None),
        ({"id": 7, "payment_intent": "pi_1"}, None, None),
        (
            {"id": "re_1", "payment_intent": "pi_1", "metadata": {"refund_id": REFUND_ID}},
            None,
            "pi_1",
        ),
        (
            {
                "id": "re_1",
                "payment_intent": "pi_1",
                "metadata": {"refund_id": REFUND_ID, "payment_number": PAYMENT_ID},
            },
            None,
            None,
        ),
    ],
)
def test_a_refund_not_of_our_making_is_named_with_its_payment_intent(
    verifier: StripeWebhookVerifier,
    subject: dict[str, Any],
    foreign: str | None,
    reference: str | None,
) -> None:
    body = event("refund.created", **{"object": "refund", "metadata": {}, **subject})
    told = verifier.verify(headers(body), body, NOW)
    assert (told.foreign_refund, told.refunded_reference) == (foreign, reference)


def test_the_refund_event_of_old_is_an_echo(verifier: StripeWebhookVerifier) -> None:
    metadata = {"refund_id": REFUND_ID, "payment_number": PAYMENT_ID}
    body = event("charge.refund.updated", object="refund", metadata=metadata)
    told = verifier.verify(headers(body), body, NOW)
    assert (told.number, told.refund_number) == (None, None)


@pytest.mark.parametrize(
    ("subject", "reference"),
    [
        ({"payment_intent": "pi_3Q9x8Yabc"}, "pi_3Q9x8Yabc"),
        ({"payment_intent": None, "charge": "ch_1"}, None),
        ({"payment_intent": {"id": "pi_1"}}, None),
        ({"payment_intent": "pi_1'; --"}, None),
        ({"object": "charge", "payment_intent": "pi_1"}, None),
        ({}, None),
    ],
)
def test_a_disputes_events_name_the_payment_intent(
    verifier: StripeWebhookVerifier, subject: dict[str, Any], reference: str | None
) -> None:
    body = event("charge.dispute.created", **{"object": "dispute", **subject})
    told = verifier.verify(headers(body), body, NOW)
    assert (told.number, told.disputed_reference) == (None, reference)


MANDATE_NUMBER = "pm01jd9q8x1zf6w8v7r3m2k4n5p6"
_OURS = {"method_id": "pm_01jd9q8x1zf6w8v7r3m2k4n5p6", "number": MANDATE_NUMBER}


def _mandate_told(
    verifier: StripeWebhookVerifier, event_type: str, **subject: Any
) -> tuple[str | None, str | None]:
    body = event(event_type, **subject)
    told = verifier.verify(headers(body), body, NOW)
    assert told.event_type == event_type
    assert (told.number, told.refund_number, told.disputed_reference) == (None, None, None)
    return told.mandate_number, told.mandate_reference


@pytest.mark.parametrize("word", ["succeeded", "setup_failed", "canceled", "requires_action"])
@pytest.mark.parametrize(
    ("subject", "told"),
    [
        ({"payment_method": "pm_1Q9x"}, (MANDATE_NUMBER, "pm_1Q9x")),
        ({"payment_method": None}, (MANDATE_NUMBER, None)),
        ({"payment_method": {"id": "pm_1Q9x"}}, (MANDATE_NUMBER, None)),
        ({"payment_method": "pm_1'; --"}, (MANDATE_NUMBER, None)),
        ({"payment_method": "pm_1Q9x", "metadata": {}}, _NONE),
        ({"payment_method": "pm_1Q9x", "metadata": None}, _NONE),
        ({"payment_method": "pm_1Q9x", "metadata": {"number": "42"}}, _NONE),
        ({"payment_method": "pm_1Q9x", "metadata": {"number": [MANDATE_NUMBER]}}, _NONE),
    ],
)
def test_a_set_ups_events_name_its_mandate(
    verifier: StripeWebhookVerifier,
    word: str,
    subject: dict[str, Any],
    told: tuple[str | None, str | None],
) -> None:
    described = {"object": "setup_intent", "id": "seti_1", "metadata": _OURS, **subject}
    assert _mandate_told(verifier, f"setup_intent.{word}", **described) == told


@pytest.mark.parametrize("word", ["attached", "detached", "updated", "automatically_updated"])
@pytest.mark.parametrize(
    ("card_id", "reference"), [("pm_1Q9x", "pm_1Q9x"), ("pm_1\n", None), (7, None)]
)
def test_a_cards_events_name_it(
    verifier: StripeWebhookVerifier, word: str, card_id: object, reference: str | None
) -> None:
    described = {"object": "payment_method", "id": card_id, "customer": None, "metadata": _OURS}
    assert _mandate_told(verifier, f"payment_method.{word}", **described) == (None, reference)


@pytest.mark.parametrize("event_type", ["setup_intent.created", "payment_method.of_tomorrow"])
def test_other_events_of_saved_cards_are_about_nothing(
    verifier: StripeWebhookVerifier, event_type: str
) -> None:
    described = {"object": "setup_intent", "id": "pm_1", "metadata": _OURS}
    assert _mandate_told(verifier, event_type, **described) == _NONE
