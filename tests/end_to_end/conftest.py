"""What each test through the whole house leaves behind for the next one."""

from collections.abc import AsyncIterator

import pytest

from tests.fixtures.house import House


@pytest.fixture(autouse=True)
async def no_fault_outlives_its_test(house: House) -> AsyncIterator[None]:
    yield
    answer = await house.sandbox.control.delete("/control/faults")
    assert answer.status_code == 200, answer.text
