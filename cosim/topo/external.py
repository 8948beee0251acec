"""The `external` block of a topology's `models`: how a simulator of its own plays a node, and what its ports carry."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any

from cosim.attach.plan import CHANNEL, MMIO_INITIATOR, MMIO_TARGET, POWER_ROLE, WIRE_ROLE, KindRow, core_kinds
from cosim.core.time import parse_span
from cosim.node.node import Port, PowerPort
from cosim.node.ports import Channel, MmioInitiator, MmioTarget, Wire
from cosim.topo.errors import Path, did_you_mean
from cosim.topo.schema import ExternalSpec

if TYPE_CHECKING:
    from cosim.topo.expand import Expander

_ROLES: dict[str, type[Port]] = {MMIO_TARGET: MmioTarget, MMIO_INITIATOR: MmioInitiator, WIRE_ROLE: Wire}
_WORKER = re.compile(r"w[0-9]+\Z")
_PS_PER_MS = 10**9


def role_of(port: Port) -> str | None:
    """The role of a Python model's port, None for one that no foreign node can have (it says nothing of what it carries)."""
    if isinstance(port, Channel):
        return CHANNEL + port.protocol.name
    if isinstance(port, MmioTarget):
        return MMIO_TARGET
    if isinstance(port, MmioInitiator):
        return MMIO_INITIATOR
    if isinstance(port, PowerPort):
        return POWER_ROLE
    return WIRE_ROLE if isinstance(port, Wire) else None


class Externals:
    """Checks `external` blocks and makes their plain form; errors go to the expander."""

    def __init__(self, expander: Expander, folder: FilePath) -> None:
        self._expander = expander
        self._folder = folder

    def ports(self, key: str, spec: ExternalSpec, installed: Mapping[str, Port] | None) -> dict[str, Port] | None:
        """A node's ports: those of the installed model of its kind, and those that the block lists; None when in error."""
        path: Path = ("models", key, "external", "ports")
        found: dict[str, Port] = {"power": PowerPort(), **(installed or {})}
        for name, role in spec.ports.items():
            if role not in _ROLES:
                self._expander.report(
                    f"role of port {name} must be one of {', '.join(_ROLES)}, not {role!r}",
                    (*path, name),
                    code="port-role",
                    next_step=did_you_mean(role, _ROLES),
                )
                return None
            found[name] = _ROLES[role]()
        if installed is None and not spec.ports:
            self._expander.report(
                f"external model of {key} must list its ports: its kind has no installed model that would tell them",
                ("models", key),
                key=True,
                code="no-ports",
                next_step="add ports: {NAME: mmio_target | mmio_initiator | wire}",
            )
            return None
        return found

    def plain(self, key: str, name: str, spec: ExternalSpec, ports: Mapping[str, Port]) -> dict[str, Any] | None:
        """The block as the plan carries it; None when it is in error. `name` is the node's."""
        path: Path = ("models", key, "external")
        names = {**self._expander.values, "name": name}
        start = self._start(key, name, spec)
        if start is None:
            return None
        wait = self._span(spec.wait, (*path, "wait"))
        wall = None if spec.wall_limit is None else self._span(spec.wall_limit, (*path, "wall_limit"))
        if wait is None or (wall is None and spec.wall_limit is not None):
            return None
        roles = {port: role for port, value in ports.items() if (role := role_of(value)) is not None}
        rows = {row.code: row for row in core_kinds()}
        for port in ports.values():
            if isinstance(port, Channel):
                rows.update((kind.code, KindRow.of(kind)) for kind in port.protocol)
        return {
            "argv": [str(self._expander.fill(word, names, (*path, "argv"))) for word in spec.argv],
            "connect": start == "connect",
            "wait_ms": wait // _PS_PER_MS,
            "wall_limit_ms": None if wall is None else wall // _PS_PER_MS,
            "class": spec.class_,
            "env": {k: str(self._expander.fill(v, names, (*path, "env", k))) for k, v in spec.env.items()},
            "cwd": str((self._folder / (spec.cwd or "")).absolute()),
            "ports": [[port, role] for port, role in sorted(roles.items())],
            "kinds": [[r.code, r.name, r.priority, list(r.fields)] for _, r in sorted(rows.items())],
        }

    def reaction(self, key: str, spec: ExternalSpec) -> int | None:
        """The lookahead in ps, if the block gives one."""
        if spec.lookahead is None:
            return None
        return self._span(spec.lookahead, ("models", key, "external", "lookahead"))

    def _start(self, key: str, name: str, spec: ExternalSpec) -> str | None:
        if _WORKER.match(name):
            what = f"an external node must not be called {name!r}: such names are those of cosim's own workers"
            self._expander.report(
                what, ("models", key), key=True, code="external-name", next_step="give the node another"
            )
            return None
        connect = self._expander.fill(spec.connect, self._expander.values, ("models", key, "external", "connect"))
        if bool(connect) == bool(spec.argv):
            self._expander.report(
                f"external model of {key} must have either argv or connect: true",
                ("models", key),
                key=True,
                code="external-start",
                next_step="argv: [PROGRAM, ARGUMENT...] starts it; connect: true waits until somebody does",
            )
            return None
        return "connect" if connect else "argv"

    def _span(self, text: str, path: Path) -> int | None:
        try:
            found = self._expander.fill(text, self._expander.values, path)
            return found if isinstance(found, int) else parse_span(found)
        except ValueError as error:
            self._expander.report(f"{path[-1]} {error}", path, code="wrong-type")
            return None


def emitted(external: Mapping[str, Any], reaction: int) -> dict[str, Any]:
    """The block as a topology file says it, from its plain form."""
    block: dict[str, Any] = {"connect": True} if external["connect"] else {"argv": external["argv"]}
    block["wait"] = f"{external['wait_ms']}ms"
    if external["wall_limit_ms"] is not None:
        block["wall_limit"] = f"{external['wall_limit_ms']}ms"
    block["class"] = external["class"]
    if reaction:
        block["lookahead"] = f"{reaction}ps"
    block["cwd"] = external["cwd"]
    if external["env"]:
        block["env"] = external["env"]
    ports = {port: role for port, role in external["ports"] if role in _ROLES}
    if ports:
        block["ports"] = ports
    return block
