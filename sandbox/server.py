"""The process: a data folder of its own, a port of its own, and connections that can be cut."""

import asyncio
import fcntl
import os
import socket
import sys
from typing import Final, TextIO

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from sandbox.app import PROVIDERS, make_app, make_sandbox
from sandbox.core import Options
from sandbox.faults import CUT_EXTENSION
from sandbox.keys import load_keys, write_settings

# As long as real gateways keep theirs, so a client's idle connection is never cut by ours.
_KEEP_ALIVE_SECONDS: Final = 75


class CannotStart(Exception):
    """Why, and what to do about it."""


def serve(options: Options) -> None:
    """Run until SIGINT or SIGTERM. Raises CannotStart."""
    lock = _claim_folder(options)
    listener = _listen(options)
    with lock, listener:
        url = f"http://{options.host}:{listener.getsockname()[1]}"
        keys = load_keys(options.data_dir, PROVIDERS)
        settings = write_settings(options.data_dir, keys, PROVIDERS, url)
        sandbox = make_sandbox(options, url, keys)
        # httpx looks for this module at every call; where it is absent, each search of the disk
        # costs more than sending the webhook.
        sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]
        server = uvicorn.Server(
            uvicorn.Config(
                make_app(sandbox),
                http=CuttableProtocol,
                ws="none",
                lifespan="on",
                log_level="warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=_KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=2,
            )
        )
        sys.stdout.write(f"sandbox gateways on {url}, settings in {settings}\n")
        sys.stdout.flush()
        server.run(sockets=[listener])


class CuttableProtocol(H11Protocol):
    """HTTP/1.1 whose requests carry a function that closes their connection without an answer."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        app: ASGIApp = self.app

        async def with_cut(scope: Scope, receive: Receive, send: Send) -> None:
            scope.setdefault("extensions", {})[CUT_EXTENSION] = transport.abort
            await app(scope, receive, send)

        self.app = with_cut


def _claim_folder(options: Options) -> TextIO:
    """The open lock file: two sandboxes on one book would each believe in their own truth."""
    folder = options.data_dir
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.chmod(folder, 0o700)
        lock = (folder / "lock").open("w")
    except OSError as problem:
        raise CannotStart(
            f"cannot write to the data folder {folder} ({problem.strerror}):"
            " give another with --data-dir"
        ) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise CannotStart(
            f"another sandbox is running on the data folder {folder}: stop it, or give another"
            " folder with --data-dir"
        ) from None
    return lock


def _listen(options: Options) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((options.host, options.port))
    except OSError as problem:
        listener.close()
        raise CannotStart(
            f"cannot listen on {options.host}:{options.port} ({problem.strerror}):"
            " stop what uses the port, or give another with --port"
        ) from None
    return listener
