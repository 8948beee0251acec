"""kvmtool's devices, purely: UART, MSI-X table and pending bits, configuration space, memory map."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.hypervisor.vmm import memory_map
from nodes.hypervisor.vmm.msix import CONTROL_ENABLE, CONTROL_MASKALL, MsixTable
from nodes.hypervisor.vmm.passthrough import assign_bars
from nodes.hypervisor.vmm.pci_config import BAR0, COMMAND, VirtualConfig
from nodes.hypervisor.vmm.uart import IER, LCR, LSR, RBR_THR, Uart

MSIX = 0x40
SIZES = {0: 0x4_0000, 2: 0x8000, 4: 0x1000}


def physical() -> bytes:
    """The endpoint's configuration space: three 64-bit BARs that the host placed above 4 GiB, MSI-X enabled by the host."""
    config = bytearray(256)
    config[0:4] = (0xFF80_13B5).to_bytes(4, "little")
    config[4:8] = (0x0010_0406).to_bytes(4, "little")
    for n, address in enumerate([0x40_0008_0000, 0x40_000C_0000, 0x40_000C_8000]):
        config[0x10 + 8 * n : 0x18 + 8 * n] = (address | 4).to_bytes(8, "little")
    config[0x34] = MSIX
    config[0x3D] = 1
    config[MSIX : MSIX + 12] = bytes([0x11, 0, 0xFF, 0x87, 2, 0, 0, 0, 4, 0, 0, 0])
    return bytes(config)


def config() -> VirtualConfig:
    """As the guest sees it, BARs from 0x5000_0000."""
    bars = {n: (0, size) for n, size in SIZES.items()}
    return VirtualConfig(physical(), SIZES, assign_bars(bars, 0x5000_0000))


def test_the_gic_lies_below_its_distributor() -> None:
    """With 8 vCPUs the frames are where kvmtool puts them, and TRANSLATER is 0x3FEE0040."""
    assert memory_map.gic_map(8) == (0x3FFF_0000, 0x3FEF_0000, 0x3FED_0000)


def test_uart_text_survives_any_split_of_its_bytes() -> None:
    """Characters and blocks give the text, also when a UTF-8 sequence is split over two writes."""
    out: list[str] = []
    uart = Uart(out.append)
    data = "PASS: µ\n".encode()
    uart.write(RBR_THR, data[:7])
    for byte in data[7:]:
        uart.write(RBR_THR, bytes([byte]))
    assert "".join(out) == "PASS: µ\n"


def test_uart_is_always_ready_and_has_a_divisor_latch() -> None:
    """LSR shows an empty transmitter; with DLAB set, offsets 0 and 1 are the divisor and print nothing."""
    out: list[str] = []
    uart = Uart(out.append)
    assert uart.read(LSR) == 0x60
    uart.write(LCR, b"\x83")
    uart.write(RBR_THR, b"\x01")
    assert uart.read(RBR_THR) == 1 and out == []
    uart.write(LCR, b"\x03")
    uart.write(IER, b"\x05")
    assert uart.read(IER) == 5


def test_bars_are_the_vmms_and_keep_size_and_type() -> None:
    """The guest reads its own addresses with the 64-bit type, and learns the size by writing ones."""
    space = config()
    assert [space.bar(n) for n in (0, 2, 4)] == [0x5000_0000, 0x5004_0000, 0x5004_8000]
    assert space.read(BAR0, 4) == 0x5000_0004
    space.write(BAR0, 4, 0xFFFF_FFFF)
    space.write(BAR0 + 4, 4, 0xFFFF_FFFF)
    assert space.read(BAR0, 4) == 0xFFFC_0004 and space.read(BAR0 + 4, 4) == 0xFFFF_FFFF
    space.write(BAR0, 4, 0x5010_0000)
    space.write(BAR0 + 4, 4, 0)
    assert space.bar(0) == 0x5010_0000


def test_accesses_decode_only_while_memory_space_is_on() -> None:
    """A BAR answers after Command.Memory is set, up to its last byte."""
    space = config()
    assert space.read(COMMAND, 2) == 0 and space.locate(0x5004_0010, 4) is None
    space.write(COMMAND, 2, 6)
    assert space.locate(0x5004_0010, 4) == (2, 0x10)
    assert space.locate(0x5004_7FFC, 4) == (2, 0x7FFC) and space.locate(0x5004_8FFC, 8) is None


def test_read_only_registers_keep_their_values_and_msix_control_its_bits() -> None:
    """Identity and capability pointers are read-only; of Message Control only Enable and Function Mask can be written."""
    space = config()
    space.write(0, 4, 0)
    space.write(MSIX, 4, 0xFFFF_FFFF)
    assert space.read(0, 4) == 0xFF80_13B5
    assert space.read(MSIX, 2) == 0x11 and space.msix_control == 0xC7FF
    space.write(MSIX + 2, 2, 0x8000)
    assert space.msix_control == 0x87FF
    assert config().msix_control == 0x07FF
    assert space.read(0x3D, 1) == 0


@given(st.lists(st.tuples(st.integers(0, 255), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**64 - 1)), max_size=30))
def test_no_write_reaches_what_is_read_only(writes: list[tuple[int, int, int]]) -> None:
    """Whatever a guest writes: identity, capabilities and BAR types stay."""
    space, fresh = config(), config()
    for offset, size, value in writes:
        at = offset & ~(size - 1)
        space.write(at, size, value & ((1 << 8 * size) - 1))
    for offset in (0, 8, 0x2C, 0x34, MSIX + 4, MSIX + 8):
        assert space.read(offset, 4) == fresh.read(offset, 4)
    assert [space.read(BAR0 + 8 * n, 1) & 0xF for n in range(3)] == [4, 4, 4]


def test_a_vector_is_live_only_unmasked_enabled_and_not_function_masked() -> None:
    """Table writes show which vectors they touch; liveness follows the three conditions."""
    table = MsixTable(2048)
    assert table.read(12, 4) == 1 and not table.live(0)
    assert table.write(16, 8, 0x3FEE_0043) == [1]
    assert table.write(24, 8, 5) == [1]
    assert table.message(1) == (0x3FEE_0040, 5) and not table.masked(1)
    table.control(CONTROL_ENABLE | CONTROL_MASKALL)
    assert not table.live(1)
    table.control(CONTROL_ENABLE)
    assert table.live(1) and not table.live(0) and table.programmed() == [1]


def test_a_masked_vector_that_fires_is_pending_until_it_is_unmasked() -> None:
    """The pending bit shows in the PBA and is taken exactly once, when the vector is live."""
    table = MsixTable(2048)
    table.control(CONTROL_ENABLE)
    table.pend(70)
    assert table.read_pba(8, 8) == 1 << 6 and table.take_pending([70]) == []
    table.write(70 * 16 + 12, 4, 0)
    assert table.take_pending([70]) == [70] and table.take_pending([70]) == [] and table.read_pba(8, 8) == 0


@pytest.mark.parametrize(("offset", "size"), [(12, 1), (12, 2), (2048 * 16, 4), (2, 4)])
def test_odd_table_writes_have_no_effect(offset: int, size: int) -> None:
    """Only aligned accesses of 4 or 8 bytes inside the table change it."""
    table = MsixTable(2048)
    assert table.write(offset, size, 0) == [] and table.programmed() == []
