"""A virtual PE as the GICv4 driver knows it, and the VM that owns it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cosim.api import Lock

if TYPE_CHECKING:
    from nodes.hypervisor.host.cpu import HostCpu

SGIS = 16

VsgiConfig = tuple[bool, int, int]
"""(enabled, group, priority) of a vSGI; of the 8-bit priority, bits [7:4] travel."""

VSGI_OFF: VsgiConfig = (False, 0, 0)


class VmTables:
    """What the vPEs of one VM share: the vLPI configuration table `vprop`, and the doorbells' first LPI."""

    def __init__(self, vprop: int, doorbells: int, count: int) -> None:
        self.vprop = vprop
        self.doorbells = doorbells
        self.count = count
        self.vpes: list[Vpe] = []


class Vpe:
    """One vPE. `home` is the CPU whose Redistributor it is mapped to (Linux's col_idx), `resident` the CPU where
    VPENDBASER names it now; `pending_last` says that a deliverable interrupt waits in its tables; `on_doorbell` is called
    with the CPU that took it at EL2 when its doorbell LPI is taken. Whoever moves the vPE or uses registers of its home
    holds `lock`."""

    def __init__(self, vm: VmTables, vpeid: int, vpt: int, doorbell: int, home: HostCpu) -> None:
        self.vm = vm
        self.vpeid = vpeid
        self.vpt = vpt
        self.doorbell_lpi = doorbell
        self.home = home
        self.resident: HostCpu | None = None
        self.pending_last = False
        self.idai = False
        self.vlpi_count = 0
        self.vsgis: list[VsgiConfig] = [VSGI_OFF] * SGIS
        self.on_doorbell: Callable[[HostCpu], None] | None = None
        self.groups = 0
        self.committed = True
        self.lock = Lock(f"home of vPE {vpeid:#x}")

    def __repr__(self) -> str:
        return f"vpe{self.vpeid:#x}"

    @property
    def col_idx(self) -> int:
        """Index of the home CPU."""
        return self.home.index
