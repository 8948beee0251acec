"""It takes inputs that lie before its clock.

Case: in the past
"""

from __future__ import annotations

from base import Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    def __init__(self, node):
        super().__init__(node)
        keep = node._keep

        def accept(record):
            keep(record._replace(arrival=max(record.arrival, node._begun)))

        node._keep = accept


if __name__ == "__main__":
    raise SystemExit(main(Broken))
