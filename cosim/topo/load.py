"""Read a topology file: YAML with places, checked against the language's schema; all errors at once.

What is wrong with single entries doesn't stop the rest from being checked: such errors ride along in `Source.errors`, and
`resolve` reports them together with those that only the whole machine shows.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path as FilePath
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cosim.errors import TopologyError
from cosim.topo.errors import Path, TopologyErrors, did_you_mean
from cosim.topo.schema import (
    DeploySpec,
    ExternalSpec,
    LinkSpec,
    MapSpec,
    ModelSpec,
    NodeSpec,
    ParameterSpec,
    PowerSpec,
    RegionSpec,
    SeesSpec,
    SystemSpec,
    TestSpec,
    TopologySpec,
)
from cosim.topo.source import Text, parse, read

__all__ = ["Source", "TopologyErrors", "load", "load_text"]

_ENTRIES: tuple[tuple[Path, type[BaseModel] | None], ...] = (
    (("parameters", "*"), ParameterSpec),
    (("system", "nodes", "*"), NodeSpec),
    (("system", "links", "*"), LinkSpec),
    (("system", "regions", "*"), RegionSpec),
    (("system", "maps", "*"), MapSpec),
    (("system", "maps", "*", "sees", "*"), SeesSpec),
    (("system", "power"), PowerSpec),
    (("models", "*", "external"), ExternalSpec),
    (("models", "*"), ModelSpec),
    (("deploy",), DeploySpec),
    (("tests", "*"), TestSpec),
    (("system",), SystemSpec),
    ((), TopologySpec),
)
"""Entries that can be left out so that the others are still checked, with their schema; also where keys are known."""


@dataclass
class Source:
    """A topology as read.

    spec: the entries that are right. places: where everything is. errors: what is wrong with the others.
    indices: for each list of `spec` ("nodes", "links", "maps"), the index in the file of each of its entries.
    broken: data of the entries that were left out, by path.
    """

    text: Text
    spec: TopologySpec
    errors: list[TopologyError]
    indices: dict[str, list[int]]
    broken: dict[Path, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file, as it was given."""
        return self.text.name


def load(path: FilePath) -> Source:
    """Read and check the file at `path`.

    Raises:
        TopologyErrors: nothing can be made of the file: it isn't readable, isn't YAML, is beyond a limit, or its frame
            (name, system) is wrong. Errors of single entries are in `Source.errors`.
    """
    return _checked(read(path))


def load_text(text: str, name: str) -> Source:
    """As `load`, for text that is called `name` in errors."""
    return _checked(parse(text, name))


def _checked(text: Text) -> Source:
    errors = list(text.errors)
    broken: dict[Path, Any] = {}
    data: Any = text.data
    try:
        spec = TopologySpec.model_validate(data)
    except ValidationError as invalid:
        found = invalid.errors(include_url=False)
        errors += [_error(text, detail) for detail in found]
        data, broken = _prune(data, found)
        try:
            spec = TopologySpec.model_validate(data)
        except ValidationError:
            raise TopologyErrors(errors) from None
    indices = {
        part: [i for i in range(len(text.data["system"].get(part) or [])) if ("system", part, i) not in broken]
        for part in ("nodes", "links", "maps")
    }
    return Source(text, spec, errors, indices, broken)


def _matches(pattern: Path, path: Path) -> bool:
    """Whether `path` lies at or below `pattern`, where "*" is any key."""
    return len(path) >= len(pattern) and all(p in ("*", k) for p, k in zip(pattern, path, strict=False))


def _schema_at(path: Path) -> type[BaseModel] | None:
    """The schema of the mapping at exactly `path`."""
    for pattern, schema in _ENTRIES:
        if len(pattern) == len(path) and _matches(pattern, path):
            return schema
    return None


def _keys(schema: type[BaseModel]) -> list[str]:
    return [f.alias or name for name, f in schema.model_fields.items()]


def _path(detail: ErrorDetails) -> Path:
    """Where an error is; without the tags of unions, which stand in brackets."""
    return tuple(part for part in detail["loc"] if part not in ("(text)", "(mapping)"))


def _error(text: Text, detail: ErrorDetails) -> TopologyError:
    path = _path(detail)
    shown = ".".join(str(part) for part in path) or "topology"
    kind = detail["type"]
    if kind == "extra_forbidden":
        schema = _schema_at(path[:-1])
        known = _keys(schema) if schema is not None else []
        what = f"key {path[-1]!r} is not known in {'.'.join(str(p) for p in path[:-1]) or 'a topology'}"
        step = did_you_mean(str(path[-1]), known, "remove it")
        return TopologyError(what, code="unknown-key", where=text.where(path, key=True), next_step=step)
    if kind == "missing":
        parent = ".".join(str(p) for p in path[:-1]) or "topology"
        return TopologyError(
            f"{parent} must have the key {path[-1]!r}",
            code="missing-key",
            where=text.where(path[:-1]),
            next_step=f"add {path[-1]}:",
        )
    message = detail["msg"]
    step = ""
    if kind == "literal_error":
        expected = str(detail.get("ctx", {}).get("expected", ""))
        message = f"must be {expected}, not {detail['input']!r}"
        words = [word.strip("' ") for word in expected.replace(" or ", ",").split(",")]
        near = did_you_mean(str(detail["input"]), words)
        step = near if near.startswith("did") else ""
    elif kind != "topology":
        expected = _EXPECTED.get(kind, "")
        message = f"must be {expected}, not {detail['input']!r}" if expected else f"is wrong: {message}"
    return TopologyError(f"{shown} {message}", code="wrong-type", where=text.where(path), next_step=step)


_EXPECTED = {
    "model_type": "a mapping of its keys",
    "dict_type": "a mapping",
    "list_type": "a list",
    "int_type": "an integer",
    "string_type": "a text",
    "bool_type": "true or false",
    "greater_than_equal": "an integer of at least 0",
    "less_than": "an integer below 2**63",
}


def _prune(data: Any, found: list[ErrorDetails]) -> tuple[Any, dict[Path, Any]]:
    """`data` without unknown keys and without entries that are wrong; and those entries."""
    data = copy.deepcopy(data)
    broken: dict[Path, Any] = {}
    for detail in found:
        path = _path(detail)
        if detail["type"] == "extra_forbidden":
            _get(data, path[:-1]).pop(path[-1], None)
            continue
        entry = next(
            (
                path[: len(p)]
                for p, _ in _ENTRIES
                if p and p[-1] not in ("system", "external") and "sees" not in p and _matches(p, path)
            ),
            None,
        )
        if entry is not None:
            broken[entry] = _get(data, entry)
    for entry in sorted(broken, key=lambda e: [str(p).zfill(8) for p in e], reverse=True):
        parent = _get(data, entry[:-1])
        if isinstance(parent, (dict, list)):
            del parent[entry[-1]]
    return data, broken


def _get(data: Any, path: Path) -> Any:
    for part in path:
        data = data[part]
    return data
