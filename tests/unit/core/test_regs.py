"""Register tables and banks: construction checks, access rules, hooks, byte lanes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.core.regs import Access, AccessError, Bank, Block, F, Op, Reg

RW, RO, WO, W1C, W1S, RES0, RES1 = (
    Access.RW,
    Access.RO,
    Access.WO,
    Access.W1C,
    Access.W1S,
    Access.RES0,
    Access.RES1,
)


def bank(*regs: Reg, size: int = 0x1000, **hooks: Any) -> Bank:
    return Bank(Block("UNIT", size, regs), **hooks)


# Construction.


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"width": 24}, "width of R must be 8, 16, 32 or 64 bits, not 24"),
        ({"first": -1}, "first of R must be at least 0, not -1"),
        ({"count": 0}, "count of R must be at least 1, not 0"),
        ({"security": "root"}, """security of R must be "any" or "secure", not 'root'"""),
        ({"offset": -4}, "offset of R must be at least 0, not -4"),
        ({"offset": 2}, "offset of R must be a multiple of 4 bytes, not 0x2"),
        ({"stride": 2}, "stride of R must be a positive multiple of 4 bytes, not 0x2"),
        ({"stride": 6}, "stride of R must be a positive multiple of 4 bytes, not 0x6"),
        ({"sizes": (3,)}, "sizes of R must be 1, 2, 4 or 8, at most 4 bytes, not (3,)"),
        ({"sizes": (4, 8)}, "sizes of R must be 1, 2, 4 or 8, at most 4 bytes, not (4, 8)"),
        ({"reset": 1 << 32}, "reset of R must fit in 32 bits, not 0x100000000"),
        ({"reset": -1}, "reset of R must fit in 32 bits, not -0x1"),
        ({"fields": [F("A", 32)]}, "field R.A[32] must lie within bits 31..0 with hi >= lo, not 32..32"),
        ({"fields": [F("A", 1, 2)]}, "field R.A[1:2] must lie within bits 31..0 with hi >= lo, not 1..2"),
        ({"fields": [F("A", 1, -1)]}, "field R.A[1:-1] must lie within bits 31..0 with hi >= lo, not 1..-1"),
        (
            {"fields": [F("A", 3, 0), F("B", 5, 3)]},
            "field R.B[5:3] must not overlap field 'A' at bit 3",
        ),
        ({"fields": [F("A", 1), F("A", 2)]}, "field R.A[2] must have a name of its own"),
        ({"fields": [F("A", 1, reset=2)]}, "reset of field R.A[1] must fit in 1 bits, not 0x2"),
        (
            {"fields": [F("A", 1, reset=1)], "reset": 2},
            "reset of field R.A[1] must be given once, not in the register and in the field",
        ),
    ],
)
def test_wrong_register(wrong: dict[str, Any], text: str) -> None:
    """A register of an impossible shape is refused at once, with what was expected and found."""
    with pytest.raises(ValueError, match=re.escape(text)):
        Reg(**{"offset": 0, "width": 32, "name": "R", **wrong})


@pytest.mark.parametrize(
    ("regs", "text"),
    [
        ([Reg(0, 32, "A"), Reg(4, 32, "A")], "UNIT has two registers named A"),
        ([Reg(0x1000, 32, "A")], "A must lie within UNIT's 0x0..0xfff, not 0x1000..0x1003"),
        ([Reg(0xFFC, 32, "A", count=2)], "A must lie within UNIT's 0x0..0xfff, not 0xffc..0x1003"),
        ([Reg(0, 64, "A"), Reg(4, 32, "B")], "B at 0x4..0x7 overlaps A at 0x0..0x7"),
        ([Reg(0, 32, "A", count=4), Reg(8, 32, "B")], "B at 0x8..0xb overlaps A at 0x0..0xf"),
        # Interleaved arrays: equal strides that meet, unequal strides that meet once.
        (
            [Reg(0, 64, "A", count=3, stride=16), Reg(20, 32, "B", count=4, stride=16)],
            "B at 0x14..0x47 overlaps A at 0x0..0x27",
        ),
        (
            [Reg(0, 32, "A", count=9, stride=8), Reg(4, 32, "B", count=3, stride=20)],
            "B at 0x4..0x2f overlaps A at 0x0..0x43",
        ),
        (
            [Reg(0, 32, "A", count=2, stride=20), Reg(4, 32, "B", count=9, stride=8)],
            "B at 0x4..0x47 overlaps A at 0x0..0x17",
        ),
        ([Reg(0, 32, "A", shares="B")], "A must share a register of UNIT that has a value of its own"),
        ([Reg(0, 32, "A", shares="B"), Reg(8, 64, "B")], "32 bits wide and 1 times from number 0, not 'B'"),
        ([Reg(0, 32, "A", shares="B"), Reg(4, 32, "B", first=1)], "from number 0, not 'B'"),
        ([Reg(0, 32, "A", shares="B"), Reg(4, 32, "B", shares="A")], "A must share a register of UNIT"),
    ],
)
def test_wrong_block(regs: list[Reg], text: str) -> None:
    """A block whose registers collide, leave it or share nothing is refused, naming both sides in hex."""
    with pytest.raises(ValueError, match=re.escape(text)):
        Block("UNIT", 0x1000, regs)


def test_wrong_size_and_frames() -> None:
    """A block without bytes and a frame outside the block are refused."""
    with pytest.raises(ValueError, match="size of block UNIT must be at least 1 byte, not 0"):
        Block("UNIT", 0, [])
    with pytest.raises(ValueError, match=r"frame RD of block UNIT must start within 0x0\.\.0xf, not 0x10"):
        Block("UNIT", 16, [], frames={"RD": 16})


@given(
    st.integers(0, 8).map(lambda n: n * 4),
    st.integers(1, 6),
    st.integers(1, 6).map(lambda n: n * 4),
    st.integers(0, 8).map(lambda n: n * 4),
    st.integers(1, 6),
    st.integers(1, 6).map(lambda n: n * 8),
)
def test_overlap_is_exact(o1: int, n1: int, s1: int, o2: int, n2: int, s2: int) -> None:
    """Interleaved arrays are refused exactly when they have a byte in common."""
    first = Reg(o1, 32, "A", count=n1, stride=s1)
    o2 -= o2 % 8
    second = Reg(o2, 64, "B", count=n2, stride=s2)
    one = {o1 + i * s1 + b for i in range(n1) for b in range(4)}
    two = {o2 + i * s2 + b for i in range(n2) for b in range(8)}
    if one & two:
        with pytest.raises(ValueError, match="overlaps"):
            Block("UNIT", 0x1000, [first, second])
    else:
        block = Block("UNIT", 0x1000, [first, second])
        for offset in range(0x180):
            found = block.find(offset)
            assert (found is not None and found[0].name) == ("A" if offset in one else "B" if offset in two else False)


def test_describe() -> None:
    """A block describes itself in offset order, arrays as one row, resets combined, the frame named."""
    block = Block(
        "GICR",
        0x20000,
        [
            Reg(
                0x10080,
                32,
                "B",
                count=2,
                fields=[F("x", 3, 2, RO, reset=1), F("one", 0, access=RES1)],
                doc="d",
            ),
            Reg(0x8, 64, "A", RO, reset=5),
        ],
        source="IHI 0069H chapter 12",
        frames={"SGI": 0x10000},
    )
    a, b = block.describe()
    assert (a.offset, a.name, a.width, a.access, a.reset, a.fields, a.count, a.frame) == (
        8,
        "A",
        64,
        "RO",
        5,
        (),
        1,
        "",
    )
    assert (b.offset, b.name, b.reset, b.fields, b.count, b.stride, b.frame, b.doc) == (
        0x10080,
        "B",
        5,
        ("x[3:2] RO", "one[0] RES1"),
        2,
        4,
        "SGI",
        "d",
    )
    assert "A" in block and "C" not in block and block["B"].width == 32
    assert block.source.startswith("IHI") and block.frame_of(0x10000) == "SGI"


# Access rules.


def test_rules_per_bit() -> None:
    """RW takes the value, RO and RES keep theirs, WO reads as zero but is stored, W1C clears, W1S sets."""
    unit = bank(
        Reg(
            0,
            32,
            "R",
            fields=[
                F("rw", 3, 0, reset=0xA),
                F("ro", 7, 4, RO, reset=0x9),
                F("wo", 11, 8, WO),
                F("w1c", 15, 12, W1C, reset=0xF),
                F("w1s", 19, 16, W1S, reset=0x1),
                F("res0", 23, 20, RES0),
                F("res1", 27, 24, RES1),
            ],
        )
    )
    assert unit.read(0, 4) == 0x0F01_F09A
    unit.write(0, 4, 0xFFF2_5635)
    assert unit.read(0, 4) == 0x0F03_A095
    assert unit.decode("R") == {"rw": 5, "ro": 9, "wo": 6, "w1c": 0xA, "w1s": 3, "res0": 0, "res1": 0xF}
    unit.reset()
    assert unit.read(0, 4) == 0x0F01_F09A and unit["R"] == 0x0F01_F09A


@pytest.mark.parametrize(
    ("access", "after"),
    [(RW, 0x0F), (RO, 0x3C), (WO, 0), (W1C, 0x30), (W1S, 0x3F), (RES0, 0), (RES1, 0xFF)],
)
def test_rules_without_fields(access: Access, after: int) -> None:
    """A register without fields follows its access type in all bits."""
    unit = bank(Reg(0, 8, "R", access, reset=0x3C if access is not RES0 else 0))
    unit.write(0, 1, 0x0F)
    assert unit.read(0, 1) == after


def test_fields_inherit_access() -> None:
    """Fields without an access of their own follow the register, bits outside fields are RES0."""
    unit = bank(Reg(0, 8, "R", RO, fields=[F("id", 3, 0, reset=5), F("en", 4, access=RW)]))
    unit.write(0, 1, 0xFF)
    assert unit.read(0, 1) == 0x15


@pytest.mark.parametrize(
    ("offset", "size", "kind", "text"),
    [
        (0, 3, "size", "access size must be 1, 2, 4 or 8 bytes: 3-byte access to UNIT offset 0x0"),
        (0, 68, "size", "access size must be 1, 2, 4 or 8 bytes: 68-byte access to UNIT offset 0x0"),
        (0, 1, "size", "WORD takes accesses of 4 bytes"),
        (0, 8, "size", "WORD takes accesses of 4 bytes"),
        (0x20, 1, "size", "LONG takes accesses of 4 or 8 bytes"),
        (0x28, 4, "size", "WHOLE takes accesses of 8 bytes"),
        (0x30, 4, "size", "LANES takes accesses of 1 or 2 bytes"),
        (0x38, 8, "size", "TAIL takes accesses of 4 bytes"),
        (0x1002, 4, "alignment", "offset must be a multiple of the size"),
        (0x1000, 4, "outside", "access must lie within 0x0..0xfff"),
        (-4, 4, "outside", "4-byte access to UNIT offset -0x4"),
    ],
)
def test_wrong_access(offset: int, size: int, kind: str, text: str) -> None:
    """An access that no register can take says which kind of fault it is, for reads and writes."""
    unit = bank(
        Reg(0, 32, "WORD"),
        Reg(0x20, 64, "LONG"),
        Reg(0x28, 64, "WHOLE", halves=False),
        Reg(0x30, 16, "LANES", lanes=True),
        Reg(0x3C, 32, "TAIL"),
    )
    with pytest.raises(AccessError, match=re.escape(text)) as read:
        unit.read(offset, size)
    with pytest.raises(AccessError, match=re.escape(text)) as write:
        unit.write(offset, size, 0)
    assert read.value.kind == write.value.kind == kind


@pytest.mark.parametrize("value", [-1, 0x100])
def test_wrong_value(value: int) -> None:
    """A value with more bytes than the access is the caller's mistake, not silently cut."""
    with pytest.raises(ValueError, match="value must be an unsigned int of 1 bytes"):
        bank(Reg(0, 8, "R")).write(0, 1, value)


