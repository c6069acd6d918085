"""Recorded histories as files: readable, and saying nothing of the machine they were made on.

A file is the JSON of Temporal's own `WorkflowHistory.to_json` with three differences: it names the
workflow; payloads are decrypted, and those in JSON stand there as JSON, under `json` in place of
the `data` in base64; whatever names a worker's machine, process or build is replaced.
"""

import functools
import json
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from google.protobuf.json_format import MessageToDict, ParseDict
from temporalio.api.common.v1 import Payload
from temporalio.client import WorkflowHistory
from temporalio.converter import PayloadCodec

FOLDER: Final = Path(__file__).with_name("histories")
RECORDER: Final = "recorder"
"""What every worker and client is called in a file."""

_STICKY: Final = "TASK_QUEUE_KIND_STICKY"
_TRACE: Final = "stack_trace"

Json = dict[str, Any]
Transcode = Callable[[Sequence[Payload]], Awaitable[list[Payload]]]


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.json"


@functools.cache
def load(name: str) -> WorkflowHistory:
    """One recorded history, its payloads in plain JSON."""
    document = json.loads(path_of(name).read_text())
    for node in list(payloads_in(document)):
        if "json" in node:
            node["data"] = _base64(json.dumps(node.pop("json")).encode())
        node["metadata"] = {key: _base64(word.encode()) for key, word in node["metadata"].items()}
    return WorkflowHistory.from_json(document["workflowId"], {"events": document["events"]})


async def dump(history: WorkflowHistory, codec: PayloadCodec) -> str:
    """The text of a file."""
    document = {"workflowId": history.workflow_id, **history.to_json_dict()}
    for node, payload in await _transcoded(list(payloads_in(document)), codec.decode):
        metadata = {key: word.decode() for key, word in payload.metadata.items()}
        node.clear()
        node["metadata"] = metadata
        if metadata["encoding"].startswith("json/"):
            node["json"] = _without_trace(json.loads(payload.data))
        elif payload.data:
            node["data"] = _base64(payload.data)
    _depersonalise(document)
    return json.dumps(document, ensure_ascii=False, indent=1) + "\n"


async def encoded(history: WorkflowHistory, codec: PayloadCodec) -> WorkflowHistory:
    """The history as it is in Temporal where this codec is in use: all but search attributes."""
    document = history.to_json_dict()
    nodes = list(payloads_in(document, without="searchAttributes"))
    for node, payload in await _transcoded(nodes, codec.encode):
        node.clear()
        node.update(MessageToDict(payload))
    return WorkflowHistory.from_json(history.workflow_id, document)


async def _transcoded(nodes: list[Json], change: Transcode) -> Iterator[tuple[Json, Payload]]:
    payloads = await change([ParseDict(node, Payload()) for node in nodes])
    return zip(nodes, payloads, strict=True)


def payloads_in(tree: Any, without: str = "") -> Iterator[Json]:
    """The payloads anywhere in a history's JSON, themselves and not copies, but not those under
    the key `without`."""
    if isinstance(tree, list):
        for each in tree:
            yield from payloads_in(each, without)
    elif isinstance(tree, dict):
        if "encoding" in tree.get("metadata", ()):
            yield tree
        else:
            for key, each in tree.items():
                if key != without:
                    yield from payloads_in(each, without)


def _depersonalise(tree: Any) -> None:
    """Put stand-ins for names of machines, processes and builds."""
    if isinstance(tree, list):
        for each in tree:
            _depersonalise(each)
    elif isinstance(tree, dict):
        for key in tree.keys() & {"identity", "buildId"}:
            tree[key] = RECORDER
        if tree.get("kind") == _STICKY:
            tree["name"] = f"{RECORDER}-sticky"
        for key, each in tree.items():
            if key != "json":
                _depersonalise(each)


def _without_trace(value: Any) -> Any:
    """A failure's text without its trace, which leads through the files of one machine."""
    if isinstance(value, dict) and _TRACE in value:
        return value | {_TRACE: ""}
    return value


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
