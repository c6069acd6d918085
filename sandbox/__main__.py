"""`python -m sandbox --data-dir DIR --port N --public-url URL`."""

import argparse
import signal
import sys
from pathlib import Path
from types import FrameType

from sandbox.core import Options
from sandbox.server import CannotStart, serve


def main(arguments: list[str] | None = None) -> int:
    """Run the sandbox; 0 after SIGINT or SIGTERM, 2 if it could not start."""
    parser = argparse.ArgumentParser(prog="sandbox", description="Stand-ins for the gateways.")
    parser.add_argument("--data-dir", type=Path, required=True, help="keys, settings and the book")
    parser.add_argument("--port", type=int, default=8001, help="0 takes any free one")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument(
        "--public-url",
        default="http://127.0.0.1:8000",
        help="where the application takes Stripe's webhooks, without the path",
    )
    parser.add_argument(
        "--stripe-events",
        help="what Stripe's endpoint is subscribed to, separated by commas; without it, all",
    )
    given = parser.parse_args(arguments)
    events = frozenset(given.stripe_events.split(",")) if given.stripe_events else None
    signal.signal(signal.SIGTERM, _leave)
    try:
        serve(Options(given.data_dir, given.port, given.public_url, given.host, events))
    except CannotStart as problem:
        sys.stderr.write(f"sandbox: {problem}\n")
        return 2
    except KeyboardInterrupt:
        return 0
    return 0


def _leave(number: int, frame: FrameType | None) -> None:
    """Raised again by the server once it has stopped; being asked to stop is no failure."""
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
