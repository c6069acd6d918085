"""Nothing secret leaves by the logs."""

import json
import logging
from io import StringIO

import pytest
import structlog

from runtime.logs import configure_logs, redact


@pytest.mark.parametrize(
    "text",
    [
        "sk_live_51abcDEF",
        "whsec_abcdef0123",
        "pi_3Abc_secret_Xyz",
        "ebk_abcdefghijkl",
        "paid with 4242 4242 4242 4242.",
        "card 4242424242424242",
        "postgresql://everbill:hunter2@127.0.0.1/everbill",
        "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----",
    ],
)
def test_secrets_are_struck_out(text: str) -> None:
    redacted = redact(f"before {text} after")
    assert isinstance(redacted, str)
    assert "[redacted]" in redacted
    for secret in ("51abcDEF", "abcdef0123", "Xyz", "abcdefghijkl", "4242", "hunter2", "MIIE"):
        assert secret not in redacted


@pytest.mark.parametrize(
    "text",
    [
        "1700000000000",
        "4200002026112312345678901234",
        "pay_01hf7yat00fzzvzzzzzzzzzzzz",
        "29.00 CNY",
    ],
)
def test_numbers_that_are_no_cards_stay(text: str) -> None:
    assert redact(text) == text


def test_values_are_struck_out_by_their_names_at_any_depth() -> None:
    told = redact({"user": {"openid": "o-1", "api_token": "t"}, "list": [{"password": "p"}]})
    assert told == {
        "user": {"openid": "[redacted]", "api_token": "[redacted]"},
        "list": [{"password": "[redacted]"}],
    }


def test_libraries_log_through_the_same_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    before = structlog.get_config()
    try:
        configure_logs("worker")
        logging.getLogger("library").warning("key %s", "sk_test_abc123")
        structlog.get_logger().info("charged", payment_id="pay_1", client_secret="x")
    finally:
        root.handlers = handlers
        root.setLevel(level)
        structlog.configure(**before)
        structlog.contextvars.clear_contextvars()
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["event"], first["level"], first["process"]) == (
        "key [redacted]",
        "warning",
        "worker",
    )
    assert (second["payment_id"], second["client_secret"]) == ("pay_1", "[redacted]")
