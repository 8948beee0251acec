"""What is compared after each step: a list of names, where QEMU has each, and how its private formats read.

QEMU keeps pending bits of LPIs and vLPIs current in the pending tables in memory, and its ITS tables have the formats that
`hw/intc/gicv3_internal.h` describes; ours are private too, so both are decoded to the same text.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.differential import layout
from tests.differential.layout import CPUS, EL1_REGISTERS, EL2_REGISTERS, REGISTERS, UNSEEN

ITE_BYTES = 12


@dataclass(frozen=True, slots=True)
class Place:
    """A name and, for memory and registers behind the bus, address and bytes."""

    name: str
    address: int
    size: int


def register_places(version: str) -> list[Place]:
    """Registers of distributor, redistributors and ITS, in the order in which they are read."""
    places = []
    for name, (block, offset, size) in REGISTERS.items():
        if any(word in name for word in UNSEEN) or (version == "3" and name in V4_ONLY):
            continue
        for cpu in range(CPUS if block == "gicr" else 1):
            shown = f"{name}.{cpu}" if block == "gicr" else name
            places.append(Place(shown, layout.frame(block, cpu, version) + offset, size))
    return places


V4_ONLY = ("GICR_VPROPBASER", "GICR_VPENDBASER", "GITS_BASER2")


def memory_places(version: str) -> list[Place]:
    """Eight-byte words of QEMU's tables."""
    at = [Place(f"lpi.{cpu}", layout.PENDING + cpu * layout.STEP_64K + layout.LPI_BASE // 8, 8) for cpu in range(CPUS)]
    at += [Place(f"dte.{dev}", layout.DEVICE_TABLE + 8 * dev, 8) for dev in layout.DEVICES]
    at += [Place(f"cte.{icid}", layout.COLLECTION_TABLE + 8 * icid, 8) for icid in range(layout.COLLECTIONS)]
    for dev in layout.DEVICES:
        words = -(-layout.EVENTS * ITE_BYTES // 8)
        at += [Place(f"itt.{dev}.{word}", layout.itt(dev) + 8 * word, 8) for word in range(words)]
    if version != "3":
        for vpe in range(layout.VPES):
            table = layout.VPENDING + vpe * layout.STEP_64K
            at.append(Place(f"vlpi.{vpe}", table + layout.LPI_BASE // 8, 8))
            at.append(Place(f"vte.{vpe}", layout.VPE_TABLE + 8 * vpe, 8))
    return at


def sysreg_names(cpu: int) -> list[str]:
    """Names of a CPU's system registers, those at EL2 first."""
    return [f"{name}.{cpu}" for name in EL2_REGISTERS] + [f"{name}.{cpu}@EL1" for name in EL1_REGISTERS]


class View:
    """Turns the words that the agent logs after a step into named, comparable values."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.places = register_places(version) + memory_places(version)
        self.raw = [place.name for place in self.places]
        for cpu in range(CPUS):
            self.raw += sysreg_names(cpu)
        self.words = len(self.raw)

    def decode(self, words: tuple[int, ...]) -> dict[str, object]:
        """Named values, tables decoded."""
        raw = dict(zip(self.raw, words, strict=True))
        seen: dict[str, object] = {}
        for name, value in raw.items():
            kind = name.split(".")[0]
            if kind in ("lpi", "vlpi"):
                seen[f"pending {name}"] = tuple(layout.LPI_BASE + n for n in range(64) if value >> n & 1)
            elif kind == "dte":
                seen[f"device {name[4:]}"] = (value >> 1 & 0x1F, value >> 6 << 8) if value & 1 else None
            elif kind == "cte":
                seen[f"collection {name[4:]}"] = value >> 1 & 0xFFFF if value & 1 else None
            elif kind == "vte":
                seen[f"vPE {name[4:]}"] = (value >> 1 & 0x1F, value >> 42 & 0xFFFF) if value & 1 else None
            elif kind != "itt":
                seen[name] = value
        for dev in layout.DEVICES:
            dte = raw[f"dte.{dev}"]
            words_of = [raw[f"itt.{dev}.{word}"] for word in range(-(-layout.EVENTS * ITE_BYTES // 8))]
            table = b"".join(word.to_bytes(8, "little") for word in words_of)
            for event in range(layout.EVENTS):
                mapped = dte & 1 and event >> (dte >> 1 & 0x1F) + 1 == 0 and dte >> 6 << 8 == layout.itt(dev)
                seen[event_name(dev, event)] = _ite(table, event, self.version) if mapped else None
        return seen


def event_name(device: int, event: int) -> str:
    """Name of an event's mapping."""
    return f"event {device}/{event}"


def _ite(table: bytes, event: int, version: str) -> object:
    low = int.from_bytes(table[event * ITE_BYTES : event * ITE_BYTES + 8], "little")
    doorbell = int.from_bytes(table[event * ITE_BYTES + 8 : event * ITE_BYTES + 12], "little") & 0xFFFFFF
    if not low & 1:
        return None
    if low & 2:
        return ("LPI", low >> 2 & 0xFFFFFF, "ICID", low >> 32 & 0xFFFF)
    return ("vLPI", low >> 2 & 0xFFFFFF, "vPE", low >> 48, "doorbell", doorbell)
