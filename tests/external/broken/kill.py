"""A copy of it, in a session of its own, holds the connection when it is dead.

Case: kill -9
"""

from __future__ import annotations

import os
import time

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def __init__(self, node):
        super().__init__(node)
        left, right = os.pipe()
        if os.fork() == 0:
            os.setsid()
            os.close(right)
            time.sleep(600)
            os._exit(0)
        os.close(right)
        os.read(left, 1)  # ends when the copy is in its own session: before, it would die with this process


if __name__ == "__main__":
    raise SystemExit(main(Broken))
