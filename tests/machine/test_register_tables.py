"""Every register table against a second source, typed from the manuals' register summaries as CSV.

Columns: offset (hex), name, first, count and stride of an array, width (bits), access, security, reset (hex, or
"config" where it follows from parameters), fields as NAME[hi:lo] ACCESS.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from cosim.api import Access, AccessError, Bank, Block
from nodes.distributor.regs import GICD
from nodes.its.regs import GITS
from nodes.redistributor.regs import GICR, GICR_V3, GICR_V40
from nodes.smmu.regs import SMMU
from nodes.smmute.regs import SMMUTE

SHEETS = Path(__file__).parent / "registers"
TABLES = {"gicd": GICD, "gicr-4.1": GICR, "gits": GITS, "smmu": SMMU, "smmute": SMMUTE}


def sheet(name: str) -> dict[str, dict[str, str]]:
    """The rows of a CSV by register name."""
    with (SHEETS / f"{name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    by_name = {row["name"]: row for row in rows}
    assert len(by_name) == len(rows), f"{name}.csv names a register twice"
    return by_name


def expected(row: dict[str, str]) -> dict[str, object]:
    width = int(row["width"])
    return {
        "offset": int(row["offset"], 16),
        "name": row["name"],
        "first": int(row["first"] or 0),
        "count": int(row["count"] or 1),
        "stride": int(row["stride"] or width // 8),
        "width": width,
        "access": row["access"],
        "security": row["security"],
        "reset": 0 if row["reset"] == "config" else int(row["reset"], 16),
        "fields": sorted(row["fields"].split("; ")) if row["fields"] else [],
    }


def found(block: Block) -> dict[str, dict[str, object]]:
    return {
        row.name: {
            "offset": row.offset,
            "name": row.name,
            "first": row.first,
            "count": row.count,
            "stride": row.stride,
            "width": row.width,
            "access": row.access,
            "security": block[row.name].security,
            "reset": row.reset,
            "fields": sorted(row.fields),
        }
        for row in block.describe()
    }


@pytest.mark.parametrize("name", TABLES)
def test_table_agrees_with_sheet(name: str) -> None:
    """The table and the sheet have the same registers, and agree on each in every column."""
    table, rows = found(TABLES[name]), sheet(name)
    assert set(table) == set(rows)
    for register, row in rows.items():
        assert table[register] == expected(row)


def test_every_sheet_is_used() -> None:
    """No sheet lies in the folder without being compared."""
    assert {path.stem for path in SHEETS.glob("*.csv")} == {*TABLES, "gicr-4.0"}


def test_redistributor_of_gicv4_0() -> None:
    """GICv4.0 has its own layout of VPROPBASER and VPENDBASER, no vSGI registers, and the rest of GICv4.1."""
    rows = sheet("gicr-4.1")
    del rows["GICR_VSGIR"], rows["GICR_VSGIPENDR"]
    rows.update(sheet("gicr-4.0"))
    assert found(GICR_V40) == {name: expected(row) for name, row in rows.items()}


def test_redistributor_of_gicv3() -> None:
    """GICv3 has the RD_base and SGI_base frames only, 128 KB apart."""
    rows = {name: row for name, row in sheet("gicr-4.1").items() if int(row["offset"], 16) < 0x20000}
    assert found(GICR_V3) == {name: expected(row) for name, row in rows.items()}
    assert (GICR_V3.size, GICR_V40.size, GICR.size) == (0x20000, 0x40000, 0x40000)


@pytest.mark.parametrize("name", TABLES)
def test_every_register_reads_its_reset(name: str) -> None:
    """First and last element of every register answer on the bus with their reset value, less their WO bits."""
    bank = Bank(TABLES[name])
    for reg in TABLES[name].regs:
        size = max(reg.access_sizes())
        for offset in (reg.offset, reg.end - reg.nbytes):
            readable = reg.reset_value() & ~reg.mask(Access.WO)
            assert bank.read(offset, size) == readable & (1 << 8 * size) - 1, reg.name


@pytest.mark.parametrize(
    ("block", "set_name", "clear_name", "number"),
    [
        (GICD, "GICD_ISENABLER", "GICD_ICENABLER", 3),
        (GICD, "GICD_ISPENDRnE", "GICD_ICPENDRnE", 31),
        (GICR, "GICR_ISACTIVERnE", "GICR_ICACTIVERnE", 2),
        (GICR, "GICR_ISENABLER0", "GICR_ICENABLER0", 0),
    ],
)
def test_set_and_clear_registers_share(block: Block, set_name: str, clear_name: str, number: int) -> None:
    """What a set register sets, its clear register shows and clears."""
    bank = Bank(block)
    one, other = block[set_name], block[clear_name]
    at = (number - one.first) * 4
    bank.write(one.offset + at, 4, 0b0110)
    bank.write(other.offset + at, 4, 0b0010)
    assert bank.read(one.offset + at, 4) == bank.read(other.offset + at, 4) == 0b0100


@pytest.mark.parametrize(
    ("block", "offset", "size", "allowed"),
    [
        (GITS, 0x10040, 2, True),  # EventIDs of 16 bits may be written as a halfword
        (GITS, 0x10040, 1, False),
        (GITS, 0x20020, 4, False),  # half a GITS_SGIR would be half an interrupt
        (GITS, 0x0008C, 4, True),
        (GICR, 0x10403, 1, True),
        (GICR, 0x10100, 1, False),
        (GICD, 0x6104, 4, True),
        (GICD, 0x0400, 1, True),  # priorities of SGIs live in the Redistributor: reserved, not refused
    ],
)
def test_access_sizes(block: Block, offset: int, size: int, allowed: bool) -> None:
    """Halves, halfwords and bytes are taken where the manuals allow them and nowhere else."""
    bank = Bank(block)
    if allowed:
        bank.write(offset, size, 1)
    else:
        with pytest.raises(AccessError) as error:
            bank.write(offset, size, 1)
        assert error.value.kind == "size"


def test_retry_and_queue_offset_stay_apart() -> None:
    """GITS_CWRITER keeps only its defined bits: an offset of 32-byte commands and Retry."""
    bank = Bank(GITS)
    bank.write(0x88, 8, 0xFFFF_FFFF_FFFF_FFFF)
    assert bank.decode("GITS_CWRITER") == {"Retry": 1, "Offset": 0x7FFF}
    assert bank.read(0x88, 8) == 0xF_FFE1
