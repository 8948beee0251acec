"""Both sides' observations of a program, and where they part."""

from __future__ import annotations

from dataclasses import dataclass

from tests.differential.oracle import Observed


@dataclass(frozen=True, slots=True)
class Difference:
    """After step `step`: name -> (ours, QEMU's)."""

    step: int
    values: dict[str, tuple[object, object]]

    def __str__(self) -> str:
        lines = [f"{name}: ours {_show(ours)}, QEMU {_show(theirs)}" for name, (ours, theirs) in self.values.items()]
        return "\n".join([f"after step {self.step}:", *(f"    {line}" for line in lines)])


def _show(value: object) -> str:
    return f"{value:#x}" if isinstance(value, int) else str(value)


def first_difference(ours: list[Observed], theirs: list[Observed]) -> Difference | None:
    """The first step after which something differs."""
    for number, ((our_result, our_view), (their_result, their_view)) in enumerate(zip(ours, theirs, strict=True)):
        if our_result == their_result and our_view == their_view:
            continue
        values: dict[str, tuple[object, object]] = {}
        if our_result != their_result:
            values["result of the step"] = our_result, their_result
        for name in sorted(our_view.keys() | their_view.keys()):
            pair = our_view.get(name), their_view.get(name)
            if pair[0] != pair[1]:
                values[name] = pair
        return Difference(number, values)
    return None
