"""Guest program for measurements: the gic ipi test with many more broadcasts, so that SGIs per second can be told from the cost of
boot and set-up. It prints what the ipi test prints; between its last check and its summary, the sender broadcasts `rounds`
times, each time waiting until every other CPU has acknowledged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from nodes.arch.cpu import Cpu
from nodes.software import gicv3, ipi, shared

POLL_PS = 5_000_000
"""Simulated time between two looks at the other CPUs' records."""
POLLS = 10_000
SHORT, MIDDLE, LONG = 2, 12, 402
"""Rounds of `short`, `middle` and `long`: what two runs differ by is the cost of the rounds between."""


class _Storm(ipi._Sender):
    """CPU 1, which sends more than the test asks for."""

    def __init__(self, cpu: Cpu, params: dict[str, Any], rounds: int) -> None:
        super().__init__(cpu, params)
        self.rounds = rounds

    async def check_spurious(self) -> None:
        """The rounds, then what the test does."""
        others = [n for n in range(self.count) if n != self.index]
        for _ in range(self.rounds):
            self.before = await shared.read_all(self.cpu, self.count)
            await self.send_broadcast(others)
            for _ in range(POLLS):
                await self.cpu.delay(POLL_PS)
                counts = await self.acked()
                if all(counts[n][0] for n in others):
                    break
            else:
                await self.report.info("interrupts of a round timed-out")
                break
        await super().check_spurious()


def _with_rounds(rounds: int) -> Callable[[Cpu, str, dict[str, Any]], Awaitable[None]]:
    async def program(cpu: Cpu, args: str, params: dict[str, Any]) -> None:
        sender = params["entry"] == ipi.SECONDARY_ENTRY and gicv3.affinity_of(cpu.mpidr) == ipi.SENDER
        await (_Storm(cpu, params, rounds).run() if sender else ipi.program(cpu, args, params))

    return program


short = _with_rounds(SHORT)
middle = _with_rounds(MIDDLE)
long = _with_rounds(LONG)
