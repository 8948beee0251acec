"""Expressions of topology files, ``${...}``: arithmetic, comparison, condition and lists over named values.

Python's grammar, evaluated by a walker with an explicit list of what is allowed: nothing is ever given to `eval`, no
attribute can be read, no function called but those of `FUNCTIONS`. Every size has a limit, so that a file can neither
hang the launcher nor fill its memory. Values are int, bool, str, None, lists, and dicts that the caller passed in.
"""

from __future__ import annotations

import ast
import operator
import re
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from cosim.topo.errors import did_you_mean

MAX_TEXT = 1000
"""Characters of one expression."""
MAX_STEPS = 200_000
"""Evaluation steps of one expression."""
MAX_ITEMS = 65_536
"""Items of a list, characters of a text."""
MAX_BITS = 64
"""Magnitude of an integer, in bits."""

_PLACE = re.compile(r"\$\$\{|\$\{")
_CONSTANTS = {"true": True, "false": False, "null": None}


class ExprError(ValueError):
    """The expression is wrong; the text says why. `suggestion` is a next step, or ""."""

    def __init__(self, what: str, suggestion: str = "") -> None:
        super().__init__(what)
        self.suggestion = suggestion


class Unknown(Exception):
    """The value depends on something that is itself in error: reported there, not again."""


