"""STATUS tells how many grants there were: the message stream depends on how time was cut.

Case: partition: one event
"""

from __future__ import annotations

from base import STATUS, Engine, main


class Broken(Engine):
    """The engine, with that fault."""

    grants = 0

    def run(self, grant):
        self.grants += 1
        super().run(grant)

    def access(self, message):
        self.registers[STATUS] = self.grants
        super().access(message)


if __name__ == "__main__":
    raise SystemExit(main(Broken))
