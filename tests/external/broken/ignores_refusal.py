"""It ends with success when it is refused.

Case: HELLO refused
"""

from __future__ import annotations

from base import main

from cosim.attach.client import AttachError


def politely():
    """Run; a refusal is fine too."""
    try:
        return main()
    except AttachError:
        return 0


if __name__ == "__main__":
    raise SystemExit(politely())
