"""docs/attach.md: the two nodes that it shows are what they are said to be: fit, and the same."""

from __future__ import annotations

import re
from pathlib import Path

from cosim.run.conform import Kit, examine
from cosim.run.conform_kit import Setup
from tests.external.nodes import ROOT, build

PAGE = (ROOT / "docs" / "attach.md").read_text()


def block(language: str) -> str:
    """The first code block of a language."""
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found.group(1)


def messages(command: list[str]) -> list[str]:
    """What a node sends under the kit's own stimulus; every case must pass."""
    kit = Kit(Setup(command), size=0x10)
    failed = [v for v in examine(kit, lambda name: "seeds" in name or "event" in name or "off" in name) if v.rule]
    assert not failed
    assert kit.reference is not None
    return kit.reference.shown


def test_the_nodes_of_the_page_are_fit_and_alike(tmp_path: Path) -> None:
    """A newcomer's node, typed from the page, passes the kit, in Python and in C, and both send the same messages."""
    script, source = tmp_path / "doorbell.py", tmp_path / "doorbell.c"
    script.write_text(block("python"))
    source.write_text(block("c"))
    shown = messages(["python", str(script)])
    assert any("wire.Level line=0, level=1" in text for text in shown)
    assert messages([str(build(source, tmp_path / "doorbell", "-std=c99", "-pedantic"))]) == shown


def test_the_page_explains_every_key_of_the_block() -> None:
    """Each key of `external` has a row."""
    from cosim.topo.schema import ExternalSpec

    keys = {field.alias or name for name, field in ExternalSpec.model_fields.items()}
    assert {key for key in keys if f"| `{key}" not in PAGE} == set()
