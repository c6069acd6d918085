"""How a process that talked to Temporal ends."""

import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn


def run_and_leave(main: Callable[[], None]) -> NoReturn:
    """Run `main` and end the process with its exit code, without the interpreter's own farewell.

    A thread of Temporal's runtime may ask for the interpreter while that is being taken down, and
    the process then aborts: SIGABRT in place of the exit code that says what was wrong.
    """
    code: int | str | None = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
        code = 1
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or 0)
