"""Becomes another command that cannot outlive the process that started it.

Run as a script, without the project and without site packages, so that it costs little:
`python -I -S tether.py PARENT SIGNAL IDENTITY COMMAND...`. Linux sends SIGNAL to the command when
the thread that started it ends, even by SIGKILL. A change of user or user namespace clears that
request, so the identity is taken on first. IDENTITY is `self`, `UID:GID`, or `namespace:UID`: the
command then sees itself as that user, in a user namespace, and is to files who it was.
"""

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_CLONE_NEWUSER: Final = 0x10000000
_NAMESPACE: Final = "namespace"


def take_identity(identity: str) -> None:
    """Raises OSError where the kernel or the container forbids it."""
    if identity == "self":
        return
    user, _, other = identity.partition(":")
    if user == _NAMESPACE:
        _enter_namespace(int(other))
    else:
        os.setgroups([])
        os.setgid(int(other))
        os.setuid(int(user))


def _enter_namespace(seen_as: int) -> None:
    user, group = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "user namespaces are forbidden here")
    for name, text in (
        ("setgroups", "deny"),
        ("uid_map", f"{seen_as} {user} 1"),
        ("gid_map", f"{seen_as} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as map_file:
            map_file.write(text)


def die_with(parent: int, death_signal: signal.Signals) -> None:
    """Ask for the signal at the parent's end; leave at once if it has ended already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(death_signal))
    if os.getppid() != parent:
        sys.exit(f"the process {parent} that started this one has ended")


def main() -> None:
    parent, death_signal, identity, *command = sys.argv[1:]
    try:
        take_identity(identity)
        die_with(int(parent), signal.Signals[death_signal])
        os.execvp(command[0], command)  # noqa: S606 the command is the whole point
    except OSError as problem:
        sys.exit(f"cannot run {command[0]} as {identity}: {problem.strerror}")


if __name__ == "__main__":
    main()
