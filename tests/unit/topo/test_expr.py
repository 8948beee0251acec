"""Expressions: what they can say, what they may not, and that none can hang or fill the launcher."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosim.topo.expr import MAX_BITS, ExprError, Unknown, evaluate, fill

NAMES: dict[str, Any] = {"pes": 4, "i": 3, "break": "vsgi", "tests": ["a", "b"], "programs": {"ipi": "m:f"}, "on": True}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("pes", 4),
        ("break", "vsgi"),
        ("0x81000000 | i << 16", 0x81030000),
        ("[0x81000000 | n << 16 for n in range(pes)]", [0x81000000, 0x81010000, 0x81020000, 0x81030000]),
        ("[a * 10 + b for a in range(3) for b in range(a) if a != b + 1]", [20]),
        ("i == pes - 1", True),
        ("1 < i <= 3 and not on", False),
        ("'spin' if on else 'wfi'", "spin"),
        ("-7 // 2 + 7 % 4 - (~1)", 1),
        ("min(pes, 9) + max([1, 2]) + sum([1, 2]) + len(tests)", 11),
        ("hex(255) + str(i) + str(true)", "0xff3true"),
        ("tests[0] + programs['ipi']", "am:f"),
        ("[1] + [2, 3]", [1, 2, 3]),
        ("range(5, 1, -2)", [5, 3]),
        ("'a' in tests and 'c' not in tests", True),
        ("false or null", None),
        ("6 ^ 3 & 2 | 8 >> 2", 6),
    ],
)
def test_expressions_have_these_values(text: str, value: Any) -> None:
    """Arithmetic, comparison, conditions, lists and functions give what Python gives."""
    assert evaluate(text, NAMES) == value


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("__import__('os')", "function __import__ is not known"),
        ("pes.real", "Attribute is not allowed"),
        ("tests.append(1)", "only functions can be called"),
        ("(lambda: 1)", "Lambda is not allowed"),
        ("f'{pes}'", "JoinedStr is not allowed"),
        ("{1: 2}", "Dict is not allowed"),
        ("(x := 1)", "NamedExpr is not allowed"),
        ("2 ** 9", "operator Pow is not allowed"),
        ("3 / 2", "operator Div is not allowed"),
        ("1.5", "constant must be an integer or text"),
        ("b'x'", "constant must be an integer or text"),
        ("'a' * 3", "left side of \\* must be an integer"),
        ("'%99999999d' % 1", "left side of % must be an integer"),
        ("on + 1", "left side of \\+ must be an integer"),
        ("1 // 0", "division by zero"),
        ("1 % 0", "modulo by zero"),
        ("1 << 65", "shift must be by 0 to 64 bits"),
        ("1 << -1", "shift must be by 0 to 64 bits"),
        ("(1 << 63) * 9", "must fit in 64 bits"),
        ("range(10 ** 9)", "operator Pow"),
        ("range(1000000)", "at most 65536 items"),
        ("range()", "range takes 1 to 3"),
        ("range(1, 2, 0)", "step of range"),
        ("range(a=1)", "positional"),
        ("min([])", "at least one"),
        ("len(3)", "must be a list or text"),
        ("sum(3)", "must be a list"),
        ("hex(1, 2)", "one argument"),
        ("str(tests)", "only an integer, bool or text"),
        ("tests[7]", "no item 7"),
        ("pes[0]", "only lists and texts"),
        ("3 in 4", "right side of `in`"),
        ("1 is 1", "comparison Is is not allowed"),
        ("1 < 'a'", "must be an integer"),
        ("[n for n in 4]", "built over a list"),
        ("[a for a, b in tests]", "one name after each"),
        ("pse", "name pse is not known"),
        ("1 +", "can't be read"),
        ("1;2", "can't be read"),
        ("", "can't be read"),
        ("(" * 400 + ")" * 400, "can't be read"),
        ("-" * 900 + "1", "nested too deeply|can't be read"),
        ("1" * 1001, "at most 1000 characters"),
        ("[0 for a in range(60000) for b in range(60000)]", "at most 65536 items"),
        ("[0 for a in range(60000) for b in range(60000) if false]", "at most 200000 steps"),
        ("'x' + [str(n) for n in range(9)]", "left side of \\+"),
    ],
)
def test_what_is_not_allowed_is_an_error(text: str, why: str) -> None:
    """Anything else, and anything beyond a limit, is an ExprError that says why."""
    with pytest.raises(ExprError, match=why):
        evaluate(text, NAMES)


def test_texts_are_filled_in() -> None:
    """A text keeps its other parts; one expression alone keeps its type; $${ is a plain ${."""
    assert fill("pe${i}.gic", NAMES) == "pe3.gic"
    assert fill("${i}", NAMES) == 3
    assert fill("${i}${pes}${on}", NAMES) == "34true"
    assert fill("a$${i}", NAMES) == "a${i}"
    assert fill("costs $5", NAMES) == "costs $5"
    assert fill("${'}' + \"'\"}", NAMES) == "}'"
    with pytest.raises(ExprError, match="without a closing"):
        fill("pe${i", NAMES)
    with pytest.raises(ExprError, match="inside a text"):
        fill("x${tests}", NAMES)


def test_a_misspelt_name_gets_a_suggestion() -> None:
    """The error carries the nearest known name."""
    with pytest.raises(ExprError) as caught:
        evaluate("pess + 1", NAMES)
    assert caught.value.suggestion == "did you mean 'pes'?"


def test_a_value_in_error_is_not_reported_again() -> None:
    """What depends on a name that is itself in error raises Unknown, which is no ExprError."""
    for text in ("bad", "bad + 1"):
        with pytest.raises(Unknown):
            evaluate(text, NAMES, frozenset({"bad"}))


@given(st.text(max_size=60) | st.text(alphabet="()[]{}<>|&~^+-*/%=!'\"., 0123456789abcpesiforinifelse_$", max_size=80))
def test_any_text_is_a_value_or_an_error(text: str) -> None:
    """Whatever stands between the braces gives a bounded value or an ExprError, nothing else."""
    try:
        value = evaluate(text, NAMES)
    except ExprError:
        return
    assert value is None or isinstance(value, (bool, int, str, list, dict))
    if isinstance(value, int):
        assert value.bit_length() <= MAX_BITS


@given(st.integers(-1000, 1000), st.integers(-1000, 1000), st.integers(1, 1000), st.integers(0, 20))
def test_arithmetic_is_that_of_integers(a: int, b: int, c: int, s: int) -> None:
    """Operators have Python's precedence and values."""
    names = {"a": a, "b": b, "c": c, "s": s}
    assert evaluate("a + b * c - (a | b) // c % 7 ^ a << s", names) == (a + b * c - (a | b) // c % 7 ^ a << s)
    assert evaluate("a if a < b or c == s else ~b & c", names) == (a if a < b or c == s else ~b & c)
