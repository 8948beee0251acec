"""The virtual ITS: registers and command queue of a guest (sheet 3.3, 3.5, 4; KVM's specifics in 4.4).

A write of GITS_CWRITER processes all commands, read from the guest's queue in one block; a failing command is skipped, counted
and logged. Device and collection tables are the kernel's own; the guest's tables only bound the ids.

Source: Linux arch/arm64/kvm/vgic/vgic-its.c (behaviour); IHI 0069H 5 and 12.18.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from cosim.api import Lock
from nodes.arch.its_commands import COMMAND_SIZE, Command, decode
from nodes.arch.lpi import config_address, config_fields, pending_position
from nodes.hypervisor.kvm.direct import Direct
from nodes.hypervisor.kvm.guest_memory import GuestMemory, Lines, OutOfGuestRam
from nodes.hypervisor.kvm.irq import LPI_BASE, VgicIrq
from nodes.hypervisor.kvm.vgic import Vgic, VgicCpu

CTLR: Final = 0x0000
IIDR: Final = 0x0004
TYPER: Final = 0x0008
CBASER: Final = 0x0080
CWRITER: Final = 0x0088
CREADR: Final = 0x0090
BASER0: Final = 0x0100
BASER1: Final = 0x0108
TRANSLATER: Final = 0x1_0040
SIZE: Final = 0x2_0000

ID_BITS: Final = 16
DEV_BITS: Final = 16
TYPER_VALUE: Final = 1 | 7 << 4 | (ID_BITS - 1) << 8 | (DEV_BITS - 1) << 13
IIDR_VALUE: Final = 0x4B << 24 | 0x43B
_IDS: Final = {
    0xFFE0: 0x92,
    0xFFE4: 0xB4,
    0xFFE8: 0x3B,
    0xFFD0: 0x40,
    0xFFF0: 0x0D,
    0xFFF4: 0xF0,
    0xFFF8: 0x05,
    0xFFFC: 0xB1,
}

ENTRY: Final = 8
PAGE: Final = 0x1_0000
BASER_FIXED: Final = {0: 1 << 56 | (ENTRY - 1) << 48 | 2 << 8, 1: 4 << 56 | (ENTRY - 1) << 48 | 2 << 8}
"""Type, Entry_Size and Page_Size (64 KiB) of GITS_BASER0 (devices) and GITS_BASER1 (collections): read-only here."""
BASER_WRITABLE: Final = 1 << 63 | 1 << 62 | 7 << 59 | 7 << 53 | 0xFFFF_FFFF_F000 | 3 << 10 | 0xFF
VALID: Final = 1 << 63
INDIRECT: Final = 1 << 62


class CommandError(Exception):
    """A command that cannot be carried out; `code` is the syndrome (sheet 4.4)."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} ({code:#08x})")
        self.name = name
        self.code = code


class MsiError(Exception):
    """An MSI that no interrupt belongs to."""


class Collection:
    """Where its interrupts go; `target` None: not mapped (yet)."""

    __slots__ = ("icid", "target")

    def __init__(self, icid: int) -> None:
        self.icid = icid
        self.target: VgicCpu | None = None


class Device:
    """A mapped device: events to (LPI, collection); 2^event_bits events."""

    __slots__ = ("device_id", "event_bits", "events")

    def __init__(self, device_id: int, event_bits: int) -> None:
        self.device_id = device_id
        self.event_bits = event_bits
        self.events: dict[int, Ite] = {}


class Ite:
    """One mapped event."""

    __slots__ = ("collection", "irq")

    def __init__(self, irq: VgicIrq, collection: Collection) -> None:
        self.irq = irq
        self.collection = collection


