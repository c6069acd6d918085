"""The port of the API."""

from types import SimpleNamespace
from typing import cast

from api.__main__ import _listening
from runtime.settings import Settings
from tests.fixtures.nodelay import sends_at_once


async def test_an_answer_of_the_api_is_sent_at_once() -> None:
    settings = cast(Settings, SimpleNamespace(api_host="127.0.0.1", api_port=0))
    with _listening(settings) as listener:
        assert await sends_at_once(listener)
