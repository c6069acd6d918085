"""The codec server: only for the UI's own pages, only under the secret path."""

import json
from typing import Any

import httpx
import pytest
from google.protobuf import json_format
from temporalio.api.common.v1 import Payload, Payloads

from runtime.codec import EncryptionCodec
from tests.api.conftest import CODEC_SECRET, UI_PORT, Stack
from tests.api.test_validation import check_problem

PLAIN = Payload(metadata={"encoding": b"json/plain"}, data=b'{"amount":2900}')
ORIGINS = [f"http://127.0.0.1:{UI_PORT}", f"http://localhost:{UI_PORT}"]


def document(*payloads: Payload) -> Any:
    return json.loads(json_format.MessageToJson(Payloads(payloads=payloads)))


async def ask(
    stack: Stack, verb: str, body: Any, *, secret: str = CODEC_SECRET, **headers: str
) -> httpx.Response:
    wanted = {"X-Namespace": "api"} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    async with stack.caller() as browser:
        return await browser.post(f"/codec/{secret}/{verb}", json=body, headers=wanted)


@pytest.mark.parametrize("origin", ORIGINS)
async def test_what_is_encoded_is_unreadable_and_decodes_to_itself(
    stack: Stack, origin: str
) -> None:
    encoded = await ask(stack, "encode", document(PLAIN), Origin=origin)
    assert encoded.status_code == 200
    assert encoded.headers["Access-Control-Allow-Origin"] == origin
    sealed = json_format.Parse(encoded.content, Payloads()).payloads[0]
    assert sealed.metadata["encoding"] == b"binary/encrypted"
    assert b"2900" not in sealed.data
    decoded = await ask(stack, "decode", encoded.json(), Origin=origin)
    assert decoded.json() == document(PLAIN)


async def test_what_the_worker_stored_can_be_read(stack: Stack) -> None:
    sealed = await EncryptionCodec(stack.context.cipher).encode([PLAIN])
    decoded = await ask(stack, "decode", document(*sealed))
    assert decoded.json() == document(PLAIN)


@pytest.mark.parametrize("verb", ["encode", "decode"])
@pytest.mark.parametrize("origin", ORIGINS)
async def test_a_browser_is_told_that_the_ui_may(stack: Stack, verb: str, origin: str) -> None:
    async with stack.caller() as browser:
        answer = await browser.options(
            f"/codec/{CODEC_SECRET}/{verb}",
            headers={
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "content-type,x-namespace",
            },
        )
    assert answer.status_code == 204
    assert answer.headers["Access-Control-Allow-Origin"] == origin
    assert answer.headers["Access-Control-Allow-Methods"] == "POST"
    assert "x-namespace" in answer.headers["Access-Control-Allow-Headers"]
    assert answer.headers["Vary"] == "Origin"


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        f"http://localhost:{UI_PORT + 1}",
        f"https://localhost:{UI_PORT}",
    ],
)
async def test_another_page_may_not(stack: Stack, origin: str) -> None:
    answer = await ask(stack, "decode", document(PLAIN), Origin=origin)
    assert check_problem(answer, 403)["code"] == "origin_refused"
    async with stack.caller() as browser:
        path = f"/codec/{CODEC_SECRET}/decode"
        preflight = await browser.options(path, headers={"Origin": origin})
    check_problem(preflight, 403)
    assert "Access-Control-Allow-Origin" not in preflight.headers


@pytest.mark.parametrize(
    "secret", ["", "wrong", CODEC_SECRET[:-1], CODEC_SECRET + "0", "%E4%BC%9A"]
)
async def test_elsewhere_there_is_nothing(stack: Stack, secret: str) -> None:
    check_problem(await ask(stack, "decode", document(PLAIN), secret=secret), 404)


async def test_another_namespace_is_refused(stack: Stack) -> None:
    answer = await ask(stack, "decode", document(PLAIN), X_Namespace="production")
    assert check_problem(answer, 403)["param"] == "X-Namespace"


@pytest.mark.parametrize("body", [[], {"payloads": [1]}, {"payloads": "all"}, {"other": 1}])
async def test_what_is_no_list_of_payloads_is_refused(stack: Stack, body: Any) -> None:
    check_problem(await ask(stack, "decode", body), 400)


async def test_a_payload_under_a_key_we_lack_is_refused_by_name(stack: Stack) -> None:
    foreign = Payload(metadata={"encoding": b"binary/encrypted"}, data=b"other\n" + b"0" * 40)
    problem = check_problem(await ask(stack, "decode", document(foreign)), 400)
    assert "EVERBILL_ENCRYPTION_KEYS has no key" in problem["detail"]


async def test_without_a_setting_there_is_no_codec_server(stack: Stack) -> None:
    settings = stack.settings.model_copy(update={"codec_path": None})
    bare = stack.having(settings=settings).app
    assert not [path for path in bare.openapi()["paths"] if "codec" in path]
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(bare), base_url="http://everbill.test"
    ) as browser:
        answer = await browser.post(f"/codec/{CODEC_SECRET}/decode", json=document(PLAIN))
    check_problem(answer, 404)
