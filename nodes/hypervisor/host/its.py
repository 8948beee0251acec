"""The ITS driver (Linux irq-gic-v3-its.c): tables, command queue, collections, devices and their events.

Differences from Linux, on purpose: the commands of one operation go out together, with one SYNC or VSYNC for each target and
one wait; the collection table is one page, as there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from cosim.api import ModelError
from nodes.hypervisor.host import regs
from nodes.hypervisor.host.access import poll, read_all
from nodes.hypervisor.host.queue import CommandQueue, Commands
from nodes.hypervisor.host.regs import field
from nodes.hypervisor.host.tables import L1_ENTRY, HardwareTable

if TYPE_CHECKING:
    from nodes.hypervisor.host.cpu import HostCpu
    from nodes.hypervisor.host.gicv4 import Vpe
    from nodes.hypervisor.host.host import Host

PAGE_64K = 0x1_0000
PAGE_SIZE_64K = 2
ITT_ALIGN = 256

TABLE_NAMES = {
    regs.BASER_TYPE_DEVICES: "Devices",
    regs.BASER_TYPE_VPES: "Virtual CPUs",
    regs.BASER_TYPE_COLLECTIONS: "Interrupt Collections",
}


class Baser(NamedTuple):
    """What GITS_BASER<n> showed: its number, Type, entry size in bytes, and whether two levels may be used."""

    number: int
    type: int
    entry_size: int
    indirect: bool


class EventRoute:
    """Where an event goes: host LPI `lpi` on collection `cpu`, or, with `vpe` set, vLPI `vintid` of that vPE."""

    def __init__(self, lpi: int, cpu: HostCpu) -> None:
        self.lpi = lpi
        self.cpu = cpu
        self.vpe: Vpe | None = None
        self.vintid = 0


class ItsDriver:
    """One ITS: `base` (physical), `index`, identification after `probe`."""

    def __init__(self, host: Host, index: int, base: int) -> None:
        self.host = host
        self.index = index
        self.base = base
        self.name = f"ITS@{base:#018x}"
        self.typer = 0
        self.mpidr = 0
        self.tables: dict[int, HardwareTable] = {}
        self.baser_values: dict[int, int] = {}
        self._basers: list[Baser] = []
        self._ctlr = 0
        self.queue = CommandQueue(host, self.name, base)
        self.devices: dict[int, ItsDevice] = {}

    def __repr__(self) -> str:
        return f"its{self.index}"

    # -- identification ------------------------------------------------------------------------------------------------

    @property
    def is_v4(self) -> bool:
        """GITS_TYPER.Virtual."""
        return bool(field(self.typer, 1, 1))

    @property
    def is_v4_1(self) -> bool:
        """GITS_TYPER.VMAPP: the GICv4.1 layouts."""
        return bool(field(self.typer, 40, 40))

    @property
    def single_vmovp(self) -> bool:
        """GITS_TYPER.VMOVP: VMOVP goes to one ITS only."""
        return bool(field(self.typer, 37, 37))

    @property
    def svpet(self) -> int:
        """GITS_TYPER.SVPET: by which affinity levels the vPE table is shared with Redistributors; 0 not."""
        return field(self.typer, 42, 41)

    @property
    def device_bits(self) -> int:
        """DeviceID bits."""
        return field(self.typer, 17, 13) + 1

    @property
    def event_bits(self) -> int:
        """EventID bits."""
        return field(self.typer, 12, 8) + 1

    @property
    def ite_size(self) -> int:
        """Bytes of an interrupt translation entry."""
        return field(self.typer, 7, 4) + 1

    @property
    def translater(self) -> int:
        """Physical address of GITS_TRANSLATER."""
        return self.base + regs.GITS_TRANSLATER

    def rdbase(self, cpu: HostCpu) -> int:
        """How commands name a CPU's Redistributor (GITS_TYPER.PTA)."""
        return cpu.rd_base >> 16 if field(self.typer, 19, 19) else cpu.processor_number

    # -- bring-up ------------------------------------------------------------------------------------------------------

    async def probe(self) -> None:
        """Quiesce, identify, and learn which tables the ITS wants."""
        bus, base = self.host.bus, self.base
        reads = [(base + regs.GITS_CTLR, 4), (base + regs.GITS_TYPER, 8), (base + regs.GITS_MPIDR, 4)]
        reads += [(base + regs.GITS_BASER + 8 * n, 8) for n in range(8)]
        ctlr, self.typer, self.mpidr, *basers = await read_all(bus, reads)
        if ctlr & regs.ITS_ENABLED:
            bus.post32(base + regs.GITS_CTLR, ctlr & ~regs.ITS_ENABLED)
            what = f"{self.name} quiescent after it was disabled"
            await poll(
                self.host.node, bus, base + regs.GITS_CTLR, 4, lambda value: bool(value & regs.ITS_QUIESCENT), what
            )
        self._ctlr = ctlr & ~(regs.ITS_ENABLED | regs.ITS_QUIESCENT)
        if not field(self.typer, 0, 0):
            raise ModelError(f"{self.name} must support physical LPIs (GITS_TYPER = {self.typer:#x})")
        wanted = [n for n, value in enumerate(basers) if field(value, 58, 56)]
        for n in wanted:
            ask = regs.BASER_ATTRIBUTES | regs.BASER_INDIRECT | PAGE_SIZE_64K << 8
            bus.post64(base + regs.GITS_BASER + 8 * n, ask)
        got = await read_all(bus, [(base + regs.GITS_BASER + 8 * n, 8) for n in wanted])
        self._basers = [
            Baser(n, field(value, 58, 56), field(value, 52, 48) + 1, bool(value & regs.BASER_INDIRECT))
            for n, value in zip(wanted, got, strict=True)
        ]

    def _id_bits(self, kind: int) -> int:
        if kind == regs.BASER_TYPE_DEVICES:
            return self.device_bits
        if kind == regs.BASER_TYPE_VPES:
            return self.host.vpe_bits
        return 0

    def _table(self, baser: Baser) -> HardwareTable:
        if baser.type == regs.BASER_TYPE_VPES and self.is_v4_1 and self.svpet:
            return self.host.shared_vpe_table(self.vpe_affinity, baser.entry_size, indirect=baser.indirect)
        bits = self._id_bits(baser.type)
        indirect = baser.indirect and HardwareTable.wants_indirect(baser.entry_size, PAGE_64K, bits)
        owner = f"its{self.index} {TABLE_NAMES.get(baser.type, str(baser.type))}"
        return HardwareTable(
            self.host.bus, self.host.memory, baser.entry_size, PAGE_64K, bits, indirect=indirect, owner=owner
        )

    @property
    def vpe_affinity(self) -> int:
        """The affinity fields that ITSs and Redistributors sharing a vPE table have in common (sheet 5.3)."""
        aff = (self.mpidr >> 24 & 0xFF) << 24 | (self.mpidr >> 16 & 0xFF) << 16 | (self.mpidr >> 8 & 0xFF) << 8
        return aff & ~(0xFFFF_FFFF >> (8 * self.svpet)) & 0xFFFF_FFFF

    async def enable(self) -> None:
        """Give the ITS its tables and its command queue, and enable it."""
        bus, base = self.host.bus, self.base
        for baser in self._basers:
            table = self.tables[baser.type] = self._table(baser)
            value = regs.BASER_VALID | regs.BASER_ATTRIBUTES | PAGE_SIZE_64K << 8 | (table.pages - 1) | table.base
            value |= regs.BASER_INDIRECT if table.indirect else 0
            self.baser_values[baser.type] = value
            bus.post64(base + regs.GITS_BASER + 8 * baser.number, value)
        bus.post64(base + regs.GITS_CBASER, self.queue.cbaser)
        bus.post64(base + regs.GITS_CWRITER, 0)
        reads = [(base + regs.GITS_BASER + 8 * b.number, 8) for b in self._basers] + [(base + regs.GITS_CBASER, 8)]
        await bus.dsb()
        *got, cbaser = await read_all(bus, reads)
        for baser, value in zip(self._basers, got, strict=True):
            self._check(f"GITS_BASER{baser.number}", value, self.baser_values[baser.type])
        self._check("GITS_CBASER", cbaser, self.queue.cbaser)
        await bus.write32(base + regs.GITS_CTLR, self._ctlr | regs.ITS_ENABLED)
        self._report()

    def _check(self, name: str, got: int, wanted: int) -> None:
        mask = regs.BASER_VALID | 0x0000_FFFF_FFFF_F0FF
        if got & mask != wanted & mask:
            raise ModelError(f"{self.name}: {name} must keep {wanted:#x}; it reads {got:#x}")

    def _report(self) -> None:
        host = self.host
        for baser in self._basers:
            table = self.tables[baser.type]
            shape = "indirect" if table.indirect else "flat"
            entries = table.pages * PAGE_64K // (L1_ENTRY if table.indirect else table.entry_size)
            host.printk(
                f"{self.name}: allocated {entries} {TABLE_NAMES.get(baser.type, 'entries')} @{table.base:x} "
                f"({shape}, esz {baser.entry_size}, psz 64K, shr 1)"
            )
        if self.is_v4_1:
            host.printk(f"{self.name}: Using GICv4.1 mode {self.mpidr:08x} {self.svpet:08x}")
        if self.is_v4 and self.single_vmovp:
            host.printk(f"{self.name}: Single VMOVP capable")

    async def map_collections(self, cpus: Sequence[HostCpu]) -> None:
        """MAPC every CPU's collection (ICID is the CPU's index), and INVALL it."""
        commands: list[tuple[str, dict[str, int]]] = [
            ("MAPC", {"icid": cpu.index, "rdbase": self.rdbase(cpu), "valid": 1}) for cpu in cpus
        ]
        commands += [("INVALL", {"icid": cpu.index}) for cpu in cpus]
        await self.run(commands, sync=[self.rdbase(cpu) for cpu in cpus])

    async def disable(self) -> None:
        """Stop the ITS and wait until it is quiescent."""
        base = self.base + regs.GITS_CTLR
        self.host.bus.post32(base, self._ctlr)
        what = f"{self.name} quiescent after it was disabled"
        await poll(self.host.node, self.host.bus, base, 4, lambda value: bool(value & regs.ITS_QUIESCENT), what)

    # -- commands ------------------------------------------------------------------------------------------------------

    async def run(self, commands: Commands, *, sync: Iterable[int] = (), vsync: Iterable[int] = ()) -> None:
        """Run the commands of one operation; see `CommandQueue.run`. `sync` has RDbases, `vsync` vPEIDs."""
        await self.queue.run(commands, sync=sync, vsync=vsync)

    def device(self, device_id: int, nvecs: int) -> ItsDevice:
        """A new device with at least `nvecs` events (a power of two, 2 or more).

        Raises:
            ModelError: the DeviceID has one, or is out of the ITS's range.
        """
        if device_id in self.devices or device_id >> self.device_bits:
            raise ModelError(
                f"DeviceID must be new and have {self.device_bits} bits at {self.name}, not {device_id:#x} "
                f"(known: {', '.join(map(hex, self.devices)) or 'none'})"
            )
        device = ItsDevice(self, device_id, nvecs)
        self.devices[device_id] = device
        return device


