"""Reading what is sent: bounded while it streams, JSON without ambiguity, text without controls."""

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, NoReturn, TypeVar

from fastapi import Request
from pydantic import BaseModel, ConfigDict, ValidationError

from api.problems import RequestRefused, invalid, nameable

JSON_LIMIT_BYTES: Final = 64 * 1024
WEBHOOK_LIMIT_BYTES: Final = 256 * 1024

ModelT = TypeVar("ModelT", bound=BaseModel)


class StrictInput(BaseModel):
    """What the API takes: no unknown field, and no value of another type read as the right one."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Nothing(StrictInput):
    """The body of a command that says all in its address: none, or an empty object."""


async def read_body(request: Request, limit_bytes: int) -> bytes:
    """The raw body. Raises RequestRefused (413) as soon as it is known to be longer."""
    declared = request.headers.get("content-length", "0")
    if not declared.isdecimal() or len(declared) > 15 or int(declared) > limit_bytes:
        raise _too_large(limit_bytes)
    body = bytearray()
    async for chunk in request.stream():
        if len(body) + len(chunk) > limit_bytes:
            raise _too_large(limit_bytes)
        body += chunk
    return bytes(body)


def json_body(model: type[ModelT]) -> Callable[[Request], Awaitable[ModelT]]:
    """A dependency that reads the body as `model`, and keeps the JSON as received.

    Dependencies run in order, so one that authenticates goes before it: nobody unknown makes us
    read a body. Raises RequestRefused: 400, 413, 415, 422.
    """

    async def read(request: Request) -> ModelT:
        body = await read_body(request, JSON_LIMIT_BYTES)
        if model is Nothing and not body:
            body = b"{}"
        elif request.headers.get("content-type", "").partition(";")[0].strip().lower() != (
            "application/json"
        ):
            raise RequestRefused(
                415,
                "unsupported_media_type",
                "send JSON with `Content-Type: application/json`",
                param="Content-Type",
            )
        document = parse_json(body)
        refuse_control_characters(document)
        request.state.document = document
        try:
            return model.model_validate_json(body)
        except ValidationError as problem:
            raise invalid([dict(error) for error in problem.errors()]) from None

    return read


def body_schema(model: type[BaseModel]) -> dict[str, Any]:
    """What a route with `json_body` adds to its OpenAPI operation."""
    return {
        "requestBody": {
            "required": model is not Nothing,
            "content": {
                "application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}
            },
        }
    }


def parse_json(body: bytes) -> object:
    """The one meaning of a JSON text (RFC 8259). Raises RequestRefused (400) where it has none."""
    try:
        return json.loads(
            body.decode("utf-8"), object_pairs_hook=_distinct, parse_constant=_no_number
        )
    except UnicodeDecodeError as problem:
        raise _malformed(f"the body is not UTF-8 at byte {problem.start}") from None
    except json.JSONDecodeError as problem:
        raise _malformed(
            f"the body is not JSON at line {problem.lineno}, column {problem.colno}: {problem.msg}"
        ) from None
    except RecursionError:
        raise _malformed("the body is nested too deeply") from None
    except ValueError:
        raise _malformed("the body has a number of too many digits") from None


def refuse_control_characters(document: object) -> None:
    """Raises RequestRefused (422) for a control character or half a surrogate pair, anywhere."""
    waiting: list[tuple[str, object]] = [("", document)]
    while waiting:
        path, value = waiting.pop()
        match value:
            case str():
                _refuse_in(value, path)
            case Mapping():
                for key, item in value.items():
                    _refuse_in(key, path)
                    waiting.append((f"{path}.{key}".lstrip("."), item))
            case list():
                waiting += ((path, item) for item in value)


def _refuse_in(text: str, path: str) -> None:
    for character in text:
        if _is_refused(character):
            raise RequestRefused(
                422,
                "character_refused",
                f"{nameable(path) or 'a key'} contains U+{ord(character):04X};"
                " control characters are refused",
                param=path or None,
            )


def _is_refused(character: str) -> bool:
    return character < " " or "\x7f" <= character <= "\x9f" or "\ud800" <= character <= "\udfff"


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) < len(pairs):
        twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise RequestRefused(
            400,
            "duplicate_key",
            f"an object has the key {nameable(twice) or '(not shown)'} more than once",
            param=twice,
        )
    return document


def _no_number(word: str) -> NoReturn:
    raise _malformed(f"{word} is not a JSON number")


def _malformed(detail: str) -> RequestRefused:
    return RequestRefused(400, "malformed_json", detail)


def _too_large(limit_bytes: int) -> RequestRefused:
    return RequestRefused(
        413,
        "body_too_large",
        f"the body is longer than {limit_bytes} bytes",
        headers={"Connection": "close"},
    )
