"""The conformance kit catches every deliberately broken node of tests/external/broken, with the rule that it breaks."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cosim.run.conform import Kit, Verdict, examine, stimulus_from
from cosim.run.conform_kit import Setup
from tests.external.nodes import ENGINE_STIMULUS, HERE, ROOT, plain_yaml

BROKEN = sorted(path.stem for path in (HERE / "broken").glob("*.py") if path.stem != "base")
RULE_OF = {"lookahead": "promise", "abandons": "unanswered", "error_completion": "node-failed"}
"""Nodes whose rule has another name than their file."""
SLOW = {"stall", "hub_gone", "accepts_garbage"}
"""Nodes that are found by waiting."""
NO_FRAMES = {"hub-gone", "ignores-refusal", "exit", "unanswered", "leftover", "ports", "join-timeout"}
"""Rules that are broken by silence, or by what no single frame shows."""
RUN_ONLY = {
    "lookahead": "the kit takes the lookahead of the HELLO; a topology may want more",
    "wave": "the kit wants no waveforms",
    "worker-lost": "the kit has no other workers; it says node-lost",
}
"""Rules that a run alone can name; test_bad_nodes.py and test_messages.py break them there."""
RULE_AT = {"broken": 0, "_breach": 0, "RuleBroken": 0, "Refusal": 0, "receive": 1, "_refused_by": 1, "same": 2}
"""Functions of the kit that take a rule, and at which place."""


def rule_of(name: str) -> str:
    """The rule that the node of this file breaks."""
    return RULE_OF.get(name, name.replace("_", "-"))


def first_broken(path: Path) -> Verdict | None:
    """Run a node through the cases that its text names; the first verdict against it."""
    case = path.read_text().split("Case: ")[1].split("\n")[0]
    wait_s = 1.0 if path.stem == "join_timeout" else 30.0
    setup = Setup(["python", str(path)], wall_s=1.5 if path.stem in SLOW else 10.0, wait_s=wait_s)
    stimulus, setup = stimulus_from(plain_yaml(ENGINE_STIMULUS), setup)
    for verdict in examine(Kit(setup, stimulus), lambda name: case in name):
        if verdict.rule:
            return verdict
    return None


@pytest.mark.parametrize("name", BROKEN)
def test_the_kit_catches(name: str) -> None:
    """The verdict names the rule that this node breaks, and says what was expected."""
    verdict = first_broken(HERE / "broken" / f"{name}.py")
    assert verdict is not None, "the kit must not pass a broken node"
    assert verdict.rule == rule_of(name), verdict
    assert verdict.text
    if verdict.rule not in NO_FRAMES:
        assert verdict.frames


def texts(node: ast.expr, scope: ast.AST) -> Iterator[str]:
    """The texts that an expression may be; those of a variable are sought in its assignments and loops within `scope`."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from texts(node.body, scope)
        yield from texts(node.orelse, scope)
    elif isinstance(node, ast.Name):
        for found in ast.walk(scope):
            if isinstance(found, ast.Assign) and any(
                isinstance(t, ast.Name) and t.id == node.id for t in found.targets
            ):
                yield from texts(found.value, scope)
            elif (
                isinstance(found, ast.For) and isinstance(found.target, ast.Tuple) and isinstance(found.iter, ast.Tuple)
            ):
                names = [t.id if isinstance(t, ast.Name) else "" for t in found.target.elts]
                rows = [row for row in found.iter.elts if isinstance(row, ast.Tuple)] if node.id in names else []
                for row in rows:
                    yield from texts(row.elts[names.index(node.id)], scope)


def rules_in(source: str) -> set[str]:
    """The rules that a module of the kit can name; what is given as a rule is a text, handed on from a parameter, or an error's."""
    rules: set[str] = set()
    for scope in ast.walk(ast.parse(source)):
        if not isinstance(scope, ast.FunctionDef):
            continue
        parameters = {argument.arg for argument in scope.args.args}
        for call in (node for node in ast.walk(scope) if isinstance(node, ast.Call)):
            name = getattr(call.func, "attr", getattr(call.func, "id", ""))
            if len(call.args) <= RULE_AT.get(name, len(call.args)):
                continue
            rule = call.args[RULE_AT[name]]
            found = set(texts(rule, scope))
            handed_on = ast.unparse(rule) in parameters | {"error.rule", "error.code"}
            assert found or handed_on, f"line {rule.lineno}: no text is found for the rule {ast.unparse(rule)}"
            rules |= found
    return rules


def test_every_rule_of_the_kit_has_a_broken_node() -> None:
    """A rule that the kit or the hub's checks can name is broken by some node here, so that its check is known to work."""
    run = ROOT / "cosim" / "run"
    named = set().union(*(rules_in(path.read_text()) for path in [run / "foreign.py", *run.glob("conform*.py")]))
    assert {"crash", "quantum", "stall", "reset", "node-failed", "promise", "message-in-the-past"} <= named
    broken = {rule_of(name) for name in BROKEN}
    assert sorted(named - broken - set(RUN_ONLY)) == [], "write a node in tests/external/broken that breaks it"
    assert sorted(broken - named) == [], "no check names this rule any more"


def test_every_rule_of_the_table_has_a_broken_node() -> None:
    """What docs/attach.md tells about a rule is about one that a node here breaks."""
    table = (ROOT / "docs" / "attach.md").read_text().split("## When a rule is broken")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    told = {rule for row in rows for rule in re.findall(r"`([^`]+)`", row)}
    assert len(told) > 20
    broken = {rule_of(name) for name in BROKEN} | set(RUN_ONLY)
    missing = {rule for rule in told if not any(re.fullmatch(rule.replace("…", ".+"), name) for name in broken)}
    assert sorted(missing) == []