def _int(value: Any, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ExprError(f"{what} must be an integer, not {value!r}")
    return value


def _bounded(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise ExprError(f"an integer must fit in {MAX_BITS} bits")
    if isinstance(value, (list, str)) and len(value) > MAX_ITEMS:
        raise ExprError(f"a list or text must have at most {MAX_ITEMS} items, not {len(value)}")
    return value


def _add(a: Any, b: Any) -> Any:
    for kind in (str, list):
        if isinstance(a, kind) and isinstance(b, kind):
            return operator.add(a, b)
    return _int(a, "left side of +") + _int(b, "right side of +")


def _divide(a: int, b: int) -> int:
    if b == 0:
        raise ExprError("division by zero")
    return a // b


def _modulo(a: int, b: int) -> int:
    if b == 0:
        raise ExprError("modulo by zero")
    return a % b


def _shift(a: int, b: int, left: bool) -> int:
    if not 0 <= b <= MAX_BITS:
        raise ExprError(f"a shift must be by 0 to {MAX_BITS} bits, not {b}")
    return a << b if left else a >> b


_ARITHMETIC: dict[type[ast.operator], tuple[str, Callable[[int, int], int]]] = {
    ast.Sub: ("-", operator.sub),
    ast.Mult: ("*", operator.mul),
    ast.FloorDiv: ("//", _divide),
    ast.Mod: ("%", _modulo),
    ast.LShift: ("<<", lambda a, b: _shift(a, b, True)),
    ast.RShift: (">>", lambda a, b: _shift(a, b, False)),
    ast.BitOr: ("|", operator.or_),
    ast.BitAnd: ("&", operator.and_),
    ast.BitXor: ("^", operator.xor),
}

_ORDERINGS: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def _range(*bounds: Any) -> list[int]:
    if not 1 <= len(bounds) <= 3:
        raise ExprError(f"range takes 1 to 3 integers, not {len(bounds)}")
    numbers = [_int(b, "argument of range") for b in bounds]
    if len(numbers) == 3 and numbers[2] == 0:
        raise ExprError("step of range must not be 0")
    items = range(*numbers)
    if len(items) > MAX_ITEMS:
        raise ExprError(f"range must have at most {MAX_ITEMS} items, not {len(items)}")
    return list(items)


def _extreme(name: str, pick: Callable[[list[int]], int]) -> Callable[..., int]:
    def function(*arguments: Any) -> int:
        values = arguments[0] if len(arguments) == 1 and isinstance(arguments[0], list) else list(arguments)
        if not values:
            raise ExprError(f"{name} needs at least one value")
        return pick([_int(v, f"argument of {name}") for v in values])

    return function


def _one(name: str, function: Callable[[Any], Any]) -> Callable[..., Any]:
    def call(*arguments: Any) -> Any:
        if len(arguments) != 1:
            raise ExprError(f"{name} takes one argument, not {len(arguments)}")
        return function(arguments[0])

    return call


def _len(value: Any) -> int:
    if not isinstance(value, (list, str, dict)):
        raise ExprError(f"argument of len must be a list or text, not {value!r}")
    return len(value)


def _sum(value: Any) -> int:
    if not isinstance(value, list):
        raise ExprError(f"argument of sum must be a list, not {value!r}")
    return sum(_int(v, "item of sum") for v in value)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "range": _range,
    "len": _one("len", _len),
    "min": _extreme("min", min),
    "max": _extreme("max", max),
    "sum": _one("sum", _sum),
    "hex": _one("hex", lambda v: hex(_int(v, "argument of hex"))),
    "str": _one("str", lambda v: _text(v)),
}
"""What an expression may call."""

RESERVED = frozenset(FUNCTIONS) | frozenset(_CONSTANTS)
"""Names that no parameter may have."""


class _Evaluator:
    def __init__(self, names: Mapping[str, Any], unknown: frozenset[str]) -> None:
        self.names = names
        self.unknown = unknown
        self.steps = 0

    def visit(self, node: ast.AST) -> Any:
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise ExprError(f"an expression must take at most {MAX_STEPS} steps")
        method = _VISIT.get(type(node))
        if method is None:
            raise ExprError(
                f"{type(node).__name__} is not allowed in an expression",
                "use integers, texts, lists, names, + - * // % << >> | & ^ ~, comparisons, and/or/not, A if C else B, "
                f"[.. for n in ..], and the functions {', '.join(sorted(FUNCTIONS))}",
            )
        return _bounded(method(self, node))

    def name(self, node: ast.Name) -> Any:
        return lookup(node.id, self.names, self.unknown)

    def constant(self, node: ast.Constant) -> Any:
        if not isinstance(node.value, (int, str, type(None))):
            raise ExprError(f"a constant must be an integer or text, not {node.value!r}")
        return node.value

    def unary(self, node: ast.UnaryOp) -> Any:
        value = self.visit(node.operand)
        if isinstance(node.op, ast.Not):
            return not value
        number = _int(value, "operand")
        return -number if isinstance(node.op, ast.USub) else ~number if isinstance(node.op, ast.Invert) else number

    def binary(self, node: ast.BinOp) -> Any:
        left, right = self.visit(node.left), self.visit(node.right)
        if isinstance(node.op, ast.Add):
            return _add(left, right)
        found = _ARITHMETIC.get(type(node.op))
        if found is None:
            raise ExprError(
                f"operator {type(node.op).__name__} is not allowed in an expression",
                "// divides, << makes powers of two",
            )
        sign, function = found
        return function(_int(left, f"left side of {sign}"), _int(right, f"right side of {sign}"))

    def boolean(self, node: ast.BoolOp) -> Any:
        value: Any = None
        for item in node.values:
            value = self.visit(item)
            if bool(value) != isinstance(node.op, ast.And):
                break
        return value

    def compare(self, node: ast.Compare) -> bool:
        left = self.visit(node.left)
        for sign, item in zip(node.ops, node.comparators, strict=True):
            right = self.visit(item)
            if not _compare(sign, left, right):
                return False
            left = right
        return True

    def condition(self, node: ast.IfExp) -> Any:
        return self.visit(node.body if self.visit(node.test) else node.orelse)

    def sequence(self, node: ast.List | ast.Tuple) -> list[Any]:
        return [self.visit(item) for item in node.elts]

    def subscript(self, node: ast.Subscript) -> Any:
        value, index = self.visit(node.value), self.visit(node.slice)
        try:
            if isinstance(value, dict):
                return value[index]
            if isinstance(value, (list, str)):
                return value[_int(index, "index")]
        except (IndexError, KeyError):
            raise ExprError(f"there is no item {index!r} in {value!r}") from None
        raise ExprError(f"only lists and texts have items, not {value!r}")

    def call(self, node: ast.Call) -> Any:
        if not isinstance(node.func, ast.Name):
            raise ExprError("only functions can be called, by their names", f"they are {', '.join(sorted(FUNCTIONS))}")
        if node.func.id not in FUNCTIONS:
            raise ExprError(f"function {node.func.id} is not known", did_you_mean(node.func.id, FUNCTIONS))
        if node.keywords:
            raise ExprError("functions take positional arguments only")
        return FUNCTIONS[node.func.id](*[self.visit(argument) for argument in node.args])

    def comprehension(self, node: ast.ListComp) -> list[Any]:
        result: list[Any] = []
        self._generate(node, 0, result)
        return result

    def _generate(self, node: ast.ListComp, depth: int, result: list[Any]) -> None:
        if depth == len(node.generators):
            result.append(self.visit(node.elt))
            _bounded(result)
            return
        generator = node.generators[depth]
        if not isinstance(generator.target, ast.Name):
            raise ExprError("a list must be built with one name after each `for`")
        items = self.visit(generator.iter)
        if not isinstance(items, list):
            raise ExprError(f"a list must be built over a list, such as range(n), not {items!r}")
        outer = self.names
        for item in items:
            self.names = {**outer, generator.target.id: item}
            if all(self.visit(test) for test in generator.ifs):
                self._generate(node, depth + 1, result)
        self.names = outer


_VISIT: dict[type[ast.AST], Callable[[_Evaluator, Any], Any]] = {
    ast.Name: _Evaluator.name,
    ast.Constant: _Evaluator.constant,
    ast.UnaryOp: _Evaluator.unary,
    ast.BinOp: _Evaluator.binary,
    ast.BoolOp: _Evaluator.boolean,
    ast.Compare: _Evaluator.compare,
    ast.IfExp: _Evaluator.condition,
    ast.List: _Evaluator.sequence,
    ast.Tuple: _Evaluator.sequence,
    ast.Subscript: _Evaluator.subscript,
    ast.Call: _Evaluator.call,
    ast.ListComp: _Evaluator.comprehension,
}


def _compare(sign: ast.cmpop, left: Any, right: Any) -> bool:
    if isinstance(sign, ast.Eq):
        return bool(left == right)
    if isinstance(sign, ast.NotEq):
        return bool(left != right)
    if isinstance(sign, (ast.In, ast.NotIn)):
        if not isinstance(right, (list, dict)) and not (isinstance(right, str) and isinstance(left, str)):
            raise ExprError(f"right side of `in` must be a list, not {right!r}")
        return (left in right) == isinstance(sign, ast.In)
    ordering = _ORDERINGS.get(type(sign))
    if ordering is None:
        raise ExprError(f"comparison {type(sign).__name__} is not allowed in an expression", "use == or !=")
    if isinstance(left, str) and isinstance(right, str):
        return ordering(left, right)
    return ordering(_int(left, "compared value"), _int(right, "compared value"))


def lookup(name: str, names: Mapping[str, Any], unknown: frozenset[str] = frozenset()) -> Any:
    """The value of a name. Raises ExprError with a suggestion, or Unknown."""
    if name in names:
        return names[name]
    if name in unknown:
        raise Unknown(name)
    if name in _CONSTANTS:
        return _CONSTANTS[name]
    raise ExprError(f"name {name} is not known here", did_you_mean(name, [*names, *unknown]))


@lru_cache(maxsize=4096)
def _parse(text: str) -> ast.expr:
    if len(text) > MAX_TEXT:
        raise ExprError(f"an expression must have at most {MAX_TEXT} characters, not {len(text)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text, mode="eval").body
    except SyntaxError as error:
        raise ExprError(f"expression ${{{text}}} can't be read: {error.msg}") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise ExprError(f"expression can't be read: {type(error).__name__}") from None


def evaluate(text: str, names: Mapping[str, Any], unknown: frozenset[str] = frozenset()) -> Any:
    """The value of the expression `text` (what stands between ``${`` and ``}``).

    A bare name is looked up before it is parsed, so that a parameter may be called ``break``.

    Args:
        text: the expression.
        names: values by name.
        unknown: names that exist but whose value is in error.

    Raises:
        ExprError: it can't be read, uses something not allowed, or exceeds a limit.
        Unknown: it uses one of `unknown`.
    """
    stripped = text.strip()
    if stripped.isidentifier() and (stripped in names or stripped in unknown):
        return lookup(stripped, names, unknown)
    try:
        return _Evaluator(names, unknown).visit(_parse(stripped))
    except RecursionError:
        raise ExprError("expression is nested too deeply") from None


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, str)):
        return str(value)
    raise ExprError(f"only an integer, bool or text can stand inside a text, not {value!r}")


