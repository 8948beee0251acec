"""The topology language: what a file may contain, as pydantic models; their JSON schema is what editors complete from.

    python -m cosim.topo.schema topologies/topology.schema.json      writes the schema

Any text may hold expressions ``${...}`` (`cosim.topo.expr`); where a number, list or bool is wanted, a text must be one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, PlainValidator, Tag, WithJsonSchema
from pydantic_core import PydanticCustomError

from cosim.topo.expr import has_expression

_EXPRESSION = {"type": "string", "pattern": r"\$\{", "description": "an expression ${...}"}


def _custom(expected: str, value: Any) -> PydanticCustomError:
    return PydanticCustomError(
        "topology", "must be {expected}, not {found}", {"expected": expected, "found": repr(value)}
    )


def _whole(value: Any) -> Any:
    if (isinstance(value, int) and not isinstance(value, bool)) or has_expression(value):
        return value
    raise _custom("an integer or ${expression}", value)


def _size(value: Any) -> Any:
    if (isinstance(value, int) and not isinstance(value, bool)) or isinstance(value, str):
        return value
    raise _custom("a size in bytes such as 0x1000 or 64KiB", value)


def _span(value: Any) -> Any:
    if isinstance(value, str):
        return value
    raise _custom("a time with a unit such as 5ns", value)


def _flag(value: Any) -> Any:
    if isinstance(value, bool) or has_expression(value):
        return value
    raise _custom("true, false or ${expression}", value)


def _text(value: Any) -> Any:
    if isinstance(value, str):
        return value
    raise _custom("a text", value)


def _endpoint(value: Any) -> Any:
    if isinstance(value, str) and "." in value:
        return value
    raise _custom("NODE.PORT", value)


def _range(value: Any) -> Any:
    if not isinstance(value, bool) and isinstance(value, (int, list)):
        return value
    if has_expression(value):
        return value
    raise _custom("a number n (for 0 to n - 1), a list, or ${expression}", value)


def _literal(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise _custom("an integer, bool or text", value)


Text = Annotated[str, PlainValidator(_text), WithJsonSchema({"type": "string"})]
Whole = Annotated[Any, PlainValidator(_whole), WithJsonSchema({"anyOf": [{"type": "integer"}, _EXPRESSION]})]
Size = Annotated[
    Any,
    PlainValidator(_size),
    WithJsonSchema(
        {"anyOf": [{"type": "integer"}, {"type": "string"}], "description": "bytes, 64KiB, or ${expression}"}
    ),
]
SpanText = Annotated[
    str,
    PlainValidator(_span),
    WithJsonSchema({"type": "string", "description": "a time such as 5ns (ps, ns, us, ms, s), or ${expression}"}),
]
Flag = Annotated[Any, PlainValidator(_flag), WithJsonSchema({"anyOf": [{"type": "boolean"}, _EXPRESSION]})]
Endpoint = Annotated[str, PlainValidator(_endpoint), WithJsonSchema({"type": "string", "description": "NODE.PORT"})]
Literal_ = Annotated[
    Any,
    PlainValidator(_literal),
    WithJsonSchema({"type": ["integer", "boolean", "string", "null"]}),
]
Ranges = Annotated[
    dict[str, Annotated[Any, PlainValidator(_range), WithJsonSchema({"type": ["integer", "array", "string"]})]],
    Field(
        description="names and what they run over: n (0 to n - 1), a list, or ${expression}; several make all combinations"
    ),
]


class Entry(BaseModel):
    """Base: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=False)


class ParameterSpec(Entry):
    """A value that --set may change."""

    type: Literal["int", "bool", "str", "span", "size"] = Field(
        description="span: a time such as 5ns, in ps in expressions; size: bytes or 64KiB"
    )
    default: Literal_ = Field(description="may use the parameters above it")
    doc: Text = Field(default="", description="what it changes, and where the default comes from")
    min: Any = Field(default=None, description="smallest value (int, size, span)")
    max: Any = Field(default=None, description="largest value (int, size, span)")
    choices: list[Literal_] | None = Field(default=None, description="the only values")
    supported: list[Literal_] | None = Field(
        default=None, description="those of the choices that the models play today"
    )


class NodeSpec(Entry):
    """One node, or `count` nodes that differ by ${i}."""

    name: Text = Field(description="such as its0 or pe${i}; letters, digits, _")
    kind: Text = Field(description="pe, redistributor, ...: what it is; `models` says which implementation plays it")
    count: Whole = Field(default=1, description="how many; ${i} counts from 0")
    params: dict[str, Any] = Field(
        default_factory=dict, description="given to the model as they are, expressions filled in"
    )
    reaction: SpanText | None = Field(default=None, description="least time from an input to an output caused by it")
    doc: Text = ""


class LinkSpec(Entry):
    """A connection from port to port."""

    from_: Endpoint = Field(alias="from")
    to: Endpoint
    latency: SpanText = Field(description="at least 1ps")
    both: Flag = Field(default=False, description="also the other way, with the same latency")
    for_: Ranges = Field(alias="for", default_factory=dict)
    attributes: dict[str, Any] = Field(
        default_factory=dict, description="facts about the link that its two ends may rely on (not on the way back)"
    )
    doc: Text = ""


class RegionSpec(Entry):
    """A range of addresses, and the port that answers there."""

    base: Whole
    size: Size
    to: Endpoint
    offset: Whole = Field(default=0, description="what the target sees as the address of the first byte")
    for_: Ranges = Field(alias="for", default_factory=dict)
    doc: Text = ""


