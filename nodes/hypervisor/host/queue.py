"""An ITS's command queue (sheet 3.5): commands of one operation are queued at once, with one CWRITER write and one wait."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from cosim.api import Lock, ModelError, Signal, Span, fmt, ns
from nodes.arch.its_commands import COMMAND_SIZE, encode
from nodes.hypervisor.host import regs
from nodes.hypervisor.host.access import POLL_LIMIT, POLL_LONGEST, HardwareTimeout

if TYPE_CHECKING:
    from nodes.hypervisor.host.host import Host

QUEUE_SIZE = 0x1_0000
SLOTS = QUEUE_SIZE // COMMAND_SIZE

Commands = Sequence[tuple[str, dict[str, Any]]]

FIRST_LOOK: Span = ns(300)
"""Before the first read of CREADR: the ITS fetches the commands and waits for one acknowledge. (MODEL)"""
PER_COMMAND: Span = ns(5)


class ItsError(ModelError):
    """An ITS stopped at a command, or did not finish in time; names the ITS and the queue's state."""


class CommandQueue:
    """Software's side of the ring of 2048 commands. `issued` and `completed` count commands since the queue was set up."""

    def __init__(self, host: Host, name: str, base: int) -> None:
        self._host = host
        self._name = name
        self._base = base
        self._lock = Lock(f"command queue of {name}")
        self._progress = Signal(f"commands of {name}")
        self._polling = False
        self.issued = 0
        self.completed = 0
        self.memory = host.memory.alloc(QUEUE_SIZE, QUEUE_SIZE, "its")

    @property
    def cbaser(self) -> int:
        """Value of GITS_CBASER: valid, inner shareable, write-back, 16 pages of 4 KiB."""
        return regs.BASER_VALID | regs.BASER_ATTRIBUTES | self.memory | (QUEUE_SIZE // 4096 - 1)

    async def run(self, commands: Commands, *, sync: Iterable[int] = (), vsync: Iterable[int] = ()) -> None:
        """Queue commands, then one SYNC for each RDbase of `sync` and one VSYNC for each vPEID of `vsync`; wait until all ran.

        Raises:
            ItsError: the queue stalled.
            HardwareTimeout: one second passed.
        """
        words = [encode(name, **fields) for name, fields in commands]
        words += [encode("SYNC", rdbase=rdbase) for rdbase in dict.fromkeys(sync)]
        words += [encode("VSYNC", vpeid=vpeid) for vpeid in dict.fromkeys(vsync)]
        target = self.issued
        for start in range(0, len(words), SLOTS - 1):
            target = await self._submit(words[start : start + SLOTS - 1])
        await self._wait(target, len(words))

    async def _submit(self, words: list[bytes]) -> int:
        async with self._lock:
            if self.issued + len(words) - self.completed > SLOTS - 1:
                await self._wait(self.issued + len(words) - (SLOTS - 1), SLOTS)
            slot = self.issued % SLOTS
            head = words[: SLOTS - slot]
            bus = self._host.bus
            bus.post_block(self.memory + slot * COMMAND_SIZE, b"".join(head))
            if len(head) < len(words):
                bus.post_block(self.memory, b"".join(words[len(head) :]))
            await bus.dsb()
            self.issued += len(words)
            bus.post64(self._base + regs.GITS_CWRITER, self.issued % SLOTS * COMMAND_SIZE)
            return self.issued

    async def _wait(self, target: int, count: int) -> None:
        node, bus = self._host.node, self._host.bus
        period = FIRST_LOOK + PER_COMMAND * count
        deadline = node.now + POLL_LIMIT
        while self.completed < target:
            if self._polling:
                await self._progress.wait()
                continue
            if node.now > deadline:
                raise HardwareTimeout(
                    f"{self._name}: queue timeout ({self.completed} {target}) after {fmt(POLL_LIMIT)}; "
                    "look at its log for the command that it could not finish"
                )
            self._polling = True
            try:
                await node.sleep(period)
                self._account(await bus.read64(self._base + regs.GITS_CREADR))
            finally:
                self._polling = False
                self._progress.notify()
            period = min(2 * period, POLL_LONGEST)

    def _account(self, creadr: int) -> None:
        position = creadr >> 5 & (SLOTS - 1)
        self.completed += (position - self.completed) % SLOTS
        if creadr & regs.CREADR_STALLED:
            raise ItsError(
                f"{self._name} stalled at command {self.completed} of {self.issued} (GITS_CREADR = {creadr:#x}): "
                f"read 32 bytes at {self.memory + position * COMMAND_SIZE:#x} to see it"
            )
