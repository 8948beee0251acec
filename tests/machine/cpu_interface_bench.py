"""A CPU interface as firmware, host and hypervisor leave it, with short names for accesses at each level."""

from typing import Any

from nodes.pe.cpu_interface import CpuInterface

IMO = 1 << 4
FMO = 1 << 3
SPURIOUS = 1023

NS_A0 = 0xD0
"""Priority 0xA0 as Non-secure software writes it, in the distributor's view with two Security states."""


class Bench:
    """``el3``, ``host`` (EL2) and ``guest`` (EL1 under HCR_EL2.IMO and FMO) read, or write when given a value."""

    def __init__(self, **parameters: Any) -> None:
        self.cpu = CpuInterface(mpidr=0x8100_0000, **parameters)

    def _access(self, name: str, value: int | None, el: int, secure: bool, hcr: int) -> int:
        if value is None:
            return self.cpu.read(name, el=el, secure=secure, hcr=hcr)
        self.cpu.write(name, value, el=el, secure=secure, hcr=hcr)
        return 0

    def el3(self, name: str, value: int | None = None, *, secure: bool = False) -> int:
        return self._access(name, value, 3, secure, 0)

    def secure(self, name: str, value: int | None = None) -> int:
        return self._access(name, value, 1, True, 0)

    def host(self, name: str, value: int | None = None) -> int:
        return self._access(name, value, 2, False, 0)

    def guest(self, name: str, value: int | None = None, hcr: int = IMO | FMO) -> int:
        return self._access(name, value, 1, False, hcr)

    def irq(self) -> bool:
        return self.cpu.irq

    def fiq(self) -> bool:
        return self.cpu.fiq

    def virq(self) -> bool:
        return self.cpu.virq

    def vfiq(self) -> bool:
        return self.cpu.vfiq

    def maintenance(self) -> bool:
        return self.cpu.maintenance

    def up(self) -> list[tuple[int | str, ...]]:
        return self.cpu.take_up()


def booted(*, eoimode: int = 1, **parameters: Any) -> Bench:
    """After firmware (PMR 0xFF) and a Linux host at EL2 (PMR 0xF0, BPR1 0, EOImode, Group 1 on)."""
    bench = Bench(**parameters)
    bench.el3("ICC_PMR_EL1", 0xFF)
    bench.host("ICC_PMR_EL1", 0xF0)
    bench.host("ICC_BPR1_EL1", 0)
    bench.host("ICC_CTLR_EL1", eoimode << 1)
    bench.host("ICC_IGRPEN1_EL1", 1)
    bench.up()
    return bench


def in_guest(*, hcr: int = 1, eoimode: int = 0, vmcr: int = 0, lrs: tuple[int, ...] = (), **parameters: Any) -> Bench:
    """A guest loaded with ICH_HCR, list registers, and VMCR of an OS that has set PMR 0xF0 and Group 1 on."""
    bench = booted(**parameters)
    bench.host("ICH_VMCR_EL2", vmcr or 0xF0 << 24 | eoimode << 9 | 0b10)
    for n, value in enumerate(lrs):
        bench.host(f"ICH_LR{n}_EL2", value)
    bench.host("ICH_HCR_EL2", hcr)
    bench.up()
    return bench
