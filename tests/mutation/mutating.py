"""Small changes to a module's source, each of which a test ought to notice.

A *mutant* is a module with one such change in a function's body or in a constant. Left alone are messages, refusals,
docstrings, type hints, schemas and what a part declares about itself.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

ARITHMETIC: Final[dict[type[Any], type[Any]]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
}
COMPARISONS: Final[dict[type[Any], tuple[type[Any], ...]]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
ORDERED: Final = (ast.Sub, ast.Div, ast.FloorDiv, ast.MatMult)
_PAIRS: Final = (
    "min max, sum mean, amin amax, argmin argmax, minimum maximum, ceil floor, sin cos, any all, zeros ones, "
    "zeros_like ones_like, add_ sub_, mul_ div_, triu tril, softmax log_softmax, argsort sort, lstrip rstrip, "
    "startswith endswith, append extend"
)
SIBLINGS: Final = {a: b for pair in _PAIRS.split(", ") for a, b in (pair.split(), reversed(pair.split()))}
SIBLINGS |= {"rsqrt": "sqrt", "rsqrt_": "sqrt_", "square": "abs", "sigmoid": "tanh", "log": "log1p", "exp": "expm1"}
DROPPED: Final = frozenset({"detach", "clone", "abs", "sqrt", "neg", "float", "double", "flip", "strip", "lower"})
_ALONG_AXIS: Final = (
    "sum mean amax amin max min softmax log_softmax cumsum argmax argmin unsqueeze squeeze cat stack gather scatter "
    "topk sort argsort transpose flatten unflatten chunk split select narrow flip repeat_interleave logsumexp norm"
)
ALONG_AXIS: Final = frozenset(_ALONG_AXIS.split())
MESSAGES: Final = frozenset({"UserError", "Problem", "Field", "warn", "RegistrationError", "cast", "super", "note"})
DECLARING: Final = frozenset(
    {"check", "needs", "offers", "describe", "extra_repr", "__repr__", "__str__", "reference"}
)
"""Functions that say what a part is, or what it should be, and compute nothing of what it does."""
LABELS: Final = frozenset({"elementary", "revision", "interface", "uses_model"})
"""Attributes that say what a part is, not what it does."""
GUARDED: Final = frozenset({"no_grad", "inference_mode", "autocast"})


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        file: of the module, as it was given.
        function: qualified name of the outermost function, or of the class or module's constant, that is changed.
        outer: first line of that function (with its decorators); 0 for a constant.
        operator: what was done.
        line: of the statement.
        original, mutated: the statement (of a compound one its first line) before and after.
        place, variant: which node of the tree, and which of its changes.
    """

    file: str
    function: str
    outer: int
    operator: str
    line: int
    original: str
    mutated: str
    place: int
    variant: int


@dataclass
class _Site:
    """A node that can be replaced."""

    node: ast.AST
    parent: ast.AST
    field: str
    index: int | None
    statement: ast.stmt
    function: str
    outer: int

    def put(self, node: ast.AST) -> None:
        """Put another node here."""
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


def mutants(source: str, file: str) -> list[Mutant]:
    """Every change that can be made to a module.

    Args:
        source: of the module.
        file: how the module's file is called in what is returned.
    """
    found: dict[tuple[Any, ...], Mutant] = {}
    for place, site in enumerate(_sites(ast.parse(source))):
        before = _text(site.statement)
        for variant, (operator, node) in enumerate(_changes(site)):
            site.put(node)
            after = _text(node if site.node is site.statement else site.statement)
            site.put(site.node)
            if after == before:
                continue
            line, function = site.statement.lineno, site.function
            made = Mutant(file, function, site.outer, operator, line, before, after, place, variant)
            found.setdefault((line, before, after), made)
    return list(found.values())


def mutated(source: str, mutant: Mutant) -> ast.Module:
    """The module's tree with the change made."""
    tree = ast.parse(source)
    site = next(site for place, site in enumerate(_sites(tree)) if place == mutant.place)
    site.put(list(_changes(site))[mutant.variant][1])
    return ast.fix_missing_locations(tree)


