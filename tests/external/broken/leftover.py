"""It leaves a process behind, in a session of its own.

Case: kill -9
"""

from __future__ import annotations

import subprocess

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def __init__(self, node):
        super().__init__(node)
        subprocess.Popen(["sleep", "600"], start_new_session=True)


if __name__ == "__main__":
    raise SystemExit(main(Broken))
