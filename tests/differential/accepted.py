"""The accepted differences: for each, who is right and why, and which part of what is seen it takes out of the comparison.

What the architecture leaves UNPREDICTABLE is not here: `resolve` does not write such programs. Here is only what software can
see on both sides and what may, by the architecture or by QEMU's own limits, differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.differential.oracle import Observed

EITHER, OURS = "both are right", "ours is right"


@dataclass(frozen=True, slots=True)
class Accepted:
    """`names` are prefixes of what is compared, `bits` what is left out of it (all ones: everything)."""

    what: str
    right: str
    why: str
    names: tuple[str, ...]
    bits: int


ACCEPTED: tuple[Accepted, ...] = (
    Accepted(
        "GITS_CTLR.Quiescent while Enabled is 1",
        EITHER,
        "UNKNOWN while enabled before GICv4.1 (IHI 0069H 12.19.3); QEMU leaves it 1",
        ("GITS_CTLR",),
        1 << 31,
    ),
    Accepted(
        "GITS_BASER1.Entry_Size",
        EITHER,
        "the implementation chooses it: 2 bytes here, 8 in QEMU; the tables are compared decoded",
        ("GITS_BASER1",),
        0x1F << 48,
    ),
)


def normalise(observed: list[Observed]) -> list[Observed]:
    """What is left of one side's observations."""
    return [(result, {name: _mask(name, value) for name, value in view.items()}) for result, view in observed]


def _mask(name: str, value: object) -> object:
    if isinstance(value, int):
        for entry in ACCEPTED:
            if name.startswith(entry.names):
                value &= ~entry.bits
    return value
