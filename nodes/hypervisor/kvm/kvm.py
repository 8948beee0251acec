"""KVM on this host: what it found at start, the interrupts that it owns (PPI 25 and 27), and which vCPU is loaded where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cosim.api import ModelError, ms
from nodes.arch.intid import PPI_MAINTENANCE, PPI_VIRTUAL_TIMER

if TYPE_CHECKING:
    from nodes.hypervisor.host.cpu import HostCpu
    from nodes.hypervisor.host.gicv4 import Gicv4
    from nodes.hypervisor.host.host import Host
    from nodes.hypervisor.kvm.vcpu import Vcpu

WFI_POLICIES = ("", "trap", "notrap")
"""kvm-arm.wfi_trap_policy: decide by load (the default), always trap, never trap a lone vCPU."""


DEFAULT_SLICE = ms(4)
"""A slice of the host's scheduler; assumed, as CONFIG_HZ = 250 would give."""


class Kvm:
    """The module. `v4`: the GICv4 driver if direct injection is enabled (kvm-arm.vgic_v4_enable), else None.

    Args:
        host: what it runs on.
        vgic_v4_enable: kvm-arm.vgic_v4_enable.
        wfi_trap_policy: of `WFI_POLICIES`.
        t_slice: time slice of vCPUs that share a PE, in ps.
        t_migrate: how long a vCPU stays on a PE before the host's load balancing moves it to the next; 0: for ever.

    Raises:
        ModelError: an unknown `wfi_trap_policy`, or a time that is not allowed.
    """

    def __init__(
        self,
        host: Host,
        *,
        vgic_v4_enable: bool,
        wfi_trap_policy: str = "",
        t_slice: int = DEFAULT_SLICE,
        t_migrate: int = 0,
    ) -> None:
        if wfi_trap_policy not in WFI_POLICIES:
            raise ModelError(f"wfi_trap_policy must be one of {WFI_POLICIES}, not {wfi_trap_policy!r}")
        if t_slice <= 0 or t_migrate < 0:
            raise ModelError(f"t_slice must be above 0 ps and t_migrate at least 0, not {t_slice} and {t_migrate}")
        self.host = host
        self.node = host.node
        self.vgic_v4_enable = vgic_v4_enable
        self.wfi_trap_policy = wfi_trap_policy
        self.t_slice = t_slice
        self.t_migrate = t_migrate
        self.v4: Gicv4 | None = None
        self.list_registers = 0
        self.ap_words = 0
        self.loaded: dict[int, Vcpu] = {}
        self.vms = 0
        """VMs that exist: a new one's first vCPU begins on the next PE."""
        self.timer_active: dict[int, bool] = {}

    async def init(self) -> None:
        """Probe the virtual CPU interface, say what is supported, take PPIs 25 and 27."""
        host = self.host
        async with host.cpus[0] as cpu:
            vtr = await cpu.read_sysreg("ICH_VTR_EL2")
        self.list_registers = (vtr & 0x1F) + 1
        self.ap_words = 1 << max((vtr >> 26 & 7) + 1 - 5, 0)
        no_v4 = bool(vtr >> 20 & 1)
        host.printk("kvm [1]: IPA Size Limit: 48 bits")
        if host.v4 is not None and not no_v4:
            if self.vgic_v4_enable:
                self.v4 = host.v4
            dot = ".1" if self.v4 is not None and self.v4.version == "4.1" else ""
            host.printk(f"kvm [1]: GICv4{dot} support {'enabled' if self.vgic_v4_enable else 'disabled'}")
        host.printk("kvm [1]: GIC system register CPU interface enabled")
        host.request_irq(PPI_MAINTENANCE, self._maintenance)
        host.request_irq(PPI_VIRTUAL_TIMER, self._timer)
        await host.gic.enable_ppi(PPI_MAINTENANCE)
        await host.gic.enable_ppi(PPI_VIRTUAL_TIMER)
        host.printk("kvm [1]: VHE mode initialized successfully")

    def exit(self) -> None:
        """Give the interrupts back."""
        self.host.free_irq(PPI_MAINTENANCE)
        self.host.free_irq(PPI_VIRTUAL_TIMER)

    async def _maintenance(self, cpu: HostCpu, intid: int) -> None:
        """The exit was the purpose; folding the list registers has done the rest."""

    async def _timer(self, cpu: HostCpu, intid: int) -> bool:
        """PPI 27 while a vCPU is loaded: it becomes the vCPU's, and stays active until the guest's EOI ends it.

        Returns:
            Whether it was forwarded (then the host does not deactivate it).
        """
        vcpu = self.loaded.get(cpu.index)
        if vcpu is None:
            self.node.count["stray_timer_irqs"] += 1
            return False
        self.timer_active[cpu.index] = True
        vcpu.timer_fired()
        return True

    async def set_timer_active(self, cpu: HostCpu, active: bool) -> None:
        """Make physical PPI 27 of a PE active or inactive (irq_set_irqchip_state)."""
        self.timer_active[cpu.index] = active
        await self.host.gic.set_ppi_active(cpu, PPI_VIRTUAL_TIMER, active)
