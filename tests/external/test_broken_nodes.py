"""The conformance kit catches every deliberately broken node of tests/external/broken, with the rule that it breaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosim.run.conform import Kit, Verdict, examine, stimulus_from
from cosim.run.conform_kit import Setup
from tests.external.nodes import ENGINE_STIMULUS, HERE, plain_yaml

BROKEN = sorted(path.stem for path in (HERE / "broken").glob("*.py") if path.stem != "base")
RULE_OF = {"lookahead": "promise", "abandons": "unanswered", "error_completion": "node-failed"}
"""Nodes whose rule has another name than their file."""


def first_broken(path: Path) -> Verdict | None:
    """Run a node through the cases that its text names; the first verdict against it."""
    case = path.read_text().split("Case: ")[1].split("\n")[0]
    setup = Setup(["python", str(path)], wall_s=1.5 if path.stem in SLOW else 10.0, wait_s=30.0)
    stimulus, setup = stimulus_from(plain_yaml(ENGINE_STIMULUS), setup)
    for verdict in examine(Kit(setup, stimulus), lambda name: case in name):
        if verdict.rule:
            return verdict
    return None


SLOW = {"stall", "hub_gone", "accepts_garbage"}
"""Nodes that are found by waiting."""


@pytest.mark.parametrize("name", BROKEN)
def test_the_kit_catches(name: str) -> None:
    """The verdict names the rule that this node breaks, and says what was expected."""
    verdict = first_broken(HERE / "broken" / f"{name}.py")
    assert verdict is not None, "the kit must not pass a broken node"
    assert verdict.rule == RULE_OF.get(name, name.replace("_", "-")), verdict
    assert verdict.text
    if verdict.rule not in ("hub-gone", "ignores-refusal", "exit", "unanswered", "leftover"):
        assert verdict.frames


def test_every_rule_at_the_hub_has_a_broken_node() -> None:
    """A rule that foreign.py can name is broken by some node here, so that its check is known to work."""
    import re

    from cosim.run import foreign

    source = Path(foreign.__file__).read_text()
    named = set(re.findall(r'_breach\(\s*"([a-z-]+)"', source)) | {"message-in-the-past", "promise"}
    assert named <= {RULE_OF.get(name, name.replace("_", "-")) for name in BROKEN}
