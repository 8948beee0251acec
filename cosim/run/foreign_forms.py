"""Forms of what a foreign node says: numbers, data of accesses, attributes, records for log, console and marks."""

from __future__ import annotations

import re
from typing import Any

from cosim.run.marks import FAMILIES

_SIDE_SHAPES = ((str, dict), (str, str), (str, tuple))
_FIELD = re.compile(r"[a-z_][a-z0-9_]*\Z")
_RESERVED = frozenset(("event", "node", "run", "self", "method_name", "t", "t_ps", "wall"))
_MARKS: dict[str, tuple[Any, ...]] = {  # those that `cosim.run.marks` reads: types, or the only values
    "cause": (FAMILIES, str, int, int),
    "msi": (int, int, int),
    "msi_route": (int, int, str, int),
    "exit": (str,),
    "ack": (str, int, ("direct", "lr")),
}
_ATTR = 0b111  # AxPROT
_PASID, _PASID_VALUE = 1 << 8, 0xFFFFF << 12


def well_formed(kind: int, payload: tuple[Any, ...]) -> bool:
    """Whether the payload of a side record is one: log (event, fields), console (file, text), mark (name, identity)."""
    if len(payload) != 2 or not all(isinstance(v, t) for v, t in zip(payload, _SIDE_SHAPES[kind], strict=True)):
        return False
    if kind == 0:
        return all(_FIELD.match(key) and key not in _RESERVED for key in payload[1])
    if kind == 2 and payload[0] in _MARKS:
        shape = _MARKS[payload[0]]
        return len(payload[1]) >= len(shape) and all(
            value in wanted if isinstance(wanted, tuple) else type(value) is wanted
            for value, wanted in zip(payload[1], shape, strict=False)
        )
    return True


def is_int(value: Any, most: int) -> bool:
    """Whether it is an integer from 0 to `most`."""
    return type(value) is int and 0 <= value <= most


def is_attr(value: Any) -> bool:
    """Whether it is what an access may have as attributes: AxPROT, and a PASID with the bit that says so."""
    if not is_int(value, 0xFFFF_FFFF):
        return False
    return not value & ~(_ATTR | _PASID | _PASID_VALUE if value & _PASID else _ATTR)


def fits(data: Any, size: int) -> bool:
    """Whether it can be the data of an access of `size` bytes."""
    if size in (1, 2, 4, 8):
        return is_int(data, (1 << 8 * size) - 1)
    return type(data) is bytes and len(data) == size


def form(size: int) -> str:
    """The form of such data, in words."""
    return f"an integer below 2**{8 * size}" if size in (1, 2, 4, 8) else f"{size} bytes"


def show(value: Any, most: int = 80) -> str:
    """A value for a message, cut short."""
    text = repr(value)
    return text if len(text) <= most else text[: most - 3] + "..."
