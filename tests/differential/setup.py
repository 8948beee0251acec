"""The usual set-up before a program's steps: what firmware and a hypervisor's boot do, with variants drawn."""

from __future__ import annotations

from dataclasses import dataclass

from tests.differential import layout
from tests.differential.layout import CPUS, VALID
from tests.differential.steps import Action, Command, Msr, Step, Store, Write

ID_BITS = 14


@dataclass(frozen=True, slots=True)
class Setup:
    """Variants: groups of SGIs, PPIs and SPIs; `tables`: page size (n // 2: 4, 16, 64 KiB), odd: two levels; `mapped`: some
    events are; `preset`: interrupts are pending in memory; `id_bits` of LPIs; binary point and EOImode of both interfaces."""

    version: str
    group1: int = 0xFFFF_FFFF
    tables: int = 0
    mapped: bool = True
    preset: bool = False
    id_bits: int = ID_BITS
    binary_point: int = 0
    eoimode: int = 0

    def steps(self) -> Step:
        """What is executed, unobserved."""
        steps: list[Action] = [Store(layout.CONFIG, 0x83A3C343A2A3A3A3, 8, "LPI configuration")]
        if self.preset:
            for table in (layout.PENDING, layout.PENDING + layout.STEP_64K, layout.VPENDING):
                steps.append(Store(table + layout.LPI_BASE // 8, 1 << (table >> 16) % 8 | 0x10, 1, "pending table"))
        steps += [Write("GICD_CTLR", 0x3), Write("GICD_IGROUPR1", self.group1)]
        steps += [Write("GICD_ISENABLER1", 0xFF), Write("GICD_IPRIORITYR8", 0x40A0C080)]
        for cpu in range(CPUS):
            steps += self._cpu(cpu)
        steps += self._its()
        if self.mapped:
            steps += self._mappings()
        return tuple(steps)

    def _cpu(self, cpu: int) -> list[Action]:
        steps: list[Action] = [
            Write("GICR_WAKER", 0, cpu),
            Write("GICR_PROPBASER", layout.CONFIG | self.id_bits - 1, cpu),
            Write("GICR_PENDBASER", layout.PENDING + cpu * layout.STEP_64K, cpu),
            Write("GICR_CTLR", 1, cpu),
            Write("GICR_IGROUPR0", self.group1, cpu),
            Write("GICR_ISENABLER0", 0x0A00_00FF, cpu),
            Write("GICR_IPRIORITYR0", 0x80C0A040, cpu),
            Msr("ICC_PMR_EL1", 0xFF, cpu),
            Msr("ICC_IGRPEN1_EL1", 1, cpu),
            Msr("ICC_IGRPEN0_EL1", 1, cpu),
            Msr("ICC_BPR1_EL1", self.binary_point, cpu),
            Msr("ICC_CTLR_EL1", self.eoimode << 1, cpu),
            Msr("ICH_HCR_EL2", 1, cpu),
            Msr("ICH_VMCR_EL2", 0xF0 << 24 | 2 << 21 | 3 << 18 | self.eoimode << 9 | 1 << 3 | 3, cpu),
        ]
        return steps

    def _its(self) -> list[Action]:
        steps: list[Action] = []
        tables = [layout.DEVICE_TABLE, layout.COLLECTION_TABLE]
        if self.version != "3":
            tables.append(layout.VPE_TABLE)
            for vpe in range(layout.VPES):
                steps.append(Store(layout.VCONFIG + vpe * layout.STEP_64K, 0x83A3C343A2A3A3A3, 8, "vLPI configuration"))
        for number, table in enumerate(tables):
            flags = VALID | self.tables // 2 % 3 << 8
            if self.tables % 2:
                level1 = layout.LEVEL1 + layout.STEP_64K * number
                steps.append(Store(level1, VALID | table, 8, "level 1 table"))
                steps.append(Write(f"GITS_BASER{number}", flags | layout.INDIRECT | level1))
            else:
                steps.append(Write(f"GITS_BASER{number}", flags | table))
        steps += [Write("GITS_CBASER", VALID | layout.QUEUE), Write("GITS_CTLR", 1)]
        return steps

    def _mappings(self) -> list[Action]:
        steps: list[Action] = [Command.of("MAPC", icid=cpu, rdbase=cpu, valid=1) for cpu in range(CPUS)]
        for number, device in enumerate(layout.DEVICES[:2]):
            steps.append(Command.of("MAPD", device_id=device, size=2, itt=layout.itt(device), valid=1))
            for event in range(2):
                fields = {"device_id": device, "event_id": event, "pintid": layout.LPI_BASE + 2 * number + event}
                steps.append(Command.of("MAPTI", **fields, icid=event))
        if self.version != "3":
            for vpe in range(2):
                steps.append(vmapp(vpe, vpe, 1))
                fields = {"device_id": 8, "event_id": 2 + vpe, "vpeid": vpe, "vintid": layout.LPI_BASE + vpe}
                steps.append(Command.of("VMAPTI", **fields, doorbell=layout.LPI_BASE + 8 + vpe))
        return steps


def vmapp(vpe: int, cpu: int, valid: int) -> Command:
    """VMAPP as GICv4.0 has it."""
    table = layout.VPENDING + vpe * layout.STEP_64K
    return Command.of("VMAPP", vpeid=vpe, rdbase=cpu, valid=valid, vpt=table, vpt_size=ID_BITS - 1)
