"""It shows another secret.

Case: partition: far
"""

from __future__ import annotations

import os
import tempfile

from base import main


def guess():
    """Put another token in place of the run's."""
    with tempfile.NamedTemporaryFile("w", suffix=".token") as file:
        file.write("0123456789abcdef")
        file.flush()
        os.environ["COSIM_TOKEN_FILE"] = file.name
        return main()


if __name__ == "__main__":
    raise SystemExit(guess())
