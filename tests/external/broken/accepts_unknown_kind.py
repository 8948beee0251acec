"""It ignores messages of kinds that it does not know.

Case: unknown message
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def __init__(self, node):
        super().__init__(node)
        keep = node._keep
        node._keep = lambda record: keep(record) if record.kind in node._kinds else None


if __name__ == "__main__":
    raise SystemExit(main(Broken))
