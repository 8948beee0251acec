"""Parameters: typed values from defaults and from ``--set``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from cosim.core.time import fmt, parse_span
from cosim.topo.errors import did_you_mean
from cosim.topo.expr import RESERVED, ExprError, Unknown, fill, has_expression
from cosim.topo.schema import ParameterSpec

_SIZE = re.compile(r"\s*(0[xX][0-9a-fA-F_]+|\d[\d_]*)\s*(B|KiB|MiB|GiB|TiB)?\s*\Z")
_SCALE = {None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}

BUILTINS = frozenset({"tests", "programs"})
"""Names that expressions have besides parameters: the tests of this run, and entry points of guest programs by name."""

Report = Callable[..., None]


def parse_size(text: str) -> int:
    """Bytes of ``"64KiB"``, ``"0x1000"``, ``"512"``; raises ValueError."""
    found = _SIZE.match(text)
    if found is None:
        raise ValueError(f"size must be bytes or a number of KiB, MiB, GiB such as 64KiB, not {text!r}")
    return int(found[1].replace("_", ""), 0 if found[1][:2] in ("0x", "0X") else 10) * _SCALE[found[2]]


def parse_int(text: str) -> int:
    """``"8"``, ``"0x10"``, ``"1_000"``, ``"-1"``; raises ValueError."""
    try:
        return int(text.strip(), 0)
    except ValueError:
        raise ValueError(f"must be an integer, not {text!r}") from None


def _parse_bool(text: str) -> bool:
    if text.strip().lower() not in ("true", "false"):
        raise ValueError(f"must be true or false, not {text!r}")
    return text.strip().lower() == "true"


def convert(kind: str, value: Any) -> Any:
    """`value` (from YAML, an expression, or text) as a parameter of type `kind`.

    Raises:
        ValueError: it is no such value.
    """
    if kind == "str":
        if not isinstance(value, str):
            raise ValueError(f"must be a text, not {value!r}" + (f": quote it, '{value}'" if value is not None else ""))
        return value
    if kind == "bool":
        if not isinstance(value, bool):
            raise ValueError(f"must be true or false, not {value!r}")
        return value
    if isinstance(value, str) and kind == "size":
        value = parse_size(value)
    elif isinstance(value, str) and kind == "span":
        value = parse_span(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be {_EXAMPLE[kind]}, not {value!r}")
    if kind != "int" and value < 0:
        raise ValueError(f"must be {_EXAMPLE[kind]}, at least 0, not {value!r}")
    return value


_EXAMPLE = {"int": "an integer", "size": "a size such as 64KiB", "span": "a time such as 5ns"}


def from_text(kind: str, text: str) -> Any:
    """The value that ``--set NAME=text`` means; raises ValueError."""
    if kind == "int":
        return parse_int(text)
    if kind == "bool":
        return _parse_bool(text)
    return convert(kind, text if kind == "str" else text.strip())


def show(kind: str, value: Any) -> str:
    """`value` as a user would write it."""
    if kind == "span":
        return fmt(value)
    if kind == "size":
        return f"{value:#x}"
    return repr(value) if kind == "str" else str(value).lower() if kind == "bool" else str(value)


class Parameters:
    """Evaluates the parameters of a topology in the order of the file; what is wrong goes to `report`.

    values: by name. unknown: names whose value is in error (reported once, here).
    """

    def __init__(self, report: Report) -> None:
        self.values: dict[str, Any] = {}
        self.unknown: frozenset[str] = frozenset()
        self._report = report

    def poison(self, name: str) -> None:
        """Note that a name exists and its value is in error."""
        self.unknown |= {name}

    def define(self, specs: Mapping[str, ParameterSpec], sets: Mapping[str, str], broken: frozenset[str]) -> None:
        """Give every parameter its value; `broken` are names whose entry is wrong already."""
        for name in broken:
            self.poison(name)
        for name, spec in specs.items():
            self._define(name, spec, sets.get(name))
        for name in sets:
            if name not in specs and name not in broken:
                self._report(
                    f"parameter {name!r} is not known",
                    code="unknown-parameter",
                    where=f"--set {name}",
                    next_step=did_you_mean(name, [*specs, *broken], "see `parameters` of the topology"),
                )

    def _define(self, name: str, spec: ParameterSpec, text: str | None) -> None:
        path = ("parameters", name)
        if not name.isidentifier() or name in RESERVED or name in BUILTINS:
            self._report(
                f"parameter must have a name of letters, digits and _ that is not one of expressions' own, not {name!r}",
                code="parameter-name",
                path=path,
                key=True,
                next_step=f"expressions' own names: {', '.join(sorted(RESERVED | BUILTINS))}",
            )
            return
        try:
            value = self._value(name, spec, text)
            self._limits(name, spec, value, "" if text is None else f"--set {name}={text}")
        except Unknown:
            self.poison(name)
        except _Wrong as wrong:
            self.poison(name)
            self._report(
                f"parameter {name} {wrong.what}",
                code=wrong.code,
                path=wrong.path or path,
                where=wrong.where,
                next_step=wrong.step,
            )
        else:
            self.values[name] = value

    def _value(self, name: str, spec: ParameterSpec, text: str | None) -> Any:
        if text is not None:
            try:
                return from_text(spec.type, text)
            except ValueError as error:
                raise _Wrong(_predicate(error), "parameter-type", where=f"--set {name}={text}") from None
        return self._field(name, spec, "default", spec.default)

    def _field(self, name: str, spec: ParameterSpec, key: str, value: Any) -> Any:
        """A field of the entry, with expressions filled in, as a value of the parameter's type."""
        path = ("parameters", name, key)
        try:
            if spec.type == "span" and isinstance(value, int):
                raise ValueError(f"must be a time with a unit such as 5ns, not {value!r}")
            filled = fill(value, self.values, self.unknown) if has_expression(value) else value
            return convert(spec.type, filled)
        except ExprError as error:
            raise _Wrong(f"has a wrong {key}: {error}", "expression", path=path, step=error.suggestion) from None
        except ValueError as error:
            what = _predicate(error)
            raise _Wrong(
                what if key == "default" else f"has a wrong {key}: it {what}", "parameter-type", path=path
            ) from None

    def _limits(self, name: str, spec: ParameterSpec, value: Any, where: str) -> None:
        path = ("parameters", name) if where else ("parameters", name, "default")
        found = show(spec.type, value)
        for key, limit, below in (("min", spec.min, True), ("max", spec.max, False)):
            if limit is None:
                continue
            if spec.type in ("str", "bool"):
                raise _Wrong(
                    f"has a {key}, which a {spec.type} can't have", "parameter-limit", path=("parameters", name, key)
                )
            bound = self._field(name, spec, key, limit)
            if value < bound if below else value > bound:
                word = "at least" if below else "at most"
                raise _Wrong(
                    f"must be {word} {show(spec.type, bound)}, not {found}", "parameter-limit", path=path, where=where
                )
        if spec.choices is not None and value not in spec.choices:
            choices = [str(choice) for choice in spec.choices]
            raise _Wrong(
                f"must be one of {', '.join(map(repr, spec.choices))}, not {found}",
                "parameter-choice",
                path=path,
                where=where,
                step=did_you_mean(str(value), choices) if str(value) else "",
            )
        if spec.supported is not None and value not in spec.supported:
            raise _Wrong(
                f"must be {' or '.join(map(repr, spec.supported))} today, not {found}: "
                "the models play the other choices from their next version on",
                "parameter-choice",
                path=path,
                where=where,
            )


def _predicate(error: ValueError) -> str:
    """The text of a ValueError as what follows "parameter NAME"."""
    text = str(error)
    for subject in ("size ", "time "):
        if text.startswith(subject + "must be"):
            return text[len(subject) :]
    return text


class _Wrong(Exception):
    def __init__(
        self, what: str, code: str, *, path: tuple[Any, ...] | None = None, where: str = "", step: str = ""
    ) -> None:
        super().__init__(what)
        self.what = what
        self.code = code
        self.path = path
        self.where = where
        self.step = step
