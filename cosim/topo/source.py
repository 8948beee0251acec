"""A topology file as plain data, with the place of every key and value.

The YAML is composed, never constructed: no tag can make an object. Limits hold for size, depth, aliases and values, so
that a small file can't grow (YAML 1.2 core schema; integers may carry ``_``; numbers are whole).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from cosim.errors import TopologyError
from cosim.topo.errors import Path, TopologyErrors

MAX_BYTES = 1_000_000
MAX_ALIASES = 1000
MAX_VALUES = 100_000
MAX_DEPTH = 40
_TAG = "tag:yaml.org,2002:"

Place = tuple[int, int]
"""Line and column, from 1."""


@dataclass
class Text:
    """Parsed text: `data`, places of values and of keys by path, and what was wrong (duplicate keys, odd values)."""

    name: str
    data: Any = None
    values: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)
    errors: list[TopologyError] = field(default_factory=list)

    def where(self, path: Path, *, key: bool = False) -> str:
        """file:line:col of the value (or key) at `path`, else of the nearest thing around it."""
        if key and path in self.keys:
            return _where(self.name, self.keys[path])
        while path and path not in self.values:
            path = path[:-1]
        return _where(self.name, self.values.get(path, (1, 1)))


def _where(name: str, place: Place) -> str:
    return f"{name}:{place[0]}:{place[1]}"


def _place(node: Node) -> Place:
    return (node.start_mark.line + 1, node.start_mark.column + 1)


class _Limit(Exception):
    """Too deep, or too much; where."""

    def __init__(self, what: str, mark: Any) -> None:
        super().__init__(what)
        self.place = (mark.line + 1, mark.column + 1)


class _Composer(Composer):
    """Stops at the limits while it reads, since the scanner's time grows with the square of the depth."""

    depth = 0
    count = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        self.count += 1
        if self.depth > MAX_DEPTH + 1:
            raise _Limit(f"topology must be nested at most {MAX_DEPTH} deep", self.parser.peek_event().start_mark)
        if self.count > MAX_VALUES:
            raise _Limit(f"topology must have at most {MAX_VALUES} values", self.parser.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def read(path: FilePath) -> Text:
    """Read and parse a file.

    Raises:
        TopologyErrors: it can't be opened, is larger than `MAX_BYTES`, isn't UTF-8, isn't YAML, or goes beyond a limit.
    """
    name = str(path)
    try:
        with open(path, "rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _fatal(
            name, (1, 1), f"topology must be a readable file: {error.strerror}", "topology-unreadable"
        ) from None
    if len(raw) > MAX_BYTES:
        raise _fatal(name, (1, 1), f"topology must have at most {MAX_BYTES} bytes", "topology-too-large")
    try:
        return parse(raw.decode(), name)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        raise _fatal(name, (line, column), f"topology must be UTF-8: {error.reason}", "topology-encoding") from None


def parse(text: str, name: str) -> Text:
    """Parse text that is called `name` in errors; raises as `read`."""
    result = Text(name)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yaml = YAML(typ="safe", pure=True)
            yaml.Composer = _Composer
            root = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
        what = " ".join(part for part in (error.context, error.problem) if part)
        lines = text.splitlines()
        flow = "flow" in (error.context or "") and any("${" in line for line in lines[place[0] - 1 : place[0]])
        step = "inside { } and [ ], texts that hold ${...} must be quoted" if flow else ""
        raise _fatal(name, place, f"topology must be YAML: {what}", "yaml-syntax", step) from None
    except YAMLError as error:
        position = getattr(error, "position", 0)
        before = text[:position] if isinstance(position, int) else ""
        place = (before.count("\n") + 1, len(before) - before.rfind("\n"))
        reason = getattr(error, "reason", None) or str(error).splitlines()[0]
        raise _fatal(name, place, f"topology must be YAML: {reason}", "yaml-syntax") from None
    except _Limit as limit:
        raise _fatal(name, limit.place, str(limit), "yaml-limit") from None
    if root is None:
        raise _fatal(name, (1, 1), "topology must not be empty", "yaml-syntax")
    result.data = _Builder(result).build(root, ())
    return result


def _fatal(name: str, place: Place, what: str, code: str, next_step: str = "") -> TopologyErrors:
    return TopologyErrors([TopologyError(what, code=code, where=_where(name, place), next_step=next_step)])


class _Builder:
    """Nodes to plain data."""

    def __init__(self, text: Text) -> None:
        self.text = text
        self.seen: set[int] = set()
        self.open: set[int] = set()
        self.aliases = 0
        self.count = 0

    def build(self, node: Node, path: Path) -> Any:
        self._limits(node, path)
        self.text.values[path] = _place(node)
        if isinstance(node, ScalarNode):
            return self._scalar(node)
        if not str(node.tag).startswith(_TAG) or str(node.tag)[len(_TAG) :] not in ("map", "seq"):
            self._wrong(node, f"tag {node.tag} is not allowed", "leave the tag out")
        self.open.add(id(node))
        if isinstance(node, MappingNode):
            value: Any = self._mapping(node, path)
        else:
            assert isinstance(node, SequenceNode)
            value = [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        self.open.discard(id(node))
        return value

    def _limits(self, node: Node, path: Path) -> None:
        self.count += 1
        if id(node) in self.seen:
            self.aliases += 1
        self.seen.add(id(node))
        if id(node) in self.open:
            self._stop(node, "an alias must not stand inside what it repeats")
        if self.aliases > MAX_ALIASES:
            self._stop(node, f"aliases must repeat at most {MAX_ALIASES} values")
        if self.count > MAX_VALUES:  # aliases count each time
            self._stop(node, f"topology must have at most {MAX_VALUES} values")
        if len(path) > MAX_DEPTH:
            self._stop(node, f"topology must be nested at most {MAX_DEPTH} deep")

    def _stop(self, node: Node, what: str) -> None:
        raise TopologyErrors([*self.text.errors, *_fatal(self.text.name, _place(node), what, "yaml-limit").errors])

    def _wrong(self, node: Node, what: str, next_step: str, code: str = "yaml-value") -> None:
        self.text.errors.append(
            TopologyError(what, code=code, where=_where(self.text.name, _place(node)), next_step=next_step)
        )

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, ScalarNode):
                self._wrong(key_node, "a key must be a text", "write a plain word before the colon")
                continue
            key = str(key_node.value)
            inner = (*path, key)
            if key in result:
                line, column = self.text.keys[inner]
                self._wrong(
                    key_node,
                    f"key {key!r} must be given once; it is given at {line}:{column} too",
                    "remove one of them",
                    "duplicate-key",
                )
                continue
            self.text.keys[inner] = _place(key_node)
            result[key] = self.build(value_node, inner)
        return result

    def _scalar(self, node: ScalarNode) -> Any:
        tag, value = str(node.tag), str(node.value)
        kind = tag[len(_TAG) :] if tag.startswith(_TAG) else ""
        if kind == "str":
            return value
        if kind == "null":
            return None
        if kind == "bool":
            return value.lower() == "true"
        if kind == "int":
            return self._integer(node, value)
        if kind == "float":
            self._wrong(
                node,
                f"a number must be whole, not {value}",
                f'quote it if it is a text: "{value}"',
            )
            return value
        if kind == "timestamp":
            return value
        self._wrong(node, f"tag {tag} is not allowed", "leave the tag out")
        return value

    def _integer(self, node: ScalarNode, value: str) -> int:
        text = value.replace("_", "")
        try:
            number = int(text, 0)
        except ValueError:
            self._wrong(node, f"an integer must be decimal, 0x or 0o, not {value!r}", "quote it if it is a text")
            return 0
        if number.bit_length() > 64:
            self._wrong(node, "an integer must fit in 64 bits", "")
            return 0
        return number