def _text(statement: ast.AST) -> str:
    """A statement, of a compound one its first line."""
    if not hasattr(statement, "body") or isinstance(statement, ast.IfExp | ast.Lambda):
        return ast.unparse(statement)
    header: Any = copy.copy(statement)
    header.body = [ast.Pass()]
    for rest in ("orelse", "finalbody", "handlers", "decorator_list"):
        if hasattr(header, rest):
            setattr(header, rest, [])
    return ast.unparse(header).splitlines()[0]


def _sites(tree: ast.Module) -> Iterator[_Site]:
    """Every node that may be changed, in the order of the source."""
    yield from _definitions(tree, "")


def _definitions(owner: ast.Module | ast.ClassDef, path: str) -> Iterator[_Site]:
    """Sites in the functions and constants of a module or class."""
    for statement in owner.body:
        if isinstance(statement, ast.ClassDef):
            if not statement.name.endswith("Config"):
                yield from _definitions(statement, f"{path}{statement.name}.")
        elif isinstance(statement, ast.FunctionDef):
            if _computes(statement):
                outer = min([statement.lineno, *(d.lineno for d in statement.decorator_list)])
                yield from _body(statement, f"{path}{statement.name}", outer)
        elif _constant_name(statement) not in LABELS | {""} and _is_number(getattr(statement, "value", None)):
            name = f"{path}{_constant_name(statement)}"
            yield from _inside(statement, statement, name, 0)


def _constant_name(statement: ast.stmt) -> str:
    if isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        target: ast.expr = statement.targets[0]
    elif isinstance(statement, ast.AnnAssign):
        target = statement.target
    else:
        return ""
    return target.id if isinstance(target, ast.Name) else ""


