"""From what hypothesis draws to steps that software may take.

A draw is a kind and four small numbers. `Author` turns it into a step with the machine's state at hand (ours, which the
oracle's must equal): it fills in what software would know, such as the INTID that was acknowledged, and drops what the
architecture leaves UNPREDICTABLE, for then there is nothing to compare. Each rule says which section it rests on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from tests.differential import layout
from tests.differential.layout import CPUS, DEVICES, EVENTS, LPI_BASE, VALID, VPES
from tests.differential.setup import ID_BITS, vmapp
from tests.differential.steps import Action, Command, Line, Mrs, Msi, Msr, Step, Store, Write

View = dict[str, object]

PRIORITIES = (0xA0, 0x00, 0x10, 0x40, 0x80, 0x88, 0xA8, 0xC0, 0xF0, 0xF8)
PRIVATE = (0, 1, 2, 3, 25, 27, 30)
"""SGIs and PPIs that programs touch; 25 is the maintenance interrupt."""
SPURIOUS = 1020
EVERY_EVENT = [(device, event) for device in DEVICES for event in range(EVENTS)]
NO_DOORBELL = 1023


class Draw(NamedTuple):
    """What hypothesis makes: a kind of step and numbers that the kind reads as it likes."""

    kind: str
    a: int
    b: int
    c: int
    d: int


def mask_of(number: int, intids: tuple[int, ...]) -> int:
    """Bits of `number` as a set of INTIDs, as a register has them."""
    return sum(1 << intid for n, intid in enumerate(intids) if number >> n & 1)


def priorities(number: int) -> int:
    """Four priority bytes."""
    size = len(PRIORITIES)
    return sum(PRIORITIES[number // size**n % size] << 8 * n for n in range(4))


class Author:
    """Makes steps for one machine; remembers what each CPU acknowledged."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.acked: dict[tuple[int, int], list[tuple[int, int]]] = {}
        self.dropped: dict[tuple[int, int], list[int]] = {}
        self.queue_full = 0

    def step(self, draw: Draw, view: View) -> Step:
        """The step, or () if it may not be taken now."""
        return tuple(KINDS[draw.kind](self, draw, view))

    def done(self, step: Step, result: int) -> None:
        """Note what a step gave."""
        last = step[-1]
        if (
            isinstance(last, Mrs)
            and "_IAR" in last.register
            and result < SPURIOUS
            or (isinstance(last, Mrs) and "_IAR" in last.register and result >= LPI_BASE)
        ):
            self.acked.setdefault((last.cpu, last.el), []).append((int(last.register[7]), result))

    # -- registers -----------------------------------------------------------------------------------------------------

    def gicd(self, d: Draw, view: View) -> list[Action]:
        """SPIs 32 to 39 and the group enables."""
        which = d.a % 13
        if which > 10:
            return [Write("GICD_ISPENDR1", 1 << d.b % 8)]
        if which < 7:
            names = ("ISPENDR1", "ICPENDR1", "ISENABLER1", "ICENABLER1", "ISACTIVER1", "ICACTIVER1", "IGROUPR1")
            if which == 3:
                return [Write("GICD_ICENABLER1", 1 << d.b % 8)]
            if which == 6 and self._enables_differ(view):
                return []
            if which == 6 and (int(str(view["GICD_IGROUPR1"])) ^ d.b) & 0xFF & int(str(view["GICD_ISACTIVER1"])):
                return []  # the group of an active interrupt must not change (4.6)
            return [Write(f"GICD_{names[which]}", d.b & 0xFF)]
        if which == 7:
            return [Write(f"GICD_IPRIORITYR{8 + d.b % 2}", priorities(d.c))]
        if which == 8:
            return [Write("GICD_ICFGR2", d.b & 0xAAAA)]
        if which == 9:
            return [Write("GICD_CTLR", (3, 2, 1, 0, 3, 3, 3, 3)[d.b % 8])]
        return [Write(f"GICD_IROUTER{layout.SPI + d.b % layout.SPIS}", d.c % (CPUS + 1))]

    def gicr(self, d: Draw, view: View) -> list[Action]:
        """SGIs and PPIs of a CPU."""
        which, cpu = d.a % 11, d.d % CPUS
        if which > 8:
            return [Write("GICR_ISPENDR0", 1 << PRIVATE[d.b % len(PRIVATE)], cpu)]
        if which < 7:
            names = ("ISPENDR0", "ICPENDR0", "ISENABLER0", "ICENABLER0", "ISACTIVER0", "ICACTIVER0", "IGROUPR0")
            mask = mask_of(d.b if which != 3 else 1 << d.b % 8, PRIVATE)
            if which == 6 and self._enables_differ(view):
                return []
            if which == 6 and (int(str(view[f"GICR_IGROUPR0.{cpu}"])) ^ mask) & int(
                str(view[f"GICR_ISACTIVER0.{cpu}"])
            ):
                return []
            return [Write(f"GICR_{names[which]}", mask, cpu)]
        if which == 7:
            return [Write(f"GICR_IPRIORITYR{(0, 6)[d.b % 2]}", priorities(d.c), cpu)]
        return [Write("GICR_ICFGR1", mask_of(d.b, (19, 23, 29)), cpu)]

    def parts(self, d: Draw, view: View) -> list[Action]:
        """Bytes of priorities, halves of IROUTER."""
        names = [name for name in layout.REGISTERS if "[" in name and "CBASER" not in name]
        name = names[d.a % len(names)]
        value = PRIORITIES[d.b % len(PRIORITIES)]
        if "IROUTER" in name:
            value = d.b % (CPUS + 1) if "[31:0]" in name else d.b % 2
        return [Write(name, value, d.d % CPUS)]

    def rewind(self, d: Draw, view: View) -> list[Action]:
        """The ITS disabled, its queue put back to the start, the ITS enabled: CREADR follows CBASER, CWRITER does not."""
        if not self._running(view):
            return []
        base = VALID | layout.QUEUE
        write: list[Action] = [Write("GITS_CBASER", base)]
        if d.a % 2:
            write = [Write("GITS_CBASER[31:0]", base & 0xFFFF_FFFF), Write("GITS_CBASER[63:32]", base >> 32)]
        return [Write("GITS_CTLR", 0), *write, Write("GITS_CWRITER", 0), *[Write("GITS_CTLR", 1)] * (d.b % 4 != 3)]

    def line(self, d: Draw, view: View) -> list[Action]:
        """Level-sensitive inputs: the UART's SPI, the virtual timer's PPI 27, whose compare value is in the past."""
        if d.a % 2:
            return [Line(d.b % 2)]
        return [Msr("CNTV_CTL_EL0", (1, 0, 3, 1)[d.b % 4], d.d % CPUS)]

    def active_priorities(self, d: Draw, view: View) -> list[Action]:
        """Back to nothing active; or for a guest, as it was saved: one priority of one group (else UNPREDICTABLE, 12.4.1)."""
        cpu, group = d.d % CPUS, d.a % 2
        if d.b % 2:
            for level in (2, 1):
                self.acked.pop((cpu, level), None)
            return [Msr(f"IC{kind}_AP{n}R0_EL{el}", 0, cpu) for kind, el in (("C", 1), ("H", 2)) for n in range(2)]
        bit = 1 << d.c % 32
        values = [bit if n == group else 0 for n in range(2)]
        self.acked.pop((cpu, 1), None)
        return [Msr(f"ICH_AP{n}R0_EL2", value, cpu) for n, value in enumerate(values)]

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
            if not isinstance(cpu, int) or intid in _pending(view, f"lpi.{1 - cpu}") or not self._lpis_everywhere(view):
                return []
            return [Store(layout.CONFIG + intid - LPI_BASE, byte, 1, f"configuration of LPI {intid}"), command]
        vpe = int(entry[3])
        if view[f"vPE {vpe}"] is None:
            return []
        address = layout.VCONFIG + vpe * layout.STEP_64K + intid - LPI_BASE
        return [Store(address, byte, 1, f"configuration of vLPI {intid} of vPE {vpe}"), command]

    def enable_lpis(self, d: Draw, view: View) -> list[Action]:
        """GICR_CTLR.EnableLPIs; CES says that it may be cleared."""
        return [Write("GICR_CTLR", int(d.a % 3 != 2), d.b % CPUS)]

    def its_ctlr(self, d: Draw, view: View) -> list[Action]:
        """GITS_CTLR.Enabled."""
        return [Write("GITS_CTLR", int(d.a % 3 != 2))]

    def frozen(self, d: Draw, view: View) -> list[Action]:
        """Table registers while they must not change; both sides ignore the write."""
        if view["GITS_CTLR"] != 1 or not d.a % 2:
            return []
        name = ("GITS_BASER0", "GITS_BASER1", "GITS_CBASER")[d.b % 3]
        return [Write(name, VALID | layout.LEVEL1)]

    # -- system registers ----------------------------------------------------------------------------------------------

    def acknowledge(self, d: Draw, view: View) -> list[Action]:
        """ICC_IAR<n>, ICV_IAR<n>: mostly where something is signalled."""
        ready = []
        for cpu, el in ((cpu, el) for cpu in range(CPUS) for el in (2, 1)):
            lines = int(str(view[f"ISR_EL1.{cpu}{'@EL1' if el == 1 else ''}"]))
            ready += [(group, cpu, el) for group, bit in ((1, 0x80), (0, 0x40)) if lines & bit]
        if ready and d.d % 8:
            group, cpu, el = ready[d.a % len(ready)]
            return [Mrs(f"ICC_IAR{group}_EL1", cpu, el)]
        return [Mrs(f"ICC_IAR{(d.a + 1) % 2}_EL1", d.b % CPUS, 2 - d.c % 2)]

    def end(self, d: Draw, view: View) -> list[Action]:
        """End of what was acknowledged last, in order (IHI 0069H 4.1.1); with EOImode 1 deactivation may come later."""
        ready = [key for key, stack in sorted(self.acked.items()) if stack]
        if not ready:
            return []
        cpu, el = ready[d.a % len(ready)]
        group, intid = self.acked[cpu, el].pop()
        at = "@EL1" if el == 1 else ""
        if not int(str(view[f"ICC_AP{group}R0_EL1.{cpu}{at}"])):
            return []
        split = int(str(view[f"ICC_CTLR_EL1.{cpu}{at}"])) & 2
        if el == 1 and split and not self._in_list_register(view, cpu, intid):
            return []  # accepted difference: EOIcount with EOImode 1
        if split:
            self.dropped.setdefault((cpu, el), []).append(intid)
        return [Msr(f"ICC_EOIR{group}_EL1", intid, cpu, el)]

    def deactivate(self, d: Draw, view: View) -> list[Action]:
        """ICC_DIR of what had its priority dropped; only with EOImode 1, else UNPREDICTABLE (12.2.8)."""
        ready = [key for key, waiting in sorted(self.dropped.items()) if waiting]
        if not ready:
            return []
        cpu, el = ready[d.a % len(ready)]
        waiting = self.dropped[cpu, el]
        at = "@EL1" if el == 1 else ""
        if not int(str(view[f"ICC_CTLR_EL1.{cpu}{at}"])) & 2:
            return []
        return [Msr("ICC_DIR_EL1", waiting.pop(d.c % len(waiting)), cpu, el)]

    def interface(self, d: Draw, view: View) -> list[Action]:
        """Controls of a CPU interface, physical or virtual."""
        cpu, el, which = d.d % CPUS, 2 - d.c % 2, d.a % 6
        if which == 0:
            return [Msr("ICC_PMR_EL1", (0xFF, 0xF0, 0xA0, 0xFF, 0xF0, 0xFF, 0x80, 0x00, 0xA8)[d.b % 9], cpu, el)]
        if which == 5:
            return [Msr("ICC_CTLR_EL1", d.b % 4, cpu, el)]
        name = ("ICC_IGRPEN1_EL1", "ICC_IGRPEN0_EL1", "ICC_BPR1_EL1", "ICC_BPR0_EL1")[which - 1]
        if which < 3 and el == 2 and self._groups(view):
            return [Msr(f"ICC_IGRPEN{group}_EL1", int(d.b % 4 != 3), cpu) for group in range(2)]
        return [Msr(name, int(d.b % 4 != 3) if which < 3 else d.b % 8, cpu, el)]

    def sgi(self, d: Draw, view: View) -> list[Action]:
        """SGIs 0 to 3 to CPUs by list, or to all others."""
        name = ("ICC_SGI1R_EL1", "ICC_SGI0R_EL1", "ICC_ASGI1R_EL1")[d.b % 3]
        value = d.c % 4 << 24 | d.d & 3
        if name == "ICC_SGI1R_EL1":  # accepted difference: SGI1R and SGIs of Group 0
            if not all(int(str(view[f"GICR_IGROUPR0.{cpu}"])) >> d.c % 4 & 1 for cpu in range(CPUS)):
                return []
        if d.a & 2:
            value |= 1 << 40
        return [Msr(name, value, d.a % CPUS)]

    def hypervisor(self, d: Draw, view: View) -> list[Action]:
        """ICH_HCR (no traps: a guest's accesses must reach the interface) and ICH_VMCR."""
        cpu = d.d % CPUS
        if d.a % 2 == 0:
            value = int(d.b % 8 != 7) | (d.b >> 1 & 0x6F) << 1 | (0, 1, 31)[d.c % 3] << 27
            return [Msr("ICH_HCR_EL2", value, cpu)]
        value = (0xF0, 0xA0, 0xF8, 0x00)[d.b % 4] << 24 | (d.c % 8) << 21 | (d.c // 8 % 8) << 18
        return [
            Msr(
                "ICH_VMCR_EL2",
                value | (d.b >> 2 & 1) << 9 | (d.b >> 3 & 1) << 4 | (3, 3, 2, 3, 1, 3, 3, 0)[d.b >> 4 & 7],
                cpu,
            )
        ]

    def list_register(self, d: Draw, view: View) -> list[Action]:
        """An LR. Each has vINTIDs of its own, since two with the same one are UNPREDICTABLE (12.4.8)."""
        n, cpu = d.a % 4, d.d % CPUS
        intid = (n, 16 + n, 40 + n, LPI_BASE + 32 + n)[d.b % 4]
        value = intid | PRIORITIES[d.c % len(PRIORITIES)] << 48 | (d.b >> 2 & 1 ^ 1) << 60
        state = (1, 0, 2, 3)[d.c // 16 % 4]
        if intid >= LPI_BASE:
            state &= 1  # an LPI has no active state
        elif d.b % 4 == 2 and d.b >> 3 & 1:
            value |= 1 << 61 | layout.SPI + n << 32  # HW
            state = min(state, 2)
        if not value >> 61 & 1:
            value |= (d.b >> 4 & 1) << 41
        return [Msr(f"ICH_LR{n}_EL2", value | state << 62, cpu)]

    # -- memory --------------------------------------------------------------------------------------------------------

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

    # -- the ITS -------------------------------------------------------------------------------------------------------

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
            if int(str(view["GITS_BASER1"])) & layout.INDIRECT:
                return []  # accepted difference: a level 1 entry that is invalid
            icid = 0xFFF0
        elif d.d % 32 == 29:
            return [Command.of("MAPI", device_id=device, event_id=event, icid=icid)]
        if not self._free(view, device, event) or any(_physical(entry) == intid for entry in _entries(view)):
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

    # -- GICv4.0 -------------------------------------------------------------------------------------------------------

    def vmapp(self, d: Draw, view: View) -> list[Action]:
        """Map a vPE, or unmap it when it is not resident and no event leads to it (5.3.x)."""
        vpe, cpu = d.a % VPES, d.b % CPUS
        if d.d % 16 == 15:
            return [vmapp(vpe, CPUS + 1, 1)] if view[f"vPE {vpe}"] is None else []
        if not self._running(view):
            return []
        if view[f"vPE {vpe}"] is None:
            return [vmapp(vpe, cpu, 1)]
        if self._resident(view, vpe) or any(_virtual(entry)[1] == vpe for entry in _entries(view)):
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
        if any(_virtual(entry) == (intid, vpe) for entry in _entries(view)):
            return []
        return [Command.of("VMAPTI", device_id=device, event_id=event, vpeid=vpe, vintid=intid, doorbell=doorbell)]

    def vmovi(self, d: Draw, view: View) -> list[Action]:
        """VMOVI to a mapped vPE, with or without a new doorbell."""
        found = [(dev, ev) for dev, ev in EVERY_EVENT if _virtual(view[f"event {dev}/{ev}"])[1] is not None]
        if not found:
            return []
        (device, event), vpe = found[d.a % len(found)], d.c % VPES
        intid, old = _virtual(view[f"event {device}/{event}"])
        clash = any(_virtual(entry) == (intid, vpe) for entry in _entries(view))
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
        pend = int(str(view[f"GICR_VPENDBASER.{cpu}"]))
        if pend & VALID:
            return [Write("GICR_VPENDBASER", pend & ~VALID, cpu)]
        entry = view[f"vPE {vpe}"]
        if not isinstance(entry, tuple) or entry[1] != cpu or self._resident(view, vpe):
            return []
        return [
            Write("GICR_VPROPBASER", layout.VCONFIG + vpe * layout.STEP_64K | ID_BITS - 1, cpu),
            Write("GICR_VPENDBASER", VALID | layout.VPENDING + vpe * layout.STEP_64K, cpu),
        ]

    def _event(self, d: Draw, view: View) -> tuple[int, int]:
        """A mapped event, or one that is nowhere mapped if there is none."""
        found = [(device, event) for device, event in EVERY_EVENT if view[f"event {device}/{event}"] is not None]
        return found[d.b % len(found)] if found else (DEVICES[0], EVENTS)

    def _in_list_register(self, view: View, cpu: int, intid: int) -> bool:
        """Is this vINTID active in an LR?"""
        values = [int(str(view[f"ICH_LR{n}_EL2.{cpu}"])) for n in range(4)]
        return any(value >> 63 and value & 0xFFFF_FFFF == intid for value in values)

    # -- state ---------------------------------------------------------------------------------------------------------

    def _running(self, view: View) -> bool:
        """Commands are executed as they come, so that what was looked at still holds."""
        return int(str(view["GITS_CTLR"])) & 1 == 1

    def _lpis_everywhere(self, view: View) -> bool:
        """What moves to a redistributor with EnableLPIs 0 is lost or stays (5.1.2): IMPLEMENTATION DEFINED."""
        return self._running(view) and all(int(str(view[f"GICR_CTLR.{cpu}"])) & 1 for cpu in range(CPUS))

    def _groups(self, view: View) -> bool:
        """Are interrupts of both groups about? Then both enables of a CPU interface go together: see `accepted`."""
        private = sum(1 << intid for intid in PRIVATE)
        bits = [int(str(view[f"GICR_IGROUPR0.{cpu}"])) & private for cpu in range(CPUS)]
        shared = int(str(view["GICD_IGROUPR1"])) & 0xFF
        return not (all(value == private for value in bits) and shared == 0xFF)

    def _enables_differ(self, view: View) -> bool:
        return any(view[f"ICC_IGRPEN0_EL1.{cpu}"] != view[f"ICC_IGRPEN1_EL1.{cpu}"] for cpu in range(CPUS))

    def _free(self, view: View, device: int, event: int) -> bool:
        return self._running(view) and view[f"event {device}/{event}"] is None

    def _resident(self, view: View, vpe: int) -> bool:
        table = VALID | layout.VPENDING + vpe * layout.STEP_64K
        found = [int(str(view[f"GICR_VPENDBASER.{cpu}"])) for cpu in range(CPUS)]
        return any(value & (VALID | 0xFFFF_FFFF_0000) == table for value in found)


def _pending(view: View, name: str) -> tuple[int, ...]:
    found = view[f"pending {name}"]
    assert isinstance(found, tuple)
    return found


def _entries(view: View) -> list[object]:
    return [view[f"event {device}/{event}"] for device, event in EVERY_EVENT]


def _physical(entry: object) -> int | None:
    return entry[1] if isinstance(entry, tuple) and entry[0] == "LPI" else None


def _virtual(entry: object) -> tuple[int | None, int | None]:
    return (entry[1], entry[3]) if isinstance(entry, tuple) and entry[0] == "vLPI" else (None, None)


def _nothing(author: Author, draw: Draw, view: View) -> list[Action]:
    return []


KINDS: dict[str, Callable[[Author, Draw, View], list[Action]]] = {
    "nothing": _nothing,
    "acknowledge": Author.acknowledge,
    "end": Author.end,
    "deactivate": Author.deactivate,
    "interface": Author.interface,
    "sgi": Author.sgi,
    "gicd": Author.gicd,
    "gicr": Author.gicr,
    "parts": Author.parts,
    "line": Author.line,
    "active_priorities": Author.active_priorities,
    "enable_lpis": Author.enable_lpis,
    "rewind": Author.rewind,
    "invalidate": Author.invalidate,
    "its_ctlr": Author.its_ctlr,
    "frozen": Author.frozen,
    "hypervisor": Author.hypervisor,
    "list_register": Author.list_register,
    "configure": Author.configure,
    "msi": Author.msi,
    "event_command": Author.event_command,
    "mapd": Author.mapd,
    "mapc": Author.mapc,
    "mapti": Author.mapti,
    "movi": Author.movi,
    "movall": Author.movall,
    "invall": Author.invall,
    "configure_virtual": Author.configure_virtual,
    "vmapp": Author.vmapp,
    "vmapti": Author.vmapti,
    "vmovi": Author.vmovi,
    "vmovp": Author.vmovp,
    "vsync": Author.vsync,
    "schedule": Author.schedule,
}
V4_KINDS = ("configure_virtual", "vmapp", "vmapti", "vmovi", "vmovp", "vsync", "schedule")
_OFTEN = (
    "acknowledge",
    "acknowledge",
    "end",
    "end",
    "end",
    "end",
    "deactivate",
    "deactivate",
    "msi",
    "msi",
    "event_command",
    "gicr",
    "gicd",
    "interface",
    "list_register",
)
_OFTEN_V4 = ("schedule", "schedule", "vmapti", "vmovi")


def kinds(version: str) -> list[str]:
    """Kinds of steps to draw from, with repetitions for what should be frequent; the first does nothing."""
    found = [kind for kind in KINDS if version != "3" or kind not in V4_KINDS]
    return found + list(_OFTEN) + (list(_OFTEN_V4) if version != "3" else [])