class ItsDevice:
    """A DeviceID with its interrupt translation table; event k has host LPI ``lpi_base + k``."""

    def __init__(self, its: ItsDriver, device_id: int, nvecs: int) -> None:
        self.its = its
        self.host = its.host
        self.device_id = device_id
        self.events = 1 << max(nvecs - 1, 1).bit_length()
        self.itt = 0
        self.lpi_base = 0
        self.routes: dict[int, EventRoute] = {}

    async def create(self) -> None:
        """Allocate the ITT and the LPIs, and MAPD (no SYNC belongs to it)."""
        self.its.tables[regs.BASER_TYPE_DEVICES].ensure(self.device_id)
        self.itt = self.host.memory.alloc(self.events * self.its.ite_size, ITT_ALIGN, f"itt {self.device_id:#x}")
        self.lpi_base = self.host.lpis.alloc(self.events)
        fields = {"device_id": self.device_id, "size": (self.events - 1).bit_length() - 1, "itt": self.itt, "valid": 1}
        await self.its.run([("MAPD", fields)])

    async def destroy(self) -> None:
        """DISCARD what is mapped, MAPD V=0, and free the ITT and the LPIs."""
        mapped = sorted(self.routes)
        commands: list[tuple[str, dict[str, int]]] = [("DISCARD", self._event(event)) for event in mapped]
        commands.append(("MAPD", {"device_id": self.device_id, "valid": 0}))
        await self.its.run(commands, sync=self._rds(mapped), vsync=self._vpes(mapped))
        self.routes.clear()
        self.host.lpis.configure_run(self.lpi_base, self.events, enable=False)
        self.host.lpis.free(self.lpi_base, self.events)
        self.host.memory.free(self.itt)
        del self.its.devices[self.device_id]

    def lpi(self, event: int) -> int:
        """Host LPI of an event."""
        return self.lpi_base + event

    def _event(self, event: int) -> dict[str, int]:
        return {"device_id": self.device_id, "event_id": event}

    def _rds(self, events: Iterable[int]) -> list[int]:
        return [self.its.rdbase(self.routes[e].cpu) for e in events if self.routes[e].vpe is None]

    def _vpes(self, events: Iterable[int]) -> list[int]:
        return [vpe.vpeid for e in events if (vpe := self.routes[e].vpe) is not None]

    async def map_events(self, events: Iterable[int], cpu: HostCpu) -> None:
        """Enable the host LPIs of events and route them to a CPU: one run of MAPTI and INV, one SYNC."""
        events = list(events)
        commands: list[tuple[str, dict[str, int]]] = []
        for event in events:
            lpi = self.lpi(event)
            self.host.lpis.configure(lpi, enable=True)
            self.routes[event] = EventRoute(lpi, cpu)
            commands.append(("MAPTI", {**self._event(event), "pintid": lpi, "icid": cpu.index}))
        commands += [("INV", self._event(event)) for event in events]
        await self.its.run(commands, sync=self._rds(events))

    async def unmap_events(self, events: Iterable[int]) -> None:
        """Disable and DISCARD events that go to the host or to a guest."""
        events = [event for event in events if event in self.routes]
        if not events:
            return
        rds, vpes = self._rds(events), self._vpes(events)
        for event in events:
            self.host.lpis.configure(self.lpi(event), enable=False)
        await self.its.run([("DISCARD", self._event(event)) for event in events], sync=rds, vsync=vpes)
        for event in events:
            del self.routes[event]

    async def move_event(self, event: int, cpu: HostCpu) -> None:
        """MOVI an event's host LPI to another CPU's collection (irq_set_affinity)."""
        route = self.routes[event]
        old, route.cpu = route.cpu, cpu
        command = ("MOVI", {**self._event(event), "icid": cpu.index})
        await self.its.run([command], sync=[self.its.rdbase(old), self.its.rdbase(cpu)])

    async def trigger(self, event: int) -> None:
        """INT: make the event pending as if the device had sent it."""
        await self._single("INT", event)

    async def clear(self, event: int) -> None:
        """CLEAR the pending state of the event's interrupt."""
        await self._single("CLEAR", event)

    async def discard(self, event: int) -> None:
        """DISCARD, without telling anybody: the driver still believes that the event is mapped."""
        await self._single("DISCARD", event)

    async def _single(self, name: str, event: int) -> None:
        await self.its.run([(name, self._event(event))], sync=self._rds([event]), vsync=self._vpes([event]))