@lru_cache(maxsize=4096)
def _split(text: str) -> tuple[tuple[bool, str], ...]:
    """(is an expression, text) pieces of a template; ``$${`` stands for ``${``."""
    pieces: list[tuple[bool, str]] = []
    plain, at = "", 0
    while (found := _PLACE.search(text, at)) is not None:
        plain += text[at : found.start()]
        if found.group() == "$${":
            plain, at = plain + "${", found.end()
            continue
        end = _closing(text, found.end())
        pieces += [(False, plain), (True, text[found.end() : end])]
        plain, at = "", end + 1
    pieces.append((False, plain + text[at:]))
    return tuple(piece for piece in pieces if piece[0] or piece[1])


def _closing(text: str, start: int) -> int:
    """Index of the brace that ends the expression which begins at `start`: the first outside quotes."""
    quote = ""
    for index in range(start, len(text)):
        char = text[index]
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == "}":
            return index
    raise ExprError(f"{text!r} has ${{ without a closing }}")


def fill(text: str, names: Mapping[str, Any], unknown: frozenset[str] = frozenset()) -> Any:
    """`text` with every ``${...}`` replaced; a text that is one expression gives its value with its type.

    Raises:
        ExprError, Unknown: as `evaluate`.
    """
    pieces = _split(text)
    if len(pieces) == 1 and pieces[0][0]:
        return evaluate(pieces[0][1], names, unknown)
    return "".join(_text(evaluate(piece, names, unknown)) if is_expr else piece for is_expr, piece in pieces)


def has_expression(value: Any) -> bool:
    """Whether a text holds ``${``."""
    return isinstance(value, str) and "${" in value
