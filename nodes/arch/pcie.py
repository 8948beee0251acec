"""PCI addresses: bus, device, function (PCI Express Base Specification 2.2.6.2, routing ID; ECAM 7.2.2); attributes of what
endpoints send."""

from __future__ import annotations

import re

ATTR_PRIVILEGED, ATTR_NONSECURE, ATTR_INSTRUCTION = 1, 2, 4
"""Bits of a transaction's attributes, those of AXI's AxPROT: `cosim.api.NONSECURE` and `SECURE` are made of them."""
ATTR_PASID = 1 << 8
"""Bit of a transaction's attributes: it has a PASID (20 bits from PASID_SHIFT), which is the SMMU's SubstreamID."""
PASID_SHIFT = 12
PASID_BITS = 20

_BDF = re.compile(r"(?:([0-9a-fA-F]{4}):)?([0-9a-fA-F]{2}):([0-9a-fA-F]{2})\.([0-7])\Z")


def requester_id(bus: int, device: int, function: int) -> int:
    """16-bit requester ID, e.g. 0x0801 for 08:00.1."""
    return bus << 8 | device << 3 | function


def parse_bdf(text: str) -> int:
    """Requester ID of "08:00.1" or "0000:08:00.1"; ValueError otherwise."""
    found = _BDF.match(text)
    if found is None or int(found[3], 16) > 31:
        raise ValueError(f"PCI address must look like 0000:08:00.1, not {text!r}")
    return requester_id(int(found[2], 16), int(found[3], 16), int(found[4]))


def bdf(rid: int) -> str:
    """``"0000:08:00.1"`` for requester ID 0x0801."""
    return f"0000:{rid >> 8:02x}:{rid >> 3 & 31:02x}.{rid & 7}"


def ecam_offset(rid: int, register: int = 0) -> int:
    """Offset of a configuration register in the ECAM window."""
    return rid << 12 | register


def with_pasid(attr: int, pasid: int) -> int:
    """Attributes of a transaction with a PASID."""
    return attr | ATTR_PASID | pasid << PASID_SHIFT


def pasid_of(attr: int) -> int | None:
    """PASID of a transaction's attributes; None without one."""
    return attr >> PASID_SHIFT & (1 << PASID_BITS) - 1 if attr & ATTR_PASID else None
