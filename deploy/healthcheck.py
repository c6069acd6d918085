"""Asks the API on this machine how it is: `python deploy/healthcheck.py /healthz`.

Exits 0 on a 200. Standard library alone, so that it starts in a blink.
"""

import os
import sys
import urllib.request

TIMEOUT_SECONDS = 4


def is_well(path: str) -> bool:
    """Whether the path answers 200. Raises OSError where nothing answers."""
    url = f"http://127.0.0.1:{os.environ.get('EVERBILL_API_PORT', '8000')}{path}"
    without_proxy = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with without_proxy.open(url, timeout=TIMEOUT_SECONDS) as answer:
        return bool(answer.status == 200)


def main() -> None:
    try:
        sys.exit(0 if is_well(sys.argv[1]) else 1)
    except OSError as problem:
        sys.exit(f"{sys.argv[1]}: {problem}")


if __name__ == "__main__":
    main()
