"""Registers of an ITS: identification per GIC version, tables, enabling, access sizes."""

from __future__ import annotations

from typing import Any

import pytest

from cosim.api import BusFault, ModelError, ns, us
from tests.machine.its_bench import (
    BASER,
    CBASER,
    COLLECTIONS,
    CREADR,
    CTLR,
    CWRITER,
    DEV,
    DEVICES,
    INDIRECT,
    ITT,
    QUEUE,
    REGS,
    SGIR,
    TRANSLATER,
    TYPER,
    VALID,
    ItsBench,
    mapc,
    mapd,
    mapti,
    sync,
)

ENABLED, QUIESCENT = 1, 1 << 31


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ("3", {"Virtual": 0, "VMAPP": 0, "VSGI": 0, "SVPET": 0, "VMOVP": 0, "MPAM": 0}),
        ("4.0", {"Virtual": 1, "VMAPP": 0, "VSGI": 0, "nID": 0, "SVPET": 0, "VMOVP": 1, "MPAM": 0}),
        ("4.1", {"Virtual": 1, "VMAPP": 1, "VSGI": 1, "nID": 1, "SVPET": 1, "VMOVP": 1, "MPAM": 1}),
    ],
)
def test_typer(version: str, expected: dict[str, int]) -> None:
    """GITS_TYPER has the features of the version and the widths of the parameters."""
    its = ItsBench(version).its
    fields = its.bank.decode("GITS_TYPER")
    common = {"Physical": 1, "PTA": 0, "HCC": 0, "CCT": 0, "SEIS": 0, "CIL": 1, "INV": 1}
    widths = {"ID_bits": 15, "Devbits": 19, "CIDbits": 15}
    assert expected | common | widths == {key: fields[key] for key in expected | common | widths}


@pytest.mark.parametrize(
    ("params", "entry_bytes"),
    [
        ({"version": "4.1", "collection_bits": 14, "vpe_bits": 14}, 4),
        ({"version": "4.1"}, 8),
        ({"version": "3", "collection_bits": 14}, 4),
        ({"version": "4.0", "collection_bits": 14, "vpe_bits": 14}, 8),
    ],
)
def test_itt_entry_size_follows_the_widths(params: dict[str, Any], entry_bytes: int) -> None:
    """ITT_entry_size is what INTID, target, type and (GICv4.0) doorbell need, and entries really lie that far apart."""
    bench = ItsBench(**params).enable()
    assert bench.its.bank.field("GITS_TYPER", "ITT_entry_size") + 1 == entry_bytes
    bench.run(mapc(0, 1), mapd(), mapti(3, 8200, 0), sync(1))
    itt = bench.memory.peek(ITT, 64)
    assert any(itt[3 * entry_bytes : 4 * entry_bytes])
    assert not any(itt[: 3 * entry_bytes]) and not any(itt[4 * entry_bytes :])


@pytest.mark.parametrize(("version", "arch", "vpes"), [("3", 0x3B, 0), ("4.0", 0x4B, 0x207), ("4.1", 0x4B, 0x207)])
def test_id_registers_and_table_types(version: str, arch: int, vpes: int) -> None:
    """PIDR2 has the architecture revision; BASER0..2 are devices, collections and (GICv4) vPEs, the others none."""
    bench = ItsBench(version)
    assert bench.read(0xFFE8, 4) == arch
    types = [bench.read(BASER + 8 * n) >> 48 for n in range(8)]
    assert types == [0x107, 0x401, vpes, 0, 0, 0, 0, 0]
    bench.write(BASER + 8 * 7, VALID | DEVICES)
    assert bench.read(BASER + 8 * 7) == 0


def test_iidr_of_older_versions_is_not_gic700s() -> None:
    """Only the GICv4.1 ITS says that it is GIC-700's."""
    assert ItsBench("4.1").read(0x4, 4) == 0x0400_043B
    assert ItsBench("3").read(0x4, 4) == ItsBench("4.0").read(0x4, 4) == 0xC000_043B


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"version": "5"}, "gic_version of its0 must be one of 3, 4.0, 4.1, not '5'"),
        ({"device_bits": 33}, "device_bits of its0 must be in 1..32, not 33"),
        ({"command_error": "ignore"}, "command_error of its0 must be"),
    ],
)
def test_bad_parameters(params: dict[str, Any], text: str) -> None:
    """A parameter that makes no sense is refused by name, with what is allowed."""
    with pytest.raises(ModelError, match=text):
        ItsBench(**params)


def test_probing_a_baser() -> None:
    """Type and Entry_Size stay, attributes read back, and the reserved page size reads as 64 KB."""
    bench = ItsBench()
    bench.write(BASER, INDIRECT | 3 << 8 | 1 << 10 | 0xFF)
    assert bench.read(BASER) == 0x0107_0000_0000_0000 | INDIRECT | 2 << 8 | 1 << 10 | 0xFF


