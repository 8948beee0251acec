"""What is installed: models by kind, guest programs by name, and the ports that a model declares.

The launcher looks entry points up once and writes import paths into the plan; workers import what the plan names and scan
nothing. A model's module is imported here only to read its ports.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import entry_points
from typing import Any

from cosim.node.node import Node, Port
from cosim.node.ports import Channel, MmioInitiator, MmioTarget

PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*\Z")
"""``package.module:Class``."""

NOT_INSTALLED = "install the project into this environment: pip install -e . (or make up)"


class ModelUnavailable(Exception):
    """A model can't be imported or is no model; the text says why."""


@dataclass
class Catalogue:
    """Entry points, as found in this environment unless given."""

    models: dict[str, str] = field(default_factory=dict)
    programs: dict[str, str] = field(default_factory=dict)

    @classmethod
    def installed(cls) -> Catalogue:
        """The entry points of groups cosim.nodes and cosim.programs."""
        return cls(
            *({e.name: e.value for e in sorted(entry_points(group=g))} for g in ("cosim.nodes", "cosim.programs"))
        )

    @cached_property
    def _ports(self) -> dict[str, dict[str, Port]]:
        return {}

    def ports(self, model: str) -> dict[str, Port]:
        """Ports by name of the class at the import path `model`.

        Raises:
            ModelUnavailable: it can't be imported, or is not a subclass of cosim.api.Node.
        """
        if model not in self._ports:
            module, _, name = model.partition(":")
            try:
                found = getattr(importlib.import_module(module), name)
            except Exception as error:  # whatever a module does at import is that model's fault
                raise ModelUnavailable(f"{type(error).__name__}: {error}") from error
            if not (isinstance(found, type) and issubclass(found, Node)):
                raise ModelUnavailable(f"{name} is not a subclass of cosim.api.Node")
            self._ports[model] = dict(found._ports)
            self._parameters[model] = dict(found.parameters)
            self._conflicts[model] = found.conflicts
        return self._ports[model]

    @cached_property
    def _parameters(self) -> dict[str, dict[str, type | range | tuple[Any, ...]]]:
        return {}

    def parameters(self, model: str) -> dict[str, type | range | tuple[Any, ...]]:
        """Parameters that the class declares, after `ports` has loaded it; empty: it takes whatever comes."""
        return self._parameters.get(model, {})

    @cached_property
    def _conflicts(self) -> dict[str, Callable[[Mapping[str, Any]], Iterable[tuple[str, str]]]]:
        return {}

    def conflicts(self, model: str, params: Mapping[str, Any]) -> list[tuple[str, str]]:
        """What the class finds wrong with parameters of the right types, as (name, text), after `ports` has loaded it."""
        return list(self._conflicts[model](params)) if model in self._conflicts else []


def allowed(model: str, prefixes: Sequence[str]) -> bool:
    """Whether the module of an import path lies in one of the packages (or is one of the modules) `prefixes`."""
    module = model.partition(":")[0]
    return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes)


def describe_port(port: Port) -> str:
    """What may be linked to a port, in words: its class, or its protocol."""
    if isinstance(port, Channel):
        return f"a channel of protocol {port.protocol.name}"
    if isinstance(port, MmioInitiator):
        return "a bus initiator"
    if isinstance(port, MmioTarget):
        return "a bus target"
    return f"a {type(port).__name__.removesuffix('Port').lower()} line" if type(port) is not Port else "a plain port"


def fits(source: Port, target: Port) -> bool:
    """Whether a link may lead from one port to the other."""
    if isinstance(source, Channel) or isinstance(target, Channel):
        return (
            isinstance(source, Channel) and isinstance(target, Channel) and source.protocol.name == target.protocol.name
        )
    if isinstance(source, (MmioInitiator, MmioTarget)) or isinstance(target, (MmioInitiator, MmioTarget)):
        return False  # buses come from `maps`, which make both directions
    return type(source) is type(target) or Port in (type(source), type(target))
