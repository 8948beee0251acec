"""Decode a guest's SGI register write into target vCPUs (sheet 6.2, 6.7, 7.1).

Source: IHI 0069H 12.2.10 (ICC_SGI1R_EL1); Linux vgic_v3_dispatch_sgi (behaviour).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

ESR_RT: Final = 0x1F << 5
SYSREG_SGI: Final[dict[int, str]] = {
    0x623A_3016: "ICC_SGI1R_EL1",
    0x623C_3016: "ICC_ASGI1R_EL1",
    0x623E_3016: "ICC_SGI0R_EL1",
}
"""ESR_EL2 of the write, without Rt: EC 0x18, IL, Op0.Op2.Op1.CRn.CRm, Dir = 0."""
SYSREG_DIR: Final = 0x6232_3016
"""The same of ICC_DIR_EL1, which ICH_HCR_EL2.TDIR traps."""


class SgiRequest(NamedTuple):
    """One write: the register, INTID, and the targets as indices into the vCPUs."""

    register: str
    intid: int
    targets: tuple[int, ...]

    @property
    def group1(self) -> bool:
        """Whether SGIs of Group 1 may be generated: KVM has one Security state, only SGI1R reaches them."""
        return self.register == "ICC_SGI1R_EL1"


def register_of(esr: int) -> str | None:
    """Name of the SGI register that a trapped write names; None: another register."""
    return SYSREG_SGI.get(esr & ~ESR_RT)


def is_deactivate(esr: int) -> bool:
    """Whether a trapped write is one of ICC_DIR_EL1."""
    return esr & ~ESR_RT == SYSREG_DIR


def decode(register: str, value: int, mpidrs: Sequence[int], sender: int) -> SgiRequest:
    """The request in `value`, written by vCPU `sender`; `mpidrs` are the vCPUs' VMPIDRs.

    IRM = 1 means all but the sender; otherwise PEs of Aff3.Aff2.Aff1 whose Aff0 is RS * 16 + a set bit.
    """
    intid = value >> 24 & 0xF
    if value >> 40 & 1:
        return SgiRequest(register, intid, tuple(n for n in range(len(mpidrs)) if n != sender))
    cluster = (value >> 48 & 0xFF, value >> 32 & 0xFF, value >> 16 & 0xFF)
    first = (value >> 44 & 0xF) * 16
    targets = tuple(
        n
        for n, mpidr in enumerate(mpidrs)
        if (mpidr >> 32 & 0xFF, mpidr >> 16 & 0xFF, mpidr >> 8 & 0xFF) == cluster
        and 0 <= (mpidr & 0xFF) - first < 16
        and value >> ((mpidr & 0xFF) - first) & 1
    )
    return SgiRequest(register, intid, targets)
