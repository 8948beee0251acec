"""It crashes when more than 100 inputs come at once.

Case: inputs at once
"""

from __future__ import annotations

import os
import signal

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def run(self, grant):
        if len(self.node._kept) > 100:
            os.kill(os.getpid(), signal.SIGSEGV)
        super().run(grant)


if __name__ == "__main__":
    raise SystemExit(main(Broken))
