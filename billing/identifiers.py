"""Identifiers: TypeIDs (a prefix and a UUIDv7 in Crockford base32), and what derives from them.

Numbers and keys given to gateways come from object ids and attempt numbers alone, never from run
ids, clocks or random numbers, so that a repeat is recognised whatever died in between.
"""

import hashlib
import re
from typing import Final

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"

PAYMENT: Final = "pay"
REFUND: Final = "ref"
POINTS_TRANSACTION: Final = "ptx"
EVENT: Final = "evt"
METHOD: Final = "pm"
SUBSCRIPTION: Final = "sub"
PAYMENT_ID_PATTERN: Final = r"^pay_[0-7][0-9a-hjkmnp-tv-z]{25}$"
METHOD_ID_PATTERN: Final = r"^pm_[0-7][0-9a-hjkmnp-tv-z]{25}$"
SUBSCRIPTION_ID_PATTERN: Final = r"^sub_[0-7][0-9a-hjkmnp-tv-z]{25}$"
REFUND_ID_PATTERN: Final = r"^ref_[0-7][0-9a-hjkmnp-tv-z]{25}$"
POINTS_TRANSACTION_ID_PATTERN: Final = r"^ptx_[0-7][0-9a-hjkmnp-tv-z]{25}$"
MAX_ATTEMPT: Final = 99

_PAYMENT_ID = re.compile(PAYMENT_ID_PATTERN)
_REFUND_ID = re.compile(REFUND_ID_PATTERN)
_METHOD_ID = re.compile(METHOD_ID_PATTERN)
_SUBSCRIPTION_ID = re.compile(SUBSCRIPTION_ID_PATTERN)
_POINTS_TRANSACTION_ID = re.compile(POINTS_TRANSACTION_ID_PATTERN)
_ATTEMPT_NUMBER = re.compile(r"^(pay_[0-7][0-9a-hjkmnp-tv-z]{25})(\d{2})?$")


def make_id(prefix: str, unix_milliseconds: int, entropy: bytes) -> str:
    """A TypeID over a UUIDv7 (RFC 9562): 48 bits of time, 74 bits of the caller's entropy.

    `entropy` is 10 random bytes from the caller, since nothing here may be random.
    """
    if len(entropy) != 10:
        raise ValueError("a UUIDv7 takes 10 bytes of entropy")
    random_bits = int.from_bytes(entropy)
    uuid = (
        (unix_milliseconds & (1 << 48) - 1) << 80
        | 0x7 << 76
        | (random_bits >> 62 & 0xFFF) << 64
        | 0b10 << 62
        | random_bits & (1 << 62) - 1
    )
    suffix = "".join(_ALPHABET[uuid >> shift & 31] for shift in range(125, -1, -5))
    return f"{prefix}_{suffix}"


def is_payment_id(value: str) -> bool:
    return _PAYMENT_ID.fullmatch(value) is not None


def is_refund_id(value: str) -> bool:
    return _REFUND_ID.fullmatch(value) is not None


def is_method_id(value: str) -> bool:
    return _METHOD_ID.fullmatch(value) is not None


def is_subscription_id(value: str) -> bool:
    return _SUBSCRIPTION_ID.fullmatch(value) is not None


def is_points_transaction_id(value: str) -> bool:
    return _POINTS_TRANSACTION_ID.fullmatch(value) is not None


def attempt_number(payment_id: str, attempt: int) -> str:
    """The number a gateway knows an attempt by: the bare id, then the id and two digits.

    30 or 32 characters of `[a-z0-9_]`: within WeChat Pay's `out_trade_no` (32) and Alipay's (64).
    """
    if not 1 <= attempt <= MAX_ATTEMPT:
        raise ValueError(f"attempt {attempt} is outside 1..{MAX_ATTEMPT}")
    return payment_id if attempt == 1 else f"{payment_id}{attempt:02d}"


def parse_attempt_number(number: str) -> tuple[str, int] | None:
    """The payment id and attempt behind a gateway's order number, or None if it is not ours."""
    match = _ATTEMPT_NUMBER.fullmatch(number)
    if match is None:
        return None
    attempt = int(match[2]) if match[2] else 1
    if match[2] and attempt < 2:
        return None
    return match[1], attempt


