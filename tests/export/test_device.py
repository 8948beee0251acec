"""The exported test engine as its client sees it: identity, BARs, memory, transactions, interrupts."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from nodes.smmute.engine import RandomFill
from tests.export.client import (
    CONFIG,
    ERROR,
    HALTED,
    INFO,
    IRQ,
    MEMCPY,
    RAND48,
    RESET,
    SUM64,
    Client,
    Errno,
)
from tests.export.serving import Running, serving

PATTERN = bytes(range(256)) * 32


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    """A server."""
    with serving(tmp_path) as found:
        yield found


@pytest.fixture
def client(running: Running) -> Iterator[Client]:
    """A client that has negotiated and enabled the device."""
    with Client(running.path) as found:
        found.negotiate()
        found.enable()
        yield found


def test_a_client_finds_the_engine(running: Running) -> None:
    """Version and the capabilities that were offered; a PCI device with reset, found by its IDs; MSI-X of 2048 vectors."""
    with Client(running.path) as client:
        assert client.negotiate() == (0, 0, {"max_msg_fds": 16, "max_data_xfer_size": 1 << 20, "pgsizes": 4096})
        assert struct.unpack("=IIII", client.request(INFO, struct.pack("=IIII", 16, 0, 0, 0))) == (16, 3, 9, 5)
        assert client.config(0) == 0xFF80_13B5
        assert client.region_size(CONFIG) == 4096
        capability = client.config(0x34, 1)
        while client.config(capability, 1) != 0x11:
            capability = client.config(capability + 1, 1)
        assert client.config(capability + 2, 2) & 0x7FF == 2047
        reply = client.request(IRQ, struct.pack("=IIII", 16, 0, 2, 0))
        assert struct.unpack("=IIII", reply) == (16, 3, 2, 2048)
        assert [client.request(IRQ, struct.pack("=IIII", 16, 0, n, 0))[12] for n in (0, 1, 3, 4)] == [0, 0, 1, 0]


def test_bars_are_sized_by_ones_and_keep_an_address(client: Client) -> None:
    """What the client reads after writing ones agrees with the region's size; an address that it writes stays, without effect
    on where the server reaches the BAR."""
    for bar, size in ((0, 0x4_0000), (2, 0x8000), (4, 0x1000)):
        assert client.region_size(bar) == size
        assert client.region_size(bar + 1) == 0
        at = 0x10 + 4 * bar
        assert client.config(at, 4) == 0xC, "64-bit, prefetchable, not placed"
        client.write(CONFIG, at, b"\xff" * 8)
        assert client.config(at, 8) == (1 << 64) - size | 0xC
        client.set_config(at, 0x80_4000_0000 & 0xFFFF_FFFF)
        client.set_config(at + 4, 0x80)
        assert client.config(at, 8) == 0x80_4000_000C
    assert client.register(0) == HALTED
    assert client.region_size(6) == client.region_size(8) == 0


@pytest.mark.parametrize("shared", [True, False])
def test_a_copy_and_its_interrupt(client: Client, shared: bool) -> None:
    """A MEMCPY over page boundaries moves the bytes in memory of both kinds, and the interrupt comes after the data."""
    memory = client.map(0x4000_0000, 0x10000, shared=shared)
    memory[0x123 : 0x123 + 5000] = PATTERN[:5000]
    event = client.event(3)
    client.start(MEMCPY, 0x4000_0123, 0x4000_0123 + 4999, to=0x4000_8FF8, vector=3)
    assert client.wait(event) == 1
    assert memory[0x8FF8 : 0x8FF8 + 5000] == PATTERN[:5000]
    assert memory[0x8FF7] == memory[0x8FF8 + 5000] == 0
    assert client.register(0) == HALTED
    assert client.register(4) == 0, "no MSI_ABORTED"
    assert client.register(8) == client.register(12) > 2, "all transactions returned"
    assert bool(client.asked) is not shared


def test_an_event_whose_count_is_at_its_limit(client: Client) -> None:
    """A client that lets its eventfd fill up does not end the server: the vector is signalled as it is."""
    client.map(0x4000_0000, 0x10000, shared=True)
    event = client.event(3)
    os.eventfd_write(event, 2**64 - 2)
    client.set_irqs(1 | 32, 3, 1)
    client.start(MEMCPY, 0x4000_0000, 0x4000_00FF, to=0x4000_8000, vector=3)
    while client.register(0) != HALTED:
        pass
    assert client.wait(event) == 2**64 - 2
    assert client.register(4) == 0, "no MSI_ABORTED"


@pytest.mark.parametrize("shared", [True, False])
def test_random_bytes_and_their_sum(client: Client, shared: bool) -> None:
    """RAND48 fills memory with the engine's numbers, and SUM64 adds them up."""
    memory = client.map(0, 0x4000, shared=shared)
    event = client.event(0)
    client.start(RAND48, 0x800, 0x27FF, seed=0x1234)
    client.wait(event)
    fill = RandomFill(0x800, 0x1234)
    expected = fill.bytes(0x800, 0x800) + fill.bytes(0x1000, 0x1000) + fill.bytes(0x2000, 0x800)
    assert memory[0x800:0x2800] == expected
    client.start(SUM64, 0x800, 0x27FF)
    client.wait(event)
    words = struct.unpack("<1024Q", expected)
    assert client.register(0x48, 8) == sum(words) & (1 << 64) - 1


