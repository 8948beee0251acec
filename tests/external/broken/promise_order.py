"""It promises output before its next event.

Case: partition: far
"""

from __future__ import annotations

from base import Engine, main

from cosim.core.codec import FrameType, encode


class Broken(Engine):
    """The engine, with that fault."""

    def answer(self, grant):
        node = self.node
        node._send(encode(FrameType.DONE, node._grant_seq, node.stop, node.stop + 9, node.stop + 1, 0, [], None))


if __name__ == "__main__":
    raise SystemExit(main(Broken))
