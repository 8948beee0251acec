"""It connects under another name.

Case: partition: far
"""

from __future__ import annotations

import os

from base import main


def renamed():
    """Run under another name."""
    os.environ["COSIM_NAME"] = "somebody"
    return main()


if __name__ == "__main__":
    raise SystemExit(renamed())
