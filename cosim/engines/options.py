"""Engine options: ``--engine-option NAME=VALUE`` into an engine's dataclass of options."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from cosim.errors import UsageError

T = TypeVar("T")
_WORDS = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def read_options(engine: str, kind: type[T], given: Mapping[str, str]) -> T:
    """The options of an engine.

    Args:
        engine: its name, for messages.
        kind: a dataclass whose fields are of type str, int, float or bool, each with a default.
        given: texts by name.

    Raises:
        UsageError: an unknown name, or a text that is not of the field's type.
    """
    types = typing.get_type_hints(kind)
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, text in given.items():
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            raise UsageError(
                f"an option of engine {engine} must be one of {', '.join(names) or '(it has none)'}, not {name!r}",
                code="engine-option",
                where=f"--engine-option {name}={text}",
                next_step=f"did you mean {close[0]}?" if close else "see docs/engines.md",
            )
        values[name] = _value(engine, name, types[name], str(text))
    return kind(**values)


def _value(engine: str, name: str, kind: type, text: str) -> Any:
    try:
        if kind is bool:
            return _WORDS[text.lower()]
        return kind(text)
    except (ValueError, KeyError):
        expected = {int: "a whole number", float: "a number", bool: "yes or no"}[kind]
        raise UsageError(
            f"option {name} of engine {engine} must be {expected}, not {text!r}",
            code="engine-option",
            where=f"--engine-option {name}={text}",
            next_step="see docs/engines.md",
        ) from None
