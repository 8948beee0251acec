"""YAML as read: places, YAML 1.2 values, and limits that a hostile file meets."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosim.topo import source
from cosim.topo.errors import TopologyErrors
from cosim.topo.source import MAX_BYTES, parse, read


def test_values_and_keys_have_places() -> None:
    """Lines and columns count from 1; a path without a place of its own has that of what is around it."""
    text = parse("a:\n  b: [1, {c: x}]\n", "f.yaml")
    assert text.where(("a", "b", 1, "c")) == "f.yaml:2:14"
    assert text.where(("a", "b", 1, "c"), key=True) == "f.yaml:2:11"
    assert text.where(("a", "b", 1, "missing")) == "f.yaml:2:10"


def test_scalars_are_those_of_yaml_1_2() -> None:
    """Hex, octal and _ in integers; yes is a text; a date is a text."""
    text = parse("[0x8000_0000, 0o17, 1_000, -3, true, yes, null, ~, 2001-02-03, '7', 'true']", "f")
    assert text.data == [0x8000_0000, 15, 1000, -3, True, "yes", None, None, "2001-02-03", "7", "true"]
    assert text.errors == []


def test_aliases_repeat_values() -> None:
    """An alias gives a copy of what its anchor named."""
    text = parse("a: &x {n: 1}\nb: *x\n", "f")
    assert text.data == {"a": {"n": 1}, "b": {"n": 1}}
    assert text.data["a"] is not text.data["b"]


def bomb(levels: int, width: int) -> str:
    lines = ["a0: &a0 [x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * width)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (bomb(9, 9), "aliases must repeat at most"),
        ("a: &a [*a]", "must not stand inside"),
        ("[" * 60 + "]" * 60, "nested at most"),
        ("[" * 900_000, "nested at most"),
        ("a: 1\n---\nb: 2\n", "single document"),
        ("a: [1", "must be YAML"),
        ("a: *nowhere", "undefined alias"),
        ("\x01", "special characters"),
        ("# nothing\n", "must not be empty"),
    ],
)
def test_a_text_beyond_a_limit_is_refused(text: str, why: str) -> None:
    """Bombs, loops, depth, size and what is not one YAML document end at once, with a place."""
    with pytest.raises(TopologyErrors, match=why) as caught:
        parse(text, "f.yaml")
    assert caught.value.exit_code == 2
    assert caught.value.errors[-1].where.startswith("f.yaml:")


def test_files_must_be_readable_small_and_utf8(tmp_path: Path) -> None:
    """A missing file, one above the limit and one in another encoding are errors with the file's name."""
    big, latin = tmp_path / "big.yaml", tmp_path / "latin.yaml"
    big.write_bytes(b"#" * (MAX_BYTES + 1))
    latin.write_bytes(b"name: x\ndoc: caf\xe9\n")
    with pytest.raises(TopologyErrors, match="at most 1000000 bytes"):
        read(big)
    with pytest.raises(TopologyErrors, match=r"latin.yaml:2:9: topology must be UTF-8"):
        read(latin)
    with pytest.raises(TopologyErrors, match="No such file"):
        read(tmp_path / "none.yaml")


def test_every_duplicate_key_is_found() -> None:
    """Each key given twice is an error with both places; the first value stays."""
    text = parse("a: 1\nb: {c: 1, c: 2, c: 3}\na: 2\n", "f")
    assert [(e.where, e.code) for e in text.errors] == [
        ("f:2:11", "duplicate-key"),
        ("f:2:17", "duplicate-key"),
        ("f:3:1", "duplicate-key"),
    ]
    assert text.data == {"a": 1, "b": {"c": 1}}


def test_values_are_counted_also_through_aliases(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file with too many values is refused, whether they are written or repeated."""
    monkeypatch.setattr(source, "MAX_VALUES", 1000)
    for text in ("[" + "0, " * 1001 + "]", "a: &a [" + "0, " * 500 + "]\nb: [*a, *a]"):
        with pytest.raises(TopologyErrors, match="at most 1000 values"):
            parse(text, "f")