def test_halves() -> None:
    """A 64-bit register can be read and written one 32-bit half at a time."""
    unit = bank(Reg(8, 64, "R"))
    unit.write(8, 8, 0x1111_2222_3333_4444)
    unit.write(12, 4, 0xAAAA_BBBB)
    assert unit.read(8, 8) == 0xAAAA_BBBB_3333_4444
    assert (unit.read(8, 4), unit.read(12, 4)) == (0x3333_4444, 0xAAAA_BBBB)


@given(
    st.sampled_from([16, 32, 64]),
    st.lists(st.tuples(st.integers(0, 31), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**64 - 1)), max_size=20),
)
def test_lanes_are_bytes(width: int, writes: list[tuple[int, int, int]]) -> None:
    """An array with byte lanes behaves like the same bytes in little-endian memory."""
    unit = bank(Reg(0x100, width, "R", count=256 // width, lanes=True))
    memory = bytearray(32)
    for place, size, value in writes:
        size = min(size, width // 8)
        place -= place % size
        value &= (1 << 8 * size) - 1
        unit.write(0x100 + place, size, value)
        memory[place : place + size] = value.to_bytes(size, "little")
        for step in (1, 2, width // 8):
            for at in range(0, 32, step):
                assert unit.read(0x100 + at, step) == int.from_bytes(memory[at : at + step], "little")


def test_lanes_of_w1c() -> None:
    """A byte write to a W1C register touches that byte only."""
    unit = bank(Reg(0, 32, "R", W1C, lanes=True, reset=0xFFFF_FFFF))
    unit.write(1, 1, 0x0F)
    assert unit.read(0, 4) == 0xFFFF_F0FF


def test_shares() -> None:
    """Set-enable and clear-enable registers are two ways to one value, element by element."""
    unit = bank(
        Reg(0x100, 32, "ISENABLER", W1S, count=2),
        Reg(0x180, 32, "ICENABLER", W1C, count=2, shares="ISENABLER"),
    )
    unit.write(0x104, 4, 0xF0)
    unit.write(0x184, 4, 0x30)
    assert unit.read(0x104, 4) == unit.read(0x184, 4) == unit.at("ICENABLER", 1) == 0xC0
    assert unit.at("ISENABLER", 0) == 0


# Who is not there.


def test_reserved() -> None:
    """Where no register is, reads give zero, writes do nothing, and the hook, if any, hears of both."""
    heard: list[tuple[int, Op]] = []
    for unit in (bank(Reg(0, 32, "R")), bank(Reg(0, 32, "R"), on_reserved=lambda *what: heard.append(what))):
        unit.write(0x40, 8, 1)
        assert unit.read(0x40, 8) == 0 and unit.read(0x44, 1) == 0
    assert heard == [(0x40, "write"), (0x40, "read"), (0x44, "read")]


def test_absent() -> None:
    """Elements that an instance does not have answer as reserved; the others, and other banks, are whole."""
    heard: list[tuple[int, Op]] = []
    block = Block("UNIT", 0x100, [Reg(0, 32, "R", count=4), Reg(0x40, 32, "S")])
    unit, whole = Bank(block, on_reserved=lambda *what: heard.append(what)), Bank(block)
    unit.absent("R", 2)
    unit.absent("S")
    for offset in (4, 8, 0x40):
        unit.write(offset, 4, 7)
        whole.write(offset, 4, 7)
        assert whole.read(offset, 4) == 7
    assert [unit.read(offset, 4) for offset in (4, 8, 0x40)] == [7, 0, 0]
    assert heard == [(8, "write"), (0x40, "write"), (8, "read"), (0x40, "read")]
    with pytest.raises(ValueError, match=r"first of R must be in 0\.\.4, not 5"):
        unit.absent("R", 5)


def test_unmodelled() -> None:
    """A register without behaviour reads its reset value, ignores writes, and the hook hears of both."""
    heard: list[tuple[str, int, Op]] = []
    regs = [Reg(0, 32, "R", reset=0x42, count=2, modelled=False)]
    for unit in (
        bank(*regs),
        bank(*regs, on_unmodelled=lambda reg, index, op: heard.append((reg.name, index, op))),
    ):
        unit.write(4, 4, 1)
        assert unit.read(4, 4) == 0x42
    assert heard == [("R", 1, "write"), ("R", 1, "read")]


def test_secure_only() -> None:
    """A secure register is RAZ/WI for a Non-secure access, whole for a Secure one."""
    unit = bank(Reg(0, 32, "R", security="secure"))
    unit.write(0, 4, 5)
    unit.write(0, 4, 6, secure=False)
    assert unit.read(0, 4, secure=False) == 0
    assert unit.read(0, 4) == 5


# Hooks.


def test_on_read() -> None:
    """A read hook gives the value, sees the access's security, and unreadable bits stay hidden."""
    unit = bank(Reg(0, 32, "R", count=2, fields=[F("a", 7, 0, RO), F("w", 8, access=WO), F("one", 9, access=RES1)]))
    seen: list[bool] = []

    def fn(index: int) -> int:
        seen.append(unit.secure)
        return 0xF100 + index

    unit.on_read("R", fn)
    assert (unit.read(0, 4), unit.read(4, 4, secure=False)) == (0x200, 0x201)
    assert seen == [True, False]
    with pytest.raises(ValueError, match="on_read of R must be given once"):
        unit.on_read("R", fn)


def test_on_write() -> None:
    """A write hook gets old, new and lanes after the rules were applied and stored, and may store more."""
    unit = bank(Reg(0, 32, "R", lanes=True, fields=[F("en", 0), F("ro", 31, access=RO, reset=1)]))
    calls: list[tuple[int, int, int, int]] = []

    def fn(index: int, old: int, new: int, mask: int) -> None:
        calls.append((index, old, new, mask))
        assert unit["R"] == new and not unit.secure
        unit["R"] = old

    unit.on_write("R", fn)
    unit.write(0, 4, 1, secure=False)
    unit.write(1, 1, 0xFF, secure=False)
    assert calls == [(0, 1 << 31, 1 << 31 | 1, 0xFFFF_FFFF), (0, 1 << 31, 1 << 31, 0xFF00)]
    with pytest.raises(ValueError, match="on_write of R must be given once"):
        unit.on_write("R", fn)


def test_computed_w1c() -> None:
    """Where a read hook keeps the value, W1C and merging start from it: the write hook sees the change."""
    unit = bank(Reg(0, 32, "R", fields=[F("pending", 7, 0, W1C), F("flag", 8, access=WO)]))
    calls: list[tuple[int, int]] = []
    unit.on_read("R", lambda index: 0xF0)
    unit.on_write("R", lambda index, old, new, mask: calls.append((old, new)))
    unit.write(0, 4, 0x130)
    unit.write(0, 4, 0x001)
    assert calls == [(0xF0, 0x1C0), (0x1F0, 0x0F0)]


def test_write_only() -> None:
    """A doorbell register's hook gets just what was written; nothing lingers from an earlier, wider write."""
    unit = bank(
        Reg(0x40, 32, "TRANSLATER", WO, sizes=(2, 4)),
        Reg(0x48, 64, "INVLPIR", fields=[F("INTID", 31, 0, WO)]),
    )
    calls: list[tuple[int, int]] = []
    unit.on_write("TRANSLATER", lambda index, old, new, mask: calls.append((new, mask)))
    unit.on_write("INVLPIR", lambda index, old, new, mask: calls.append((new, mask)))
    unit.write(0x40, 4, 0x1_2345)
    unit.write(0x40, 2, 0x77)
    unit.write(0x48, 8, 0xFFFF_FFFF_0000_2000)
    unit.write(0x4C, 4, 0x1)
    assert calls == [(0x1_2345, 2**32 - 1), (0x77, 0xFFFF), (0x2000, 2**64 - 1), (0, 0xFFFF_FFFF << 32)]
    assert unit.read(0x40, 4) == 0


# The model's side.


def test_raw_values() -> None:
    """Models read and store registers and fields by name, and a configured ID register survives a reset."""
    unit = bank(
        Reg(0, 64, "TYPER", RO, fields=[F("Last", 4), F("Aff", 63, 32)]),
        Reg(0x10, 32, "A", count=3, fields=[F("hi", 7, 4), F("lo", 3, 0, RO)]),
        Reg(0x20, 8, "BYTE"),
    )
    unit.configure("TYPER", 0x500_0000_0010)
    unit.set_field("A", "hi", 0xC, 2)
    unit.set_at("A", 1, 0x21)
    unit["BYTE"] = 9
    assert unit.field("A", "lo", 1) == 1 and unit.at("A", 2) == 0xC0 and unit.field("TYPER", "Aff") == 0x500
    assert unit.decode("A", 2) == {"hi": 0xC, "lo": 0} and unit.decode("BYTE") == {"value": 9}
    unit.reset()
    assert (unit["TYPER"], unit["BYTE"], unit.at("A", 2)) == (0x500_0000_0010, 0, 0)


def test_decode_computed() -> None:
    """What is shown of a computed register is what a read would compute, plus the stored WO bits."""
    unit = bank(Reg(0, 32, "R", fields=[F("n", 7, 0), F("ptz", 8, access=WO)], count=2), Reg(8, 32, "S"))
    unit.on_read("R", lambda index: 0xFFF & (index + 3))
    unit.on_read("S", lambda index: 6)
    unit.write(4, 4, 0x100)
    assert unit.decode("R", 1) == {"n": 4, "ptz": 1}
    assert unit.decode("S") == {"value": 6}


def test_first_number() -> None:
    """An array whose first element is not number 0 goes by the manual's numbers everywhere."""
    calls: list[tuple[int, int]] = []
    heard: list[tuple[int, Op]] = []
    unit = bank(Reg(0x100, 64, "IROUTER", count=4, first=32), on_reserved=lambda *what: heard.append(what))
    unit.on_write("IROUTER", lambda index, old, new, mask: calls.append((index, new)))
    unit.absent("IROUTER", 35)
    unit.write(0x110, 8, 7)
    unit.write(0x118, 8, 8)
    unit.configure("IROUTER", 9, 32)
    unit.reset()
    assert calls == [(34, 7)] and heard == [(0x118, "write")]
    assert [unit.at("IROUTER", n) for n in (32, 33)] == [9, 0]
    assert unit.block.find(0x10F) == (unit.block["IROUTER"], 33)
    assert unit.block.find(0x10F) is unit.block.find(0x10F)
    assert unit.block.find(-1) is unit.block.find(unit.block.size) is None
    for index in (31, 36):
        with pytest.raises(IndexError, match=rf"index of IROUTER must be in 32\.\.35, not {index}"):
            unit.at("IROUTER", index)
    with pytest.raises(ValueError, match=r"first of IROUTER must be in 32\.\.36, not 31"):
        unit.absent("IROUTER", 31)


def test_wrong_names() -> None:
    """An unknown register or field, a missing or bad index, a value that does not fit say what would do."""
    unit = bank(Reg(0, 32, "GICR_CTLR", fields=[F("EnableLPIs", 0), F("RWP", 3)]), Reg(8, 32, "A", count=2))
    with pytest.raises(KeyError, match="UNIT has no register 'GICR_CTRL'; did you mean GICR_CTLR?"):
        unit["GICR_CTRL"]
    with pytest.raises(KeyError, match="UNIT has no register 'x'\""):
        unit.on_read("x", lambda index: 0)
    with pytest.raises(KeyError, match="GICR_CTLR has no field 'Rwp'; it has EnableLPIs, RWP"):
        unit.field("GICR_CTLR", "Rwp")
    with pytest.raises(KeyError, match="A has no field 'f'; it has none"):
        unit.field("A", "f", 0)
    with pytest.raises(IndexError, match=r"A is an array: index must be given, in 0\.\.1"):
        unit["A"]
    for index in (-1, 2):
        with pytest.raises(IndexError, match=rf"index of A must be in 0\.\.1, not {index}"):
            unit.at("A", index)
    with pytest.raises(ValueError, match=r"GICR_CTLR\.RWP\[3\] must be in 0\.\.0x1, not 0x2"):
        unit.set_field("GICR_CTLR", "RWP", 2)
    for value in (-1, 2):
        with pytest.raises(ValueError, match="GICR_CTLR must lie within its defined bits 0x9, not "):
            unit["GICR_CTLR"] = value