def test_windows_of_both_kinds_side_by_side(client: Client) -> None:
    """A copy from memory without a descriptor to memory with one, at the end of one window and the start of the next."""
    source = client.map(0x10_0000, 0x2000, shared=False)
    target = client.map(0x10_2000, 0x2000)
    source[0x1000:0x2000] = PATTERN[:0x1000]
    event = client.event(0)
    client.start(MEMCPY, 0x10_1000, 0x10_1FFF, to=0x10_2000)
    client.wait(event)
    assert target[:0x1000] == PATTERN[:0x1000]


def test_a_small_max_data_xfer_size_is_kept(running: Running) -> None:
    """A client that takes 100 bytes at a time is never asked for more."""
    with Client(running.path) as client:
        client.negotiate(capabilities={"max_data_xfer_size": 100})
        client.enable()
        memory = client.map(0, 0x3000, shared=False)
        memory[:0x1000] = PATTERN[:0x1000]
        event = client.event(0)
        client.start(MEMCPY, 0, 0xFFF, to=0x2000)
        client.wait(event)
        assert memory[0x2000:] == PATTERN[:0x1000]
        assert client.asked == 2 * 41


@pytest.mark.parametrize("begin, flags", [(0x9000, 3), (0x1000, 2)])
def test_memory_that_is_not_there_fails_the_transaction(client: Client, begin: int, flags: int) -> None:
    """An address outside all windows, or in one that is not readable, gives the engine's error status and the address."""
    client.map(0, 0x1000)
    client.map(0x1000, 0x1000, flags=flags)
    event = client.event(0)
    client.start(MEMCPY, begin, begin + 0xFF, to=0)
    client.wait(event)
    assert client.register(0) == ERROR
    assert client.register(0x50, 8) == begin


def test_the_client_refuses_a_dma_request(client: Client) -> None:
    """An error in place of data ends the transaction with the engine's error status."""
    client.map(0, 0x2000, shared=False)
    client.refuse_dma = errno.EFAULT
    event = client.event(0)
    client.start(MEMCPY, 0, 0xFF, to=0x1000)
    client.wait(event)
    assert client.register(0) == ERROR


def test_requests_are_served_while_the_device_waits_for_memory(client: Client) -> None:
    """The answer to a DMA_READ may come after other requests: no side waits for the other with its hands full."""
    memory = client.map(0, 0x2000, shared=False)
    memory[:256] = PATTERN[:256]
    event = client.event(0)
    client.deaf = True
    client.start(MEMCPY, 0, 0xFF, to=0x1000)
    while not client.heard:
        assert client.register(0) == MEMCPY, "it runs"
    client.deaf = False
    client.serve(*client.heard[0])
    client.wait(event)
    assert memory[0x1000:0x1100] == PATTERN[:256]


def test_reset_in_flight(client: Client) -> None:
    """A reset while a DMA_READ is open: the late answer is dropped, the engine is as new, memory and events are still there."""
    memory = client.map(0, 0x2000, shared=False)
    event = client.event(0)
    client.deaf = True
    client.start(MEMCPY, 0, 0xFF, to=0x1000)
    while not client.heard:
        client.register(0)
    assert client.request(RESET) == b""
    client.deaf = False
    client.serve(*client.heard[0])
    assert client.config(4, 2) == 0 and client.config(0x82, 2) & 0x8000 == 0
    with pytest.raises(Errno) as refused:
        client.register(0)
    assert refused.value.code == errno.EIO, "memory space is off, as after any reset"
    client.enable()
    assert client.register(0) == HALTED
    assert client.register(8) == 0
    memory[:256] = PATTERN[:256]
    client.start(MEMCPY, 0, 0xFF, to=0x1000)
    assert client.wait(event) == 1
    assert memory[0x1000:0x1100] == PATTERN[:256]


