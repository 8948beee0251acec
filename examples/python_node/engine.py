"""A foreign node in Python with events of its own: a copy engine with registers, DMA and an interrupt line.

Registers (8 bytes each): 0x00 SRC, 0x08 DST, 0x10 LEN in blocks of 64 bytes, 0x18 CTRL (1 starts, 2 takes the line down),
0x20 STATUS (0 idle, 1 busy, 2 done, 3 error). Everything else answers SLVERR.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from heapq import heappop, heappush

from cosim.attach.client import NEVER, SLVERR, AttachClient, Grant, Message

SRC, DST, LEN, CTRL, STATUS = 0x00, 0x08, 0x10, 0x18, 0x20
IDLE, BUSY, DONE, FAILED = range(4)
BLOCK = 64
START_PS = 10_000
BLOCK_PS = 4_000
PORTS = {"regs": "mmio_target", "dma": "mmio_initiator", "irq": "wire", "reset": "wire"}


class Engine:
    """The engine, and the loop that executes its events in order."""

    def __init__(self, node: AttachClient) -> None:
        self.node = node
        self.timers: list[tuple[int, int, Callable[[], None]]] = []
        self.made = 0
        self.clear()

    def clear(self) -> None:
        """As after reset: nothing is under way, and completions that still come are nobody's."""
        self.registers = {SRC: 0, DST: 0, LEN: 0, STATUS: IDLE}
        self.open: dict[int, Callable[[Message], None]] = {}
        self.timers.clear()
        self.level = 0

    # -- time ----------------------------------------------------------------------------------------------------------

    def after(self, delay: int, fn: Callable[[], None]) -> None:
        """Call `fn` in `delay` ps."""
        self.made += 1
        heappush(self.timers, (self.node.now + delay, self.made, fn))

    def next_event(self) -> int:
        """Time of the earliest timer."""
        return self.timers[0][0] if self.timers else NEVER

    def run(self, grant: Grant) -> None:
        """Execute inputs and timers below `node.stop`, which a send may lower; inputs first at one instant."""
        node = self.node
        while (now := min(node.peek(), self.next_event())) < node.stop:
            if node.peek() <= now:
                message = node.take()
                if node.off:
                    self.timers.clear()
                elif message is not None:
                    self.take(message)
            else:
                _, _, fn = heappop(self.timers)
                node.now = now
                fn()
        self.answer(grant)

    def answer(self, grant: Grant) -> None:
        """Say how far it came, and when the next event is due."""
        self.node.done(next_event=self.next_event())

    # -- inputs --------------------------------------------------------------------------------------------------------

    def take(self, message: Message) -> None:
        """Dispatch by kind."""
        if message.kind == "mmio.Completion":
            self.complete(message)
        elif message.kind == "wire.Level":
            if message.level:
                self.clear()
        else:
            self.access(message)

    def complete(self, message: Message) -> None:
        """A DMA request is answered; nobody waits for it after a reset."""
        waiting = self.open.pop(message.tag, None)
        if waiting is None:
            self.node.count["stray_completions"] += 1
        else:
            waiting(message)

    def access(self, message: Message) -> None:
        """A register access."""
        node = self.node
        if message.size != 8 or message.addr not in (*self.registers, CTRL):
            node.reply(message, SLVERR)
            return
        if message.kind == "mmio.Read":
            node.reply(message, data=self.registers.get(message.addr, 0))
            return
        node.reply(message)
        if message.addr == CTRL:
            self.control(message.data)
        elif message.addr != STATUS:
            self.registers[message.addr] = message.data

    def control(self, value: int) -> None:
        """CTRL was written."""
        if value & 2:
            self.line(0)
        if value & 1 and self.registers[STATUS] != BUSY:
            self.registers[STATUS] = BUSY
            self.after(START_PS, lambda: self.block(0))

    # -- the copy ------------------------------------------------------------------------------------------------------

    def block(self, number: int) -> None:
        """Copy block `number`, or finish."""
        if number >= self.registers[LEN] & 0xFF:
            self.end(DONE)
            return
        tag = self.node.read("dma", self.registers[SRC] + number * BLOCK, BLOCK)
        self.await_(tag, lambda m: self.store(number, m.data))

    def store(self, number: int, data: bytes) -> None:
        """The block has come: write it."""
        tag = self.node.write("dma", self.registers[DST] + number * BLOCK, BLOCK, data)
        self.node.count["blocks"] += 1
        self.await_(tag, lambda _m: self.after(BLOCK_PS, lambda: self.block(number + 1)))

    def await_(self, tag: int | None, then: Callable[[Message], None]) -> None:
        """Go on when a request is complete; an error ends the copy."""
        if tag is None:
            self.end(FAILED)
        else:
            self.open[tag] = lambda m: then(m) if m.status < SLVERR else self.end(FAILED)

    def end(self, status: int) -> None:
        """The copy is over: raise the line."""
        self.registers[STATUS] = status
        self.line(1)

    def line(self, level: int) -> None:
        """Drive the interrupt line."""
        if self.level != level:
            self.level = level
            self.node.send("irq", "wire.Level", (0, level))


def main(engine_class: type[Engine] = Engine, lookahead_ps: int = 0) -> int:
    """Serve until the run is over."""
    with AttachClient.from_env(ports=PORTS, model={"engine": "1"}, lookahead_ps=lookahead_ps) as node:
        engine = engine_class(node)
        for grant in node:
            engine.run(grant)
    return 0


if __name__ == "__main__":
    sys.exit(main())
