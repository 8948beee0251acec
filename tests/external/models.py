"""A Python node that works on a foreign memory, for tests of attaching."""

from __future__ import annotations

from cosim.api import Channel, MmioInitiator, Node, Wire, us
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


class Driver(Node):
    """Has the copy engine of examples/python_node copy blocks between two places in memory, and compares."""

    kind = "driver"
    bus = MmioInitiator()
    irq = Wire()

    def setup(self) -> None:
        """Wait for the engine's line."""
        self.rung = self.future("the engine's interrupt")
        self.irq.watch(lambda _peer, _line, level: self.rung.set(None) if level else None)

    async def start(self) -> None:
        """Three copies, one after the other."""
        for number in range(3):
            source, target, blocks = 0x8000_0000, 0x8001_0000 + 0x1000 * number, 4 + number
            data = bytes((i * 7 + number) & 0xFF for i in range(64 * blocks))
            await self.bus.write_block(source, data)
            for offset, value in ((0x00, source), (0x08, target), (0x10, blocks), (0x18, 1)):
                await self.bus.write64(0x1_0000 + offset, value)
            await self.rung
            self.rung = self.future("the engine's interrupt")
            assert await self.bus.read64(0x1_0020) == 2
            assert await self.bus.read_block(target, 64 * blocks) == data
            await self.bus.write64(0x1_0018, 2)
            self.count["copies"] += 1
