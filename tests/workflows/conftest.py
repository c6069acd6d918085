"""A time-skipping server for each test."""

from collections.abc import AsyncIterator

import pytest
from temporalio.testing import WorkflowEnvironment

from tests.workflows.skipping import open_environment


@pytest.fixture
async def environment() -> AsyncIterator[WorkflowEnvironment]:
    async with open_environment() as started:
        yield started
