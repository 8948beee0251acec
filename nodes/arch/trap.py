"""Between a PE and the hypervisor: exceptions to EL2, entry to a guest, and the host's own system-register accesses.

Exit carries what EL2 could read after the exception: ESR_EL2, FAR_EL2, the faulting IPA, the data of a write (or x0..x3 of an
HVC as `data`, a tuple), the ICH image (`cosim` order: see nodes/pe), CNTV_CTL and CNTV_CVAL. Enter makes the PE run a vCPU
until it must exit. Its `stage2` is a tuple of (ipa, size, pa): accesses inside go direct, everything else exits. `resume`
completes the exit that this vCPU made: the value of a read, or the results of an HVC (a tuple).
"""

from __future__ import annotations

from cosim.api import PRIORITY_LEVEL, PRIORITY_REQUEST, PRIORITY_RESPONSE, Protocol

REASON_SYSREG = "sysreg"
"""Trapped MSR/MRS: EC 0x18; `data` is the value of a write."""
REASON_ABORT = "abort"
"""Stage-2 data abort: EC 0x24; `data` is the value (int, or bytes up to 4096) of a write, or the size of a read."""
REASON_HVC = "hvc"
"""HVC (EC 0x16): `data` is (x0, x1, x2, x3)."""
REASON_WFX = "wfx"
"""Trapped WFI or WFE: EC 0x01."""
REASON_IRQ = "irq"
"""Physical interrupt while a guest ran."""
REASON_CRASH = "crash"
"""The guest program raised; `data` is the text of its traceback."""

HCR_TWI = 1 << 13
HCR_TWE = 1 << 14
HCR_IMO = 1 << 4
HCR_FMO = 1 << 3
HCR_VM = 1 << 0
"""Bits of HCR_EL2 that the model uses (Arm ARM D19.2.48)."""

TRAP = Protocol(
    "trap",
    18,
    [
        # PE to hypervisor.
        ("Exit", PRIORITY_REQUEST, ("vcpu", "reason", "esr", "far", "ipa", "data", "ich", "cntv_ctl", "cntv_cval")),
        ("Irq", PRIORITY_LEVEL, ("level",)),
        ("SysregValue", PRIORITY_RESPONSE, ("tag", "value")),
        ("SysregDone", PRIORITY_RESPONSE, ("tag",)),
        # Hypervisor to PE.
        ("Enter", PRIORITY_REQUEST, ("vcpu", "hcr", "stage2", "ich", "cntv_ctl", "cntv_cval", "resume")),
        ("SysregRead", PRIORITY_REQUEST, ("tag", "name", "el", "secure")),
        ("SysregWrite", PRIORITY_REQUEST, ("tag", "name", "value", "el", "secure")),
        # Hypervisor to PE: the architectural state of a vCPU before its first Enter: program (entry point), its argument
        # string, parameters and VMPIDR.
        ("LoadContext", PRIORITY_REQUEST, ("vcpu", "program", "args", "params", "vmpidr")),
        ("DropContext", PRIORITY_REQUEST, ("vcpu",)),
        # Migration. Hypervisor to PE: give the state of a vCPU away; PE to hypervisor: here it is; hypervisor to another PE:
        # take it over. A coroutine cannot be copied, so a context travels as what it was made of and the journal of all that
        # reached it since (nodes/pe/context.py), a tuple of (kind, value).
        ("SaveContext", PRIORITY_REQUEST, ("vcpu",)),
        (
            "ContextState",
            PRIORITY_RESPONSE,
            ("vcpu", "program", "args", "params", "vmpidr", "trapped", "fault", "journal"),
        ),
        (
            "RestoreContext",
            PRIORITY_REQUEST,
            ("vcpu", "program", "args", "params", "vmpidr", "trapped", "fault", "journal"),
        ),
    ],
)
"""`trapped`: the vCPU left in the middle of an operation, which its next Enter completes. `fault`: () or (status, address,
write) of a posted access that failed and that no `dsb` has reported yet.

`vcpu` is a text such as "guest0.vcpu3", unique over all guests of a run. `name` is a system register's ("ICC_IAR1_EL1")."""
