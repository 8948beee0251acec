"""What a context asks of its PE: one operation at a time.

These are the points at which execution at EL1 needs the world outside it: memory, system registers, exceptions to EL2,
time. A `Context` hands them out (`context.py`), the PE carries them out (`guest.py`).
"""

from __future__ import annotations

from typing import NamedTuple


class Load(NamedTuple):
    """Read `size` bytes; the result is an int, or bytes with `block`."""

    address: int
    size: int
    block: bool = False


class Store(NamedTuple):
    """Write `size` bytes: an int, or bytes of that length. `posted`: don't wait for the completion."""

    address: int
    data: int | bytes
    size: int
    posted: bool = False


class Dsb(NamedTuple):
    """Wait for posted stores."""


class Mrs(NamedTuple):
    """Read a system register to general register `rt`."""

    name: str
    rt: int = 0


class Msr(NamedTuple):
    """Write a system register from general register `rt`."""

    name: str
    value: int
    rt: int = 0


class Hvc(NamedTuple):
    """Call the hypervisor with x0 to x3; the result is a tuple of four ints."""

    arguments: tuple[int, int, int, int]


class Wfi(NamedTuple):
    """Wait for an interrupt."""


class Delay(NamedTuple):
    """Be busy for `span` ps (for real code: executing instructions that need nothing from outside)."""

    span: int


Operation = Load | Store | Dsb | Mrs | Msr | Hvc | Wfi | Delay
OPERATIONS = (Load, Store, Dsb, Mrs, Msr, Hvc, Wfi, Delay)

Result = int | bytes | tuple[int, ...] | None
"""What completes an operation: a read's value, an HVC's x0 to x3, None for the others."""
