"""It ignores bytes that are no frame.

Case: no frame
"""

from __future__ import annotations

from base import Engine, main

from cosim.attach.client import AttachError


class Broken(Engine):
    """The engine, with that fault."""

    def __init__(self, node):
        super().__init__(node)
        receive = node._receive

        def accept(timeout):
            while True:
                try:
                    return receive(timeout)
                except AttachError as error:
                    if error.code != "bad-frame":
                        raise

        node._receive = accept


if __name__ == "__main__":
    raise SystemExit(main(Broken))
