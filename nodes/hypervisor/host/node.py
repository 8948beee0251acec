"""What the host's software needs of the node that it runs on: a bus, the trap channels, and the CPUs behind them."""

from __future__ import annotations

from typing import Any

from cosim.api import Channel, MmioInitiator, ModelError, Node, Peer, on
from nodes.arch.trap import TRAP
from nodes.hypervisor.host.cpu import HostCpu


class HostNode(Node):
    """Base of the hypervisor node: dispatches TRAP messages to `cpus`, a table by the PE's node name that Host fills."""

    bus = MmioInitiator("everything: GICD, GICRs, GITSs, SMMU, memory, ECAM and PCI MMIO")
    trap = Channel(TRAP, "to every PE")

    def __init__(self, plan: Any, seed: int) -> None:
        super().__init__(plan, seed)
        self.cpus: dict[str, HostCpu] = {}

    def _cpu(self, peer: Peer) -> HostCpu:
        cpu = self.cpus.get(peer.name)
        if cpu is None:
            raise ModelError(f"{self.name} must know every PE linked to its trap port; {peer.name} is not in `mpidrs`")
        return cpu

    @on(TRAP.Exit)
    def trap_exit(self, peer: Peer, *fields: Any) -> None:
        """A vCPU left its PE."""
        self._cpu(peer).on_exit(peer, *fields)

    @on(TRAP.Irq)
    def trap_irq(self, peer: Peer, level: int) -> None:
        """The physical IRQ line of a PE in host context changed."""
        self._cpu(peer).on_irq(level)

    @on(TRAP.ContextState)
    def trap_context(self, peer: Peer, *fields: Any) -> None:
        """A PE gives a vCPU's state away."""
        self._cpu(peer).on_context(*fields)

    @on(TRAP.SysregValue)
    def trap_value(self, peer: Peer, tag: int, value: int) -> None:
        """A system-register read is complete."""
        self._cpu(peer).on_value(tag, value)

    @on(TRAP.SysregDone)
    def trap_done(self, peer: Peer, tag: int) -> None:
        """A system-register write is complete."""
        self._cpu(peer).on_value(tag, 0)
