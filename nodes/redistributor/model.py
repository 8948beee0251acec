"""The Redistributor of one PE, GICv3, GICv4.0 and GICv4.1 (IHI 0069H; ID values of GIC-700).

It owns the PE's SGIs and PPIs (`private.py`), its physical LPIs (`lpi.py`), the vPEs whose home it is (`vlpi.py`, `vpe.py`) and
the one that runs on the PE (`residency.py`). It keeps the best pending physical interrupt and the best of the resident vPE
offered to the CPU interface (`stream.py`). Interrupts reach it from ITSs, the distributor and the PPI wires; other
redistributors by way of the distributor (`transfer.py`). What takes time is tracked in `effects.py`, and SYNC and VSYNC are
acknowledged when everything received before has taken effect.

Parameters: `index` (GICR_TYPER.ProcessorNumber), `affinity` (Aff3.Aff2.Aff1.Aff0, 32 bits), `last`, `gic_version` ("3", "4.0",
"4.1"), `id_bits` (of LPIs), `vpe_bits`, `two_security_states`, `priority_bits` (implemented, 5), `lpi_cache` (configuration is
kept until INV; false: read at each new pend), `direct_lpi` (GICR_TYPER.DirectLPI: SETLPIR, CLRLPIR and the INV registers; true
for GICv4.0), `common_lpi_aff` (GICR_TYPER.CommonLPIAff, 0 to 3), `busy_ps` (shortest time of Dirty and of waking, assumed
20 ns), `syncr_ps` and `vsgir_ps` (shortest time of SYNCR.Busy and VSGIPENDR.Busy, as `busy_ps`), `rwp_ps` (GICR_CTLR.RWP after
the effect is everywhere, assumed 5 ns), `stray_ps` (how long a request waits for a vPE that is not here, assumed 2 us).

Counters: `vlpi_delivered`, `vsgi_delivered` at the guest's Activate; `doorbells` when a doorbell LPI goes to the PE; the others
count what was dropped or ignored, each with a log event that says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from cosim.api import Channel, MmioInitiator, MmioTarget, ModelError, Node, Peer, Wire, ns, on, us
from nodes.arch.gic_net import GIC_NET
from nodes.arch.gic_stream import GIC_STREAM
from nodes.arch.groups import GROUP0, GROUP1_NS, GROUP1_S
from nodes.arch.intid import LPI_BASE, PPI_BASE, SPI_BASE
from nodes.redistributor.effects import Effects
from nodes.redistributor.lpi import Lpis
from nodes.redistributor.private import Private
from nodes.redistributor.registers import Registers
from nodes.redistributor.regs import TABLES
from nodes.redistributor.rendezvous import Rendezvous
from nodes.redistributor.residency import Residency
from nodes.redistributor.stream import Offer, Slot, best_of
from nodes.redistributor.transfer import Transfer
from nodes.redistributor.vlpi import Vpes


class Redistributor(Node):
    """Registers at `regs`: RD_base +0, SGI_base +0x10000, VLPI_base +0x20000."""

    kind = "redistributor"
    parameters = {
        "index": int,
        "affinity": int,
        "last": bool,
        "gic_version": ("3", "4.0", "4.1"),
        "id_bits": range(14, 25),
        "vpe_bits": range(1, 17),
        "lpi_cache": bool,
        "two_security_states": bool,
        "common_lpi_aff": range(4),
        "direct_lpi": bool,
        "priority_bits": range(4, 9),
        "busy_ps": int,
        "syncr_ps": int,
        "vsgir_ps": int,
        "rwp_ps": int,
        "stray_ps": int,
    }
    counters = ("vlpi_delivered", "vsgi_delivered", "doorbells")

    regs = MmioTarget("GICR_ frames")
    cpu = Channel(GIC_STREAM, "the PE's CPU interface")
    net = Channel(GIC_NET, "distributor and ITSs")
    bus = MmioInitiator("LPI and vPE tables in memory")
    ppi = Wire("the PE's PPIs; line = INTID")

    def setup(self) -> None:
        params = self.params
        self.index = int(params.get("index", 0))
        self.affinity = int(params.get("affinity", 0))
        self.last = bool(params.get("last", False))
        self.gic_version = str(params.get("gic_version", "4.1"))
        if self.gic_version not in TABLES:
            raise ModelError(f'gic_version of {self.name} must be "3", "4.0" or "4.1", not {self.gic_version!r}')
        self.v41 = self.gic_version == "4.1"
        self.id_bits = int(params.get("id_bits", 16))
        self.vpe_bits = int(params.get("vpe_bits", 16))
        self.two_states = bool(params.get("two_security_states", True))
        self.lpi_cache = bool(params.get("lpi_cache", True))
        self.common_lpi_aff = int(params.get("common_lpi_aff", 0))
        if not 0 <= self.common_lpi_aff <= 3:
            raise ModelError(f"common_lpi_aff of {self.name} must be in 0..3, not {self.common_lpi_aff}")
        self.direct_lpi = bool(params.get("direct_lpi", self.gic_version == "4.0"))
        self.busy_ps = int(params.get("busy_ps", ns(20)))
        self.syncr_ps = int(params.get("syncr_ps", self.busy_ps))
        self.vsgir_ps = int(params.get("vsgir_ps", self.busy_ps))
        self.rwp_ps = int(params.get("rwp_ps", ns(5)))
        self.stray_ps = int(params.get("stray_ps", us(2)))
        self.awake = False
        self._dist_groups = 0  # enabled in GICD_CTLR; bit n: group n
        self._cpu_groups = 0  # enabled in the CPU interface
        self._participates = 0  # what the distributor was told last
        self._spis: dict[int, Offer] = {}
        self.effects = Effects()
        self.transfers = Effects()
        self.physical = Slot(self._send_set, self._send_clear)
        self.virtual = Slot(self._send_vset, self._send_vclear)
        self._virtual_vpeid = -1
        self.private = Private(self.two_states, int(params.get("priority_bits", 5)))
        self.residency = Residency(self)
        self.transfer = Transfer(self)
        self.rendezvous = Rendezvous(self)
        self.lpis = Lpis(self)
        self.vpes = Vpes(self)
        self.registers = Registers(self)
        self.banks[{"3": "GICR_V3", "4.0": "GICR_V40"}.get(self.gic_version, "GICR")] = self.registers.bank
        self.regs.serve(self.registers.read, self.registers.write)
        self.ppi.watch(self._ppi_level)

    def fault(self, counter: str, event: str, **fields: Any) -> None:
        """Count and log something that was dropped, ignored or wrongly used."""
        self.count[counter] += 1
        self.log(event, counter=counter, **fields)

    def later(self, span: int, function: Callable[[], None]) -> None:
        """Call a function after `span` ps; at once if that is 0."""
        if span:
            self.after(span, function)
        else:
            function()

    def group_of(self, affinity: int) -> int:
        """The affinity fields that all redistributors of its CommonLPIAff group have in common (0: all share)."""
        return affinity >> 8 * (4 - self.common_lpi_aff)

    # -- offering --------------------------------------------------------------------------------------------------------

    def update_physical(self) -> None:
        """Offer the best physical interrupt: enabled, pending, not active, its group enabled in the distributor and the CPU
        interface, the PE awake."""
        groups = self._dist_groups & self._cpu_groups if self.awake else 0
        self.physical.offer(best_of(self._physical_offers(groups)) if groups else None)

    def _physical_offers(self, groups: int) -> Iterable[Offer]:
        available = self.physical.available
        for offer in self.private.offers(groups):
            if available(offer.intid):
                yield offer
        for offer in self._spis.values():
            if groups >> offer.group & 1 and available(offer.intid):
                yield offer
        if groups >> GROUP1_NS & 1:
            for offer in self.lpis.offers():
                if available(offer.intid):
                    yield offer

    def update_virtual(self) -> None:
        """Offer the best interrupt of the resident vPE."""
        vpe = self.residency.vpe
        if vpe is None or vpe.busy or not self.awake:
            return
        self._virtual_vpeid = vpe.vpeid
        slot = self.virtual
        offers = vpe.offers(self.vpes.cache.get, slot.current)
        slot.offer(best_of(offer for offer in offers if slot.available(offer.intid)))

    def wait_settled(self, slot: Slot) -> None:
        """SYNC and VSYNC from now on wait until everything withdrawn from the PE is answered."""
        token = self.effects.begin()
        slot.settle(lambda: self.effects.end(token))

    def wait_returned(self, slot: Slot, intids: list[int]) -> None:
        """SYNC and VSYNC from now on wait until the PE has answered for these."""
        token = self.effects.begin()
        slot.after_return(intids, lambda: self.effects.end(token))

    def _send_set(self, offer: Offer) -> None:
        if offer.intid in self.lpis.ringing:
            self.lpis.ringing.discard(offer.intid)
            self.count["doorbells"] += 1
        self.cpu.send(None, GIC_STREAM.Set, offer.intid, offer.priority, offer.group)

    def _send_clear(self, intid: int) -> None:
        self.cpu.send(None, GIC_STREAM.Clear, intid)

    def _send_vset(self, offer: Offer) -> None:
        self.cpu.send(None, GIC_STREAM.VSet, self._virtual_vpeid, offer.intid, offer.priority, offer.group)

    def _send_vclear(self, intid: int) -> None:
        self.cpu.send(None, GIC_STREAM.VClear, self._virtual_vpeid, intid)

    # -- from the CPU interface ------------------------------------------------------------------------------------------

    def _expected(self, packet: str, vpeid: int, intid: int) -> bool:
        """Whether an answer belongs to something sent; a stray one is counted."""
        slot = self.physical if vpeid < 0 else self.virtual
        if intid in slot.outstanding and (vpeid < 0 or vpeid == self._virtual_vpeid):
            return True
        self.fault("stream_violations", f"{packet} of an interrupt that the PE does not hold", vpeid=vpeid, intid=intid)
        return False

    @on(GIC_STREAM.Activate)
    def _activate(self, peer: Peer, vpeid: int, intid: int) -> None:
        if not self._expected("Activate", vpeid, intid):
            return
        if vpeid >= 0:
            self.count["vsgi_delivered" if intid < LPI_BASE else "vlpi_delivered"] += 1
            vpe = self.residency.vpe
            if vpe is not None and not self.virtual.is_cancelled(intid):
                vpe.activated(intid)
            self.virtual.answered(intid)
            self.update_virtual()
            return
        cancelled = self.physical.is_cancelled(intid)
        if intid < SPI_BASE:
            self.private.activate(intid, cancelled)
        elif intid < LPI_BASE:
            self._spis.pop(intid, None)
            self.net.send("distributor", GIC_NET.SpiActivate, intid)
        else:
            self.lpis.activated(intid, cancelled)
        self.physical.answered(intid)
        self.update_physical()

    @on(GIC_STREAM.Release)
    def _release(self, peer: Peer, vpeid: int, intid: int) -> None:
        if not self._expected("Release", vpeid, intid):
            return
        slot = self.physical if vpeid < 0 else self.virtual
        if slot.current is not None and slot.current.intid == intid:
            # Neither replaced nor withdrawn: the PE cannot take it. Offering it again would go on for ever.
            slot.refused.add(intid)
            self.fault("refused", "the PE gave back an interrupt unasked; not offered again", vpeid=vpeid, intid=intid)
        slot.answered(intid)
        if vpeid < 0:
            self.update_physical()
        else:
            self.update_virtual()

    @on(GIC_STREAM.Deactivate)
    def _deactivate(self, peer: Peer, intid: int, group: int) -> None:
        if intid < SPI_BASE:
            if self.private.deactivate(intid, group):
                self.update_physical()
        elif intid < LPI_BASE:
            self.net.send("distributor", GIC_NET.SpiDeactivate, intid)

    @on(GIC_STREAM.GenerateSgi)
    def _generate_sgi(self, peer: Peer, register: str, value: int, nonsecure: int) -> None:
        self.net.send("distributor", GIC_NET.GenerateSgi, self.index, register, value, nonsecure)

    @on(GIC_STREAM.UpstreamControl)
    def _upstream_control(self, peer: Peer, identifier: str, value: int) -> None:
        if identifier == "GroupEnables":
            self._cpu_groups = value
            self.update_physical()
            self.participate()
        elif identifier != "PMR":  # the priority mask is a hint for 1-of-N, which is not used
            self.fault("stream_violations", f"UpstreamControl {identifier!r} is not known", value=value)

    @on(GIC_STREAM.ClearAck)
    def _clear_ack(self, peer: Peer, intid: int) -> None:
        """Nothing to do: the Activate or Release before it was the answer."""

    @on(GIC_STREAM.VClearAck)
    def _vclear_ack(self, peer: Peer, vpeid: int, intid: int) -> None:
        """Nothing to do: the Activate or Release before it was the answer."""

    @on(GIC_STREAM.DownstreamControlAck)
    def _downstream_control_ack(self, peer: Peer, identifier: str) -> None:
        self.fault("stream_violations", "DownstreamControlAck without DownstreamControl", identifier=identifier)

    @on(GIC_STREAM.QuiesceAck)
    def _quiesce_ack(self, peer: Peer) -> None:
        if not self.awake:
            self.registers.children_asleep(True)
        else:
            self.update_physical()
            self.update_virtual()

    # -- sleep -----------------------------------------------------------------------------------------------------------

    def sleep_or_wake(self, asleep: bool) -> None:
        """GICR_WAKER.ProcessorSleep changed: the PE's interface goes quiet, or may be used again."""
        self.awake = not asleep
        self.update_physical()
        self.participate()
        if asleep:
            # Whatever it still holds comes back as asked for, so nothing counts as current.
            self.physical.current = self.virtual.current = None
            self.cpu.send(None, GIC_STREAM.Quiesce)
            return
        self.update_virtual()

        def woken() -> None:
            if self.awake:
                self.registers.children_asleep(False)

        self.after(self.busy_ps, woken)

    def participate(self) -> None:
        """Tell the distributor for which groups this PE takes 1-of-N SPIs: awake, group enabled, not excluded by DPG."""
        ctlr = self.registers.bank["GICR_CTLR"]
        excluded = (ctlr >> 24 & 1) << GROUP0 | (ctlr >> 25 & 1) << GROUP1_NS | (ctlr >> 26 & 1) << GROUP1_S
        groups = self._cpu_groups & ~excluded if self.awake else 0
        if groups != self._participates:
            self._participates = groups
            self.net.send("distributor", GIC_NET.Participation, groups)

    # -- PPIs, SGIs, SPIs ------------------------------------------------------------------------------------------------

    def _ppi_level(self, peer: Peer, line: int, level: int) -> None:
        if not PPI_BASE <= line < SPI_BASE:
            self.fault("ppi_errors", f"line of a PPI must be in {PPI_BASE}..{SPI_BASE - 1}", line=line, wire=peer.name)
            return
        self.private.drive(line, level)
        self.update_physical()

    @on(GIC_NET.Sgi)
    def _sgi(self, peer: Peer, intid: int, source: int, register: str, nonsecure: int) -> None:
        if self.private.accepts_sgi(intid, register, nonsecure):
            self.private.set_pending(1 << intid)
            self.update_physical()
        else:
            self.fault(
                "sgi_dropped",
                "the SGI's group here does not let this request through",
                intid=intid,
                source=source,
                register=register,
                nonsecure=nonsecure,
                group=self.private.group_of(intid),
            )

    @on(GIC_NET.Spi)
    def _spi(self, peer: Peer, intid: int, priority: int, group: int) -> None:
        self._spis[intid] = Offer(intid, priority, group)
        self.update_physical()

    @on(GIC_NET.ClearSpi)
    def _clear_spi(self, peer: Peer, intid: int) -> None:
        self._spis.pop(intid, None)
        self.update_physical()
        self.physical.after_return([intid], lambda: self.net.send(peer, GIC_NET.SpiClearAck, intid))

    @on(GIC_NET.GroupEnables)
    def _group_enables(self, peer: Peer, tag: int, group0: int, group1_ns: int, group1_s: int) -> None:
        self._dist_groups = group0 << GROUP0 | group1_ns << GROUP1_NS | group1_s << GROUP1_S
        self.update_physical()
        self.physical.settle(lambda: self.net.send(peer, GIC_NET.GroupEnablesAck, tag))

    @on(GIC_NET.StatelessSgis)
    def _stateless_sgis(self, peer: Peer, enabled: int) -> None:
        self.private.set_stateless_sgis(bool(enabled))
        self.update_physical()

    # -- physical LPIs ---------------------------------------------------------------------------------------------------

    @on(GIC_NET.SetLpi)
    def _set_lpi(self, peer: Peer, intid: int) -> None:
        self.lpis.set(intid)

    @on(GIC_NET.Doorbell)
    def _doorbell(self, peer: Peer, intid: int) -> None:
        self.lpis.ring(intid)

    @on(GIC_NET.ClearLpi)
    def _clear_lpi(self, peer: Peer, intid: int) -> None:
        self.lpis.clear(intid)

    @on(GIC_NET.InvLpi)
    def _inv_lpi(self, peer: Peer, intid: int) -> None:
        self.lpis.invalidate(intid)

    @on(GIC_NET.InvAll)
    def _inv_all(self, peer: Peer) -> None:
        self.lpis.invalidate_all()

    @on(GIC_NET.MoveLpi)
    def _move_lpi(self, peer: Peer, intid: int, target: int) -> None:
        self.lpis.move([intid], target)

    @on(GIC_NET.MoveAll)
    def _move_all(self, peer: Peer, target: int) -> None:
        self.lpis.move(sorted(self.lpis.pending), target)

    # -- vPEs ------------------------------------------------------------------------------------------------------------

    @on(GIC_NET.SetVlpi)
    def _set_vlpi(self, peer: Peer, *fields: Any) -> None:
        self.vpes.request("SetVlpi", fields)

    @on(GIC_NET.ClearVlpi)
    def _clear_vlpi(self, peer: Peer, *fields: Any) -> None:
        self.vpes.request("ClearVlpi", fields)

    @on(GIC_NET.InvVlpi)
    def _inv_vlpi(self, peer: Peer, *fields: Any) -> None:
        self.vpes.request("InvVlpi", fields)

    @on(GIC_NET.VInvAll)
    def _vinvall(self, peer: Peer, *fields: Any) -> None:
        self.vpes.request("VInvAll", fields)

    @on(GIC_NET.MoveVlpi)
    def _move_vlpi(self, peer: Peer, *fields: Any) -> None:
        self.vpes.request("MoveVlpi", fields)

    @on(GIC_NET.SetVsgi)
    def _set_vsgi(self, peer: Peer, *fields: Any) -> None:
        self.vpes.request("SetVsgi", fields)

    @on(GIC_NET.CfgVsgi)
    def _cfg_vsgi(self, peer: Peer, *fields: Any) -> None:
        self.vpes.request("CfgVsgi", fields)

    @on(GIC_NET.ClearVsgi)
    def _clear_vsgi(self, peer: Peer, *fields: Any) -> None:
        self.vpes.request("ClearVsgi", fields)

    @on(GIC_NET.QueryVsgi)
    def _query_vsgi(self, peer: Peer, vpeid: int, source: int) -> None:
        vpe = self.vpes.table.get(vpeid)
        if vpe is None:
            self.fault("vpe_errors", "QueryVsgi for a vPE that is not here: nothing is pending", vpeid=vpeid)
        self.net.send(peer, GIC_NET.VsgiState, vpeid, 0 if vpe is None else vpe.sgi.pending)

    @on(GIC_NET.MapVpe)
    def _map_vpe(self, peer: Peer, *fields: Any) -> None:
        self.vpes.map(*fields)

    @on(GIC_NET.UnmapVpe)
    def _unmap_vpe(self, peer: Peer, *fields: Any) -> None:
        self.vpes.request("UnmapVpe", fields)

    @on(GIC_NET.MoveVpe)
    def _move_vpe(self, peer: Peer, *fields: Any) -> None:
        self.vpes.request("MoveVpe", fields)

    @on(GIC_NET.MeetVmovp)
    def _meet_vmovp(self, peer: Peer, vpeid: int, seqnum: int, itslist: int, its_number: int) -> None:
        self.rendezvous.arrive(peer, vpeid, seqnum, itslist, its_number)

    @on(GIC_NET.InvDb)
    def _inv_db(self, peer: Peer, *fields: Any) -> None:
        self.vpes.request("InvDb", fields)

    @on(GIC_NET.Forwarded)
    def _forwarded(self, peer: Peer, source: int, kind: str, fields: tuple[Any, ...]) -> None:
        self.transfer.received(source, kind, tuple(fields))

    # -- synchronisation -------------------------------------------------------------------------------------------------

    @on(GIC_NET.Sync)
    def _sync(self, peer: Peer, tag: int) -> None:
        def ack() -> None:
            self.net.send(peer, GIC_NET.SyncAck, tag)

        self.effects.after(lambda: self.transfers.after(ack))

    @on(GIC_NET.VSync)
    def _vsync(self, peer: Peer, tag: int, vpeid: int) -> None:
        def ack() -> None:
            self.net.send(peer, GIC_NET.VSyncAck, tag, vpeid)

        self.vpes.request("VSync", (vpeid,), lambda: self.transfers.after(ack))
