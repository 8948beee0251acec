"""It waits for ever for a hub that is gone.

Case: hub goes
"""

from __future__ import annotations

import time

from base import main

from cosim.attach.client import AttachError


def patiently():
    """Run; when the hub is gone, hope."""
    try:
        return main()
    except AttachError:
        time.sleep(600)
        return 0


if __name__ == "__main__":
    raise SystemExit(patiently())