def _is_number(node: ast.AST | None) -> bool:
    """Whether an expression is made of numbers and truth values only."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float)
    if isinstance(node, ast.UnaryOp):
        return _is_number(node.operand)
    return isinstance(node, ast.BinOp) and _is_number(node.left) and _is_number(node.right)


def _computes(function: ast.FunctionDef) -> bool:
    """Whether a function is more than a refusal or a declaration."""
    returns = ast.unparse(function.returns) if function.returns else ""
    refuses = (
        "Problem" in returns or "NoReturn" in returns or function.name.lstrip("_").startswith(("check", "refuse"))
    )
    abstract = any("abstractmethod" in ast.unparse(d) for d in function.decorator_list)
    return not refuses and not abstract and function.name not in DECLARING


def _body(owner: ast.AST, function: str, outer: int) -> Iterator[_Site]:
    """Sites in the statements that a function or compound statement holds."""
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        for index, statement in enumerate(getattr(owner, field, [])):
            if isinstance(statement, ast.ExceptHandler | ast.match_case | ast.FunctionDef):
                yield from _body(statement, function, outer)
            elif isinstance(statement, ast.If) and _refuses(statement.body):
                yield from (s for s in _body(statement, function, outer) if s.statement not in statement.body)
            elif not _is_message(statement):
                yield _Site(statement, owner, field, index, statement, function, outer)
                yield from _inside(statement, statement, function, outer)
                yield from _body(statement, function, outer)


def _refuses(body: list[ast.stmt]) -> bool:
    """Whether statements end in an error."""
    return isinstance(body[-1], ast.Raise) or _is_message(body[-1])


def _is_message(statement: ast.AST) -> bool:
    if isinstance(statement, ast.Raise | ast.Assert | ast.Import | ast.ImportFrom | ast.ClassDef):
        return True
    if not isinstance(statement, ast.Expr):
        return False
    value = statement.value
    if isinstance(value, ast.Yield) and value.value is not None:
        value = value.value
    return isinstance(value, ast.Constant) or (isinstance(value, ast.Call) and _name(value.func) in MESSAGES)


def _inside(node: ast.AST, statement: ast.stmt, function: str, outer: int) -> Iterator[_Site]:
    """Sites among the expressions of a statement, bodies left out."""
    for field, value in ast.iter_fields(node):
        if field in ("annotation", "returns", "body", "orelse", "finalbody", "handlers", "cases") and not isinstance(
            node, ast.IfExp | ast.Lambda
        ):
            continue
        for index, inner in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if not isinstance(inner, ast.AST) or isinstance(inner, ast.JoinedStr | ast.arguments | ast.expr_context):
                continue
            if isinstance(inner, ast.Call) and _name(inner.func) in MESSAGES:
                continue
            if isinstance(inner, ast.expr | ast.keyword | ast.Slice):
                yield _Site(inner, node, field, index, statement, function, outer)
            if not (isinstance(inner, ast.UnaryOp) and isinstance(inner.operand, ast.Constant)):
                yield from _inside(inner, statement, function, outer)


def _name(function: ast.expr) -> str:
    """Last part of what is called."""
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _changes(site: _Site) -> Iterator[tuple[str, ast.AST]]:
    """Names of operators, and what they put in the node's place."""
    node = site.node
    if isinstance(node, ast.stmt):
        yield from _of_statement(node, site)
    elif isinstance(node, ast.Constant) or (
        isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant)
    ):
        yield from _of_constant(node, site)
    elif isinstance(node, ast.BinOp):
        yield from _of_arithmetic(node)
    elif isinstance(node, ast.UnaryOp):
        if isinstance(node.op, ast.USub):
            yield "unary minus", node.operand
        elif isinstance(node.op, ast.Not | ast.Invert):
            yield "negation", node.operand
    elif isinstance(node, ast.Compare):
        for position, operator in enumerate(node.ops):
            for other in COMPARISONS[type(operator)]:
                yield "comparison", _with(node, ops=[*node.ops[:position], other(), *node.ops[position + 1 :]])
    elif isinstance(node, ast.BoolOp):
        yield "boolean", _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        for position in range(len(node.values)):
            rest = [*node.values[:position], *node.values[position + 1 :]]
            yield "operand", rest[0] if len(rest) == 1 else _with(node, values=rest)
    elif isinstance(node, ast.IfExp):
        yield "condition", node.body
        yield "condition", node.orelse
    elif isinstance(node, ast.Call):
        yield from _of_call(node)
    elif isinstance(node, ast.keyword) and node.arg in ("min", "max"):
        yield "sibling", _with(node, arg="max" if node.arg == "min" else "min")
    elif isinstance(node, ast.Slice):
        yield from _of_slice(node)
    if site.field == "ifs":
        yield "condition", ast.Constant(True)


def _with(node: Any, **fields: Any) -> Any:
    """A copy of a node with other fields."""
    changed = copy.copy(node)
    for name, value in fields.items():
        setattr(changed, name, value)
    return changed


