"""LPI configuration bytes as a redistributor knows them: read from memory when first needed, kept until INV or INVALL.

One read takes the 64-byte line and serves every LPI of it that waits. Only bytes of LPIs that this redistributor has had to do
with are kept, never their neighbours': INV reaches the redistributor of the LPI it names, so a neighbour's byte could become
stale unheard. A byte that was asked for, or invalidated, after a read was issued is read again.

Source: IHI 0069 section 5.1 (LPI configuration tables, caching), section 5.3 (INV, INVALL, VINVALL).
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Iterator
from typing import TYPE_CHECKING

from cosim.api import BusFault
from nodes.arch.lpi import config_fields
from nodes.redistributor.effects import Done
from nodes.redistributor.stream import Offer

if TYPE_CHECKING:
    from nodes.redistributor.model import Redistributor

LINE = 64


def lpi_offers(
    pending: Iterable[int],
    leaving: Container[int],
    byte: Callable[[int], int | None],
    current: Offer | None,
    group: int,
    *,
    lower_half: bool,
) -> Iterator[Offer]:
    """Pending LPIs or vLPIs that are enabled.

    Args:
        pending: their INTIDs.
        leaving: those of them that are not offered.
        byte: the configuration byte of an INTID; None while it is being read. Then one that the CPU interface holds already
            (`current`) stays, another one must wait.
        current: what the CPU interface holds.
        group: of all of them.
        lower_half: whether their priorities are in the Non-secure half of the range (two Security states).
    """
    for intid in pending:
        if intid in leaving:
            continue
        config = byte(intid)
        if config is None:
            if current is not None and current.intid == intid:
                yield current
            continue
        priority, enabled = config_fields(config)
        if enabled:
            yield Offer(intid, priority >> 1 | 0x80 if lower_half else priority, group)


class ConfigCache:
    """Configuration bytes by address. `ready(done)` is called whenever some have arrived, and calls `done` when what follows
    from them has taken effect."""

    __slots__ = ("_rd", "_ready", "_reading", "_values", "_wanted")

    def __init__(self, rd: Redistributor, ready: Callable[[Done], None]) -> None:
        self._rd = rd
        self._ready = ready
        self._values: dict[int, int] = {}
        self._wanted: dict[int, dict[int, None]] = {}  # line -> bytes to take from the next read of it
        self._reading: dict[int, dict[int, None]] = {}  # line -> bytes to take from the read under way

    def get(self, address: int) -> int | None:
        """The byte, or None while it is not known."""
        return self._values.get(address)

    def need(self, address: int) -> None:
        """Have the byte read unless it is known or on its way."""
        line = address & ~(LINE - 1)
        if address in self._values or address in self._reading.get(line, ()):
            return
        self._wanted.setdefault(line, {})[address] = None
        if line not in self._reading:
            self._reading[line] = {}
            self._rd.spawn(self._read(line), f"LPI configuration {line:#x}")

    def invalidate(self, address: int) -> None:
        """INV: forget the byte; if it is on its way, read it again."""
        self._values.pop(address, None)
        reading = self._reading.get(address & ~(LINE - 1), {})
        if address in reading:
            del reading[address]
            self.need(address)

    def invalidate_range(self, base: int, size: int) -> None:
        """INVALL, VINVALL: forget every byte of [base, base + size)."""
        known = [a for a in self._values if base <= a < base + size]
        coming = [a for reading in self._reading.values() for a in reading if base <= a < base + size]
        for address in known + coming:
            self.invalidate(address)

    async def _read(self, line: int) -> None:
        token = self._rd.effects.begin()
        while line in self._wanted:
            self._reading[line] = self._wanted.pop(line)
            try:
                data = await self._rd.bus.read_block(line, LINE)
            except BusFault as fault:
                self._rd.fault(
                    "table_faults", "LPI configuration could not be read, its LPIs are disabled", why=str(fault)
                )
                data = bytes(LINE)
            for address in self._reading[line]:
                self._values[address] = data[address - line]
            self._reading[line] = {}
        del self._reading[line]
        self._ready(lambda: self._rd.effects.end(token))