def test_unmapped_in_flight(client: Client) -> None:
    """Memory taken back while a DMA_READ is open ends the transaction with the engine's error status."""
    client.map(0, 0x2000, shared=False)
    event = client.event(0)
    client.deaf = True
    client.start(MEMCPY, 0, 0xFF, to=0x1000)
    while not client.heard:
        client.register(0)
    client.unmap(0, 0x2000)
    client.wait(event)
    assert client.register(0) == ERROR
    client.answer(client.heard[0][0], 11, client.heard[0][2] + bytes(256))
    assert client.register(0) == ERROR, "the late answer ends nothing"


def test_windows_and_their_errors(client: Client) -> None:
    """Overlaps are EEXIST, parts of pages EINVAL, what was not mapped ENOENT; after an unmap of all there is room again."""
    client.map(0x1000, 0x2000)

    def code(call: str, *args: int) -> int:
        with pytest.raises(Errno) as refused:
            getattr(client, call)(*args)
        return refused.value.code

    assert code("map", 0x2000, 0x1000) == errno.EEXIST
    assert code("map", 0, 0x2000) == errno.EEXIST
    assert code("map", 0x800, 0x1000) == errno.EINVAL
    assert code("map", (1 << 64) - 0x1000, 0x2000) == errno.EINVAL
    assert code("map", 1 << 52, 0x1000) == errno.EINVAL
    assert code("unmap", 0x1000, 0x1000) == errno.ENOENT
    client.map(0x3000, 0x1000)
    client.unmap(0, 0, 2)
    client.map(0x2000, 0x2000)


def test_masked_and_pending(client: Client) -> None:
    """A vector that fires while masked is pending, and goes out when it is unmasked: by SET_IRQS or in the table."""
    client.map(0, 0x1000)
    event = client.event(5)
    for by_table in (False, True):

        def mask(masked: bool, by_table: bool = by_table) -> None:
            if by_table:
                client.write(2, 5 * 16, struct.pack("=QII", 0xFEE0_0000, 0x55, masked))
            elif masked:
                client.set_irqs(1 | 8, 5, 1)
            else:
                client.set_irqs(2 | 16, 4, 3, b"\0\1\0")

        mask(True)
        client.start(SUM64, 0, 7, vector=5)
        while client.register(0) != HALTED or client.read(4, 0, 4) == bytes(4):
            pass
        assert client.read(4, 0, 4) == struct.pack("=I", 1 << 5)
        with pytest.raises(BlockingIOError):
            os.eventfd_read(event)
        mask(False)
        assert client.wait(event) == 1
        assert client.read(4, 0, 4) == bytes(4)
    assert client.read(2, 5 * 16, 16) == struct.pack("=QII", 0xFEE0_0000, 0x55, 0), "the client's own words"


def test_a_vector_without_an_event_waits_for_one(client: Client) -> None:
    """An interrupt that fires before its vector has an eventfd is pending until it gets one, though the client has unmasked it;
    one taken away stays quiet."""
    client.map(0, 0x1000)
    client.write(2, 9 * 16 + 12, bytes(4))
    client.start(SUM64, 0, 7, vector=9)
    while client.read(4, 0, 4) == bytes(4):
        pass
    event = client.event(9)
    assert client.wait(event) == 1
    client.set_irqs(1 | 32, 9, 1)
    assert client.wait(event) == 1, "the client may trigger it"
    client.set_irqs(1 | 32, 0, 0)
    client.start(SUM64, 0, 7, vector=9)
    while client.read(4, 0, 4) == bytes(4):
        pass
    with pytest.raises(BlockingIOError):
        os.eventfd_read(event)


def test_msix_off_aborts_the_message(client: Client) -> None:
    """With MSI-X disabled the engine says MSI_ABORTED, as in a machine."""
    client.map(0, 0x1000)
    client.event(0)
    client.set_config(0x82, 0, 2)
    client.start(SUM64, 0, 7)
    while client.register(0) != HALTED:
        pass
    assert client.register(4) == 1


def test_accesses_outside_and_of_odd_sizes(client: Client) -> None:
    """EINVAL beyond a region's end or without a region, EIO for what the engine itself refuses; configuration takes any size."""

    def code(region: int, offset: int, count: int) -> int:
        with pytest.raises(Errno) as refused:
            client.read(region, offset, count)
        return refused.value.code

    assert code(CONFIG, 4092, 8) == errno.EINVAL
    assert code(1, 0, 4) == errno.EINVAL
    assert code(99, 0, 4) == errno.EINVAL
    assert code(0, 0x4_0000, 4) == errno.EINVAL
    assert code(0, (1 << 64) - 4, 8) == errno.EINVAL
    assert code(2, 2, 4) == errno.EINVAL
    assert code(0, 0, 1) == errno.EIO
    assert client.read(CONFIG, 0, 64)[:4] == bytes.fromhex("b51380ff")
    assert client.read(CONFIG, 1, 3) == bytes.fromhex("1380ff")
    assert client.read(0, 0, 0) == b""
