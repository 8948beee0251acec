"""Configuration space of the test engine (sheet 9.1, 11)."""

from __future__ import annotations

import pytest

from cosim.api import BusFault
from tests.machine.smmute_bench import ECAM, Rig


def test_identity() -> None:
    """Both functions are 13b5:ff80, class ff, revision 0f, multi-function, subsystem 13b5:0000, without INTx."""
    r = Rig()
    for function in (0, 1):
        assert r.config(function, 0) == 0xFF80_13B5
        assert r.config(function, 8) == 0xFF00_000F
        assert r.config(function, 0xE, 1) == 0x80
        assert r.config(function, 0x2C) == 0x13B5
        assert r.config(function, 0x3D, 1) == 0


def test_one_function_is_not_multi_function() -> None:
    """With functions = 1 the header type has no multi-function bit, and function 1 is not there."""
    r = Rig(functions=1)
    assert r.config(0, 0xE, 1) == 0
    assert r.config(1, 0) == 0xFFFF_FFFF


@pytest.mark.parametrize("rid", [0x000, 0x7FF, 0x802, 0x808, 0xFFFF])
def test_nothing_else_is_there(rid: int) -> None:
    """Every other requester ID reads all ones at any size and ignores writes."""
    r = Rig()
    for size in (1, 2, 4):
        assert r.read(ECAM + rid * 4096, size) == (1 << 8 * size) - 1
    r.write(ECAM + rid * 4096 + 4, 6, 2)


def test_bar_sizing() -> None:
    """Writing ones shows 64-bit BARs of 256 KiB, 32 KiB and 4 KiB; the flags cannot be written."""
    r = Rig()
    sizes = []
    for n in range(3):
        r.set_config(0, 0x10 + 8 * n, 0xFFFF_FFFF)
        r.set_config(0, 0x14 + 8 * n, 0xFFFF_FFFF)
        low, high = r.config(0, 0x10 + 8 * n), r.config(0, 0x14 + 8 * n)
        assert low & 0xF == 0xC
        sizes.append((1 << 64) - (high << 32 | low & ~0xF))
    assert sizes == [0x4_0000, 0x8000, 0x1000]
    assert r.config(1, 0x14) == 0


def test_capability_list() -> None:
    """The list has PCI Express (endpoint) and MSI-X with 2048 vectors, table in BAR 2 and pending bits in BAR 4."""
    r = Rig()
    assert r.config(0, 6, 2) & 1 << 4
    found = {}
    at = r.config(0, 0x34, 1)
    while at:
        found[r.config(0, at, 1)] = at
        at = r.config(0, at + 1, 1)
    assert sorted(found) == [0x10, 0x11]
    assert r.config(0, found[0x10] + 2, 2) == 2
    msix = found[0x11]
    assert r.config(0, msix + 2, 2) == 2047
    assert (r.config(0, msix + 4), r.config(0, msix + 8)) == (2, 4)
    r.set_config(0, msix + 2, 0xFFFF, 2)
    assert r.config(0, msix + 2, 2) == 0xC000 | 2047


def test_command_register() -> None:
    """Memory, bus master, parity, SERR and INTx disable can be written, and a 32-bit write leaves Status alone."""
    r = Rig()
    r.set_config(1, 4, 0xFFFF_FFFF)
    assert r.config(1, 4) == 0x0010_0546
    assert r.config(0, 4, 2) == 0


def test_odd_configuration_accesses_are_refused() -> None:
    """Eight bytes, or an unaligned access, end with SLVERR."""
    r = Rig()
    for offset, size in ((0, 8), (1, 2), (2, 4)):
        with pytest.raises(BusFault, match="SLVERR"):
            r.config(0, offset, size)


def test_msix_table_resets_masked_and_takes_blocks() -> None:
    """Entries are masked from reset; address bits 1:0 and reserved control bits read zero; the last entry exists."""
    r = Rig()
    r.enable(0, vectors=0)
    last = r.bars(0)[1] + 16 * 2047
    assert r.read(last + 12) == 1
    r.block(last, b"\xff" * 16)
    assert r.bench.call("host", r.host.bus.read_block(last, 16)) == b"\xfc" + b"\xff" * 11 + b"\1\0\0\0"
    assert r.read(last, 8) == 0xFFFF_FFFF_FFFF_FFFC


def test_pending_bits_are_read_only() -> None:
    """A write to the pending bits has no effect and is counted; beyond 256 bytes BAR 4 reads zero."""
    r = Rig()
    r.enable(0, vectors=0)
    r.write(r.bars(0)[2], 0xFFFF_FFFF)
    assert (r.read(r.bars(0)[2]), r.read(r.bars(0)[2] + 0xFFC)) == (0, 0)
    assert r.smmute.count["ignored_writes"] == 1
