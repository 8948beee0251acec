"""ITS commands: 32 bytes, four little-endian 64-bit words (IHI 0069 section 5.3; GICv4.1 layouts of VMAPP and VMOVP).

`encode("MAPD", device_id=0x30801, size=4, itt=0x880123400, valid=1)` gives the bytes; `decode` gives a `Command`. Addresses are
given and returned whole (`itt`, `vpt`, `vconf`), `rdbase` as GICR_TYPER.ProcessorNumber (GITS_TYPER.PTA = 0), `priority` of VSGI
as an 8-bit priority of which bits [7:4] travel.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

COMMAND_SIZE = 32
_WORDS = struct.Struct("<4Q")


class _Slot(NamedTuple):
    word: int
    hi: int
    lo: int
    shift: int = 0  # bits of the value below the field (addresses travel in place)


_DEV = {"device_id": _Slot(0, 63, 32)}
_EVENT = {**_DEV, "event_id": _Slot(1, 31, 0)}
_VPE = {"vpeid": _Slot(1, 47, 32)}
_ICID = {"icid": _Slot(2, 15, 0)}
_RD = {"rdbase": _Slot(2, 51, 16)}
_VALID = {"valid": _Slot(2, 63, 63)}
_VPT = {"vpt_size": _Slot(3, 4, 0), "vpt": _Slot(3, 51, 16, 16)}

Layout = Mapping[str, _Slot]

LAYOUTS: dict[str, tuple[int, Layout]] = {
    "MOVI": (0x01, {**_EVENT, **_ICID}),
    "INT": (0x03, _EVENT),
    "CLEAR": (0x04, _EVENT),
    "SYNC": (0x05, _RD),
    "MAPD": (0x08, {**_DEV, "size": _Slot(1, 4, 0), "itt": _Slot(2, 51, 8, 8), **_VALID}),
    "MAPC": (0x09, {**_ICID, **_RD, **_VALID}),
    "MAPTI": (0x0A, {**_EVENT, "pintid": _Slot(1, 63, 32), **_ICID}),
    "MAPI": (0x0B, {**_EVENT, **_ICID}),
    "INV": (0x0C, _EVENT),
    "INVALL": (0x0D, _ICID),
    "MOVALL": (0x0E, {"rdbase1": _Slot(2, 51, 16), "rdbase2": _Slot(3, 51, 16)}),
    "DISCARD": (0x0F, _EVENT),
    "VMOVI": (0x21, {**_EVENT, **_VPE, "d": _Slot(2, 0, 0), "doorbell": _Slot(2, 63, 32)}),
    "VMOVP": (
        0x22,
        {
            "seqnum": _Slot(0, 47, 32),
            "itslist": _Slot(1, 15, 0),
            **_VPE,
            **_RD,
            "db": _Slot(2, 63, 63),
            "default_doorbell": _Slot(3, 31, 0),
        },
    ),
    "VSGI": (
        0x23,
        {
            "enable": _Slot(0, 8, 8),
            "clear": _Slot(0, 9, 9),
            "group": _Slot(0, 10, 10),
            "priority": _Slot(0, 23, 20, 4),
            "sgi": _Slot(0, 35, 32),
            **_VPE,
        },
    ),
    "VSYNC": (0x25, _VPE),
    "VMAPP": (
        0x29,
        {
            "alloc": _Slot(0, 8, 8),
            "ptz": _Slot(0, 9, 9),
            "vconf": _Slot(0, 51, 16, 16),
            "default_doorbell": _Slot(1, 31, 0),
            **_VPE,
            **_RD,
            **_VALID,
            **_VPT,
        },
    ),
    "VMAPTI": (
        0x2A,
        {**_EVENT, **_VPE, "vintid": _Slot(2, 31, 0), "doorbell": _Slot(2, 63, 32)},
    ),
    "VMAPI": (0x2B, {**_EVENT, **_VPE, "doorbell": _Slot(2, 63, 32)}),
    "VINVALL": (0x2D, _VPE),
    "INVDB": (0x2E, _VPE),
}
"""(opcode, fields) by command name."""

_BY_OPCODE = {opcode: (name, layout) for name, (opcode, layout) in LAYOUTS.items()}


@dataclass(frozen=True, slots=True)
class Command:
    """A decoded command; `name` is "" for an opcode that no version of the architecture defines."""

    name: str
    opcode: int
    fields: dict[str, int]

    def __getitem__(self, field: str) -> int:
        return self.fields[field]


def encode(name: str, **fields: int) -> bytes:
    """The 32 bytes of a command; fields not given are 0.

    Raises:
        ValueError: unknown command or field, or a value that does not fit (an address not aligned to its field).
    """
    if name not in LAYOUTS:
        raise ValueError(f"ITS command must be one of {', '.join(LAYOUTS)}, not {name!r}")
    opcode, layout = LAYOUTS[name]
    words = [opcode, 0, 0, 0]
    for key, value in fields.items():
        slot = layout.get(key)
        if slot is None:
            raise ValueError(f"{name} must have fields {', '.join(layout)}, not {key!r}")
        part = value >> slot.shift
        if value < 0 or part << slot.shift != value or part >> (slot.hi - slot.lo + 1):
            raise ValueError(
                f"{key} of {name} must fit bits [{slot.hi}:{slot.lo}] in steps of {1 << slot.shift:#x}, not {value:#x}"
            )
        words[slot.word] |= part << slot.lo
    return _WORDS.pack(*words)


def decode(data: bytes) -> Command:
    """The command in 32 bytes; total: an unknown opcode gives a Command with name ""."""
    words = _WORDS.unpack(data)
    opcode = words[0] & 0xFF
    name, layout = _BY_OPCODE.get(opcode, ("", {}))
    fields = {
        key: (words[slot.word] >> slot.lo & ((1 << (slot.hi - slot.lo + 1)) - 1)) << slot.shift
        for key, slot in layout.items()
    }
    return Command(name, opcode, fields)
