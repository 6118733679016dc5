"""python -m service.healthcheck [URL]: whether a server is ready, for containers without curl.

A program of its own, because `python -m service` imports PyTorch, which takes seconds of CPU at each check.
"""

import sys
import urllib.request
from collections.abc import Sequence

DEFAULT_URL = "http://127.0.0.1:8000/health/ready"
TIMEOUT_SECONDS = 3.0


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the URL answers 200, 1 when it does not; what it answered is printed."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if len(words) > 1:
        print(f"expected one URL, got {len(words)}: {' '.join(words)}", file=sys.stderr)
        return 1
    url = words[0] if words else DEFAULT_URL
    # The machine's proxy settings are for other machines.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=TIMEOUT_SECONDS) as answer:
            print(f"{url}: {answer.status}")
            return 0 if answer.status == 200 else 1
    except (OSError, ValueError) as error:  # urllib's errors are OSErrors, and a URL that is none is a ValueError
        print(f"{url}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
