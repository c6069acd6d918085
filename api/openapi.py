"""The parts of the OpenAPI document that the routes cannot say by themselves."""

from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.problems import MEDIA_TYPE, Problem

_WORDS: Final = {
    400: "The request cannot be read",
    401: "No key, or an unknown or revoked one",
    403: "The key lacks the scope",
    404: "No such object of this application",
    405: "The method is not offered here",
    409: "The object's state does not allow it",
    413: "The body is too large",
    415: "The body is not JSON",
    422: "What was asked for cannot be accepted",
    429: "Too fast; repeat after `Retry-After`",
    500: "A fault of ours",
    503: "PostgreSQL or Temporal is out of reach; repeat after `Retry-After`",
}
_REQUEST_ID: Final = {
    "description": "Finds the request in the logs",
    "schema": {"type": "string", "pattern": "^req_[0-9a-f]{32}$"},
}
_RETRY_AFTER: Final = {"description": "Seconds", "schema": {"type": "integer", "minimum": 1}}


REPLAYED_HEADER: Final = {
    "Idempotent-Replayed": {
        "description": "`true` where the key was used before and this is the answer it got",
        "schema": {"type": "string", "const": "true"},
    }
}


def problems(*status_codes: int) -> dict[int | str, dict[str, Any]]:
    """The error answers of a route, for its `responses`."""
    return {code: {"description": _WORDS[code], "model": Problem} for code in status_codes}


def install(app: FastAPI, inputs: list[type[BaseModel]]) -> None:
    """Let the app's document name the bodies of `inputs`, media types and headers truly."""

    def build() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app, inputs)
        return app.openapi_schema

    app.openapi = build  # type: ignore[method-assign]


def _document(app: FastAPI, inputs: list[type[BaseModel]]) -> dict[str, Any]:
    document = get_openapi(
        title=app.title,
        version=app.version,
        description=app.description,
        routes=app.routes,
        tags=app.openapi_tags,
    )
    _, definitions = models_json_schema(
        [(model, "validation") for model in inputs], ref_template="#/components/schemas/{model}"
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for schema in schemas.values():
        if "properties" in schema:
            # Answers leave no field out, whatever default it has.
            schema["required"] = list(schema["properties"])
    for name, schema in definitions["$defs"].items():
        schemas.setdefault(name, schema)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for path in document["paths"].values():
        for operation in path.values():
            _keep_own(operation["responses"])
            for code, response in operation["responses"].items():
                _complete(int(code), response)
    return document


def _keep_own(responses: dict[str, Any]) -> None:
    """FastAPI adds a 422 of its own to whatever has a parameter and declares none."""
    content = responses.get("422", {}).get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    if schema.get("$ref") == "#/components/schemas/HTTPValidationError":
        del responses["422"]


def _complete(code: int, response: dict[str, Any]) -> None:
    headers = response.setdefault("headers", {})
    headers["Request-Id"] = _REQUEST_ID
    if code in (429, 503):
        headers["Retry-After"] = _RETRY_AFTER
    content = response.get("content", {})
    schema = content.get("application/json", {}).get("schema", {})
    if schema.get("$ref") == "#/components/schemas/Problem":
        content[MEDIA_TYPE] = content.pop("application/json")
