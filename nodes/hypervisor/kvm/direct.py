"""What the virtual GIC asks of GICv4 (kept apart so that its emulation can be tested without hardware)."""

from __future__ import annotations

from typing import Protocol

from nodes.hypervisor.kvm.irq import VgicIrq
from nodes.hypervisor.kvm.vgic import VgicCpu


class Direct(Protocol):
    """GICv4's side of one VM."""

    @property
    def sgis(self) -> bool:
        """Whether vSGIs can be injected directly (GICv4.1): TYPER2.nASSGIcap."""

    async def switch_sgis(self, on: bool) -> None:
        """The guest switched GICD_CTLR.nASSGIreq: all vCPUs' SGIs go to hardware, or come back."""

    async def configure_sgis(self, cpu: VgicCpu) -> None:
        """Enable, group or priority of one vCPU's SGIs changed."""

    async def sgis_pending(self, cpu: VgicCpu) -> int:
        """Pending mask of a vCPU's vSGIs."""

    async def pend_sgi(self, cpu: VgicCpu, sgi: int) -> None:
        """Make a vSGI pending."""

    async def clear_sgi(self, cpu: VgicCpu, sgi: int) -> None:
        """Clear a vSGI's pending state."""

    async def update(self, irq: VgicIrq) -> None:
        """Priority or enable of a forwarded vLPI changed."""

    async def move(self, irq: VgicIrq) -> None:
        """A forwarded vLPI has another target vCPU."""

    async def unforward(self, irq: VgicIrq) -> None:
        """Take a forwarded vLPI back to software; its pending state comes along."""

    async def pend(self, irq: VgicIrq) -> None:
        """INT of a forwarded vLPI."""

    async def clear(self, irq: VgicIrq) -> None:
        """CLEAR of a forwarded vLPI."""

    def reload(self) -> None:
        """The virtual Distributor was switched on or off: every vPE must be made resident again."""