class SeesSpec(Entry):
    """Regions that an initiator reaches with one latency."""

    regions: list[Text] = Field(description="names of `regions`, as they are written there")
    latency: SpanText = Field(description="one way; completions take it again")
    attributes: dict[str, Any] = Field(default_factory=dict, description="facts that the targets may rely on")


class MapSpec(Entry):
    """The address map of an initiator port."""

    from_: Endpoint = Field(alias="from")
    for_: Ranges = Field(alias="for", default_factory=dict)
    sees: list[SeesSpec]
    doc: Text = ""


class PowerSpec(Entry):
    """Who switches the machine off: an implicit link from its `power` port to every other node's."""

    source: Text
    latency: SpanText


class SystemSpec(Entry):
    """What exists."""

    power: PowerSpec | None = None
    nodes: list[NodeSpec]
    links: list[LinkSpec] = Field(default_factory=list)
    regions: dict[str, RegionSpec] = Field(default_factory=dict, description="the address space: name to range")
    maps: list[MapSpec] = Field(default_factory=list, description="which initiator sees which regions, how far away")


class ExternalSpec(Entry):
    """A simulator of its own that plays a node: how it is started, or from where it connects."""

    argv: list[Text] = Field(
        default_factory=list,
        description="command that cosim starts, without a shell; a first word `python` is cosim's interpreter",
    )
    connect: Flag = Field(default=False, description="true: started by somebody else; the run waits for it")
    wait: SpanText = Field(default="60s", description="wall-clock limit until it has joined")
    wall_limit: SpanText | None = Field(
        default=None, description="wall-clock limit of one grant; 0s: none; without it that of the run (--stall-limit)"
    )
    class_: Literal["deterministic", "best_effort"] = Field(
        alias="class", default="deterministic", description="best_effort: can't be repeated; the run is called tainted"
    )
    lookahead: SpanText | None = Field(
        default=None, description="least time from an input to an output, in place of the node's reaction"
    )
    cwd: Text | None = Field(default=None, description="folder in which argv runs, from that of this file (default)")
    env: dict[str, Text] = Field(default_factory=dict, description="environment variables besides those of cosim")
    ports: dict[str, Text] = Field(
        default_factory=dict,
        description="of a kind that is not installed: port to mmio_target, mmio_initiator or wire",
    )


class ModelSpec(Entry):
    """What plays a kind or node, when it is more than a name."""

    external: ExternalSpec


def _model_tag(value: Any) -> str:
    return "(mapping)" if isinstance(value, (dict, ModelSpec)) else "(text)"


Model = Annotated[
    Annotated[Text, Tag("(text)")] | Annotated[ModelSpec, Tag("(mapping)")],
    Discriminator(_model_tag),
]


class HostSpec(Entry):
    """A host that may run nodes."""

    address: Text = Field(default="", description="where the engine finds it; without one, wherever there is room")


class PlaceSpec(Entry):
    """A rule of placement."""

    nodes: Text = Field(description="pattern of node names: * any text, ? one character, [..] one of these")
    host: Text = Field(description="name of one of `hosts`")


class DeploySpec(Entry):
    """Where nodes run. Never changes results."""

    workers: Annotated[
        Any, PlainValidator(_literal), WithJsonSchema({"anyOf": [{"type": "integer"}, {"enum": ["per-node", "auto"]}]})
    ] = Field(default="per-node", description="processes: per-node, auto, or a number; --workers decides over it")
    together: list[list[Text]] = Field(
        default_factory=list, description="nodes to keep in one worker when several share one"
    )
    hosts: dict[str, HostSpec] = Field(
        default_factory=dict, description="machines to run on, each with a hub of its own; --hosts decides over it"
    )
    place: Literal["auto"] | list[PlaceSpec] = Field(
        default="auto",
        description="rules, the first that matches a node decides; auto, and for nodes that no rule matches: least expected "
        "traffic between hosts",
    )
    engine: Text | None = Field(default=None, description="what starts the host hubs; --engine decides over it")
    engine_options: dict[str, Text] = Field(default_factory=dict, description="as --engine-option")
    listen: Text | None = Field(
        default=None, description="ADDRESS:PORT where the root hub listens for the hosts; --listen decides over it"
    )


class TestSpec(Entry):
    """A test that the run must see reported."""

    __test__ = False  # not for pytest

    kind: Literal["software"] = Field(default="software", description="software: a program in a guest reports it")
    guest: Text = Field(description="the guest that runs it")
    program: Text = Field(description="name among the entry points cosim.programs")
    default: Annotated[bool, Field(strict=True)] = Field(default=True, description="runs also without --test NAME")
    doc: Text = ""


class TopologySpec(Entry):
    """A cosim topology: a machine, and what is run on it."""

    name: Text = Field(description="names the run directory")
    doc: Text = ""
    seed: Annotated[int, Field(ge=0, lt=2**63, strict=True)] = Field(
        default=1, description="of every node's random numbers"
    )
    parameters: dict[str, ParameterSpec] = Field(default_factory=dict)
    system: SystemSpec
    models: dict[str, Model] = Field(
        default_factory=dict,
        description="kind or node to implementation: python (default), package.module:Class with --allow-models, "
        "or {external: ...}",
    )
    deploy: DeploySpec = Field(default_factory=DeploySpec)
    tests: dict[str, TestSpec] = Field(default_factory=dict)


def json_schema() -> str:
    """The JSON schema of topology files, as text."""
    schema = TopologySpec.model_json_schema(by_alias=True)
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(json_schema(), encoding="utf-8")
    else:
        sys.stdout.write(json_schema())
