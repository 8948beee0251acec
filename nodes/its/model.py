"""Interrupt Translation Service: GITS registers, command queue, translation (IHI 0069H chapters 5 and 12).

Its three frames are one target of 256 KiB: control 0, translation 0x10000, vSGI 0x20000. Everything that matters is in
simulated memory: the commands, and the tables behind GITS_BASER<n>. It speaks to redistributors by gic_net only.
"""

from __future__ import annotations

from typing import Any

from cosim.api import Bank, Channel, MmioInitiator, MmioTarget, Node, Peer, Reg, Wire, on
from nodes.arch.gic_net import GIC_NET
from nodes.arch.idregs import pidr2
from nodes.arch.msi import MSI
from nodes.its.commands import Commands
from nodes.its.config import read_config
from nodes.its.mappings import Cause, Mappings
from nodes.its.net import Net
from nodes.its.queue import CommandQueue
from nodes.its.regs import BASER_COLLECTIONS, BASER_DEVICES, GITS
from nodes.its.translate import Event, Msi, Sgir, Translator
from nodes.its.unmapped import UMSI_IRQ, Unmapped

BASER_VPES = 0x0207_0000_0000_0000
"""GITS_BASER2 at reset: Type 2 (vPEs), entries of 8 bytes, as GICR_VPROPBASER.Entry_Size says of the same table."""

ENABLED, IMDE, ITS_NUMBER, QUIESCENT = 1 << 0, 1 << 1, 0xF << 4, 1 << 31
_PAGE_SIZE = 3 << 8


