"""The vPEs that a redistributor owns: requests of ITSs, configuration, the doorbell (IHI 0069H sections 5.3 to 5.5).

A request for a vPE waits, in order, while the vPE is busy (its table is being read, or it is leaving the PE), and follows it
when it has moved. For a vPE that is not known here it waits too, since its state may be on the way (VMOVP names the new home
before the state is there); after `stray_ps` it is dropped, counted and logged.

Doorbell. GICv4.1: the vPE's default doorbell rings at most once in a gap between residencies, for the first interrupt that
becomes pending, enabled and of an enabled group, if the deschedule asked for it and nothing was pending then. GICv4.0: each
interrupt has its own, which rings each time while the vPE is not resident.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cosim.api import BusFault
from nodes.arch.intid import LPI_BASE, NO_DOORBELL
from nodes.arch.lpi import pending_size
from nodes.redistributor.config import ConfigCache
from nodes.redistributor.directory import Directory
from nodes.redistributor.effects import Done
from nodes.redistributor.stream import Offer, best_of
from nodes.redistributor.vpe import Op, Vpe

if TYPE_CHECKING:
    from nodes.redistributor.model import Redistributor

_DROPPED = {"SetVlpi": "vlpi_dropped", "SetVsgi": "vsgi_dropped"}


class _Stray:
    """Requests for one vPE that is not here (yet)."""

    __slots__ = ("ops", "timer")

    def __init__(self) -> None:
        self.ops: list[Op] = []
        self.timer: Any = None


class Vpes:
    """vPEs owned (`table`), given away (`moved`: to which redistributor), and requests that came too early."""

    def __init__(self, rd: Redistributor) -> None:
        self._rd = rd
        self.cache = ConfigCache(rd, self._configured)
        self.directory = Directory(rd)
        self.table: dict[int, Vpe] = {}
        self.moved: dict[int, int] = {}
        self._unmapped: set[int] = set()
        self._strays: dict[int, _Stray] = {}
        self._ops: dict[str, Callable[..., None]] = {
            "SetVlpi": self._set_vlpi,
            "ClearVlpi": self._clear_vlpi,
            "InvVlpi": self._inv_vlpi,
            "VInvAll": self._vinvall,
            "MoveVlpi": self._move_vlpi,
            "SetVsgi": self._set_vsgi,
            "CfgVsgi": self._cfg_vsgi,
            "ClearVsgi": self._clear_vsgi,
            "MapVpe": self._map_again,
            "UnmapVpe": self._unmap,
            "MoveVpe": self._move,
            "InvDb": self._inv_db,
            "Claim": self._claim,
            "Enter": lambda vpe: rd.residency.enter(vpe),
        }

    # -- which vPE -------------------------------------------------------------------------------------------------------

    def request(self, kind: str, fields: tuple[Any, ...], done: Done | None = None) -> None:
        """Carry out a request for the vPE `fields[0]`, now or when it can be. VSync only calls `done`, after all before it."""
        vpeid = fields[0]
        vpe = self.table.get(vpeid)
        if vpe is None:
            self._elsewhere(Op(kind, fields, done))
        elif vpe.busy:
            vpe.parked.append(Op(kind, fields, done))
        elif kind == "VSync":
            assert done is not None
            self._rd.effects.after(done)
        else:
            self._ops[kind](vpe, *fields[1:])

    def _elsewhere(self, op: Op) -> None:
        vpeid = op.fields[0]
        if op.kind == "Enter":
            self._rd.residency.find()
        elif vpeid in self.moved:
            target = self.moved[vpeid]
            if op.kind == "VSync":
                assert op.done is not None
                self._rd.transfer.fence(target, op.done, vpeid)
            else:
                self._rd.transfer.forward(target, op.kind, op.fields)
                if op.kind in ("UnmapVpe", "MoveVlpi"):
                    # Their ITS waits for SYNC of this redistributor, not for VSYNC of the vPE.
                    token = self._rd.transfers.begin()
                    self._rd.transfer.fence(target, lambda: self._rd.transfers.end(token), vpeid)
        elif vpeid in self._unmapped:
            self._lost(op)
        else:
            stray = self._strays.get(vpeid)
            if stray is None:
                stray = self._strays[vpeid] = _Stray()
                stray.timer = self._rd.after(self._rd.stray_ps, self._expire, vpeid)
            stray.ops.append(op)

    def _expire(self, vpeid: int) -> None:
        for op in self._strays.pop(vpeid).ops:
            self._lost(op)

    def _lost(self, op: Op) -> None:
        if op.kind == "VSync":
            assert op.done is not None
            self._rd.effects.after(op.done)
            return
        self._rd.fault(
            _DROPPED.get(op.kind, "vpe_errors"),
            f"{op.kind} dropped: its vPE must be mapped (VMAPP) to this redistributor, and is not",
            vpeid=op.fields[0],
            fields=list(op.fields[1:]),
        )

    def _arrived(self, vpe: Vpe) -> None:
        """The vPE is here now."""
        self.table[vpe.vpeid] = vpe
        self.moved.pop(vpe.vpeid, None)
        self._unmapped.discard(vpe.vpeid)
        if self._rd.residency.wants(vpe):
            vpe.parked.append(Op("Enter", (vpe.vpeid,), None))
        stray = self._strays.pop(vpe.vpeid, None)
        if stray is not None:
            self._rd.cancel(stray.timer)
            vpe.parked.extend(stray.ops)

    def moved_to(self, vpeid: int, owner: int) -> None:
        """The vPE's state is at `owner`: send on what came for it."""
        self.moved[vpeid] = owner
        stray = self._strays.pop(vpeid, None)
        if stray is not None:
            self._rd.cancel(stray.timer)
            for op in stray.ops:
                self._elsewhere(op)

    def seek(self, vpeid: int) -> None:
        """A register write is for a vPE that may be anywhere in the group: what is requested now waits for its owner's answer."""
        if vpeid not in self.table:
            self._rd.transfer.ask("Seek", vpeid)
            self.moved.pop(vpeid, None)
            self._unmapped.discard(vpeid)

    def unpark(self, vpe: Vpe) -> None:
        """The vPE is no longer busy: carry out what waited, in order."""
        vpe.busy = ""
        parked, vpe.parked = vpe.parked, []
        for op in parked:
            self.request(op.kind, op.fields, op.done)

    # -- mapping ---------------------------------------------------------------------------------------------------------

    def map(self, vpeid: int, alloc: int, ptz: int, vconf: int, vpt: int, vpt_size: int, doorbell: int) -> None:
        """MapVpe. The first one (GICv4.1: Alloc=1) creates the vPE and reads its pending table unless PTZ says it is zero."""
        rd = self._rd
        fields = (vpeid, alloc, ptz, vconf, vpt, vpt_size, doorbell)
        if vpeid in self.table or (rd.v41 and not alloc):
            self.request("MapVpe", fields)
            return
        why = self.directory.known(vpeid) if rd.v41 else "vPEID is out of range" if vpeid >> rd.vpe_bits else ""
        if why:
            rd.fault("vpe_errors", f"MapVpe dropped: {why}", vpeid=vpeid)
            return
        vpe = Vpe(vpeid, rd.index, vpt, vconf if rd.v41 else 0, vpt_size + 1, doorbell if rd.v41 else NO_DOORBELL)
        self._arrived(vpe)
        self._forget_config(vpe)
        if ptz and why is not None:
            self.unpark(vpe)
        else:
            vpe.busy = "its tables are being read"
            rd.spawn(self._establish(vpe, bool(ptz)), f"read the tables of vPE {vpeid}")

    async def _establish(self, vpe: Vpe, zero: bool) -> None:
        """Look the vPE's place in the vPE table up, and read its pending table unless it is all zero."""
        token = self._rd.effects.begin()
        why = await self.directory.reason_against(vpe.vpeid) if self._rd.v41 else ""
        if why:
            self._rd.fault("vpe_errors", f"MapVpe dropped: {why}", vpeid=vpe.vpeid)
            del self.table[vpe.vpeid]
            self._unmapped.add(vpe.vpeid)
        elif not zero:
            await self._load(vpe)
        self.unpark(vpe)
        if vpe.vpeid in self.table:
            self.evaluate(vpe)
        self._rd.effects.end(token)

    async def _load(self, vpe: Vpe) -> None:
        size = pending_size(vpe.id_bits)
        try:
            table = await self._rd.bus.read_block(vpe.vpt, size)
        except BusFault as fault:
            self._rd.fault(
                "table_faults", "vPE pending table could not be read, taken as zero", why=str(fault), vpeid=vpe.vpeid
            )
            table = bytes(size)
        vpe.load(table)

    def _map_again(self, vpe: Vpe, alloc: int, ptz: int, vconf: int, vpt: int, vpt_size: int, doorbell: int) -> None:
        vpe.maps += 1
        if alloc:
            vpe.doorbell = doorbell
            self._rd.fault(
                "vpe_errors", "VMAPP with Alloc=1 of a vPE that is mapped: its state is kept", vpeid=vpe.vpeid
            )

    def _unmap(self, vpe: Vpe, alloc: int) -> None:
        """UnmapVpe; the last one (GICv4.1: Alloc=1) writes the pending table and forgets the vPE."""
        vpe.maps -= 1
        if self._rd.v41 and bool(alloc) != (vpe.maps == 0):
            self._rd.fault(
                "vpe_errors",
                "VMAPP V=0 must have Alloc=1 on the last ITS, and only there",
                vpeid=vpe.vpeid,
                alloc=alloc,
                still_mapped=vpe.maps,
            )
        if not (alloc if self._rd.v41 else vpe.maps == 0):
            return
        if vpe.resident:
            self._rd.fault("vpe_errors", "VMAPP V=0 of a resident vPE: deschedule it first", vpeid=vpe.vpeid)
            self._rd.residency.abandon()
        del self.table[vpe.vpeid]
        self._unmapped.add(vpe.vpeid)
        self._forget_config(vpe)
        self.write_back(vpe, lambda: None)

    def write_back(self, vpe: Vpe, done: Done) -> None:
        """Bring the pending table in memory up to date, then call `done`."""
        pieces = vpe.store()
        if not pieces:
            done()
            return

        async def store() -> None:
            token = self._rd.effects.begin()
            for address, data in pieces:
                self._rd.bus.post_block(address, data)
            try:
                await self._rd.bus.dsb()
            except BusFault as fault:
                self._rd.fault(
                    "table_faults", "vPE pending table could not be written", why=str(fault), vpeid=vpe.vpeid
                )
            done()
            self._rd.effects.end(token)

        self._rd.spawn(store(), f"write the pending table of vPE {vpe.vpeid}")

    def _write_through(self, vpe: Vpe) -> None:
        """GICv4.0: the table in memory is current whenever the vPE is not resident, and software reads it then."""
        if not self._rd.v41 and not vpe.resident:
            self.write_back(vpe, lambda: None)

    def _move(self, vpe: Vpe, target: int, keep_doorbell: int, doorbell: int) -> None:
        """MoveVpe: a new home. With DB=0 no default doorbell is outstanding afterwards."""
        if self._rd.v41:
            if keep_doorbell:
                vpe.doorbell = doorbell
            else:
                vpe.requested = False
        vpe.home = target
        if target == self._rd.index:
            return
        if vpe.resident:
            self._rd.fault("vpe_errors", "VMOVP of a resident vPE: it stays until it is descheduled", vpeid=vpe.vpeid)
            self._rd.transfer.forward(target, "VpeAt", (vpe.vpeid, self._rd.index))
            return
        self._rd.transfer.hand_over(vpe, target)

    def _claim(self, vpe: Vpe, requester: int, affinity: int) -> None:
        if self._rd.group_of(affinity) != self._rd.group_of(self._rd.affinity):
            self._rd.fault(
                "vpe_errors",
                "a vPE must become resident within the CommonLPIAff group of its home: it is not handed over",
                vpeid=vpe.vpeid,
                on=requester,
                affinity=f"{affinity:#x}",
            )
            return
        if vpe.resident:
            self._rd.fault(
                "vpe_errors", "a vPE must be resident on one redistributor only", vpeid=vpe.vpeid, on=requester
            )
            return
        self._rd.transfer.hand_over(vpe, requester)

    def install(self, vpe: Vpe) -> None:
        """A vPE was handed over to this redistributor."""
        self._arrived(vpe)
        self._forget_config(vpe)
        self.unpark(vpe)
        if vpe.vpeid in self.table:
            self.evaluate(vpe)

    def _forget_config(self, vpe: Vpe) -> None:
        # INVs while the vPE was elsewhere were not heard here.
        if vpe.vconf:
            self.cache.invalidate_range(*vpe.config_range)

    # -- interrupts ------------------------------------------------------------------------------------------------------

    def _exists(self, vpe: Vpe, intid: int, what: str) -> bool:
        limit = 1 << vpe.id_bits
        if LPI_BASE <= intid < limit:
            return True
        self._rd.fault(
            "vlpi_dropped", f"{what}: vINTID must be in {LPI_BASE}..{limit - 1}", vpeid=vpe.vpeid, intid=intid
        )
        return False

    def _set_vlpi(self, vpe: Vpe, intid: int, doorbell: int) -> None:
        if not self._exists(vpe, intid, "SetVlpi"):
            return
        vpe.pending.add(intid)
        self._write_through(vpe)
        if not self._rd.lpi_cache and vpe.vconf:
            self.cache.invalidate(vpe.config(intid))
        if not vpe.resident and not self._rd.v41 and doorbell != NO_DOORBELL:
            self._rd.lpis.ring(doorbell)
        self.evaluate(vpe)

    def _clear_vlpi(self, vpe: Vpe, intid: int) -> None:
        if self._exists(vpe, intid, "ClearVlpi"):
            vpe.pending.discard(intid)
            self._write_through(vpe)
            self._withdraw(vpe, intid)

    def _withdraw(self, vpe: Vpe, intid: int) -> None:
        if vpe.resident:
            self._rd.virtual.cancel(intid)
            self._rd.update_virtual()
            self._rd.wait_returned(self._rd.virtual, [intid])

    def _inv_vlpi(self, vpe: Vpe, intid: int) -> None:
        if self._exists(vpe, intid, "InvVlpi") and vpe.vconf:
            self.cache.invalidate(vpe.config(intid))
            if intid in vpe.pending:
                self.evaluate(vpe)

    def _vinvall(self, vpe: Vpe) -> None:
        self._forget_config(vpe)
        if vpe.pending:
            self.evaluate(vpe)

    def _move_vlpi(self, vpe: Vpe, intid: int, target_vpeid: int, target: int, doorbell: int) -> None:
        """VMOVI: pending goes along, unless the guest takes the interrupt first."""
        if not self._exists(vpe, intid, "MoveVlpi") or intid not in vpe.pending or target_vpeid == vpe.vpeid:
            return
        vpe.leaving.add(intid)
        token = self._rd.transfers.begin()

        def leave() -> None:
            vpe.leaving.discard(intid)
            if intid not in vpe.pending:
                self._rd.transfers.end(token)
                return
            vpe.pending.discard(intid)
            self._write_through(vpe)
            fields = (target_vpeid, intid, doorbell)
            if target == self._rd.index:
                self.request("SetVlpi", fields)
                self._rd.transfers.end(token)
            else:
                self._rd.transfer.forward(target, "SetVlpi", fields)
                self._rd.transfer.fence(target, lambda: self._rd.transfers.end(token), target_vpeid)

        if vpe.resident:
            self._rd.update_virtual()
            self._rd.virtual.after_return([intid], leave)
        else:
            leave()

    def _set_vsgi(self, vpe: Vpe, sgi: int) -> None:
        vpe.sgi.pending |= 1 << sgi
        self.evaluate(vpe)

    def _cfg_vsgi(self, vpe: Vpe, sgi: int, enable: int, group: int, priority: int) -> None:
        vpe.sgi.configure(sgi, enable, group, priority)
        if vpe.sgi.pending >> sgi & 1:
            self.evaluate(vpe)
            if vpe.resident:
                self._rd.wait_settled(self._rd.virtual)

    def _clear_vsgi(self, vpe: Vpe, sgi: int) -> None:
        vpe.sgi.pending &= ~(1 << sgi)
        self._withdraw(vpe, sgi)

    # -- evaluation ------------------------------------------------------------------------------------------------------

    def deliverable(self, vpe: Vpe) -> Offer | None:
        """The best pending, enabled interrupt of an enabled group, as far as the configuration is known."""
        return best_of(vpe.offers(self.cache.get, None))

    def unknown(self, vpe: Vpe) -> bool:
        """Whether configuration of a pending vLPI is still to come; asks for it."""
        missing = False
        if vpe.vconf:
            for intid in sorted(vpe.pending):
                if self.cache.get(vpe.config(intid)) is None:
                    self.cache.need(vpe.config(intid))
                    missing = True
        return missing

    def evaluate(self, vpe: Vpe) -> None:
        """Something about the vPE's interrupts changed: offer the best to the PE, or ring the doorbell."""
        if vpe.resident:
            self.unknown(vpe)
            self._rd.update_virtual()
        elif vpe.requested and not vpe.rung and vpe.doorbell != NO_DOORBELL:
            if self.deliverable(vpe) is not None:
                vpe.rung = True
                self._at_home(vpe, "Doorbell")
            else:
                self.unknown(vpe)

    def entered(self, vpe: Vpe) -> None:
        """The vPE becomes resident: no doorbell is wanted, and one that has rung is taken back."""
        vpe.requested = vpe.rung = False
        if vpe.doorbell != NO_DOORBELL:
            self._at_home(vpe, "ClearLpi")

    def _at_home(self, vpe: Vpe, kind: str) -> None:
        """Do something with the doorbell LPI, which belongs to the vPE's home."""
        if vpe.home != self._rd.index:
            self._rd.transfer.forward(vpe.home, kind, (vpe.doorbell,))
        elif kind == "Doorbell":
            self._rd.lpis.ring(vpe.doorbell)
        elif kind == "ClearLpi":
            self._rd.lpis.clear(vpe.doorbell)
        else:
            self._rd.lpis.invalidate(vpe.doorbell)

    def _inv_db(self, vpe: Vpe) -> None:
        if vpe.doorbell != NO_DOORBELL:
            self._at_home(vpe, "InvLpi")

    def _configured(self, done: Done) -> None:
        """Configuration bytes have arrived."""
        for vpe in list(self.table.values()):
            if not vpe.resident and vpe.requested:
                self.evaluate(vpe)
        self._rd.update_virtual()
        self._rd.residency.progress()
        self._rd.virtual.settle(done)
