"""What several commands share."""

from __future__ import annotations

from typing import Any

from cosim.errors import CosimError


def entries(error: Exception) -> list[dict[str, Any]]:
    """The `errors[]` entries of an error and of those that it gathers."""
    gathered = getattr(error, "errors", None) or [error]
    return [dict(e.as_dict()) for e in gathered if isinstance(e, CosimError)]


def parse_sets(pairs: tuple[str, ...], option: str = "--set", example: str = "vcpus=4") -> dict[str, str]:
    """``NAME=VALUE`` pairs of an option as a dict; UsageError for anything else."""
    from cosim.errors import UsageError

    sets = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise UsageError(
                f"{option} must be NAME=VALUE, not {pair!r}",
                code=option.strip("-"),
                next_step=f"for example {option} {example}",
            )
        sets[name.strip()] = value
    return sets