def mandate_number(method_id: str) -> str:
    """The number gateways know a mandate by: the method's id without its underscore, as Alipay's
    `external_agreement_no` takes 32 letters and digits."""
    return method_id.replace("_", "", 1)


def parse_mandate_number(number: str) -> str | None:
    """The method's id behind such a number, or None if it is not ours."""
    method_id = f"{METHOD}_{number.removeprefix(METHOD)}"
    return method_id if number.startswith(METHOD) and is_method_id(method_id) else None


def return_id(payment_id: str, attempt: int, turn: int = 1) -> str:
    """The id of the refund by which an attempt's money goes back, there being no payment for it.

    One attempt has one, whoever makes it and however often; `turn` counts those after failed
    ones. Its time is the payment's.
    """
    text = f"{payment_id}:{attempt:02d}:return:{turn:02d}"
    entropy = hashlib.sha256(text.encode()).digest()[:10]
    return make_id(REFUND, _milliseconds_of(payment_id), entropy)


def charge_payment_id(subscription_id: str, number: int, unix_milliseconds: int) -> str:
    """The id of the payment that is a subscription's charge of this number: whoever starts it, and
    however often, it is one payment. Its time is when it is opened first."""
    entropy = hashlib.sha256(f"{subscription_id}:charge:{number:06d}".encode()).digest()[:10]
    return make_id(PAYMENT, unix_milliseconds, entropy)


def subscription_refund_id(subscription_id: str, payment_id: str) -> str:
    """The id of the refund by which the end of a subscription gives back of one of its payments:
    one at most. Its time is the payment's."""
    entropy = hashlib.sha256(f"{subscription_id}:{payment_id}:end".encode()).digest()[:10]
    return make_id(REFUND, _milliseconds_of(payment_id), entropy)


def signature_method_id(
    subscription_id: str, method_id: str, amount_minor: int, number: int = 1
) -> str:
    """The id of the saved method by which a subscription's payer signs for that amount, where the
    one they have is signed for less; `number` counts how often they were asked. Its time is the
    subscription's."""
    text = f"{subscription_id}:{method_id}:{amount_minor}"
    if number > 1:
        text += f":{number}"
    entropy = hashlib.sha256(text.encode()).digest()[:10]
    return make_id(METHOD, _milliseconds_of(subscription_id), entropy)


def foreign_refund_id(payment_id: str, gateway: str, order_number: str, number: str) -> str:
    """The id of the row of a refund made elsewhere that has no free number of ours, from the
    numbers the gateway knows it and its order by: however often it is told of, it is one row. Its
    time is the payment's."""
    text = f"{gateway}:{order_number}:refund:{number}"
    entropy = hashlib.sha256(text.encode()).digest()[:10]
    return make_id(REFUND, _milliseconds_of(payment_id), entropy)


def _milliseconds_of(object_id: str) -> int:
    number = 0
    for character in object_id.rpartition("_")[2]:
        number = number << 5 | _ALPHABET.index(character)
    return number >> 80


def gateway_key(payment_id: str, attempt: int, step: str) -> str:
    """The idempotency key of one step of one attempt, such as `pay_…:01:open`."""
    return f"{payment_id}:{attempt:02d}:{step}"


def refund_key(refund_id: str, turn: int = 1) -> str:
    """The idempotency key of a refund, `ref_…:refund`; `turn` counts the keys of one refund."""
    return f"{refund_id}:refund" if turn == 1 else f"{refund_id}:refund:{turn:02d}"


def update_id(command: str, application: str, idempotency_key: str) -> str:
    """Temporal answers a repeated update id with the first answer: one per command and key."""
    digest = hashlib.sha256(f"{application}\0{idempotency_key}".encode()).hexdigest()
    return f"{command}/{digest[:32]}"


def after_workflow_id(object_id: str) -> str:
    """The short workflow that records what happens to a payment or refund whose own has ended."""
    return f"{object_id}/after"