class VirtualIts:
    """The vITS of a guest at IPA `base`.

    Args:
        base: IPA of the control frame.
        vgic: of the VM.
        memory: the guest's RAM.
        direct: GICv4, or None.
        count: counters of the node.
        log: called as ``log(event, **fields)``.
    """

    def __init__(
        self, base: int, vgic: Vgic, memory: GuestMemory, direct: Direct | None, count: Counter[str],
        log: Callable[..., None],
    ) -> None:  # fmt: skip
        self.base = base
        self.vgic = vgic
        self.memory = memory
        self.direct = direct
        self.count = count
        self.log = log
        self.enabled = False
        self.cbaser = self.cwriter = self.creadr = 0
        self.baser = [0, 0]
        self.devices: dict[int, Device] = {}
        self.collections: dict[int, Collection] = {}
        self._lock = Lock("the virtual ITS")
        self._config = self._pending = Lines(memory)

    @property
    def translater(self) -> int:
        """IPA of GITS_TRANSLATER."""
        return self.base + TRANSLATER

    # -- registers -------------------------------------------------------------------------------------------------

    def _value(self, offset: int) -> int | None:
        values = {
            CTLR: int(self.enabled) | int(self.creadr == self.cwriter) << 31,
            IIDR: IIDR_VALUE,
            TYPER: TYPER_VALUE,
            CBASER: self.cbaser,
            CWRITER: self.cwriter,
            CREADR: self.creadr,
            BASER0: self.baser[0] | BASER_FIXED[0],
            BASER1: self.baser[1] | BASER_FIXED[1],
        }
        return values.get(offset)

    async def read(self, offset: int, size: int) -> int:
        """A guest's read; 32-bit halves of 64-bit registers too."""
        if offset in _IDS:
            return _IDS[offset]
        value = self._value(offset)
        if value is not None:
            return value & ((1 << 8 * size) - 1)
        value = self._value(offset & ~7)
        if value is not None and offset & 7 == 4 and (offset & ~7) != CTLR:
            return value >> 32
        if not BASER0 <= offset < BASER0 + 64:
            self._reserved(offset, "read")
        return 0

    async def write(self, offset: int, size: int, value: int) -> None:
        """A guest's write; one of GITS_CWRITER processes the queue."""
        register = offset & ~7 if offset >= TYPER else offset
        old = self._value(register)
        if offset & 7 == 4 and old is not None and register != offset:
            value = old & 0xFFFF_FFFF | value << 32
        elif size == 4 and old is not None and register != CTLR:
            value |= old & ~0xFFFF_FFFF
        async with self._lock:
            if register == CTLR:
                self.enabled = bool(value & 1)
                await self._process_if_on()
            elif register == CBASER:
                self._write_cbaser(value)
            elif register == CWRITER:
                await self._write_cwriter(value)
            elif register in (BASER0, BASER1):
                await self._write_baser((register - BASER0) // 8, value)
            elif register != TRANSLATER & ~7 and not BASER0 <= register < BASER0 + 64:
                self._reserved(offset, "write")

    def _reserved(self, offset: int, what: str) -> None:
        self.count["vgic_reserved_accesses"] += 1
        self.log("reserved virtual ITS register", offset=f"{offset:#x}", access=what)

    def _write_cbaser(self, value: int) -> None:
        if not self.enabled:
            self.cbaser = value & (VALID | 7 << 59 | 7 << 53 | 0xF_FFFF_FFFF_F000 | 3 << 10 | 0xFF)
            self.creadr = 0

    async def _write_baser(self, index: int, value: int) -> None:
        if self.enabled:
            return
        self.baser[index] = value & BASER_WRITABLE & ~(INDIRECT if index else 0)
        if not value & VALID:
            if index == 0:
                for device in list(self.devices.values()):
                    await self._free_device(device)
            else:
                self.collections.clear()

    async def _write_cwriter(self, value: int) -> None:
        offset = value & 0xF_FFE0
        if offset >= self._queue_size:
            return
        self.cwriter = offset
        await self._process_if_on()

    async def _process_if_on(self) -> None:
        if self.enabled and self.cbaser & VALID and self.creadr != self.cwriter:
            await self._process()

    @property
    def _queue_size(self) -> int:
        return ((self.cbaser & 0xFF) + 1) * 4096

    # -- commands --------------------------------------------------------------------------------------------------

    async def _fetch(self) -> bytes:
        base, start, end = self.cbaser & 0xF_FFFF_FFFF_F000, self.creadr, self.cwriter
        if start <= end:
            return await self.memory.read(base + start, end - start) if end > start else b""
        tail = await self.memory.read(base + start, self._queue_size - start)
        return tail + (await self.memory.read(base, end) if end else b"")

    async def _process(self) -> None:
        try:
            data = await self._fetch()
        except OutOfGuestRam as error:
            self.count["vits_command_errors"] += 1
            self.log("virtual ITS command queue", why=str(error))
            return
        self._config, self._pending = Lines(self.memory), Lines(self.memory)
        for at in range(0, len(data), COMMAND_SIZE):
            command = decode(data[at : at + COMMAND_SIZE])
            self.count["vits_commands"] += 1
            try:
                await self._execute(command)
            except (CommandError, OutOfGuestRam) as error:
                self.count["vits_command_errors"] += 1
                self.log("virtual ITS command skipped", command=command.name, why=str(error), **command.fields)
            self.creadr = (self.creadr + COMMAND_SIZE) % self._queue_size

    async def _execute(self, command: Command) -> None:
        handler = _COMMANDS.get(command.name)
        if handler is None:
            raise CommandError(command.name or f"opcode {command.opcode:#x}", 0x01_0000 | command.opcode << 8)
        await handler(self, command)

    async def _mapd(self, c: Command) -> None:
        if not await self._id_in_table(0, c["device_id"]):
            raise CommandError("MAPD_DEVICE_OOR", 0x010801)
        if c["valid"] and c["size"] + 1 > ID_BITS:
            raise CommandError("MAPD_ITTSIZE_OOR", 0x010802)
        old = self.devices.get(c["device_id"])
        if old is not None:
            await self._free_device(old)
        if c["valid"]:
            self.devices[c["device_id"]] = Device(c["device_id"], c["size"] + 1)

    async def _mapc(self, c: Command) -> None:
        icid = c["icid"]
        if not c["valid"]:
            found = self.collections.pop(icid, None)
            if found is not None:
                found.target = None
            return
        if c["rdbase"] >= len(self.vgic.cpus):
            raise CommandError("MAPC_PROCNUM_OOR", 0x010902)
        if not await self._id_in_table(1, icid):
            raise CommandError("MAPC_COLLECTION_OOR", 0x010903)
        collection = self.collections.setdefault(icid, Collection(icid))
        collection.target = self.vgic.cpus[c["rdbase"]]
        for device in self.devices.values():
            for ite in device.events.values():
                if ite.collection is collection:
                    await self._retarget(ite.irq, collection.target)

    async def _mapti(self, c: Command) -> None:
        code = 0x010B00 if c.name == "MAPI" else 0x010A00
        lpi = c.fields.get("pintid", c["event_id"])
        device = self.devices.get(c["device_id"])
        if device is None:
            raise CommandError(f"{c.name}_UNMAPPED_DEVICE", code | 4)
        if c["event_id"] >> device.event_bits:
            raise CommandError(f"{c.name}_ID_OOR", code | 5)
        if not LPI_BASE <= lpi < 2 << (self.vgic.propbaser & 0x1F):
            raise CommandError(f"{c.name}_PHYSICALID_OOR", code | 6)
        if c["event_id"] in device.events:
            return
        if c["icid"] not in self.collections and not await self._id_in_table(1, c["icid"]):
            raise CommandError(f"{c.name}_COLLECTION_OOR", code | 3)
        collection = self.collections.setdefault(c["icid"], Collection(c["icid"]))
        irq = self.vgic.lpis.get(lpi)
        if irq is None:
            irq = self.vgic.lpis[lpi] = VgicIrq(lpi)
            irq.target = collection.target
            await self._read_config(irq)
            await self._read_pending(irq)
        else:
            irq.target = collection.target
        device.events[c["event_id"]] = Ite(irq, collection)

    def _ite(self, c: Command, code: int) -> tuple[Device, Ite]:
        device = self.devices.get(c["device_id"])
        if device is None:
            raise CommandError(f"{c.name}_UNMAPPED_DEVICE", code | 4)
        if c["event_id"] >> device.event_bits:
            raise CommandError(f"{c.name}_ID_OOR", code | 5)
        ite = device.events.get(c["event_id"])
        if ite is None:
            raise CommandError(f"{c.name}_UNMAPPED_INTERRUPT", code | 7)
        return device, ite

    async def _movi(self, c: Command) -> None:
        _, ite = self._ite(c, 0x010100)
        collection = self.collections.get(c["icid"])
        if collection is None or collection.target is None:
            raise CommandError("MOVI_UNMAPPED_COLLECTION", 0x010109)
        ite.collection = collection
        await self._retarget(ite.irq, collection.target)

    async def _int(self, c: Command) -> None:
        _, ite = self._ite(c, 0x010300)
        if ite.collection.target is None or not ite.collection.target.lpis_enabled:
            return
        if ite.irq.direct and self.direct is not None:
            await self.direct.pend(ite.irq)
        else:
            self.vgic.set_pending(ite.irq)

    async def _clear(self, c: Command) -> None:
        _, ite = self._ite(c, 0x010500)
        ite.irq.pending_latch = False
        if ite.irq.direct and self.direct is not None:
            await self.direct.clear(ite.irq)

    async def _inv(self, c: Command) -> None:
        _, ite = self._ite(c, 0x010C00)
        await self._read_config(ite.irq)

    async def _invall(self, c: Command) -> None:
        collection = self.collections.get(c["icid"])
        if collection is None or collection.target is None:
            raise CommandError("INVALL_UNMAPPED_COLLECTION", 0x010D09)
        for intid in sorted(self.vgic.lpis):
            irq = self.vgic.lpis[intid]
            if irq.target is collection.target:
                await self._read_config(irq)

    async def _movall(self, c: Command) -> None:
        if max(c["rdbase1"], c["rdbase2"]) >= len(self.vgic.cpus):
            raise CommandError("MOVALL_PROCNUM_OOR", 0x010E01)
        source, target = self.vgic.cpus[c["rdbase1"]], self.vgic.cpus[c["rdbase2"]]
        for intid in sorted(self.vgic.lpis):
            irq = self.vgic.lpis[intid]
            if irq.target is source and source is not target:
                await self._retarget(irq, target)

    async def _discard(self, c: Command) -> None:
        device, ite = self._ite(c, 0x010F00)
        del device.events[c["event_id"]]
        await self._free(ite)

    async def _sync(self, c: Command) -> None:
        """Every command is complete when the next begins."""

    # -- their parts -----------------------------------------------------------------------------------------------

    async def _free_device(self, device: Device) -> None:
        self.devices.pop(device.device_id, None)
        events, device.events = device.events, {}
        for event in sorted(events):
            await self._free(events[event])

    async def _free(self, ite: Ite) -> None:
        if ite.irq.direct and self.direct is not None:
            await self.direct.unforward(ite.irq)
        self.vgic.forget(ite.irq)

    async def _retarget(self, irq: VgicIrq, target: VgicCpu | None) -> None:
        if irq.target is target:
            return
        irq.target = target
        if irq.direct and self.direct is not None:
            await self.direct.move(irq)
        elif irq.listed is not None:
            self.vgic.prune(irq.listed)
        else:
            self.vgic.queue(irq)

    async def _read_config(self, irq: VgicIrq) -> None:
        """Priority and enable from the guest's configuration table; then wherever the interrupt lives must know."""
        table = self.vgic.propbaser & 0xF_FFFF_FFFF_F000
        irq.priority, irq.enabled = config_fields(await self._config.byte(config_address(table, irq.intid)))
        if irq.direct and self.direct is not None:
            await self.direct.update(irq)
        else:
            self.vgic.queue(irq)

    async def _read_pending(self, irq: VgicIrq) -> None:
        """A new LPI takes over a pending bit that the guest left in its vCPU's pending table, and clears it there."""
        if irq.target is None or not irq.target.lpis_enabled or not irq.target.pendbaser:
            return
        table = irq.target.pendbaser & 0xF_FFFF_FFFF_0000
        offset, mask = pending_position(irq.intid)
        byte = await self._pending.byte(table + offset)
        if byte & mask:
            self.memory.post(table + offset, bytes([byte & ~mask]))
            self.vgic.set_pending(irq)

    async def load_pending(self, cpu: VgicCpu) -> None:
        """EnableLPIs of a vCPU was set: pending bits of the LPIs that are mapped to it."""
        self._pending = Lines(self.memory)
        for intid in sorted(self.vgic.lpis):
            if self.vgic.lpis[intid].target is cpu:
                await self._read_pending(self.vgic.lpis[intid])
                self.vgic.queue(self.vgic.lpis[intid])

    async def _id_in_table(self, index: int, number: int) -> bool:
        """Whether GITS_BASER<index> has room for an id, as vgic_its_check_id does it."""
        baser = self.baser[index]
        if not baser & VALID:
            return False
        size = ((baser & 0xFF) + 1) * PAGE
        if not baser & INDIRECT:
            return number < size // ENTRY
        per_page = PAGE // ENTRY
        if number // per_page >= size // 8:
            return False
        base = baser & 0xFFFF_FFFF_0000 | (baser >> 12 & 0xF) << 48
        level1 = int.from_bytes(await self.memory.read(base + number // per_page * 8, 8), "little")
        return bool(level1 & VALID)

    # -- MSIs ------------------------------------------------------------------------------------------------------

    def resolve(self, device_id: int, event_id: int) -> VgicIrq:
        """The interrupt of an MSI.

        Raises:
            MsiError: the ITS is off, the device, event or collection is not mapped, or the vCPU takes no LPIs.
        """
        if not self.enabled:
            raise MsiError("the virtual ITS is disabled")
        device = self.devices.get(device_id)
        ite = device.events.get(event_id) if device is not None else None
        if ite is None:
            raise MsiError(f"device {device_id:#x} event {event_id} is not mapped")
        target = ite.collection.target
        if target is None or not target.lpis_enabled:
            raise MsiError(f"device {device_id:#x} event {event_id}: its collection has no vCPU that takes LPIs")
        return ite.irq

    def inject(self, device_id: int, event_id: int) -> None:
        """Software injection of an MSI (vgic_its_inject_msi); raises MsiError."""
        self.vgic.set_pending(self.resolve(device_id, event_id))


_COMMANDS: Final[dict[str, Callable[[VirtualIts, Command], Any]]] = {
    "MAPD": VirtualIts._mapd,
    "MAPC": VirtualIts._mapc,
    "MAPTI": VirtualIts._mapti,
    "MAPI": VirtualIts._mapti,
    "MOVI": VirtualIts._movi,
    "INT": VirtualIts._int,
    "CLEAR": VirtualIts._clear,
    "INV": VirtualIts._inv,
    "INVALL": VirtualIts._invall,
    "MOVALL": VirtualIts._movall,
    "DISCARD": VirtualIts._discard,
    "SYNC": VirtualIts._sync,
}
