"""Errors of a topology: gathered, so that all of them are reported at once, each with its place and a suggestion."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

from cosim.errors import TopologyError

Path = tuple[Any, ...]
"""Keys and list indices from the top of the file to a value."""


class TopologyErrors(TopologyError):
    """Everything that is wrong with a topology: `errors`, in the order of the file."""

    default_code = "topology"

    def __init__(self, errors: Iterable[TopologyError]) -> None:
        self.errors = sorted(errors, key=_order)
        first = self.errors[0]
        super().__init__(first.what, code=first.code, where=first.where, next_step=first.next_step)

    def __str__(self) -> str:
        return "\n".join(str(error) for error in self.errors)


def _order(error: TopologyError) -> tuple[str, int, int, str]:
    """By file, line and column; what has no line (an option) goes by its text."""
    head, _, column = error.where.rpartition(":")
    name, _, line = head.rpartition(":")
    if line.isdigit() and column.isdigit():
        return (name, int(line), int(column), error.what)
    return ("", 0, 0, error.where + error.what)


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """The next step after an unknown word: the nearest known one, or all of them when they are few."""
    names = sorted(known)
    near = get_close_matches(word, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]!r}?"
    if names and len(names) <= 24:
        return f"choose one of: {', '.join(names)}"
    return otherwise
