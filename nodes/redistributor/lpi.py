"""Physical LPIs of one redistributor: pending state, configuration, enabling, moves (IHI 0069 chapter 5).

While GICR_CTLR.EnableLPIs is 1 the pending state lives here; the table in memory is read when it becomes 1 (unless
PENDBASER.PTZ said that it is all zero) and brought up to date when it becomes 0. LPIs are Non-secure Group 1. With two
Security states their priority is in the Non-secure half: (p >> 1) | 0x80.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cosim.api import BusFault
from nodes.arch.groups import GROUP1_NS
from nodes.arch.intid import LPI_BASE
from nodes.arch.lpi import config_address, config_size, pending_size
from nodes.redistributor.config import ConfigCache, lpi_offers
from nodes.redistributor.effects import Done
from nodes.redistributor.stream import Offer
from nodes.redistributor.tables import changes, intids_of

if TYPE_CHECKING:
    from nodes.redistributor.model import Redistributor


class Lpis:
    """State of the LPIs that target this PE. `enabled` is EnableLPIs; `limit` the first INTID that does not exist."""

    def __init__(self, rd: Redistributor) -> None:
        self._rd = rd
        self.cache = ConfigCache(rd, self._configured)
        self.enabled = False
        self.disabling = False  # EnableLPIs is 0, and the table in memory is not current yet
        self.pending: set[int] = set()
        self.limit = LPI_BASE
        self._stored: set[int] = set()  # what the table in memory says
        self._config_base = 0
        self._table_base = 0
        self._loading = False
        self._cleared: set[int] = set()  # while loading: the table's bit no longer counts
        self._leaving: set[int] = set()  # moves that wait for the CPU interface's answer
        self.ringing: set[int] = set()  # pending because a vPE's doorbell rang

    # -- selection -------------------------------------------------------------------------------------------------------

    def offers(self) -> Iterator[Offer]:
        """The pending and enabled ones; one that the CPU interface holds stays while its configuration is read again."""
        if not self.enabled:
            return
        yield from lpi_offers(
            self.pending,
            self._leaving,
            lambda intid: self.cache.get(self._config(intid)),
            self._rd.physical.current,
            GROUP1_NS,
            lower_half=self._rd.two_states,
        )

    def _configured(self, done: Done) -> None:
        self._rd.update_physical()
        self._rd.physical.settle(done)

    def _config(self, intid: int) -> int:
        return config_address(self._config_base, intid)

    # -- pending state ---------------------------------------------------------------------------------------------------

    def _usable(self, intid: int, what: str) -> bool:
        if not self.enabled:
            self._rd.fault("lpis_dropped", f"{what} of an LPI while GICR_CTLR.EnableLPIs is 0", intid=intid)
            return False
        if not LPI_BASE <= intid < self.limit:
            self._rd.fault("lpis_dropped", f"{what}: LPI must be in {LPI_BASE}..{self.limit - 1}", intid=intid)
            return False
        return True

    def set(self, intid: int) -> None:
        """SetLpi: pending, if it is not yet."""
        if self._usable(intid, "SetLpi"):
            self.pending.add(intid)
            self._cleared.discard(intid)
            self._refresh(intid)

    def _refresh(self, intid: int) -> None:
        if not self._rd.lpi_cache:
            self.cache.invalidate(self._config(intid))
        self.cache.need(self._config(intid))
        self._rd.update_physical()

    def ring(self, intid: int) -> None:
        """A vPE's doorbell: set pending; counted in `doorbells` when it goes to the PE."""
        if self._usable(intid, "Doorbell"):
            self.ringing.add(intid)
            self.set(intid)

    def clear(self, intid: int) -> None:
        """ClearLpi: neither pending nor held by the CPU interface once it has taken effect."""
        if intid in self.pending or self._loading:
            self._drop(intid)
            self._rd.update_physical()
        self._rd.wait_returned(self._rd.physical, [intid])

    def _drop(self, intid: int) -> None:
        self.pending.discard(intid)
        self.ringing.discard(intid)
        self._rd.physical.cancel(intid)
        if self._loading:
            self._cleared.add(intid)

    def activated(self, intid: int, cancelled: bool) -> None:
        """Acknowledged: no longer pending; LPIs have no active state."""
        if not cancelled:
            self.pending.discard(intid)

    def invalidate(self, intid: int) -> None:
        """InvLpi: the next decision uses the configuration byte as memory has it now."""
        if not LPI_BASE <= intid < self.limit:
            self._rd.fault("inv_out_of_range", f"LPI must be in {LPI_BASE}..{self.limit - 1}", intid=intid)
            return
        self.cache.invalidate(self._config(intid))
        if intid in self.pending:
            self._refresh(intid)

    def invalidate_all(self) -> None:
        """InvAll: for every physical LPI."""
        self.cache.invalidate_range(self._config_base, max(0, self.limit - LPI_BASE))
        for intid in sorted(self.pending):
            self.cache.need(self._config(intid))
        self._rd.update_physical()

    # -- moves -----------------------------------------------------------------------------------------------------------

    def move(self, intids: list[int], target: int) -> None:
        """MoveLpi, MoveAll: what is pending here and is not acknowledged first becomes pending at `target`."""
        moving = [intid for intid in intids if intid in self.pending and intid not in self._leaving]
        if target == self._rd.index or not moving:
            return
        self._leaving.update(moving)
        token = self._rd.transfers.begin()
        self._rd.update_physical()

        def leave() -> None:
            left = tuple(intid for intid in moving if intid in self.pending)
            self._leaving.difference_update(moving)
            for intid in left:
                self._drop(intid)
            if left:
                self._rd.transfer.forward(target, "SetLpis", (left,))
                self._rd.transfer.fence(target, lambda: self._rd.transfers.end(token))
            else:
                self._rd.transfers.end(token)
            self._rd.update_physical()

        self._rd.physical.after_return(moving, leave)

    # -- EnableLPIs ------------------------------------------------------------------------------------------------------

    def enable(self, config_base: int, table_base: int, id_bits: int, zero: bool) -> None:
        """EnableLPIs 0 to 1 with the tables of PROPBASER and PENDBASER; `zero`: PTZ, the pending table is all zero."""
        self.enabled = True
        self._config_base = config_base
        self._table_base = table_base
        self.limit = max(LPI_BASE, 1 << id_bits)
        self.cache.invalidate_range(config_base, max(0, config_size(id_bits)) if id_bits > 13 else 0)
        self._stored = set()
        self._cleared = set()
        if not zero and self.limit > LPI_BASE:
            self._loading = True
            self._rd.spawn(self._load(pending_size(id_bits)), "read the LPI pending table")

    async def _load(self, size: int) -> None:
        token = self._rd.effects.begin()
        skip = LPI_BASE // 8
        try:
            data = await self._rd.bus.read_block(self._table_base + skip, size - skip)
        except BusFault as fault:
            self._rd.fault("table_faults", "LPI pending table could not be read, taken as zero", why=str(fault))
            data = b""
        self._loading = False
        self._stored = intids_of(data, LPI_BASE)
        for intid in sorted(self._stored - self._cleared):
            self.pending.add(intid)
            self.cache.need(self._config(intid))
        self._cleared = set()
        self._rd.update_physical()
        self._rd.effects.end(token)

    def disable(self, done: Done) -> None:
        """EnableLPIs 1 to 0: nothing is offered any more, the table in memory is brought up to date, then `done`."""
        self.enabled = False
        self.disabling = True
        self._rd.update_physical()
        self._rd.physical.settle(lambda: self._rd.effects.after(lambda: self._store(done)))

    def _store(self, done: Done) -> None:
        pieces = changes(self._stored, self.pending)
        self.pending = set()
        self.ringing = set()

        async def store() -> None:
            for offset, data in pieces:
                self._rd.bus.post_block(self._table_base + offset, data)
            try:
                await self._rd.bus.dsb()
            except BusFault as fault:
                self._rd.fault("table_faults", "LPI pending table could not be written", why=str(fault))
            self.disabling = False
            done()

        self._rd.spawn(store(), "write the LPI pending table")
