"""It makes batches for workers, as only workers of cosim do.

Case: partition: far
"""

from __future__ import annotations

from base import Engine, main

from cosim.core.codec import FrameType, encode
from cosim.core.time import NEVER


class Broken(Engine):
    """The engine, with that fault."""

    def answer(self, grant):
        node = self.node
        node._send(encode(FrameType.DONE, node._grant_seq, node.stop, NEVER, NEVER, 0, [(1, 5, 5, b"\x90")], None))


if __name__ == "__main__":
    raise SystemExit(main(Broken))
