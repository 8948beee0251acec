"""Steps of distributor, redistributors and CPU interfaces."""

from __future__ import annotations

from tests.differential import layout
from tests.differential.book import PRIORITIES, PRIVATE, Book, Draw, View, mask_of, priorities, value_of
from tests.differential.layout import CPUS, LPI_BASE
from tests.differential.steps import Action, Line, Mrs, Msr, Write


class CpuSteps(Book):
    """Registers and System registers."""

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
            if which == 6 and (value_of(view, "GICD_IGROUPR1") ^ d.b) & 0xFF & value_of(view, "GICD_ISACTIVER1"):
                return []  # the group of an active interrupt must not change (4.6)
            return [Write(f"GICD_{names[which]}", d.b & 0xFF)]
        if which == 7:
            return [Write(f"GICD_IPRIORITYR{8 + d.b % 2}", priorities(d.c))]
        if which == 8:
            return self._trigger(view, "GICD_ICFGR2", "GICD_ISENABLER1", 0, d.b & 0xAAAA, 0)
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
            if which == 6 and (value_of(view, f"GICR_IGROUPR0.{cpu}") ^ mask) & int(
                str(view[f"GICR_ISACTIVER0.{cpu}"])
            ):
                return []
            return [Write(f"GICR_{names[which]}", mask, cpu)]
        if which == 7:
            return [Write(f"GICR_IPRIORITYR{(0, 6)[d.b % 2]}", priorities(d.c), cpu)]
        return self._trigger(view, "GICR_ICFGR1", "GICR_ISENABLER0", 16, mask_of(d.b, (19, 23, 29)), cpu)

    def _trigger(self, view: View, register: str, enables: str, first: int, value: int, cpu: int) -> list[Action]:
        """Level or edge; an interrupt must be disabled before that changes (12.9.9)."""
        at = f".{cpu}" if register.startswith("GICR") else ""
        changed, enabled = value_of(view, register + at) ^ value, value_of(view, enables + at) >> first
        if any(changed >> 2 * n + 1 & 1 and enabled >> n & 1 for n in range(16)):
            return []
        return [Write(register, value, cpu)]

    def parts(self, d: Draw, view: View) -> list[Action]:
        """Bytes of priorities, halves of IROUTER."""
        names = [name for name in layout.REGISTERS if "[" in name and "CBASER" not in name]
        name = names[d.a % len(names)]
        value = PRIORITIES[d.b % len(PRIORITIES)]
        if "IROUTER" in name:
            value = d.b % (CPUS + 1) if "[31:0]" in name else d.b % 2
        return [Write(name, value, d.d % CPUS)]

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

    def enable_lpis(self, d: Draw, view: View) -> list[Action]:
        """GICR_CTLR.EnableLPIs; CES says that it may be cleared."""
        return [Write("GICR_CTLR", int(d.a % 3 != 2), d.b % CPUS)]

    def acknowledge(self, d: Draw, view: View) -> list[Action]:
        """ICC_IAR<n>, ICV_IAR<n>: mostly where something is signalled."""
        ready = []
        for cpu, el in ((cpu, el) for cpu in range(CPUS) for el in (2, 1)):
            lines = value_of(view, f"ISR_EL1.{cpu}{'@EL1' if el == 1 else ''}")
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
        if not value_of(view, f"ICC_AP{group}R0_EL1.{cpu}{at}"):
            return []
        split = value_of(view, f"ICC_CTLR_EL1.{cpu}{at}") & 2
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
        if not value_of(view, f"ICC_CTLR_EL1.{cpu}{at}") & 2:
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
            if not all(value_of(view, f"GICR_IGROUPR0.{cpu}") >> d.c % 4 & 1 for cpu in range(CPUS)):
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
