"""Register tables and live register values, for people: what `cosim regs` prints."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from rich.table import Table
from rich.text import Text

from cosim.core.regtable import Block, Field, Reg, Row
from cosim.errors import UsageError
from cosim.view.text import grid

_ELEMENT = re.compile(r"(.+?)<(\d+)>\Z")
_ADDRESS = re.compile(r"(.*_)?(address|addr|offset)\Z", re.IGNORECASE)
_NUMBERED = re.compile(r"(.+?\D)(\d+)(\D*)\Z")


def find_blocks(models: Mapping[str, str]) -> dict[str, Block]:
    """Blocks by the names of the variables that hold them, in the modules of installed models and beside them.

    Args:
        models: kind to import path, as the entry points cosim.nodes give them.
    """
    found: dict[str, Block] = {}
    for path in models.values():
        module = path.partition(":")[0]
        package = module.rpartition(".")[0]
        for name in (module, f"{package}.regs", f"{package}.show"):
            try:
                variables = vars(importlib.import_module(name))
            except ImportError:
                continue  # not every model keeps its table beside itself
            found.update({key: value for key, value in variables.items() if isinstance(value, Block)})
    return dict(sorted(found.items()))


def table_of(blocks: Mapping[str, Block], key: str) -> Block | None:
    """The table of a bank that a snapshot calls `key`: ``GICR_V3``, or with an instance, ``SMMUTE@08:00.1/0``."""
    return blocks.get(key.partition("@")[0])


def find_register(block: Block, wanted: str) -> tuple[Reg, int | None]:
    """A register by name, in any case, with or without the block's prefix; an array's element as ``NAME<n>`` or ``NAMEn``.

    Returns:
        The register, and the element's number; None for a whole array or a single register.

    Raises:
        UsageError: there is none.
    """
    names = {name.lower(): name for name in block.rules}
    for name in (wanted.lower(), f"{block.name}_{wanted}".lower()):
        if name in names:
            return block[names[name]], None
        match = _ELEMENT.match(name) or _NUMBERED.match(name)
        if match is not None:
            base = match[1] + (match[3] if match.lastindex == 3 else "")
            reg = block[names[base]] if base in names else None
            if reg is not None and reg.first <= int(match[2]) < reg.first + reg.count and reg.count > 1:
                return reg, int(match[2])
    close = get_close_matches(wanted.upper(), block.rules, 1, 0.5)
    raise UsageError(
        f"register must be one of block {block.name}, not {wanted!r}",
        code="no-register",
        next_step=f"did you mean {close[0]}?" if close else f"`cosim regs {block.name}` lists them",
    )


def shown_name(reg: Reg, index: int | None) -> str:
    """``GICD_CTLR``, ``GICD_IROUTER<32>``."""
    return reg.name if index is None else f"{reg.name}<{index}>"


# -- the table, without a run ------------------------------------------------------------------------------------------


def blocks_table(blocks: Mapping[str, Block]) -> Table:
    """The blocks that there are."""
    table = grid()
    for column, justify in (("block", "left"), ("size", "right"), ("registers", "right"), ("source", "left")):
        table.add_column(column, justify=justify, no_wrap=column != "source")  # type: ignore[arg-type]
    for name, block in blocks.items():
        table.add_row(name, f"{block.size:#x}", str(len(block.regs)), Text(block.source))
    return table


def block_table(block: Block, rows: Iterable[Row]) -> Table:
    """Offset, name, width, access, reset and fields."""
    table = grid()
    for column in ("offset", "register", "bits", "access", "reset"):
        table.add_column(column, justify="right" if column in ("bits", "reset") else "left", no_wrap=True)
    table.add_column("fields", overflow="fold")
    digits = len(f"{block.size - 1:x}")
    frame = None
    for row in rows:
        if block.frames and row.frame != frame:
            frame = row.frame
            table.add_row("", Text(f"{frame} frame", style="italic"))
        table.add_row(
            f"{row.offset:#0{digits + 2}x}", Text(range_text(row)), str(row.width), row.access, f"{row.reset:#x}",
            Text(", ".join(field.removesuffix(f" {row.access}") for field in row.fields) or row.doc),
        )  # fmt: skip
    return table


def range_text(row: Row) -> str:
    """The name, with the numbers of an array: ``GICD_IROUTER<32..1019>``."""
    return row.name if row.count == 1 else f"{row.name}<{row.first}..{row.first + row.count - 1}>"


def row_dict(row: Row) -> dict[str, Any]:
    """A row for --json."""
    return row._asdict()


# -- live values -------------------------------------------------------------------------------------------------------


def decode(fields: Iterable[Field], value: int) -> dict[str, int]:
    """Field names and values in table order."""
    return {field.name: value >> field.lo & field.ones for field in fields}


def address(field: str, value: int, lo: int) -> str | None:
    """The address that a field holds as text; None if it is no address. Such a field lies at the address's own bits: bit `lo`
    of the register is bit `lo` of the address (IHI 0069 12, IHI 0070 6.3: Physical_Address, Offset, ADDR)."""
    return f"{value << lo:#x}" if lo and _ADDRESS.match(field) else None


def values_of(block: Block | None, values: Mapping[str, int], wanted: Iterable[str]) -> list[dict[str, Any]]:
    """Register values with their fields: the `wanted` ones, or all; [{name, offset, value, width, fields}].

    Raises:
        UsageError: a wanted register does not exist.
    """
    if block is None:
        missing = [name for name in wanted if name not in values]
        if missing:
            raise UsageError(f"register must be one of {', '.join(values)}, not {missing[0]!r}", code="no-register")
        return [
            {"name": n, "offset": None, "value": values[n], "width": 64, "fields": {}, "addresses": {}}
            for n in wanted or values
        ]
    chosen = [find_register(block, name) for name in wanted] or [(block[n], i) for n, i in map(_split, values)]
    found = []
    for reg, index in chosen:
        numbers = [index]
        if index is None and reg.count > 1:
            numbers = [n for n in range(reg.first, reg.first + reg.count) if shown_name(reg, n) in values]
        for number in numbers:
            name = shown_name(reg, number)
            value = values.get(name, 0)  # elements that are 0 are left out of a snapshot
            offset = reg.offset + (0 if number is None else number - reg.first) * reg.step
            fields = decode(reg.fields, value)
            lows = {field.name: field.lo for field in reg.fields}
            texts = {n: text for n, v in fields.items() if (text := address(n, v, lows[n]))}
            found.append(
                {
                    "name": name,
                    "offset": offset,
                    "value": value,
                    "width": reg.width,
                    "fields": fields,
                    "addresses": texts,
                }
            )
    return found


def _split(name: str) -> tuple[str, int | None]:
    match = _ELEMENT.match(name)
    return (match[1], int(match[2])) if match else (name, None)


def values_table(entries: Iterable[Mapping[str, Any]], every_field: bool) -> Table:
    """Values in hex with their fields by name; fields that are 0 only if `every_field`."""
    table = grid()
    for column in ("offset", "register", "value"):
        table.add_column(column, justify="right" if column == "value" else "left", no_wrap=True)
    table.add_column("fields", overflow="fold")
    for entry in entries:
        texts = entry["addresses"]
        shown = [
            f"{n}={texts.get(n) or (v if v < 10 else hex(v))}" for n, v in entry["fields"].items() if v or every_field
        ]
        offset = "" if entry["offset"] is None else f"{entry['offset']:#06x}"
        value = f"{entry['value']:#0{2 + entry['width'] // 4}x}"
        table.add_row(offset, Text(entry["name"]), value, Text(" ".join(shown)))
    return table
