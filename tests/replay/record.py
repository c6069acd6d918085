"""Records the history of each journey that has none: `python -m tests.replay.record`.

A journey whose files exist is left alone: they are what payments and refunds under way look like,
and code that cannot replay them cannot go on with those either. To record one anew, delete its
files.
"""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from temporalio.service import RPCError, RPCStatusCode

from billing.identifiers import after_workflow_id
from runtime.cipher import Cipher
from runtime.codec import EncryptionCodec
from tests.fixtures.house import House
from tests.replay.histories import dump, path_of
from tests.replay.journeys import JOURNEYS
from tests.replay.member_journeys import CHARGE_JOURNEYS, MEMBER_JOURNEYS, METHOD_JOURNEYS
from tests.replay.refund_journeys import REFUND_JOURNEYS

ALL = {
    **JOURNEYS,
    **REFUND_JOURNEYS,
    **METHOD_JOURNEYS,
    **MEMBER_JOURNEYS,
    **CHARGE_JOURNEYS,
}

_PATIENCE_SECONDS = 90


def files_of(name: str) -> tuple[str, ...]:
    """The histories of a journey."""
    return (name, f"{name}-after") if ALL[name].has_after else (name,)


def missing() -> list[str]:
    """The journeys without their histories."""
    return [name for name in ALL if not all(path_of(each).exists() for each in files_of(name))]


@pytest.mark.parametrize("name", missing())
async def test_record(house: House, name: str) -> None:
    object_id = await ALL[name].play(house)
    workflow_ids = (object_id, after_workflow_id(object_id))
    for file, workflow_id in zip(files_of(name), workflow_ids, strict=False):
        path_of(file).write_text(await _history_of(house, workflow_id))


async def _history_of(house: House, workflow_id: str) -> str:
    """The history of a workflow that has started or soon will, once it has ended."""
    handle = house.client.get_workflow_handle(workflow_id)
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while True:
            try:
                await handle.result()
                break
            except RPCError as problem:
                if problem.status is not RPCStatusCode.NOT_FOUND:
                    raise
                await asyncio.sleep(0.1)
    codec = EncryptionCodec(Cipher(house.settings.encryption_keys))
    return await dump(await handle.fetch_history(), codec)


def main() -> None:
    if not missing():
        sys.stdout.write("every journey has its history; delete a file to have it recorded anew\n")
        return
    # Anew, since pytest rewrites the asserts of what it is the first to load.
    sys.exit(subprocess.call([sys.executable, "-m", "pytest", "-v", str(Path(__file__))]))


if __name__ == "__main__":
    main()
