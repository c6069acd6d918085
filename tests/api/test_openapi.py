"""The OpenAPI document, held against the running API by generated requests of both kinds."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import schemathesis
import uvicorn
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import SearchStrategy
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from storage.keys import Scope
from tests.api.conftest import Shop, Stack

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
EXAMPLES = 8


class QuietServer(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are the tests' own."""
        yield


@pytest.fixture(scope="package")
async def address(stack: Stack) -> AsyncIterator[str]:
    """The API on a port of its own, so that requests go through a real HTTP server."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = QuietServer(
            uvicorn.Config(stack.app, log_config=None, access_log=False, lifespan="off")
        )
        serving = asyncio.create_task(server.serve([listener]))
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        await serving


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
async def test_the_document_is_true(shop: Shop, address: str, mode: GenerationMode) -> None:
    """A failure prints the request and the seed that repeats it."""
    payment = await shop.created()
    secret = await shop.stack.key(shop.name, *Scope)
    document = shop.stack.app.openapi()
    await asyncio.to_thread(check, document, address, secret, payment["id"], mode)


def check(
    document: dict[str, Any], address: str, secret: str, payment_id: str, mode: GenerationMode
) -> None:
    schema = schemathesis.openapi.from_dict(document)
    headers = {"Authorization": f"Bearer {secret}"}
    for found in schema.get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not takes_anything(operation):
            continue
        fixed = mode is GenerationMode.POSITIVE and "{payment_id}" in operation.path
        cases = operation.as_strategy(
            generation_mode=mode, path_parameters={"payment_id": payment_id} if fixed else None
        )
        send_cases(cases, address, headers)


def send_cases(cases: SearchStrategy[Any], address: str, headers: dict[str, str]) -> None:
    @seed(20261123)
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=cases)
    def holds(case: Any) -> None:
        if case.operation.path.endswith("/events"):
            waiting = (case.query or {}).get("wait_seconds", 20)
            if waiting in range(1, 21) or str(waiting).isdigit():
                case.query = {**(case.query or {}), "wait_seconds": 0}
        case.call_and_validate(base_url=address, headers=headers, checks=CHECKS)

    holds()


def takes_anything(operation: Any) -> bool:
    """Whether there is something to get wrong beside an id, which is 404 in any case."""
    definition = operation.definition.raw
    given_in = {parameter["in"] for parameter in definition.get("parameters", ())}
    return "requestBody" in definition or bool(given_in - {"path"})


async def test_every_error_is_a_problem_in_the_document(stack: Stack) -> None:
    for path in stack.app.openapi()["paths"].values():
        for operation in path.values():
            own_form = operation["operationId"].endswith("_webhook")
            for code, response in operation["responses"].items():
                assert "Request-Id" in response["headers"]
                if int(code) >= 400 and not (own_form and code in ("400", "413", "503")):
                    (content,) = response["content"].items()
                    assert content == (
                        "application/problem+json",
                        {"schema": {"$ref": "#/components/schemas/Problem"}},
                    )


async def test_every_reference_of_the_document_leads_somewhere(stack: Stack) -> None:
    document = stack.app.openapi()
    waiting: list[Any] = [document]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            reference = node.get("$ref")
            if reference is not None:
                name = reference.removeprefix("#/components/schemas/")
                assert name in document["components"]["schemas"]
            waiting += node.values()
        elif isinstance(node, list):
            waiting += node


async def test_a_payment_has_every_field_in_the_document(stack: Stack) -> None:
    schema = stack.app.openapi()["components"]["schemas"]["Payment"]
    assert schema["required"] == list(schema["properties"])
