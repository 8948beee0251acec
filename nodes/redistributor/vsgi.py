"""The 16 virtual SGIs of a vPE (GICv4.1): configuration by VSGI commands, pending state by GITS_SGIR.

There is no active state: an acknowledge clears pending, so that the same vSGI can come again before the guest has
deactivated it. One VSGI command either sets the configuration or clears pending, never both (IHI 0069H section 5.3, VSGI).
"""

from __future__ import annotations

from collections.abc import Iterator

from nodes.redistributor.stream import Offer

COUNT = 16
STORED_SIZE = 64
"""Bytes of the state in the first line of the VPT, whose first 1 KiB is IMPLEMENTATION DEFINED: pending mask (2 bytes),
then from byte 16 one byte per vSGI: Enable[0], Group[1], Priority[7:4]."""


class Vsgis:
    """Enable, group, priority and pending of INTIDs 0 to 15."""

    __slots__ = ("enabled", "group", "pending", "priority")

    def __init__(self) -> None:
        self.enabled = 0
        self.group = 0
        self.pending = 0
        self.priority = [0] * COUNT

    def configure(self, sgi: int, enable: int, group: int, priority: int) -> None:
        """VSGI with C=0: pending stays; bits [3:0] of the priority do not exist."""
        bit = 1 << sgi
        self.enabled = self.enabled & ~bit | (bit if enable else 0)
        self.group = self.group & ~bit | (bit if group else 0)
        self.priority[sgi] = priority & 0xF0

    def offers(self, group0: bool, group1: bool) -> Iterator[Offer]:
        """The deliverable ones: pending, enabled, of an enabled group."""
        mask = self.pending & self.enabled & ((self.group if group1 else 0) | (~self.group if group0 else 0))
        while mask:
            bit = mask & -mask
            mask ^= bit
            sgi = bit.bit_length() - 1
            yield Offer(sgi, self.priority[sgi], 1 if self.group & bit else 0)

    def store(self) -> bytes:
        """The state as `STORED_SIZE` bytes; all zero after reset."""
        config = bytes(self.priority[n] | (self.group >> n & 1) << 1 | (self.enabled >> n & 1) for n in range(COUNT))
        return (self.pending.to_bytes(2, "little") + bytes(14) + config).ljust(STORED_SIZE, b"\0")

    def load(self, data: bytes) -> None:
        """Take the state over from `store`'s bytes."""
        self.pending = int.from_bytes(data[:2], "little")
        for n, byte in enumerate(data[16 : 16 + COUNT]):
            self.configure(n, byte & 1, byte >> 1 & 1, byte)
