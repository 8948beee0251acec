"""The hypervisor node: all software at EL2 and above, as one coroutine for each vCPU and one for the host's shell.

It touches hardware by its bus and by the trap channels to the PEs, and by nothing else. Console "host" is the host's shell and
kernel log; each test's guest prints on a console of the test's name. Parameters: see `Host`, `Settings`.

Counters: exits, exits_sgi_trap, exits_irq, exits_wfx, exits_vmm, kicks, blocks, wakeups; lr_injections (SGIs and LPIs),
lr_injections_other (PPIs, SPIs); host_lpis, doorbell_irqs, spurious_irqs; msis_injected, msis_dropped, unresolved_routes;
reschedules, slice_irqs, vcpu_migrations, exits_dir_trap;
vits_commands, vits_command_errors; vgic_reserved_accesses, vmm_unknown_accesses, guest_crashes.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator, Mapping
from typing import Any

from nodes.hypervisor.experiment import BREAKS, BROKEN_VCPU, Experiment
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
        "its": list,
        "smmu": int,
        "ecam": int,
        "pci_mmio32": list,
        "pci_mmio64": list,
        "dram": list,
        "guest_ram": list,
        "rid_to_stream": range((1 << 32) - (1 << 16) + 1),
        "stream_to_device": range(1 << 32),
        "smmu_device_id": int,
        "smmu_stage": (1, 2),
        "host_smmute_driver": bool,
        "gic_version": ("3", "4.0", "4.1"),
        "endpoint": str,
        "endpoints": list,
        "tests": list,
        "vcpus": range(1, 513),
        "vgic_v4_enable": bool,
        "nassgireq": bool,
        "guest_wait": ("wfi", "spin"),
        "wfi_trap_policy": str,
        "smmute_size": int,
        "smmute_transactions": range(1, 1001),
        "smmute_fault": ("", "read", "write"),
        "smmute_fault_at": range(1, 1001),
        "t_exit_kernel": int,
        "t_exit_vmm": int,
        "t_wakeup": int,
        "t_slice": int,
        "t_migrate": int,
        "cntfrq": range(1, 1 << 32),
        "break": BREAKS,
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

    @classmethod
    def conflicts(cls, params: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """A fault at a transaction that never comes; a planted fault of vSGIs in a machine that injects none directly."""
        last, at = params.get("smmute_transactions", 10), params.get("smmute_fault_at", 1)
        if at > last:
            yield "smmute_fault_at", f"must be one of the {last} transactions (smmute_transactions), not {at}"
        if params.get("break") == "vsgi":
            yield from _no_direct_sgis(params)

    def setup(self) -> None:
        """Make the host; ModelError for a parameter that is not allowed."""
        for name in COUNTERS:
            self.count[name] += 0
        self.experiment = Experiment(self)

    def start(self) -> Coroutine[Any, Any, None]:
        """Boot and run the tests."""
        return self.experiment.run()


def _no_direct_sgis(params: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Why the break "vsgi" would have nothing to break."""
    needs = {
        "gic_version": ("4.1", params.get("gic_version", "4.1") == "4.1"),
        "vgic_v4_enable": ("true", params.get("vgic_v4_enable", True)),
        "nassgireq": ("true", params.get("nassgireq", True)),
        "vcpus": (f"at least {BROKEN_VCPU + 1}", params.get("vcpus", params.get("pes", 8)) > BROKEN_VCPU),
    }
    for name, (wanted, holds) in needs.items():
        if not holds:
            found = params.get(name, params.get("pes"))
            text = f"with {name} = {str(found).lower() if isinstance(found, bool) else found}"
            yield (
                "break",
                f"must not be 'vsgi' {text}: it disables the vSGIs of vCPU {BROKEN_VCPU}; {name} must be {wanted}",
            )
            return
