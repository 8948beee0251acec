"""Register tables as data: access types, fields, registers, blocks, and the masks worked out from them.

Everything is checked when a table is built, so that a wrong one cannot be imported. Models use
``cosim.core.regs``, which also has the live values; its text says how an access is answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Any, Literal, NamedTuple

SIZES = (1, 2, 4, 8)
"""Access sizes in bytes."""


class Access(Enum):
    """What software can do with a bit: the terms of the Arm manuals."""

    RW = "RW"
    RO = "RO"
    WO = "WO"
    """Kept for the model, reads as zero."""
    W1C = "W1C"
    """Writing one clears; zero has no effect."""
    W1S = "W1S"
    """Writing one sets; zero has no effect."""
    RES0 = "RES0"
    """RAZ/WI."""
    RES1 = "RES1"
    """RAO/WI."""


class AccessError(Exception):
    """A bus access that no register can take, to be answered with SLVERR.

    ``kind`` is "size", "alignment" or "outside".
    """

    def __init__(self, kind: Literal["size", "alignment", "outside"], text: str) -> None:
        super().__init__(text)
        self.kind = kind


class Field(NamedTuple):
    """Bits ``hi`` down to ``lo`` of a register. ``access`` None means that of the register."""

    name: str
    hi: int
    lo: int
    access: Access | None = None
    reset: int = 0
    doc: str = ""

    @property
    def ones(self) -> int:
        """The largest value of the field."""
        return (1 << (self.hi - self.lo + 1)) - 1

    @property
    def mask(self) -> int:
        """The field's bits in the register."""
        return self.ones << self.lo

    def __str__(self) -> str:
        return f"{self.name}[{self.hi}]" if self.hi == self.lo else f"{self.name}[{self.hi}:{self.lo}]"


def F(name: str, hi: int, lo: int | None = None, access: Access | None = None, reset: int = 0, doc: str = "") -> Field:
    """A ``Field``; one bit when ``lo`` is left out."""
    return Field(name, hi, hi if lo is None else lo, access, reset, doc)


