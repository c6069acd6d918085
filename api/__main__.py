"""The API: `python -m api`."""

import asyncio
import contextlib
import errno
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Final

import structlog
import uvicorn

from api.app import create_app, wired
from api.feed import Feed
from billing.errors import CatalogError, SettingError
from runtime.ending import run_and_leave
from runtime.logs import configure_logs
from runtime.settings import Settings, load_settings

_GRACE_SECONDS: Final = 30
_KEEP_ALIVE_SECONDS: Final = 30
_CONNECTIONS_WAITING: Final = 2048

log = structlog.get_logger()


class _Server(uvicorn.Server):
    """Stops by itself: a signal ends long polls at once, and is not raised a second time."""

    def __init__(self, config: uvicorn.Config, feed: Feed) -> None:
        super().__init__(config)
        self._feed = feed

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        log.info("api_stopping", grace_seconds=_GRACE_SECONDS)
        self._feed.close()
        self.force_exit = self.should_exit
        self.should_exit = True


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then let requests and deliveries finish."""
    async with wired(settings) as context:
        config = uvicorn.Config(
            create_app(context),
            access_log=False,
            log_config=None,
            server_header=False,
            backlog=_CONNECTIONS_WAITING,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            lifespan="off",
        )
        with _listening(settings) as listener:
            await _Server(config, context.feed).serve([listener])


@contextlib.contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """The port, taken at once. Raises SettingError where somebody else has it."""
    family = socket.AF_INET6 if ":" in settings.api_host else socket.AF_INET
    # asyncio lets small answers go at once (TCP_NODELAY) only where the protocol is named: without,
    # one in two parts may wait 40 ms for its reader's acknowledgement.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((settings.api_host, settings.api_port))
        except OSError as problem:
            reason = (
                "is in use"
                if problem.errno == errno.EADDRINUSE
                else f"is refused: {problem.strerror}"
            )
            raise SettingError(
                f"port {settings.api_port} of {settings.api_host} {reason}; choose another with"
                " EVERBILL_API_PORT, or another address with EVERBILL_API_HOST"
            ) from None
        yield listener


def main() -> None:
    try:
        settings = load_settings()
        configure_logs("api", settings.log_level)
        asyncio.run(serve(settings))
    except (SettingError, CatalogError) as problem:
        sys.exit(f"everbill api: {problem}")
    except RuntimeError as problem:
        sys.exit(f"everbill api: Temporal does not answer: {problem}; see TEMPORAL_ADDRESS")


if __name__ == "__main__":
    run_and_leave(main)
