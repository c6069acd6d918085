"""Structured logs: one JSON object a line, with the ids of what was being done.

Request, payment and workflow ids are bound as context variables where work begins. Secrets and
card numbers are struck out wherever they stand, as the last guard: nobody should log them.
"""

import logging
import re
import sys
from collections.abc import Mapping
from typing import Any, Final

import structlog

from billing.cards import contains_card_number

_REDACTED: Final = "[redacted]"
_SECRET_NAME: Final = re.compile(
    r"secret|password|authorization|private_key|apiv3_key|api_v2_key|token|openid|next_action",
    re.IGNORECASE,
)
_SECRET_VALUE: Final = re.compile(
    r"(?:sk|rk)_(?:live|test)_\w+|whsec_\w+|pi_\w+_secret_\w+|seti_\w+_secret_\w+|ebk_\w+"
    r"|-----BEGIN[^-]*PRIVATE KEY-----.*|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)",
    re.DOTALL,
)
_MANY_DIGITS: Final = re.compile(r"\d(?:[ .-]{0,3}\d){12,}")


def redact(value: object) -> object:
    """The same value without what looks like a secret or a card number, at any depth."""
    if isinstance(value, str):
        return _MANY_DIGITS.sub(_redact_card, _SECRET_VALUE.sub(_REDACTED, value))
    if isinstance(value, Mapping):
        return {
            key: _REDACTED if _SECRET_NAME.search(str(key)) else redact(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact(item) for item in value]
    return value


def holds_secret(text: str) -> bool:
    """Whether a part of the text looks like a secret; a card number is none."""
    return _SECRET_VALUE.search(text) is not None


def _redact_card(digits: re.Match[str]) -> str:
    return _REDACTED if contains_card_number(digits[0]) else digits[0]


def _redact_event(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return {key: redact(value) for key, value in _named(event)}


def _named(event: structlog.typing.EventDict) -> list[tuple[str, Any]]:
    return [
        (key, _REDACTED if key != "event" and _SECRET_NAME.search(key) else value)
        for key, value in event.items()
    ]


def configure_logs(process: str, level: str = "INFO") -> None:
    """Send this process's logs, its libraries' included, to standard error as JSON lines."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _redact_event,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    for chatty in ("httpx", "httpcore", "stripe", "uvicorn.access"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    structlog.contextvars.bind_contextvars(process=process)
