"""Steps of the ITS: its registers, commands, MSIs, configuration of LPIs; GICv4.0's vPEs."""

from __future__ import annotations

from tests.differential import layout
from tests.differential.book import (
    EVERY_EVENT,
    NO_DOORBELL,
    PRIORITIES,
    Book,
    Draw,
    View,
    entries,
    pending,
    physical,
    value_of,
    virtual,
)
from tests.differential.layout import CPUS, DEVICES, EVENTS, LPI_BASE, VALID, VPES
from tests.differential.setup import ID_BITS, vmapp
from tests.differential.steps import Action, Command, Msi, Store, Write


class ItsSteps(Book):
    """Commands and what goes with them."""

    def rewind(self, d: Draw, view: View) -> list[Action]:
        """The ITS disabled, its queue put back to the start, the ITS enabled: CREADR follows CBASER, CWRITER does not."""
        if not self._running(view):
            return []
        base = VALID | layout.QUEUE
        write: list[Action] = [Write("GITS_CBASER", base)]
        if d.a % 2:
            write = [Write("GITS_CBASER[31:0]", base & 0xFFFF_FFFF), Write("GITS_CBASER[63:32]", base >> 32)]
        return [Write("GITS_CTLR", 0), *write, Write("GITS_CWRITER", 0), *[Write("GITS_CTLR", 1)] * (d.b % 4 != 3)]

    def invalidate(self, d: Draw, view: View) -> list[Action]:
        """A byte of a mapped interrupt, then INV. Not where the interrupt is also pending on another CPU: INV goes to one."""
        device, event = self._event(d, view)
        entry = view.get(f"event {device}/{event}")
        if not isinstance(entry, tuple) or not self._running(view):
            return []
        byte, intid = PRIORITIES[d.c % len(PRIORITIES)] | 2 | (d.d & 1), int(entry[1])
        command = Command.of("INV", device_id=device, event_id=event)
        if entry[0] == "LPI":
            cpu = view.get(f"collection {entry[3]}")
            if not isinstance(cpu, int) or intid in pending(view, f"lpi.{1 - cpu}") or not self._lpis_everywhere(view):
                return []
            return [Store(layout.CONFIG + intid - LPI_BASE, byte, 1, f"configuration of LPI {intid}"), command]
        vpe = int(entry[3])
        if view[f"vPE {vpe}"] is None:
            return []
        address = layout.VCONFIG + vpe * layout.STEP_64K + intid - LPI_BASE
        return [Store(address, byte, 1, f"configuration of vLPI {intid} of vPE {vpe}"), command]

    def its_ctlr(self, d: Draw, view: View) -> list[Action]:
        """GITS_CTLR.Enabled."""
        return [Write("GITS_CTLR", int(d.a % 3 != 2))]

    def frozen(self, d: Draw, view: View) -> list[Action]:
        """Table registers while they must not change; both sides ignore the write."""
        if view["GITS_CTLR"] != 1 or not d.a % 2:
            return []
        name = ("GITS_BASER0", "GITS_BASER1", "GITS_CBASER")[d.b % 3]
        return [Write(name, VALID | layout.LEVEL1)]

    def configure(self, d: Draw, view: View) -> list[Action]:
        """An LPI's byte, then INVALL on every CPU: until then either configuration may be used (5.1)."""
        collections: dict[int, int] = {}
        for icid in range(layout.COLLECTIONS):
            cpu = view[f"collection {icid}"]
            if isinstance(cpu, int):
                collections.setdefault(cpu, icid)
        if len(collections) != CPUS or not self._running(view):
            return []
        byte = PRIORITIES[d.c % len(PRIORITIES)] | 2 | (d.b & 1 ^ 1)
        intid = LPI_BASE + d.a % 12
        store = Store(layout.CONFIG + intid - LPI_BASE, byte, 1, f"configuration of LPI {intid}")
        return [store, *(Command.of("INVALL", icid=icid) for icid in collections.values())]

    def configure_virtual(self, d: Draw, view: View) -> list[Action]:
        """A vLPI's byte, then VINVALL."""
        vpe = d.d % VPES
        if view[f"vPE {vpe}"] is None or not self._running(view):
            return []
        byte = PRIORITIES[d.c % len(PRIORITIES)] | 2 | (d.b & 1 ^ 1)
        intid = LPI_BASE + d.a % 8
        address = layout.VCONFIG + vpe * layout.STEP_64K + intid - LPI_BASE
        return [
            Store(address, byte, 1, f"configuration of vLPI {intid} of vPE {vpe}"),
            Command.of("VINVALL", vpeid=vpe),
        ]

    def msi(self, d: Draw, view: View) -> list[Action]:
        """An event beyond what was mapped is dropped."""
        if d.d % 4:
            return [Msi(*self._event(d, view))]
        return [Msi(DEVICES[d.a % 3], (d.b % 9) * (1 if d.c % 16 else 700))]

    def event_command(self, d: Draw, view: View) -> list[Action]:
        """INT, CLEAR, INV, DISCARD and the errors that they can meet."""
        name = ("INT", "CLEAR", "INV", "DISCARD")[d.c % 4]
        if d.d // 8 % 4 and self._event(d, view) != (DEVICES[0], EVENTS):
            device, event = self._event(d, view)
            return [Command.of(name, device_id=device, event_id=event)]
        device = (*DEVICES, 0x7000)[d.a % (4 if d.d % 8 == 7 else 3)]
        event = d.b % (EVENTS if d.d % 8 else 64)
        return [Command.of(name, device_id=device, event_id=event)]

    def mapd(self, d: Draw, view: View) -> list[Action]:
        """Map an unmapped device, its table zeroed (5.2.1), or unmap it; or a device or size that does not exist."""
        device, valid = DEVICES[d.a % 3], d.b % 2
        if d.d % 16 == 15:
            return [Command.of("MAPD", device_id=0x7000, size=2, itt=layout.itt(0), valid=valid)]
        if d.d % 16 == 14:
            return [Command.of("MAPD", device_id=device, size=20, itt=layout.itt(device), valid=1)]
        if not self._running(view) or valid == (view[f"device {device}"] is not None):
            return []
        size = (2, 1, 0)[d.c % 3]
        wipe: list[Action] = []
        if valid:
            wipe = [Store(layout.itt(device) + 8 * word, 0, 8, "interrupt translation table") for word in range(12)]
        return [*wipe, Command.of("MAPD", device_id=device, size=size, itt=layout.itt(device), valid=valid)]

    def mapc(self, d: Draw, view: View) -> list[Action]:
        """Map, re-map or unmap a collection; or a CPU or collection that does not exist."""
        icid = d.a % layout.COLLECTIONS
        if d.d % 16 == 15:
            return [Command.of("MAPC", icid=0xFFF0, rdbase=0, valid=1)]
        if d.d % 16 == 14:
            return [Command.of("MAPC", icid=icid, rdbase=CPUS + 1, valid=1)]
        return [Command.of("MAPC", icid=icid, rdbase=d.b % CPUS, valid=0 if d.c % 4 == 3 else 1)]

    def mapti(self, d: Draw, view: View) -> list[Action]:
        """An event that is not mapped to an LPI that no other event has (5.3.x: else UNPREDICTABLE)."""
        device, event = DEVICES[d.a % 3], d.b % EVENTS
        intid = LPI_BASE + d.c % 8
        icid = d.d % layout.COLLECTIONS
        if d.d % 32 == 31:
            intid = (3, 1 << 20)[d.c % 2]
        elif d.d % 32 == 30:
            if value_of(view, "GITS_BASER1") & layout.INDIRECT:
                return []  # accepted difference: a level 1 entry that is invalid
            icid = 0xFFF0
        elif d.d % 32 == 29:
            return [Command.of("MAPI", device_id=device, event_id=event, icid=icid)]
        if not self._free(view, device, event) or any(physical(entry) == intid for entry in entries(view)):
            return []
        return [Command.of("MAPTI", device_id=device, event_id=event, pintid=intid, icid=icid)]

    def movi(self, d: Draw, view: View) -> list[Action]:
        """MOVI; also to unmapped collections, which fails."""
        icid = d.c % layout.COLLECTIONS if d.d % 16 else 0xFFF0
        if not self._lpis_everywhere(view):
            return []
        device, event = self._event(d, view) if d.d % 4 else (DEVICES[d.a % 3], d.b % EVENTS)
        return [Command.of("MOVI", device_id=device, event_id=event, icid=icid)]

    def movall(self, d: Draw, view: View) -> list[Action]:
        """MOVALL between CPUs, or to one that does not exist."""
        if not self._lpis_everywhere(view):
            return []
        return [Command.of("MOVALL", rdbase1=d.a % CPUS, rdbase2=d.b % CPUS if d.c % 16 else CPUS + 1)]

    def invall(self, d: Draw, view: View) -> list[Action]:
        """INVALL, SYNC."""
        if d.b % 2:
            return [Command.of("SYNC", rdbase=d.a % CPUS)]
        return [Command.of("INVALL", icid=d.a % layout.COLLECTIONS)]


