"""Order numbers: the merchant's own (out_trade_no), and digits for those of the gateways."""

import secrets

_PAYMENT_ID_LENGTH = 30


def split_number(number: str) -> tuple[str, int]:
    """The payment id and the attempt behind an out_trade_no: the id, then two digits from the
    second attempt on."""
    reference, attempt = number[:_PAYMENT_ID_LENGTH], number[_PAYMENT_ID_LENGTH:]
    return reference, int(attempt) if len(attempt) == 2 and attempt.isdecimal() else 1


def digits(count: int) -> str:
    """So many random digits."""
    return "".join(secrets.choice("0123456789") for _ in range(count))
