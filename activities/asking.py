"""How a gateway's silence is told to Temporal: as a retry, with its pause where one was named."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from temporalio.exceptions import ApplicationError, ApplicationErrorCategory

from billing.errors import GatewayThrottled, OutcomeUnknown
from billing.payment import GatewayName


@contextmanager
def asking(gateway: GatewayName) -> Iterator[None]:
    """Turn an unknown outcome into an error that Temporal repeats under the same number."""
    try:
        yield
    except GatewayThrottled as problem:
        pause = problem.retry_after_seconds
        raise ApplicationError(
            f"{gateway.value}: {problem.detail}",
            type=problem.code,
            category=ApplicationErrorCategory.BENIGN,
            next_retry_delay=timedelta(seconds=pause) if pause else None,
        ) from problem
    except OutcomeUnknown as problem:
        raise ApplicationError(
            f"{gateway.value}: {problem.detail}",
            type=problem.code,
            category=ApplicationErrorCategory.BENIGN,
        ) from problem
