"""PSCI for guests, by HVC (Arm DEN 0022; ids in sheet 8.5): CPU_ON stays in the kernel, SYSTEM_OFF ends the run.

`call` decides; the VM carries out what it returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

VERSION: Final = 0x8400_0000
CPU_OFF: Final = 0x8400_0002
CPU_ON: Final = (0x8400_0003, 0xC400_0003)
AFFINITY_INFO: Final = (0x8400_0004, 0xC400_0004)
MIGRATE_INFO_TYPE: Final = 0x8400_0006
SYSTEM_OFF: Final = 0x8400_0008
SYSTEM_RESET: Final = 0x8400_0009
FEATURES: Final = 0x8400_000A
SMCCC_VERSION: Final = 0x8000_0000

PSCI_1_0: Final = 0x0001_0000
SMCCC_1_1: Final = 0x0001_0001
NOT_PRESENT_MIGRATION: Final = 2

_MASK64: Final = (1 << 64) - 1
SUCCESS: Final = 0
NOT_SUPPORTED: Final = -1 & _MASK64
INVALID_PARAMETERS: Final = -2 & _MASK64
ALREADY_ON: Final = -4 & _MASK64

MPIDR_AFFINITY: Final = 0xFF_00FF_FFFF
_KNOWN: Final = frozenset(
    (VERSION, CPU_OFF, *CPU_ON, *AFFINITY_INFO, MIGRATE_INFO_TYPE, SYSTEM_OFF, SYSTEM_RESET, FEATURES, SMCCC_VERSION)
)


class Verdict(NamedTuple):
    """Result for x0, and what to do: "" | "on" | "off" | "system_off" | "reset" | "unknown"; for "on": whom, entry, x0."""

    x0: int
    action: str = ""
    target: int = 0
    entry: int = 0
    context: int = 0


def call(args: tuple[int, int, int, int], affinities: Sequence[int], powered: Sequence[bool]) -> Verdict:
    """Decide on the HVC with x0..x3 = `args`; `affinities` and `powered` describe the vCPUs."""
    function = args[0] & 0xFFFF_FFFF
    if function == VERSION:
        return Verdict(PSCI_1_0)
    if function == SMCCC_VERSION:
        return Verdict(SMCCC_1_1)
    if function == FEATURES:
        return Verdict(SUCCESS if args[1] & 0xFFFF_FFFF in _KNOWN else NOT_SUPPORTED)
    if function == MIGRATE_INFO_TYPE:
        return Verdict(NOT_PRESENT_MIGRATION)
    if function == CPU_OFF:
        return Verdict(SUCCESS, "off")
    if function == SYSTEM_OFF:
        return Verdict(SUCCESS, "system_off")
    if function == SYSTEM_RESET:
        return Verdict(SUCCESS, "reset")
    if function in CPU_ON or function in AFFINITY_INFO:
        return _target(function, args, affinities, powered)
    return Verdict(NOT_SUPPORTED, "unknown")


def _target(
    function: int, args: tuple[int, int, int, int], affinities: Sequence[int], powered: Sequence[bool]
) -> Verdict:
    wanted = args[1] & MPIDR_AFFINITY
    found = [n for n, affinity in enumerate(affinities) if affinity & MPIDR_AFFINITY == wanted]
    if not found:
        return Verdict(INVALID_PARAMETERS)
    if function in AFFINITY_INFO:
        return Verdict(0 if powered[found[0]] else 1)
    if powered[found[0]]:
        return Verdict(ALREADY_ON)
    return Verdict(SUCCESS, "on", found[0], args[2], args[3])
