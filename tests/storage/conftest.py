"""The tests of one module share a database: each uses ids, causes and applications of its own."""

from collections.abc import AsyncIterator

import pytest

from embedded.postgres import PostgresServer
from tests.fixtures.database import DatabaseUrls, fresh_copy


@pytest.fixture(scope="module")
async def database_urls(
    postgres_server: PostgresServer, template_urls: DatabaseUrls
) -> AsyncIterator[DatabaseUrls]:
    async with fresh_copy(postgres_server, template_urls) as urls:
        yield urls
