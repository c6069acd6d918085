"""The one way every process reaches Temporal.

Address, namespace, TLS and API key come from Temporal's own variables (`TEMPORAL_ADDRESS`,
`TEMPORAL_NAMESPACE`, …) and profile file, read by `temporalio.envconfig`.
"""

import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog
from temporalio.api.workflowservice.v1 import DescribeNamespaceRequest, DescribeNamespaceResponse
from temporalio.client import Client, Interceptor
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import DataConverter, DefaultFailureConverterWithEncodedAttributes
from temporalio.envconfig import ClientConfig
from temporalio.service import RPCError, RPCStatusCode

from billing.errors import SettingError
from runtime.cipher import Cipher
from runtime.codec import EncryptionCodec

DEFAULT_ADDRESS: Final = "127.0.0.1:7233"
CLAIM_LIFE: Final = timedelta(days=30)

log = structlog.get_logger()


def encrypting_converter(cipher: Cipher) -> DataConverter:
    """Pydantic models in, encrypted payloads out; failures' texts are encrypted too."""
    return dataclasses.replace(
        pydantic_data_converter,
        payload_codec=EncryptionCodec(cipher),
        failure_converter_class=DefaultFailureConverterWithEncodedAttributes,
    )


async def connect(
    cipher: Cipher, *, interceptors: Sequence[Interceptor] = (), identity: str | None = None
) -> Client:
    """A client for the server that the environment names. Raises RuntimeError if none answers."""
    config = ClientConfig.load_client_connect_config()
    config.setdefault("target_host", DEFAULT_ADDRESS)
    return await Client.connect(
        **config,
        data_converter=encrypting_converter(cipher),
        interceptors=interceptors,
        identity=identity,
    )


async def describe_namespace(client: Client) -> DescribeNamespaceResponse:
    """What the server says of our namespace. Raises SettingError where there is none of that name:
    every workflow would be taken for lost. Raises RuntimeError where the server does not say."""
    try:
        return await client.workflow_service.describe_namespace(
            DescribeNamespaceRequest(namespace=client.namespace)
        )
    except RPCError as problem:
        if problem.status is RPCStatusCode.NOT_FOUND:
            raise SettingError(
                f"TEMPORAL_NAMESPACE: Temporal at {client.service_client.config.target_host} has no"
                f" namespace {client.namespace!r}; make it there, or name one that it has"
            ) from None
        raise RuntimeError(f"{problem.status.name}: {problem.message}") from problem


async def warn_of_short_retention(client: Client) -> None:
    """Closed runs must outlive the idempotency claims that may still join them. Raises as
    `describe_namespace`."""
    answer = await describe_namespace(client)
    retention = answer.config.workflow_execution_retention_ttl.ToTimedelta()
    if retention < CLAIM_LIFE:
        log.warning(
            "temporal_retention_short",
            namespace=client.namespace,
            retention_hours=retention // timedelta(hours=1),
            wanted_hours=CLAIM_LIFE // timedelta(hours=1),
            advice="temporal operator namespace update --retention 720h",
        )
