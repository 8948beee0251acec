"""Register tables: what a block's registers are, and the live values of one instance.

A table (``cosim.core.regtable``) is data: a ``Block`` of ``Reg`` of ``Field``, with offsets, widths and names
as in the manual. A ``Bank`` holds one instance's values and applies the access rules, so that a model only
writes what *happens* on an access.

Units: offsets, sizes and strides are bytes; register widths and field positions are bits, numbered as in the
manuals (``hi`` and ``lo`` both included). Values are unsigned ints.

How an access is answered, in this order:

1. ``AccessError``: a size that is not 1, 2, 4 or 8, an address that is not a multiple of the size, an access
   outside the block, or a size that the register does not take. The model answers SLVERR.
2. RAZ/WI and ``on_reserved``: no register there, or one that this instance does not have (``Bank.absent``).
3. RAZ/WI: a Non-secure access to a register of ``security="secure"``.
4. ``on_unmodelled``: the register exists but has no behaviour here. It reads its reset value, ignores writes.
5. The rules of ``Access``, per bit, then the hooks given to ``on_read`` and ``on_write``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from cosim.core.regtable import SIZES, Access, AccessError, Block, F, Field, Reg, Row, Rule, need

__all__ = ["SIZES", "Access", "AccessError", "Bank", "Block", "F", "Field", "Op", "Reg", "Row"]

Op = Literal["read", "write"]
ReadHook = Callable[[int], int]
WriteHook = Callable[[int, int, int, int], None]


class Bank:
    """The live values of one instance of ``block``.

    ``on_reserved(offset, "read" | "write")`` hears of accesses where this instance has no register,
    ``on_unmodelled(reg, index, "read" | "write")`` of those to a register without behaviour: the node counts
    and logs them. While a hook runs, ``secure`` tells the security of the access it serves (AxPROT[1] = 0).
    """

    def __init__(
        self,
        block: Block,
        *,
        on_reserved: Callable[[int, Op], None] | None = None,
        on_unmodelled: Callable[[Reg, int, Op], None] | None = None,
    ) -> None:
        self.block = block
        self.on_reserved = on_reserved
        self.on_unmodelled = on_unmodelled
        self.secure = True
        rules = list(block.rules.values())
        self._slots = block.slots
        self._rules = block.rules
        self._gates = [rule.gated for rule in rules] + [True]
        self._ends = [rule.reg.first + rule.reg.count for rule in rules] + [0]
        self._read_hooks: list[ReadHook | None] = [None] * (len(rules) + 1)
        self._write_hooks: list[WriteHook | None] = [None] * (len(rules) + 1)
        self._resets: list[int] = []
        for reg in block.owners:
            self._resets.extend([reg.reset_value()] * reg.count)
        self._values = list(self._resets)

    # The bus side.

    def read(self, offset: int, size: int, secure: bool = True) -> int:
        """Answer a bus read of ``size`` bytes; raises AccessError."""
        slot = self._slots.get((offset, size))
        if slot is None:
            slot = self.block.locate(offset, size)
        rule, number, index, cell, shift, _lanes, readable, ones = slot
        if self._gates[number] and self._refused(rule, index, offset, secure, "read"):
            return 0
        hook = self._read_hooks[number]
        if hook is None:
            value = self._values[cell]
        else:
            self.secure = secure
            value = hook(index)
        return (value & readable | ones) >> shift

    def write(self, offset: int, size: int, value: int, secure: bool = True) -> None:
        """Carry out a bus write of ``size`` bytes; raises AccessError, ValueError for a value too wide."""
        slot = self._slots.get((offset, size))
        if slot is None:
            slot = self.block.locate(offset, size)
        rule, number, index, cell, shift, lanes, _readable, _ones = slot
        if value < 0 or value >> 8 * size:
            raise ValueError(
                f"value must be an unsigned int of {size} bytes, not {value:#x}, "
                f"at {self.block.name} offset {offset:#x}"
            )
        if self._gates[number] and self._refused(rule, index, offset, secure, "write"):
            return
        self.secure = secure
        old = self._values[cell]
        read_hook = self._read_hooks[number]
        if read_hook is not None:
            # The model keeps the value: rules such as W1C apply to what it has now, not to a stale copy.
            old = read_hook(index) & ~rule.wo | old & rule.wo
        written = value << shift
        if rule.only_wo:
            new = written & rule.wo
        else:
            keep = lanes & rule.changes
            new = old & ~keep | written & keep
            new = new & ~(written & rule.w1c) | written & rule.w1s
        self._values[cell] = new
        hook = self._write_hooks[number]
        if hook is not None:
            hook(index, old, new, lanes)

    def _refused(self, rule: Rule, index: int, offset: int, secure: bool, op: Op) -> bool:
        """Report an access outside the plain rules; True when it is RAZ/WI."""
        if index >= self._ends[rule.number]:
            if self.on_reserved is not None:
                self.on_reserved(offset, op)
            return True
        if rule.reg.security == "secure" and not secure:
            return True
        if rule.reg.modelled:
            return False
        if self.on_unmodelled is not None:
            self.on_unmodelled(rule.reg, index, op)
        return op == "write"

    # The model's side: raw values, no access rules, no hooks.

    def on_read(self, name: str, fn: ReadHook) -> None:
        """Let ``fn(index)`` give the register's value instead of the stored one.

        It must have no side effect: writes consult it too. Bits that software cannot read are masked.
        """
        number = self.block.rule(name).number
        need(self._read_hooks[number] is None, f"on_read of {name} must be given once")
        self._read_hooks[number] = fn

    def on_write(self, name: str, fn: WriteHook) -> None:
        """Call ``fn(index, old, new, mask)`` after a bus write was applied and stored.

        ``mask`` is the written bit lanes. ``new`` has RO and RES bits unchanged and W1C and W1S applied; of a
        register with WO bits only it is the written value. The hook may store another value.
        """
        number = self.block.rule(name).number
        need(self._write_hooks[number] is None, f"on_write of {name} must be given once")
        self._write_hooks[number] = fn

    def absent(self, name: str, first: int | None = None) -> None:
        """Say that this instance lacks the register, or the elements from ``first`` on: RAZ/WI, reported."""
        rule = self.block.rule(name)
        low, end = rule.reg.first, rule.reg.first + rule.reg.count
        if first is None:
            first = low
        need(low <= first <= end, f"first of {name} must be in {low}..{end}, not {first!r}")
        self._gates[rule.number] = True
        self._ends[rule.number] = first

    def configure(self, name: str, value: int, index: int | None = None) -> None:
        """Set the value and this instance's reset value: for ID registers that follow from parameters."""
        cell = self._cell(name, index)
        self._store(cell, self.block.rule(name), value)
        self._resets[cell] = value

    def reset(self) -> None:
        """Give all registers their reset values; hooks are not called."""
        self._values[:] = self._resets

    def __getitem__(self, name: str) -> int:
        return self._values[self._cell(name, None)]

    def __setitem__(self, name: str, value: int) -> None:
        self._store(self._cell(name, None), self.block.rule(name), value)

    def at(self, name: str, index: int) -> int:
        """The stored value of one element of a register array."""
        return self._values[self._cell(name, index)]

    def set_at(self, name: str, index: int, value: int) -> None:
        """Store the value of one element; ValueError for bits that the register does not have."""
        self._store(self._cell(name, index), self.block.rule(name), value)

    def field(self, name: str, field: str, index: int | None = None) -> int:
        """The stored value of a field."""
        rule = self._rules.get(name) or self.block.rule(name)
        found = rule.fields.get(field) or self._field(name, field)
        cell = rule.cell if index is None and rule.reg.count == 1 else self._cell(name, index)
        return self._values[cell] >> found.lo & found.ones

    def set_field(self, name: str, field: str, value: int, index: int | None = None) -> None:
        """Store a field's value; ValueError when it does not fit."""
        found = self._field(name, field)
        if not 0 <= value <= found.ones:
            raise ValueError(f"{name}.{found} must be in 0..{found.ones:#x}, not {value:#x}")
        cell = self._cell(name, index)
        self._values[cell] = self._values[cell] & ~found.mask | value << found.lo

    def decode(self, name: str, index: int | None = None) -> dict[str, int]:
        """Field names and values in table order, of the ``on_read`` value where there is one.

        A register without fields gives {"value": v}. Meant for showing: WO bits appear, security is ignored.
        """
        value = self._values[self._cell(name, index)]
        rule = self.block.rule(name)
        hook = self._read_hooks[rule.number]
        if hook is not None:
            value = hook(rule.reg.first if index is None else index) & ~rule.wo | value & rule.wo
        if not rule.fields:
            return {"value": value}
        return {field.name: value >> field.lo & field.ones for field in rule.fields.values()}

    def snapshot(self) -> dict[str, int]:
        """All values by name, as ``decode`` sees them, without any effect: for showing.

        Elements of arrays are called ``GICD_IROUTER<32>``; those that are 0, and all that this instance lacks, are left
        out.
        """
        secure, self.secure = self.secure, True
        values = {}
        for rule in self.block.rules.values():
            reg, hook = rule.reg, self._read_hooks[rule.number]
            for index in range(reg.first, self._ends[rule.number]):
                value = self._values[rule.cell + index - reg.first]
                if hook is not None:
                    value = hook(index) & ~rule.wo | value & rule.wo
                if value or reg.count == 1:
                    values[reg.name if reg.count == 1 else f"{reg.name}<{index}>"] = value
        self.secure = secure
        return values

    def _cell(self, name: str, index: int | None) -> int:
        rule = self._rules.get(name) or self.block.rule(name)
        reg = rule.reg
        last = reg.first + reg.count - 1
        if index is None:
            if reg.count > 1:
                raise IndexError(f"{name} is an array: index must be given, in {reg.first}..{last}")
            return rule.cell
        if not reg.first <= index <= last:
            raise IndexError(f"index of {name} must be in {reg.first}..{last}, not {index!r}")
        return rule.cell + index - reg.first

    def _store(self, cell: int, rule: Rule, value: int) -> None:
        bits = rule.readable | rule.res1 | rule.wo
        if value < 0 or value & ~bits:
            raise ValueError(f"{rule.reg.name} must lie within its defined bits {bits:#x}, not {value:#x}")
        self._values[cell] = value

    def _field(self, name: str, field: str) -> Field:
        rule = self.block.rule(name)
        found = rule.fields.get(field)
        if found is None:
            raise KeyError(f"{name} has no field {field!r}; it has {', '.join(rule.fields) or 'none'}")
        return found