def test_wide_registers_take_halves() -> None:
    """TYPER, CBASER, BASER, CWRITER and CREADR can be read and written by 32-bit halves."""
    bench = ItsBench()
    bench.write(CBASER, QUEUE & 0xFFFF_FFFF, 4)
    bench.write(CBASER + 4, VALID >> 32, 4)
    assert bench.read(CBASER) == VALID | QUEUE
    assert bench.read(TYPER) == bench.read(TYPER, 4) | bench.read(TYPER + 4, 4) << 32
    bench.write(BASER + 4, VALID >> 32, 4)
    assert bench.read(BASER) >> 48 == 0x8107
    bench.write(CWRITER, 0x20, 4)
    assert bench.read(CWRITER) == 0x20
    assert bench.read(CREADR, 4) == 0


def test_quiescent_while_enabled_and_disabled() -> None:
    """Quiescent is 1 at reset, 0 while enabled, 0 while a command is under way after the disable, and 1 when it is done."""
    bench = ItsBench(auto=False)
    assert bench.read(CTLR, 4) == QUIESCENT
    bench.enable()
    assert bench.read(CTLR, 4) == ENABLED
    bench.run(sync(2))
    bench.write(CTLR, 0, 4)
    assert bench.read(CTLR, 4) == 0
    bench.ack(*bench.take_syncs()[0])
    assert bench.read(CTLR, 4) == QUIESCENT


def test_not_quiescent_while_a_table_write_is_on_its_way() -> None:
    """After the disable Quiescent stays 0 until the entries written are in memory."""
    bench = ItsBench(memory_latency=us(5)).enable()
    target = bench.queue([mapc(0, 1)])

    async def body() -> list[int]:
        bus = bench.host.bus
        await bus.write(REGS + CWRITER, target)
        while await bus.read64(REGS + CREADR) != target:
            await bench.host.sleep(ns(100))
        await bus.write32(REGS + CTLR, 0)
        before = await bus.read32(REGS + CTLR)
        await bench.host.sleep(us(11))
        return [before, await bus.read32(REGS + CTLR)]

    assert bench.bench.call("host", body()) == [0, QUIESCENT]


@pytest.mark.parametrize("offset", [CBASER, BASER, BASER + 8])
def test_tables_and_queue_keep_their_place_while_enabled(offset: int) -> None:
    """A write to CBASER or BASER with Enabled=1 is ignored, counted and logged."""
    bench = ItsBench().enable()
    before = bench.read(offset)
    bench.write(offset, VALID | 0x8070_0000)
    assert bench.read(offset) == before
    assert bench.count["ignored_writes"] == 1 and bench.take_log()[-1]["register"].startswith("GITS_")


def test_tables_live_in_memory() -> None:
    """After a disable (which drops caches) and with the same tables, devices, events and collections are still mapped."""
    bench = ItsBench().enable()
    bench.run(mapc(0, 3), mapd(), mapti(1, 8200, 0), sync(3))
    assert bench.msi(DEV, 1) == [(3, "SetLpi", (8200,))]
    bench.write(CTLR, 0, 4)
    bench.write(CTLR, 1, 4)
    assert bench.msi(DEV, 1) == [(3, "SetLpi", (8200,))]
    bench.write(CTLR, 0, 4)
    bench.baser(1, COLLECTIONS + 0x1_0000)
    bench.write(CTLR, 1, 4)
    assert bench.msi(DEV, 1) == []


def test_writes_that_are_not_a_devices() -> None:
    """A PE's write to GITS_TRANSLATER is dropped, counted and logged; 32-bit halves of GITS_SGIR are refused."""
    bench = ItsBench().enable()
    bench.run(mapc(0, 3), mapd(0), mapti(1, 8200, 0, 0))
    bench.write(TRANSLATER, 1, 4)
    assert bench.take() == [] and bench.count["msi_dropped"] == 1
    with pytest.raises(BusFault):
        bench.write(SGIR, 1, 4)
    assert bench.count["sgir_writes"] == 0


def test_absent_and_unmodelled_registers_are_counted() -> None:
    """GITS_SGIR before GICv4.1 and GITS_FCTLR are RAZ/WI with a counted, logged error."""
    bench = ItsBench("4.0").enable()
    bench.write(SGIR, 1)
    bench.write(0x20, 1, 4)
    assert bench.read(0x20, 4) == 0
    assert bench.count["reserved_accesses"] == 1 and bench.count["unmodelled_accesses"] == 2
    assert bench.take() == [] and bench.count["sgir_writes"] == 0