class Reg:
    """One register, or an array of ``count`` of them every ``stride`` bytes (default: the width).

    ``offset`` is that of the first element, which has the number ``first`` in the manual; an array's indices in
    hooks and in ``Bank`` are the manual's numbers, as n in GICD_IROUTER<n>.

    With ``fields``, bits outside every field are RES0 and ``access`` is the default of the fields; without,
    ``access`` holds for all bits. ``lanes`` allows smaller accesses, merged into the register; 64-bit
    registers take 32-bit accesses to each half unless ``halves`` is False; ``sizes`` (bytes) replaces both.
    ``shares`` names the register whose value this one reads and changes, as GICD_ICENABLER does with
    GICD_ISENABLER's.
    Raises ValueError for a bad shape.
    """

    __slots__ = (
        "access",
        "count",
        "doc",
        "fields",
        "first",
        "halves",
        "lanes",
        "modelled",
        "name",
        "offset",
        "reset",
        "security",
        "shares",
        "sizes",
        "stride",
        "width",
    )

    def __init__(
        self,
        offset: int,
        width: int,
        name: str,
        access: Access = Access.RW,
        reset: int = 0,
        fields: Sequence[Field] = (),
        count: int = 1,
        stride: int | None = None,
        first: int = 0,
        lanes: bool = False,
        modelled: bool = True,
        security: Literal["any", "secure"] = "any",
        halves: bool = True,
        sizes: tuple[int, ...] = (),
        shares: str = "",
        doc: str = "",
    ) -> None:
        self.offset = offset
        self.width = width
        self.name = name
        self.access = access
        self.reset = reset
        self.fields = fields
        self.count = count
        self.stride = stride
        self.first = first
        self.lanes = lanes
        self.modelled = modelled
        self.security = security
        self.halves = halves
        self.sizes = sizes
        self.shares = shares
        self.doc = doc
        self._check()
        self._check_fields()

    def _check(self) -> None:
        need(
            self.width in (8, 16, 32, 64),
            f"width of {self.name} must be 8, 16, 32 or 64 bits, not {self.width!r}",
        )
        need(self.count >= 1, f"count of {self.name} must be at least 1, not {self.count!r}")
        need(self.first >= 0, f"first of {self.name} must be at least 0, not {self.first!r}")
        need(
            self.security in ("any", "secure"),
            f'security of {self.name} must be "any" or "secure", not {self.security!r}',
        )
        need(self.offset >= 0, f"offset of {self.name} must be at least 0, not {self.offset!r}")
        need(
            self.offset % self.nbytes == 0,
            f"offset of {self.name} must be a multiple of {self.nbytes} bytes, not {self.offset:#x}",
        )
        need(
            self.step >= self.nbytes and self.step % self.nbytes == 0,
            f"stride of {self.name} must be a positive multiple of {self.nbytes} bytes, not {self.step:#x}",
        )
        need(
            all(size in SIZES and size <= self.nbytes for size in self.sizes),
            f"sizes of {self.name} must be 1, 2, 4 or 8, at most {self.nbytes} bytes, not {self.sizes!r}",
        )
        need(
            0 <= self.reset <= self.ones,
            f"reset of {self.name} must fit in {self.width} bits, not {self.reset:#x}",
        )

    def _check_fields(self) -> None:
        taken: dict[int, str] = {}
        names: set[str] = set()
        for field in self.fields:
            where = f"field {self.name}.{field}"
            need(
                0 <= field.lo <= field.hi < self.width,
                f"{where} must lie within bits {self.width - 1}..0 with hi >= lo, not {field.hi}..{field.lo}",
            )
            need(field.name not in names, f"{where} must have a name of its own, not that of an earlier field")
            names.add(field.name)
            need(
                0 <= field.reset <= field.ones,
                f"reset of {where} must fit in {field.hi - field.lo + 1} bits, not {field.reset:#x}",
            )
            need(
                not (field.reset and self.reset & field.mask),
                f"reset of {where} must be given once, not in the register and in the field",
            )
            for bit in range(field.lo, field.hi + 1):
                need(bit not in taken, f"{where} must not overlap field {taken.get(bit)!r} at bit {bit}")
                taken[bit] = field.name

    @property
    def nbytes(self) -> int:
        """Width in bytes."""
        return self.width // 8

    @property
    def step(self) -> int:
        """Distance in bytes between two elements of the array."""
        return self.nbytes if self.stride is None else self.stride

    @property
    def end(self) -> int:
        """The offset just past the last element."""
        return self.offset + (self.count - 1) * self.step + self.nbytes

    @property
    def ones(self) -> int:
        """All bits of the register."""
        return (1 << self.width) - 1

    def mask(self, *kinds: Access) -> int:
        """The bits whose access is one of ``kinds``."""
        if not self.fields:
            return self.ones if self.access in kinds else 0
        mask = 0
        for field in self.fields:
            if (field.access or self.access) in kinds:
                mask |= field.mask
        return mask

    def reset_value(self) -> int:
        """The register's reset value: its own, its fields' and its RES1 bits."""
        value = self.reset | self.mask(Access.RES1)
        for field in self.fields:
            value |= field.reset << field.lo
        return value

    def access_sizes(self) -> tuple[int, ...]:
        """Sizes in bytes that a bus access to the register may have."""
        if self.sizes:
            return self.sizes
        if self.lanes:
            return tuple(size for size in SIZES if size <= self.nbytes)
        return (4, 8) if self.width == 64 and self.halves else (self.nbytes,)

    def touched(self, lo: int, hi: int) -> int | None:
        """The first element, counted from 0, with a byte in offsets ``lo`` to ``hi`` - 1, or None."""
        element = max(0, (lo - self.offset - self.nbytes) // self.step + 1)
        return element if element < self.count and self.offset + element * self.step < hi else None


class Row(NamedTuple):
    """One line of a block's description, for documentation and for comparison with another source."""

    offset: int
    name: str
    width: int
    access: str
    reset: int
    fields: tuple[str, ...]
    """As "RWP[3] RO"."""
    count: int  # type: ignore[assignment]  # a register's, not the tuple's method
    stride: int
    first: int
    frame: str
    doc: str


class Rule:
    """A register's access rules as masks, worked out once per table."""

    __slots__ = (
        "cell",
        "changes",
        "fields",
        "gated",
        "number",
        "only_wo",
        "readable",
        "reg",
        "res1",
        "sizes",
        "w1c",
        "w1s",
        "wo",
    )

    def __init__(self, number: int, cell: int, reg: Reg) -> None:
        self.number = number
        self.cell = cell
        self.reg = reg
        self.readable = reg.mask(Access.RW, Access.RO, Access.W1C, Access.W1S)
        self.res1 = reg.mask(Access.RES1)
        self.changes = reg.mask(Access.RW, Access.WO)
        self.wo = reg.mask(Access.WO)
        self.w1c = reg.mask(Access.W1C)
        self.w1s = reg.mask(Access.W1S)
        # A doorbell-like register: what was not written now is zero, nothing lingers from an earlier write.
        self.only_wo = self.wo != 0 and not self.readable
        self.gated = reg.security == "secure" or not reg.modelled
        self.sizes = reg.access_sizes()
        self.fields = {field.name: field for field in reg.fields}


Slot = tuple[Rule, int, int, int, int, int, int, int]
"""Rule and its number, index, cell, shift, bit lanes of the access, those of them that software can read, those that read as 1."""


_UNSEEN: Any = object()


class Block:
    """A table of registers of ``size`` bytes; ``frames`` names offsets where frames start, for documentation.

    Raises ValueError when registers overlap, share a name, or lie outside the block.
    """

    def __init__(
        self,
        name: str,
        size: int,
        regs: Iterable[Reg],
        *,
        source: str = "",
        frames: Mapping[str, int] | None = None,
    ) -> None:
        need(size > 0, f"size of block {name} must be at least 1 byte, not {size!r}")
        self.name = name
        self.size = size
        self.source = source
        self.regs = tuple(sorted(regs, key=lambda reg: reg.offset))
        self.frames = dict(sorted((frames or {}).items(), key=lambda item: item[1]))
        for frame, base in self.frames.items():
            need(
                0 <= base < size,
                f"frame {frame} of block {name} must start within 0x0..{size - 1:#x}, not {base:#x}",
            )
        self._check()
        self.rules: dict[str, Rule] = {}
        self.owners: list[Reg] = []
        self._lay_out()
        nowhere = Reg(0, 8, "", Access.RES0)
        self._reserved = Rule(len(self.rules), 0, nowhere)
        self.slots: dict[tuple[int, int], Slot] = {}
        self._found: dict[int, tuple[Reg, int] | None] = {}

    def _check(self) -> None:
        by_name: dict[str, Reg] = {}
        for i, reg in enumerate(self.regs):
            need(reg.name not in by_name, f"{self.name} has two registers named {reg.name}")
            by_name[reg.name] = reg
            need(
                reg.end <= self.size,
                f"{reg.name} must lie within {self.name}'s 0x0..{self.size - 1:#x}, not {_range(reg)}",
            )
            for other in self.regs[i + 1 :]:
                if other.offset >= reg.end:
                    break
                need(
                    not _collide(reg, other),
                    f"{other.name} at {_range(other)} overlaps {reg.name} at {_range(reg)}",
                )
        for reg in self.regs:
            if reg.shares:
                owner = by_name.get(reg.shares)
                need(
                    owner is not None
                    and not owner.shares
                    and (owner.width, owner.count, owner.first) == (reg.width, reg.count, reg.first),
                    f"{reg.name} must share a register of {self.name} that has a value of its own, "
                    f"{reg.width} bits wide and {reg.count} times from number {reg.first}, not {reg.shares!r}",
                )

    def _lay_out(self) -> None:
        """Give every register its number and the place of its values in a bank's list."""
        cells: dict[str, int] = {}
        total = 0
        for reg in self.regs:
            if not reg.shares:
                cells[reg.name] = total
                self.owners.append(reg)
                total += reg.count
        for number, reg in enumerate(self.regs):
            self.rules[reg.name] = Rule(number, cells[reg.shares or reg.name], reg)

    def __getitem__(self, name: str) -> Reg:
        return self.rule(name).reg

    def __contains__(self, name: object) -> bool:
        return name in self.rules

    def rule(self, name: str) -> Rule:
        rule = self.rules.get(name)
        if rule is None:
            import difflib  # costs a millisecond, and every worker loads this module

            close = difflib.get_close_matches(name, self.rules, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise KeyError(f"{self.name} has no register {name!r}{hint}")
        return rule

    def find(self, offset: int) -> tuple[Reg, int] | None:
        """The register (and its number in its array) that has a byte at ``offset``, or None."""
        if not 0 <= offset < self.size:
            return None
        found: tuple[Reg, int] | None = self._found.get(offset, _UNSEEN)
        if found is _UNSEEN:
            found = self._found[offset] = self._find(offset)
        return found

    def _find(self, offset: int) -> tuple[Reg, int] | None:
        for reg in self.regs:
            element = reg.touched(offset, offset + 1)
            if element is not None:
                return reg, reg.first + element
        return None

    def frame_of(self, offset: int) -> str:
        """The name of the frame that ``offset`` lies in, or "" where no frame is named."""
        found = ""
        for frame, base in self.frames.items():
            if base <= offset:
                found = frame
        return found

    def describe(self) -> list[Row]:
        """The table as rows in offset order; an array is one row."""
        return [
            Row(
                reg.offset,
                reg.name,
                reg.width,
                reg.access.value,
                reg.reset_value(),
                tuple(f"{field} {(field.access or reg.access).value}" for field in reg.fields),
                reg.count,
                reg.step,
                reg.first,
                self.frame_of(reg.offset),
                reg.doc,
            )
            for reg in self.regs
        ]

    def locate(self, offset: int, size: int) -> Slot:
        """Decode an access not seen before and remember the answer; raises AccessError."""
        where = f"{size}-byte access to {self.name} offset {offset:#x}"
        if size not in SIZES:
            raise AccessError("size", f"access size must be 1, 2, 4 or 8 bytes: {where}")
        if offset % size:
            raise AccessError("alignment", f"offset must be a multiple of the size: {where}")
        if offset < 0 or offset + size > self.size:
            raise AccessError("outside", f"access must lie within 0x0..{self.size - 1:#x}: {where}")
        slot: Slot = (self._reserved, self._reserved.number, 0, 0, 0, 0, 0, 0)
        for rule in self.rules.values():
            element = rule.reg.touched(offset, offset + size)
            if element is not None:
                shift = offset - (rule.reg.offset + element * rule.reg.step)
                if size not in rule.sizes:
                    sizes = " or ".join(map(str, rule.sizes))
                    raise AccessError("size", f"{rule.reg.name} takes accesses of {sizes} bytes: {where}")
                lanes = ((1 << 8 * size) - 1) << 8 * shift
                index, cell = rule.reg.first + element, rule.cell + element
                slot = (rule, rule.number, index, cell, 8 * shift, lanes, rule.readable & lanes, rule.res1 & lanes)
                break
        self.slots[offset, size] = slot
        return slot


def _range(reg: Reg) -> str:
    return f"{reg.offset:#x}..{reg.end - 1:#x}"


def _collide(first: Reg, second: Reg) -> bool:
    """Whether two registers share a byte; ``second`` starts at or after ``first``, within its span."""
    # With one stride the elements meet alike all along; otherwise each element of the shorter array is tried.
    if first.step == second.step:
        one, tries = first, [second.offset]
        many = second
    else:
        one, many = (first, second) if second.count <= first.count else (second, first)
        tries = [many.offset + i * many.step for i in range(many.count)]
    return any(one.touched(at, at + many.nbytes) is not None for at in tries)


def need(condition: bool, text: str) -> None:
    """Raise ValueError with ``text`` unless the condition holds."""
    if not condition:
        raise ValueError(text)
