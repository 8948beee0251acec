"""The host's LPIs: identifiers, the configuration table that all Redistributors share, and pending tables (sheet 5)."""

from __future__ import annotations

from cosim.api import MmioInitiator, ModelError
from nodes.arch.intid import LPI_BASE
from nodes.arch.lpi import config_address, config_byte, config_size, pending_size
from nodes.hypervisor.host.memory import Allocator

LPI_PRIORITY = 0xA0
LPI_ALIGN = 0x1_0000


class HostLpis:
    """LPI allocator and configuration table; `id_bits` INTID bits, `prop` is the table's physical address."""

    def __init__(self, bus: MmioInitiator, memory: Allocator, id_bits: int) -> None:
        self._bus = bus
        self._memory = memory
        self.id_bits = id_bits
        self._used: set[int] = set()
        self.prop = memory.alloc(config_size(id_bits), LPI_ALIGN, "lpi")
        bus.post_block(self.prop, bytes([config_byte(LPI_PRIORITY, False)]) * config_size(id_bits))

    def pending_table(self) -> int:
        """A zeroed pending table for one Redistributor."""
        return self._memory.alloc(pending_size(self.id_bits), LPI_ALIGN, "lpi")

    def alloc(self, count: int) -> int:
        """First of `count` contiguous LPIs.

        Raises:
            ModelError: none left.
        """
        first = LPI_BASE
        while first + count <= 1 << self.id_bits:
            taken = [lpi for lpi in range(first, first + count) if lpi in self._used]
            if not taken:
                self._used.update(range(first, first + count))
                return first
            first = taken[-1] + 1
        raise ModelError(f"{count} contiguous LPIs must be free; {len(self._used)} are in use")

    def free(self, first: int, count: int) -> None:
        """Give LPIs back."""
        self._used.difference_update(range(first, first + count))

    @property
    def in_use(self) -> int:
        """Number of LPIs given out."""
        return len(self._used)

    def configure(self, lpi: int, *, enable: bool) -> None:
        """Post the configuration byte of an LPI; an INV, INVDB or INVLPIR makes Redistributors read it."""
        self._bus.post(config_address(self.prop, lpi), config_byte(LPI_PRIORITY, enable), 1)

    def configure_run(self, first: int, count: int, *, enable: bool) -> None:
        """`configure` of contiguous LPIs in one write."""
        self._bus.post_block(config_address(self.prop, first), bytes([config_byte(LPI_PRIORITY, enable)]) * count)
