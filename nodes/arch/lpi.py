"""LPI configuration and pending tables, physical and virtual (IHI 0069 section 5.1; sheet 5.1 and 5.2).

Configuration: one byte per LPI at base + (INTID - 8192): Enable[0], RES1[1], Priority[7:2]. Pending: bit INTID % 8 of byte
INTID // 8.
"""

from __future__ import annotations

from nodes.arch.intid import LPI_BASE


def config_address(base: int, intid: int) -> int:
    """Address of the configuration byte of an LPI."""
    return base + intid - LPI_BASE


def config_byte(priority: int, enable: bool) -> int:
    """Configuration byte as software writes it, e.g. 0xA3 for priority 0xA0 enabled."""
    return (priority & 0xFC) | 0b10 | int(enable)


def config_fields(byte: int) -> tuple[int, bool]:
    """(priority, enabled) of a configuration byte."""
    return byte & 0xFC, bool(byte & 1)


def config_size(id_bits: int) -> int:
    """Bytes of a configuration table for `id_bits` INTID bits (the register field plus one)."""
    return (1 << id_bits) - LPI_BASE


def pending_size(id_bits: int) -> int:
    """Bytes of a pending table for `id_bits` INTID bits."""
    return (1 << id_bits) // 8


def pending_position(intid: int) -> tuple[int, int]:
    """(byte offset, mask) of an INTID in a pending table."""
    return intid // 8, 1 << (intid % 8)
