"""What the conformance kit does to a node: a stimulus made up from its ports, or read from a file (docs/attach.md)."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

from cosim.attach.plan import MMIO_TARGET
from cosim.core.message import MMIO, WIRE
from cosim.run.conform_kit import Input, Setup
from cosim.run.foreign_forms import fits, form, is_attr, is_int, show

RESET_TAG = 1 << 39
"""Tag of an access that resets the node: the tags of others are their places in the stimulus."""
ATTR = 3
_TAIL_PS = 100_000_000


@dataclass
class Stimulus:
    """What is done to the node: `inputs` in any order, until `horizon` (ps); `resets` are what resets the node: wire ports, whose
    line is raised, or inputs, whose time does not count."""

    inputs: list[Input] = field(default_factory=list)
    horizon: int = 0
    resets: tuple[str | Input, ...] = ("reset",)


def default_stimulus(ports: dict[str, str], clock: int, seed: int, size: int, count: int = 40) -> Stimulus:
    """Reads and writes of every target port below `size` bytes, alone and in bursts; lines are left alone."""
    chance = random.Random(seed)
    inputs: list[Input] = []
    tag, last = 0, 0
    for port, role in ports.items():
        at = 20 * clock
        for _ in range(count if role == MMIO_TARGET else 0):
            at += chance.choice((0, 1, clock, 3 * clock, 50 * clock, 333 * clock))
            width = chance.choice((4, 4, 8, 8, 1, 2, 64))
            addr = chance.randrange(max(1, size // width)) * width
            data: int | bytes = chance.getrandbits(8 * width) if width <= 8 else chance.randbytes(width)
            which = chance.choice(("read", "write", "post"))
            if which == "read":
                inputs.append(Input(at, port, MMIO.Read.code, (tag, addr, width, ATTR)))
            elif which == "write":
                inputs.append(Input(at, port, MMIO.Write.code, (tag, addr, width, data, ATTR)))
            else:
                inputs.append(Input(at, port, MMIO.WritePosted.code, (addr, width, data, ATTR)))
            tag += 1
        last = max(last, at)
    return Stimulus(inputs, last + _TAIL_PS)


def stimulus_from(data: Any, setup: Setup) -> tuple[Stimulus, Setup]:
    """A stimulus from the plain data of its file (docs/attach.md); ValueError when it is malformed."""
    from cosim.core.message import KINDS
    from cosim.core.time import parse_span

    if not isinstance(data, dict):
        raise ValueError("a stimulus must be a mapping with `inputs`")
    unknown = set(data) - {"clock", "latency", "service", "horizon", "params", "resets", "inputs"}
    if unknown:
        raise ValueError(f"a stimulus must not have {', '.join(sorted(map(str, unknown)))}")

    for key, wanted in (("params", dict), ("inputs", list), ("resets", list)):
        if not isinstance(data.get(key, wanted()), wanted):
            raise ValueError(
                f"{key} of a stimulus must be a {'mapping' if wanted is dict else 'list'}, not {data[key]!r}"
            )

    def span(value: Any, least: int = 0) -> int:
        found = value if type(value) is int else parse_span(str(value))
        if found < least:
            raise ValueError(f"a time of a stimulus must be at least {least} ps, not {value!r}")
        return found

    setup = replace(
        setup,
        params={**data.get("params", {}), **setup.params},
        clock=span(data.get("clock", setup.clock), 1),
        latency=span(data.get("latency", setup.latency), 1),
        service=span(data.get("service", setup.service)),
    )
    names = {f"{kind.protocol}.{kind.name}": kind for kind in KINDS.values()}
    inputs: list[Input] = []
    for number, entry in enumerate(data.get("inputs", [])):
        try:
            at, port = span(entry["at"]), str(entry["port"])
            kind, fields = _fields(entry, number, names)
        except (KeyError, TypeError) as error:
            raise ValueError(f"input {number} of the stimulus must have at, port and what happens: {error!r}") from None
        if len(fields) != len(kind.fields):
            raise ValueError(f"input {number}: {kind!r} must have the fields {', '.join(kind.fields)}")
        inputs.append(Input(at, port, kind.code, fields))
    last = max((item.at for item in inputs), default=0)
    horizon = span(data["horizon"]) if "horizon" in data else last + _TAIL_PS
    return Stimulus(inputs, horizon, tuple(_reset(entry, names) for entry in data.get("resets", ("reset",)))), setup


def _reset(entry: Any, names: dict[str, Any]) -> str | Input:
    """A wire port, or an access (or other input) that resets the node, such as a function level reset."""
    if isinstance(entry, str):
        return entry
    try:
        kind, fields = _fields(entry, RESET_TAG, names)
        return Input(0, str(entry["port"]), kind.code, fields)
    except (KeyError, TypeError) as error:
        raise ValueError(f"a reset must be a wire port, or have port and what happens: {error!r}") from None


def _access(entry: dict[str, Any], number: int, word: str) -> tuple[int, int, Any, int]:
    """Address, size, data (None of a read) and attributes of an access."""
    address, size, attr = entry[word], entry.get("size", 4), entry.get("attr", ATTR)
    if not (is_int(address, 2**64 - 1) and is_int(size, 4096) and size and is_attr(attr)):
        raise ValueError(
            f"input {number}: an access must have an address, a size of 1 to 4096 bytes and attributes as in docs/protocol.md, "
            f"not {address!r}, {size!r} and {attr!r}"
        )
    if word == "read":
        return address, size, None, attr
    data = entry["data"]
    value = bytes.fromhex(data) if isinstance(data, str) else data
    if isinstance(value, bytes) and len(value) == size in (1, 2, 4, 8):
        value = int.from_bytes(value, "little")
    if not fits(value, size):
        raise ValueError(
            f"input {number}: data must be {form(size)}, or {size} bytes in hex digits, not {show(data)}"
            if size in (1, 2, 4, 8)
            else f"input {number}: data must be {size} bytes in hex digits, not {show(data)}"
        )
    return address, size, value, attr


def _fields(entry: dict[str, Any], number: int, names: dict[str, Any]) -> tuple[Any, tuple[Any, ...]]:
    """Kind and fields of one input of a stimulus file; tags are the inputs' numbers."""
    for word, kind in (("read", MMIO.Read), ("write", MMIO.Write), ("post", MMIO.WritePosted)):
        if word in entry:
            address, size, data, attr = _access(entry, number, word)
            rest = (address, size, attr) if word == "read" else (address, size, data, attr)
            return kind, rest if word == "post" else (number, *rest)
    if "level" in entry:
        return WIRE.Level, (entry.get("line", 0), entry["level"])
    if entry["kind"] not in names:
        raise ValueError(f"input {number}: kind {entry['kind']!r} is not known; --protocol MODULE:NAME imports others")
    return names[entry["kind"]], tuple(entry.get("fields", ()))
