"""Starting processes that end with the one that started them, and choosing loopback ports."""

import random
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from embedded import tether
from embedded.errors import StackRefused

LOOPBACK: Final = "127.0.0.1"
# Below the range that Linux hands to outgoing connections, which would race with us for a port.
_FREE_PORTS: Final = range(12000, 32000)
_PORT_TRIES: Final = 200


def tethered(
    command: Sequence[str],
    *,
    parent: int,
    death_signal: signal.Signals = signal.SIGKILL,
    identity: str = "self",
) -> list[str]:
    """The command that runs `command` so that the parent's end, however it comes, ends it too.

    `identity` is one of `embedded.tether`. The parent's pid and the command's are not one
    process group's: the caller starts it in a session of its own.
    """
    script = str(Path(tether.__file__).resolve())
    prefix = [sys.executable, "-I", "-S", script, str(parent), death_signal.name, identity]
    return [*prefix, *command]


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: a port whose old connections still linger can be listened on.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """A loopback port that nothing listens on now."""
    for port in random.sample(_FREE_PORTS, _PORT_TRIES):
        if port_is_free(port):
            return port
    raise StackRefused(f"no free port found on {LOOPBACK} in {_PORT_TRIES} tries")
