"""A second connection comes under its name.

Case: partition: far
"""

from __future__ import annotations

import os
from contextlib import suppress

from base import Engine, main

from cosim.link.base import LinkClosed
from cosim.link.unix_link import FastWorkerSocket


class Broken(Engine):
    """The engine, with that fault."""

    def __init__(self, node):
        super().__init__(node)
        self.second = FastWorkerSocket(os.environ["COSIM_ENDPOINT"], os.environ["COSIM_NAME"])
        with suppress(LinkClosed):
            self.second.receive(200)


if __name__ == "__main__":
    raise SystemExit(main(Broken))
