"""The tree of a PCI Express hierarchy, and where a request goes in it (PCI Express Base Specification 2.2.4, 7.3)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cosim.api import ModelError
from nodes.pcie.config_space import (
    DOWNSTREAM_PORT,
    ENDPOINT,
    IDENTITIES,
    PORTS,
    ROOT_ENDPOINT,
    ROOT_PORT,
    FunctionConfig,
)

KEYS = {"device", "function", "type", "below", "link"}


class PcieFunction:
    """A function of the tree: its configuration space, and for a port what is below it: functions, or a link's number."""

    def __init__(self, config: FunctionConfig, below: Bus | None, link: int | None) -> None:
        self.config = config
        self.below = below
        self.link = link


class Bus:
    """The functions of one bus by device and function number (``device << 3 | function``)."""

    def __init__(self, entries: Sequence[Mapping[str, Any]], *, above: str = "") -> None:
        """`entries` are the hierarchy parameter's; `above` is the type of the port that leads here.

        Raises:
            ModelError: an entry is not allowed.
        """
        places = [self._place(entry) for entry in entries]
        if len(set(places)) < len(places):
            raise ModelError(f"functions of a bus must have different numbers, not {sorted(places)}")
        several = {place >> 3 for place in places if place & 7}
        self.functions: dict[int, PcieFunction] = {}
        for place, entry in zip(places, entries, strict=True):
            if PORTS.get(above) in (ROOT_PORT, DOWNSTREAM_PORT) and place >> 3:
                raise ModelError(f"below a {above} there must be device 0 only, not {place >> 3}")
            self.functions[place] = self._function(entry, place >> 3 in several, above)

    @staticmethod
    def _place(entry: Mapping[str, Any]) -> int:
        unknown = sorted(set(entry) - KEYS)
        device, function = entry.get("device", 0), entry.get("function", 0)
        if unknown or device not in range(32) or function not in range(8):
            raise ModelError(
                f"a function must have the keys {sorted(KEYS)}, device 0..31 and function 0..7, not {dict(entry)!r}"
            )
        return int(device) << 3 | int(function)

    @staticmethod
    def _function(entry: Mapping[str, Any], several: bool, above: str) -> PcieFunction:
        kind, below, link = entry.get("type", ""), entry.get("below"), entry.get("link")
        if kind not in IDENTITIES:
            raise ModelError(f"type of a function must be one of {', '.join(IDENTITIES)}, not {kind!r}")
        if (kind in PORTS) != (below is not None or link is not None) or (below is not None and link is not None):
            raise ModelError(f"a port must have either below or link, and nothing else either of them: {dict(entry)!r}")
        port = PORTS.get(kind, None if kind == "host_bridge" else ENDPOINT if above else ROOT_ENDPOINT)
        bus = Bus(below, above=kind) if below is not None else None
        return PcieFunction(FunctionConfig(kind, port, multi_function=several), bus, link)

    def links(self) -> Iterator[int]:
        """Numbers of the links below."""
        for function in self.functions.values():
            if function.link is not None:
                yield function.link
            elif function.below is not None:
                yield from function.below.links()

    def find(self, bus: int, place: int) -> FunctionConfig | int | None:
        """Who a configuration request for another bus than this is for: a function here, a link, or nobody."""
        for function in self.functions.values():
            secondary, subordinate = function.config.buses if function.config.bridge else (0, 0)
            if not secondary or not secondary <= bus <= subordinate:
                continue
            if bus > secondary:
                return function.below.find(bus, place) if function.below is not None else function.link
            if function.config.port in (ROOT_PORT, DOWNSTREAM_PORT) and place >> 3:
                return None
            if function.below is None:
                return function.link
            below = function.below.functions.get(place)
            return below.config if below is not None else None
        return None

    def route(self, address: int, size: int) -> FunctionConfig | int | None:
        """Who a memory request is for: a function's BAR, a link, or nobody."""
        for function in self.functions.values():
            config = function.config
            if not config.bridge:
                if config.claims(address, size):
                    return config
            elif config.forwards(address, size):
                return function.below.route(address, size) if function.below is not None else function.link
        return None
