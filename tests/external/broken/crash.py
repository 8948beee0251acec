"""Bytes that are no frame crash it.

Case: no frame
"""

from __future__ import annotations

import os
import signal

from base import Engine, main

from cosim.attach.client import AttachError


class Broken(Engine):
    """The engine, with that fault."""

    def __init__(self, node):
        super().__init__(node)
        receive = node._receive

        def crash(timeout):
            try:
                return receive(timeout)
            except AttachError:
                os.kill(os.getpid(), signal.SIGSEGV)

        node._receive = crash


if __name__ == "__main__":
    raise SystemExit(main(Broken))
