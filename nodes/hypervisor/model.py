"""The hypervisor node: all software at EL2 and above, as one coroutine for each vCPU and one for the host's shell.

It touches hardware by its bus and by the trap channels to the PEs, and by nothing else. Console "host" is the host's shell and
kernel log; each test's guest prints on a console of the test's name. Parameters: see `Host`, `Settings`.

Counters: exits, exits_sgi_trap, exits_irq, exits_wfx, exits_vmm, kicks, blocks, wakeups; lr_injections (SGIs and LPIs),
lr_injections_other (PPIs, SPIs); host_lpis, doorbell_irqs, spurious_irqs; msis_injected, msis_dropped, unresolved_routes;
reschedules, slice_irqs, vcpu_migrations, exits_dir_trap;
vits_commands, vits_command_errors; vgic_reserved_accesses, vmm_unknown_accesses, guest_crashes.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from nodes.hypervisor.experiment import Experiment
from nodes.hypervisor.host.node import HostNode

COUNTERS = ("exits", "exits_sgi_trap", "exits_irq", "lr_injections", "lr_injections_other", "host_lpis")
"""Counters that scripts rely on: reported also when they are 0."""


class Hypervisor(HostNode):
    """Firmware, host kernel, KVM and kvmtool on all PEs."""

    kind = "hypervisor"
    parameters = {
        "pes": int,
        "mpidrs": list,
        "gicd": int,
        "gicr": int,
        "gicr_stride": int,
        "its": list,
        "smmu": int,
        "ecam": int,
        "pci_mmio32": list,
        "pci_mmio64": list,
        "dram": list,
        "guest_ram": list,
        "rid_to_stream": int,
        "stream_to_device": int,
        "smmu_device_id": int,
        "smmu_stage": int,
        "host_smmute_driver": bool,
        "gic_version": str,
        "endpoint": str,
        "endpoints": list,
        "tests": list,
        "vcpus": int,
        "vgic_v4_enable": bool,
        "nassgireq": bool,
        "guest_wait": str,
        "wfi_trap_policy": str,
        "smmute_size": int,
        "smmute_transactions": int,
        "smmute_fault": str,
        "smmute_fault_at": int,
        "t_exit_kernel": int,
        "t_exit_vmm": int,
        "t_wakeup": int,
        "t_slice": int,
        "t_migrate": int,
        "cntfrq": int,
        "break": str,
    }
    counters = (
        "exits",
        "exits_sgi_trap",
        "exits_irq",
        "exits_vmm",
        "doorbell_irqs",
        "host_lpis",
        "lr_injections",
        "lr_injections_other",
    )

    def setup(self) -> None:
        """Make the host; ModelError for a parameter that is not allowed."""
        for name in COUNTERS:
            self.count[name] += 0
        self.experiment = Experiment(self)

    def start(self) -> Coroutine[Any, Any, None]:
        """Boot and run the tests."""
        return self.experiment.run()
