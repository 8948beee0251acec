"""The differential test's own parts, without QEMU."""

from __future__ import annotations

import pytest

from tests.differential import a64, agent, layout
from tests.differential.compare import first_difference
from tests.differential.observe import View
from tests.differential.setup import Setup
from tests.differential.steps import Command, Line, Mrs, Msi, Msr, Program, Store, Write

ENCODINGS = [  # as `as` and `objdump` of binutils give them
    (a64.load_immediate(0, 0), [0xD2800000]),  # mov x0, #0
    (a64.load_immediate(1, 0x4010_0000), [0xD2800001, 0xF2A80201]),  # movz x1, #0; movk x1, #0x4010, lsl #16
    ([a64.load(0, 1, 8)], [0xF9400020]),  # ldr x0, [x1]
    ([a64.load(0, 1, 4)], [0xB9400020]),  # ldr w0, [x1]
    ([a64.store(2, 3, 1)], [0x39000062]),  # strb w2, [x3]
    ([a64.push(0, 20)], [0xF8008680]),  # str x0, [x20], #8
    ([a64.mrs(0, "ICC_IAR1_EL1")], [0xD538CC00]),
    ([a64.msr("ICC_EOIR1_EL1", 0)], [0xD518CC20]),
    ([a64.mrs(5, "ICH_LR0_EL2")], [0xD53CCC05]),
    ([a64.move(26, 30)], [0xAA1E03FA]),  # mov x26, x30
    ([a64.branch(-5)], [0x17FFFFFB]),  # b . - 20
    ([a64.branch_if_zero(0, -2)], [0xB4FFFFC0]),  # cbz x0, . - 8
    ([a64.call_register(1)], [0xD63F0020]),  # blr x1
    ([a64.ret(26)], [0xD65F0340]),  # ret x26
]


@pytest.mark.parametrize(("words", "expected"), ENCODINGS)
def test_encodings(words: list[int], expected: list[int]) -> None:
    """The assembler's words are those of binutils."""
    assert words == expected


def test_program_reads_as_a_list() -> None:
    """A program prints one readable line per step, set-up left out."""
    steps = (
        (Write("GICR_CTLR", 1, 1),),
        (Store(0x4100_0000, 0xA3, 1, "configuration of LPI 8192"), Command.of("INV", device_id=8, event_id=1)),
        (Msi(8, 1),),
        (Line(1),),
        (Mrs("ICC_IAR1_EL1", 1),),
        (Msr("ICC_EOIR1_EL1", 8192, 0, 1),),
    )
    text = str(Program("3", Setup("3").steps(), steps)).splitlines()
    assert text == [
        "GICv3, after the usual set-up:",
        "      0 write GICR_CTLR of CPU 1 0x1",
        "      1 store 1 bytes 0xa3 at 0x41000000 (configuration of LPI 8192); INV device_id=0x8 event_id=0x1",
        "      2 MSI of device 0x8 event 1",
        "      3 line of SPI 33 high",
        "      4 CPU 1 EL2: read ICC_IAR1_EL1",
        "      5 CPU 0 EL1: ICC_EOIR1_EL1 := 0x2000",
    ]


def test_view_decodes_tables() -> None:
    """The oracle's private formats come out as mappings; a table that no device has is not read as one."""
    view = View("4.0")
    words = dict.fromkeys(view.raw, 0)
    words["dte.8"] = 1 | 2 << 1 | layout.itt(8) >> 8 << 6
    words["cte.1"] = 1 | 1 << 1
    words["vte.2"] = 0x40000_10741F
    words["itt.8.0"], words["itt.8.1"] = 3 | 8197 << 2 | 1 << 32, 1023 | (1 | 8195 << 2) << 32
    words["itt.8.2"] = 2 | 8200 << 32
    words["itt.0.0"] = 3
    words["lpi.1"] = 0b101
    seen = view.decode(tuple(words.values()))
    assert seen["device 8"] == (2, layout.itt(8)) and seen["device 0"] is None
    assert seen["collection 1"] == 1 and seen["vPE 2"] == (15, 1)
    assert seen["event 8/0"] == ("LPI", 8197, "ICID", 1)
    assert seen["event 8/1"] == ("vLPI", 8195, "vPE", 2 >> 16 & 0xFFFF, "doorbell", 8200)
    assert seen["event 0/0"] is None
    assert seen["pending lpi.1"] == (8192, 8194)


def test_first_difference_names_step_and_values() -> None:
    """The first step that differs is reported with all that differs there, results included."""
    ours: list[tuple[int, dict[str, object]]] = [(0, {"a": 1, "b": None}), (1023, {"a": 2, "b": None})]
    theirs: list[tuple[int, dict[str, object]]] = [(0, {"a": 1, "b": None}), (8192, {"a": 2, "b": 7})]
    assert first_difference(ours, ours) is None
    found = first_difference(ours, theirs)
    assert found is not None and found.step == 1
    assert found.values == {"result of the step": (1023, 8192), "b": (None, 7)}
    assert str(found).splitlines()[1:] == [
        "    result of the step: ours 0x3ff, QEMU 0x2000",
        "    b: ours None, QEMU 0x7",
    ]


def test_a_program_must_fit() -> None:
    """Code beyond its area is refused, not written over the other CPU's."""
    step = (Store(0x4100_0000, (1 << 64) - 1, 8),) * 100
    with pytest.raises(ValueError, match="must fit"):
        agent.compile_program(Program("3", (), (step,) * 1000))
