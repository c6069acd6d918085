"""The servers from wheels, as every other test uses them."""

import psycopg
import pytest
from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest
from temporalio.client import Client

from embedded.postgres import PostgresServer, major_version
from embedded.temporal import NAMESPACE, RETENTION, TemporalServer
from runtime import attributes


async def test_postgres_asks_for_its_password_and_is_of_the_wheels_version(
    postgres_server: PostgresServer,
) -> None:
    async with await psycopg.AsyncConnection.connect(postgres_server.url()) as connection:
        version = await (await connection.execute("show server_version")).fetchone()
        addresses = await (await connection.execute("show listen_addresses")).fetchone()
        sockets = await (await connection.execute("show unix_socket_directories")).fetchone()
    assert version is not None
    assert version[0].split(".")[0] == major_version()
    assert addresses == ("127.0.0.1",)
    assert sockets == ("",)
    stranger = postgres_server.url().replace(postgres_server.password, "guess")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await psycopg.AsyncConnection.connect(stranger)


async def test_temporal_keeps_thirty_days_and_knows_our_search_attributes(
    temporal_server: TemporalServer,
) -> None:
    client = await Client.connect(temporal_server.address, namespace=NAMESPACE)
    described = await client.workflow_service.describe_namespace(
        DescribeNamespaceRequest(namespace=NAMESPACE)
    )
    assert described.config.workflow_execution_retention_ttl.ToTimedelta() == RETENTION
    listed = await client.operator_service.list_search_attributes(
        ListSearchAttributesRequest(namespace=NAMESPACE)
    )
    assert {key.name for key in attributes.ALL} <= set(listed.custom_attributes)
