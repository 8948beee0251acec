"""A Python node that works on a foreign memory, for tests of attaching."""

from __future__ import annotations

from cosim.api import Channel, MmioInitiator, Node, us
from tests.support.models import TOKEN


class Worker(Node):
    """Writes and reads back `rounds` words, each `gap_us` after the last."""

    kind = "worker"
    bus = MmioInitiator()

    async def start(self) -> None:
        """Work, and say so."""
        for number in range(self.params["rounds"]):
            await self.bus.write64(0x1000 + 8 * number, number * 3)
            assert await self.bus.read64(0x1000 + 8 * number) == number * 3
            await self.sleep(us(self.params["gap_us"]))
        self.count["rounds"] = self.params["rounds"]
        self.console("worker", f"{self.params['rounds']} words are right\n")


class Talker(Node):
    """Has a port of a protocol, which a foreign node would have to speak."""

    kind = "talker"
    out = Channel(TOKEN)