def _of_statement(node: ast.stmt, site: _Site) -> Iterator[tuple[str, ast.AST]]:
    """Deleted statements, forced conditions, other augmented operators, guards taken away."""
    if isinstance(node, ast.If | ast.While):
        if isinstance(node, ast.If):
            yield "condition", _with(node, test=ast.Constant(True))
        yield "condition", _with(node, test=ast.Constant(False))
    elif isinstance(node, ast.AugAssign):
        other = ARITHMETIC.get(type(node.op))
        if other and not _is_text(node.value):
            yield "arithmetic", _with(node, op=other())
        yield "deletion", ast.Pass()
    elif isinstance(node, ast.Expr):
        called = _name(node.value.func) if isinstance(node.value, ast.Call) else ""
        if called and "super()" not in ast.unparse(node) and not called.lstrip("_").startswith("check"):
            yield "deletion", ast.Pass()
    elif isinstance(node, ast.Assign):
        stored = node.targets[0]
        building = site.function.endswith("__init__")
        if isinstance(stored, ast.Subscript) or (isinstance(stored, ast.Attribute) and not building):
            yield "deletion", ast.Pass()
    elif isinstance(node, ast.With):
        calls = [item.context_expr for item in node.items]
        if all(isinstance(call, ast.Call) and _name(call.func) in GUARDED for call in calls):
            yield "guard", ast.If(ast.Constant(True), node.body, [], lineno=node.lineno, col_offset=node.col_offset)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _of_constant(node: ast.Constant | ast.UnaryOp, site: _Site) -> Iterator[tuple[str, ast.AST]]:
    """Off by one, doubled, another sign, the other truth value."""
    value: Any = node.value if isinstance(node, ast.Constant) else -node.operand.value
    parent = site.parent
    keyword = isinstance(parent, ast.keyword) and parent.arg in ("dim", "axis")
    axis = keyword or (isinstance(parent, ast.Call) and _name(parent.func) in ALONG_AXIS)
    if isinstance(node, ast.UnaryOp) and not axis and not isinstance(parent, ast.Subscript):
        yield "unary minus", node.operand
    if isinstance(value, bool):
        keeps = isinstance(parent, ast.keyword) and parent.arg == "keepdim"
        yield "keepdim" if keeps else "constant", ast.Constant(not value)
    elif isinstance(value, int):
        for other in (value + 1, value - 1) if abs(value) < 100 else (value * 2, value // 2):
            yield "axis" if axis else "constant", _number(other)
    elif isinstance(value, float):
        yield "constant", _number(value * 2 if value else 1.0)
        if value and not isinstance(node, ast.UnaryOp):
            yield "constant", _number(-value)


def _number(value: float) -> ast.expr:
    return ast.Constant(value) if value >= 0 else ast.UnaryOp(ast.USub(), ast.Constant(-value))


def _of_arithmetic(node: ast.BinOp) -> Iterator[tuple[str, ast.AST]]:
    """Another operation, one of the operands alone, the operands exchanged."""
    if _is_text(node.left) or _is_text(node.right):
        return
    other = ARITHMETIC.get(type(node.op))
    if other:
        yield "arithmetic", _with(node, op=other())
    if isinstance(node.op, ORDERED):
        yield "exchange", _with(node, left=node.right, right=node.left)
    yield "operand", node.left
    yield "operand", node.right


def _of_call(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    """A sibling of the function, its arguments exchanged, or no call at all."""
    name = _name(node.func)
    if name in SIBLINGS:
        function = node.func
        renamed = {"attr": SIBLINGS[name]} if isinstance(function, ast.Attribute) else {"id": SIBLINGS[name]}
        yield "sibling", _with(node, func=_with(function, **renamed))
    if isinstance(node.func, ast.Attribute) and name in DROPPED:
        yield "dropped call", node.func.value
    if isinstance(node.func, ast.Attribute) and name == "to" and len(node.args) == 1 and "dtype" in ast.unparse(node):
        yield "dropped call", node.func.value
    if name == "where" and len(node.args) == 3:
        yield "exchange", _with(node, args=[node.args[0], node.args[2], node.args[1]])
    if name in ("matmul", "mm", "bmm", "outer") and len(node.args) == 2:
        yield "exchange", _with(node, args=node.args[::-1])
    if name in ("masked_fill", "masked_fill_") and not isinstance(node.args[0], ast.UnaryOp):
        yield "negation", _with(node, args=[ast.UnaryOp(ast.Invert(), node.args[0]), *node.args[1:]])
    if name in ("range", "arange") and len(node.args) in (1, 2) and not isinstance(node.args[-1], ast.Constant):
        yield "bound", _with(node, args=[*node.args[:-1], ast.BinOp(node.args[-1], ast.Sub(), ast.Constant(1))])


def _of_slice(node: ast.Slice) -> Iterator[tuple[str, ast.AST]]:
    """A bound moved by one."""
    for field in ("lower", "upper"):
        bound = getattr(node, field)
        if bound is not None and not isinstance(bound, ast.Constant | ast.UnaryOp):
            for operator in (ast.Add(), ast.Sub()):
                yield "bound", _with(node, **{field: ast.BinOp(bound, operator, ast.Constant(1))})
    if node.lower is None and node.upper is not None:
        yield "bound", _with(node, lower=ast.Constant(1))
