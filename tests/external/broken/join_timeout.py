"""It never says HELLO.

Case: partition: far
"""

from __future__ import annotations

import time

from base import main


def later():
    """Elaborate for too long."""
    time.sleep(600)
    return main()


if __name__ == "__main__":
    raise SystemExit(later())