class Its(Node):
    """One ITS. Parameters: `gic_version`, `device_bits`, `event_bits`, `collection_bits`, `vpe_bits`, `id_bits`,
    `command_error` ("skip" | "stall"), `index` (GITS_CTLR.ITS_Number, where VMOVP needs it), `vmovp` (GITS_TYPER.VMOVP), `svpet`,
    `affinity` (GITS_MPIDR), `umsi`, `umsi_intid`, `command_ps` (2 ns, assumed), `quiescent_ps` (20 ns, assumed).

    Counters: `msi_translated` (MSIs that became an LPI or vLPI), `msi_dropped`, `sgir_writes`, `sgir_dropped`, `commands`,
    `command_errors`, `events_remapped` (MAPTI of an event not discarded), `queue_errors`, `table_faults`, `ignored_writes`,
    `unmodelled_accesses`, `reserved_accesses`, `unexpected_acks`.
    """

    kind = "its"
    parameters = {
        "index": range(0, 16),
        "pes": int,
        "gic_version": ("3", "4.0", "4.1"),
        "device_bits": range(1, 33),
        "event_bits": range(1, 33),
        "collection_bits": range(1, 17),
        "vpe_bits": range(1, 17),
        "id_bits": range(14, 24),
        "command_error": ("skip", "stall"),
        "vmovp": bool,
        "svpet": range(0, 4),
        "umsi": bool,
        "umsi_intid": range(0, 1020),
        "affinity": range(1 << 32),
        "affinities": list,
        "command_ps": int,
        "quiescent_ps": int,
    }
    counters = ("commands", "command_errors", "msi_translated", "msi_dropped", "sgir_writes")
    regs = MmioTarget("control, translation and vSGI frames")
    net = Channel(GIC_NET, "to every redistributor")
    bus = MmioInitiator("command queue and tables in memory")
    msi = Channel(MSI, "from SMMUs")
    irq = Wire("to the distributor's SPIs: unmapped MSIs; line = INTID")

    def setup(self) -> None:
        self.config = config = read_config(self.name, self.params)
        self.gic_net = Net(self.net, self._unexpected_ack)
        self.mappings = Mappings(config, self, self.bus)
        self.bank = bank = Bank(GITS, on_reserved=self._reserved, on_unmodelled=self._unmodelled)
        self.events = Translator(self.mappings, self.gic_net, self._enabled, self._event_done, self._event_dropped)
        self.unmapped = Unmapped(bank, self._drive_umsi) if config.umsi else None
        number = lambda: bank.field("GITS_CTLR", "ITS_Number")  # noqa: E731
        commands = Commands(config, self.mappings, self.gic_net, self._remapped, number)
        self.queue = CommandQueue(
            config,
            bank,
            self.bus,
            self.mappings,
            commands,
            self.gic_net,
            self.events,
            self._report,
            self._command_done,
            lambda: self.sleep(config.command_ps),
        )
        self._stopping = 0  # disabled less than `quiescent_ps` ago
        self._configure(bank)
        bank.on_read("GITS_CTLR", self._read_ctlr)
        bank.on_write("GITS_CTLR", self._write_ctlr)
        bank.on_write("GITS_CBASER", self._write_cbaser)
        bank.on_write("GITS_BASER", self._write_baser)
        bank.on_write("GITS_TRANSLATER", self._write_translater)
        if config.v41:
            bank.on_write("GITS_SGIR", self._write_sgir)
        else:
            bank.absent("GITS_SGIR")
        self.regs.serve_bank(bank)

    def start(self) -> None:
        self.spawn(self.queue.run(), "commands", daemon=True)
        self.spawn(self.events.run(), "events", daemon=True)

    def _configure(self, bank: Bank) -> None:
        config = self.config
        bank.configure("GITS_TYPER", config.typer)
        bank.configure("GITS_IIDR", config.iidr)
        bank.configure("GITS_MPIDR", config.affinity & 0xFFFF_FF00)
        if config.meets:
            bank.configure("GITS_CTLR", QUIESCENT | config.index << 4)
        bank.configure("GITS_PIDR2", pidr2(4 if config.virtual else 3))
        basers = [BASER_DEVICES, BASER_COLLECTIONS] + ([BASER_VPES] if config.virtual else [])
        for number, value in enumerate(basers):
            bank.configure("GITS_BASER", value, number)
        self._basers = len(basers)

    # -- state that registers show -------------------------------------------------------------------------------------

    def _enabled(self) -> bool:
        return bool(self.bank.field("GITS_CTLR", "Enabled"))

    def _quiescent(self) -> bool:
        busy = self.queue.busy or self._stopping or not self.events.idle or self.bus.outstanding
        return not (self._enabled() or busy)

    def _read_ctlr(self, index: int) -> int:
        return self.bank["GITS_CTLR"] & ~QUIESCENT | (QUIESCENT if self._quiescent() else 0)

    # -- writes to registers -------------------------------------------------------------------------------------------

    def _write_ctlr(self, index: int, old: int, new: int, mask: int) -> None:
        writable = ENABLED | IMDE
        writable |= ITS_NUMBER if self.config.meets else 0
        writable |= UMSI_IRQ if self.config.umsi_intid else 0
        self.bank["GITS_CTLR"] = new & (writable | QUIESCENT)
        if old & ~new & ENABLED:
            self.mappings.drop()
            self._stopping += 1
            self.after(self.config.quiescent_ps, self._stopped)
        if self.unmapped is not None:
            self.unmapped.update()
        self.queue.wake()

    def _stopped(self) -> None:
        self._stopping -= 1

    def _drive_umsi(self, level: int) -> None:
        if self.irq.peers and self.config.umsi_intid:
            self.irq.drive(self.config.umsi_intid, level)

    def _write_cbaser(self, index: int, old: int, new: int, mask: int) -> None:
        if self._refuse("GITS_CBASER"):
            self.bank["GITS_CBASER"] = old
        else:
            self.queue.restart()

    def _write_baser(self, index: int, old: int, new: int, mask: int) -> None:
        bank = self.bank
        if index >= self._basers:
            bank.set_at("GITS_BASER", index, 0)
        elif self._refuse(f"GITS_BASER{index}"):
            bank.set_at("GITS_BASER", index, old)
        else:
            if new & _PAGE_SIZE == _PAGE_SIZE:  # reserved, means 64 KB
                new &= ~(1 << 8)
                bank.set_at("GITS_BASER", index, new)
            self.mappings.configure(index, new)

    def _refuse(self, register: str) -> bool:
        """Whether a table or queue may not be changed now: UNPREDICTABLE, and here the write is ignored."""
        if self._quiescent():
            return False
        self._report("ignored_writes", "GITS_CTLR must be disabled and quiescent for this write", register=register)
        return True

    def _write_translater(self, index: int, old: int, new: int, mask: int) -> None:
        self._report("msi_dropped", "GITS_TRANSLATER must be written by a device behind an SMMU", event_id=f"{new:#x}")

    def _write_sgir(self, index: int, old: int, new: int, mask: int) -> None:
        self.count["sgir_writes"] += 1
        self.events.submit(Sgir(new >> 32 & 0xFFFF, new & 0xF))

    # -- messages ------------------------------------------------------------------------------------------------------

    @on(MSI.Msi)
    def _msi(self, peer: Peer, device_id: int, event_id: int) -> None:
        ranges = peer.attributes.get("device_ids", [])
        if any(first <= device_id <= last for first, last in ranges):
            self.events.submit(Msi(device_id, event_id))
        else:
            why = f"DeviceID must be in {ranges} on the link from {peer!r}"
            self._event_dropped(Msi(device_id, event_id), why)

    @on(GIC_NET.SyncAck)
    def _sync_ack(self, peer: Peer, tag: int) -> None:
        self.gic_net.acknowledge(peer, tag)

    @on(GIC_NET.VmovpMet)
    def _vmovp_met(self, peer: Peer, vpeid: int, seqnum: int) -> None:
        self.gic_net.met(peer, vpeid, seqnum)

    @on(GIC_NET.VSyncAck)
    def _vsync_ack(self, peer: Peer, tag: int, vpeid: int) -> None:
        self.gic_net.acknowledge(peer, tag)

    # -- counters and log ----------------------------------------------------------------------------------------------

    def _report(self, counter: str, text: str, **fields: Any) -> None:
        self.count[counter] += 1
        self.log(text, **fields)

    def _event_done(self, event: Event) -> None:
        if isinstance(event, Msi):
            self.count["msi_translated"] += 1

    def _event_dropped(self, event: Event, why: str, cause: Cause | None = None) -> None:
        if isinstance(event, Msi):
            if self.unmapped is not None and cause is not None:
                self.unmapped.record(event.device_id, event.event_id, cause)
            self._report(
                "msi_dropped",
                "MSI dropped",
                device_id=f"{event.device_id:#x}",
                event_id=f"{event.event_id:#x}",
                why=why,
            )
        else:
            self._report("sgir_dropped", "GITS_SGIR write dropped", vpeid=f"{event.vpeid:#x}", sgi=event.sgi, why=why)

    def _command_done(self) -> None:
        self.count["commands"] += 1

    def _remapped(self, device_id: int, event_id: int) -> None:
        self._report(
            "events_remapped",
            "an event must be discarded before it is mapped again",
            device_id=f"{device_id:#x}",
            event_id=f"{event_id:#x}",
        )

    def _unexpected_ack(self, peer: str, tag: int) -> None:
        self._report("unexpected_acks", "an acknowledge must answer a Sync or VSync of this ITS", peer=peer, tag=tag)

    def _reserved(self, offset: int, op: str) -> None:
        self._report("reserved_accesses", "no register there", offset=f"{offset:#x}", access=op)

    def _unmodelled(self, reg: Reg, index: int, op: str) -> None:
        self._report("unmodelled_accesses", "register is not modelled", register=reg.name, access=op)
