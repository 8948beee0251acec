"""Register tables and values as `cosim regs` shows them."""

from __future__ import annotations

import pytest

from cosim.core.regs import Access, Bank, Block, F, Reg
from cosim.errors import UsageError
from cosim.view.registers import decode, find_blocks, find_register, table_of, values_of

BLOCK = Block(
    "DEMO",
    0x1000,
    [
        Reg(0x0, 32, "DEMO_CTLR", fields=[F("Enable", 0), F("Level", 7, 4), F("Busy", 31, access=Access.RO)]),
        Reg(0x8, 64, "DEMO_BASE"),
        Reg(0x100, 32, "DEMO_ROUTE", count=4, first=32),
        Reg(0x200, 32, "DEMO_KEY", Access.WO),
    ],
)


def bank() -> Bank:
    """A bank with some values; element 35 of the array is absent."""
    found = Bank(BLOCK)
    found["DEMO_CTLR"] = 0x8000_0031
    found.set_at("DEMO_ROUTE", 33, 7)
    found.absent("DEMO_ROUTE", 35)
    return found


def test_a_snapshot_has_all_registers_and_the_elements_that_are_set() -> None:
    """Single registers always, also write-only ones; array elements when not 0."""
    assert bank().snapshot() == {"DEMO_CTLR": 0x8000_0031, "DEMO_BASE": 0, "DEMO_ROUTE<33>": 7, "DEMO_KEY": 0}


def test_a_snapshot_takes_hooks_values_and_changes_nothing() -> None:
    """What on_read computes is shown, as a Secure access sees it; the bank is as before."""
    found = bank()
    seen: list[bool] = []

    def base(_index: int) -> int:
        seen.append(found.secure)
        return 0x55

    found.on_read("DEMO_BASE", base)
    found.secure = False
    assert found.snapshot()["DEMO_BASE"] == 0x55
    assert (seen, found.secure, found["DEMO_BASE"]) == ([True], False, 0)


@pytest.mark.parametrize(
    ("wanted", "name", "index"),
    [("DEMO_CTLR", "DEMO_CTLR", None), ("ctlr", "DEMO_CTLR", None), ("ROUTE<33>", "DEMO_ROUTE", 33),
     ("demo_route35", "DEMO_ROUTE", 35), ("route", "DEMO_ROUTE", None)],
)  # fmt: skip
def test_registers_are_found_by_what_people_type(wanted: str, name: str, index: int | None) -> None:
    """Any case, with or without the prefix, elements with or without brackets."""
    found = find_register(BLOCK, wanted)
    assert (found[0].name, found[1]) == (name, index)


@pytest.mark.parametrize("wanted", ["CTRL", "ROUTE<36>", "ROUTE31", "CTLR<0>", ""])
def test_what_is_no_register_is_refused(wanted: str) -> None:
    """Misspelt names, elements out of range, elements of what is no array."""
    with pytest.raises(UsageError, match="must be one of block DEMO"):
        find_register(BLOCK, wanted)


def test_values_are_decoded_by_name() -> None:
    """Offset, value and fields of a register; of an array the elements that are set; an element asked for may be 0."""
    values = bank().snapshot()
    (entry,) = values_of(BLOCK, values, ["CTLR"])
    assert entry["fields"] == {"Enable": 1, "Level": 3, "Busy": 1}
    assert [(e["name"], e["offset"]) for e in values_of(BLOCK, values, ["ROUTE"])] == [("DEMO_ROUTE<33>", 0x104)]
    assert [(e["name"], e["value"]) for e in values_of(BLOCK, values, ["ROUTE<32>"])] == [("DEMO_ROUTE<32>", 0)]
    assert len(values_of(BLOCK, values, [])) == 4
    assert decode(BLOCK["DEMO_CTLR"].fields, 0x20) == {"Enable": 0, "Level": 2, "Busy": 0}


def test_a_bank_without_a_table_is_shown_raw() -> None:
    """Values of a model that is not installed here have names and no fields."""
    (entry,) = values_of(None, {"X": 3}, [])
    assert (entry["name"], entry["value"], entry["fields"]) == ("X", 3, {})
    with pytest.raises(UsageError, match="must be one of X"):
        values_of(None, {"X": 3}, ["Y"])


def test_blocks_are_found_beside_models() -> None:
    """The tables of the models that come with cosim, by the names of their variables; a key may name an instance."""
    blocks = find_blocks({"its": "nodes.its.model:Its", "redistributor": "nodes.redistributor.model:Redistributor"})
    assert {"GITS", "GICR", "GICR_V3"} <= set(blocks)
    assert table_of(blocks, "GITS@1/0") is blocks["GITS"]
    assert table_of(blocks, "OTHER") is None
