"""What docs/topology.md shows is true."""

from __future__ import annotations

import re
from pathlib import Path

from cosim.topo.expr import FUNCTIONS
from cosim.topo.load import load_text
from cosim.topo.resolve import resolve
from cosim.topo.schema import TopologySpec

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "topology.md").read_text(encoding="utf-8")


def test_the_whole_file_shown_resolves() -> None:
    """The example is a topology: two nodes, a bus there and back."""
    [example] = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.S)
    plan = resolve(load_text(example, "example.yaml"), sets={}).plan
    assert [n.name for n in plan.nodes] == ["memory", "pe0"]
    assert [k.latency for k in plan.links] == [60_000, 60_000]


def test_the_errors_shown_are_those_of_the_file_named() -> None:
    """The excerpt of what a wrong file gives is in the expected text of that file."""
    expected = (ROOT / "tests" / "wrong" / "everything.txt").read_text(encoding="utf-8")
    shown = re.findall(r"^    (everything\.yaml:.*|  next: .*)$", PAGE, flags=re.M)
    assert len(shown) == 4
    for line in shown:
        assert line in expected


def test_every_block_and_function_is_described() -> None:
    """No top-level key of the language and no function of expressions is missing from the page."""
    for key in TopologySpec.model_fields:
        assert f"`{key}`" in PAGE
    words = re.search(r"and `(range [a-z ]+)`", PAGE)
    assert words is not None
    assert sorted(words[1].split()) == sorted(FUNCTIONS)