class VpeSteps(Book):
    """Only with GICv4.0."""

    def vmapp(self, d: Draw, view: View) -> list[Action]:
        """Map a vPE, or unmap it when it is not resident and no event leads to it (5.3.x)."""
        vpe, cpu = d.a % VPES, d.b % CPUS
        if d.d % 16 == 15:
            return [vmapp(vpe, CPUS + 1, 1)] if view[f"vPE {vpe}"] is None else []
        if not self._running(view):
            return []
        if view[f"vPE {vpe}"] is None:
            return [vmapp(vpe, cpu, 1)]
        if self._resident(view, vpe) or any(virtual(entry)[1] == vpe for entry in entries(view)):
            return []
        return [vmapp(vpe, cpu, 0)]

    def vmapti(self, d: Draw, view: View) -> list[Action]:
        """An unmapped event to a vLPI that no other event of the vPE has; every third without a doorbell."""
        device, event = DEVICES[d.a % 3], d.b % EVENTS
        intid, vpe = LPI_BASE + d.c % 8, d.d % VPES
        doorbell = NO_DOORBELL if d.d % 3 == 2 else LPI_BASE + 8 + d.d // 4 % 4
        if d.d % 32 == 31:
            intid = (3, 1 << 20)[d.c % 2]
        elif d.d % 32 == 30:
            doorbell = 77
        if not self._free(view, device, event) or view[f"vPE {vpe}"] is None:
            return []
        if any(virtual(entry) == (intid, vpe) for entry in entries(view)):
            return []
        return [Command.of("VMAPTI", device_id=device, event_id=event, vpeid=vpe, vintid=intid, doorbell=doorbell)]

    def vmovi(self, d: Draw, view: View) -> list[Action]:
        """VMOVI to a mapped vPE, with or without a new doorbell."""
        found = [(dev, ev) for dev, ev in EVERY_EVENT if virtual(view[f"event {dev}/{ev}"])[1] is not None]
        if not found:
            return []
        (device, event), vpe = found[d.a % len(found)], d.c % VPES
        intid, old = virtual(view[f"event {device}/{event}"])
        clash = any(virtual(entry) == (intid, vpe) for entry in entries(view))
        if not self._running(view) or old is None or vpe == old or clash or view[f"vPE {vpe}"] is None:
            return []
        if view[f"vPE {old}"] is None:
            return []
        fields = {"device_id": device, "event_id": event, "vpeid": vpe}
        return [Command.of("VMOVI", **fields, d=d.d % 2, doorbell=LPI_BASE + 8 + d.d // 2 % 4)]

    def vmovp(self, d: Draw, view: View) -> list[Action]:
        """VMOVP of a vPE that is not resident; or to a CPU that does not exist."""
        vpe = d.a % VPES
        if not self._running(view) or view[f"vPE {vpe}"] is None or self._resident(view, vpe):
            return []
        return [Command.of("VMOVP", vpeid=vpe, rdbase=d.b % CPUS if d.d % 16 else CPUS + 1)]

    def vsync(self, d: Draw, view: View) -> list[Action]:
        """VSYNC, VINVALL of a mapped vPE."""
        vpe = d.a % VPES
        if view[f"vPE {vpe}"] is None or not self._running(view):
            return []
        return [Command.of(("VINVALL", "VSYNC")[d.b % 2], vpeid=vpe)]

    def schedule(self, d: Draw, view: View) -> list[Action]:
        """Make a mapped vPE resident at its home, or end the residency; nothing else is allowed on GICv4.0."""
        vpe, cpu = d.a % VPES, d.b % CPUS
        pend = value_of(view, f"GICR_VPENDBASER.{cpu}")
        if pend & VALID:
            return [Write("GICR_VPENDBASER", pend & ~VALID, cpu)]
        entry = view[f"vPE {vpe}"]
        if not isinstance(entry, tuple) or entry[1] != cpu or self._resident(view, vpe):
            return []
        return [
            Write("GICR_VPROPBASER", layout.VCONFIG + vpe * layout.STEP_64K | ID_BITS - 1, cpu),
            Write("GICR_VPENDBASER", VALID | layout.VPENDING + vpe * layout.STEP_64K, cpu),
        ]
