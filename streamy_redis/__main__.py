"""``streamy-redis`` and ``python -m streamy_redis``."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Runs the command line and leaves with its exit code."""
    try:
        from .cli import run
    except ModuleNotFoundError as exc:
        if exc.name != "click":
            raise
        print("Error: install the extra: pip install 'streamy-redis[cli]'", file=sys.stderr)
        sys.exit(2)
    sys.exit(run())


if __name__ == "__main__":
    main()
