"""Small changes of a Python module, each of which its tests ought to notice.

Changed are comparisons, conditions, arithmetic, numbers, byte strings and texts, ``min``/``max`` and ``any``/``all``,
caught exceptions, and statements that act (a call, a ``raise``, an assignment to an attribute or an item), which are
left out. Not changed, because no test should notice: annotations, docstrings, what an error says, texts of several
words, and the keywords of ``UNSEEN``.
"""

import ast
import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType

WIDTH = 110
UNSEEN = frozenset({"strict", "frozen", "slots", "kw_only", "gc", "maxsize"})
"""Keywords that guard or speed up; the type checker or a reader holds them."""

COMPARE: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE), ast.LtE: (ast.Lt, ast.Gt), ast.Gt: (ast.GtE, ast.LtE), ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.Is: (ast.IsNot,), ast.IsNot: (ast.Is,), ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}  # fmt: skip
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.Pow: ast.Mult, ast.LShift: ast.RShift, ast.RShift: ast.LShift, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitAnd,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any", "sorted": "list"}
ACTS = (ast.Raise, ast.Continue, ast.Break, ast.Delete, ast.Assert, ast.AugAssign)
CONDITIONS = (ast.If, ast.While, ast.IfExp, ast.Assert)
TYPE_MAKERS = frozenset({"TypeVar", "NewType", "ParamSpec", "TypeAliasType"})


@dataclass(frozen=True)
class Mutant:
    """One changed module.

    Attributes:
        place: The function or class that holds the change, ``Class.method``; empty for the module's own statements.
        was: The code around the change, as much as fits on a line.
        now: The same code, changed; followed by a number where the same change of the place can be made again.
        lines: The lines of the changed statement, without the statements inside it.
        at_import: Whether the change shows when the module is imported, not only when a line of it runs.
        code: The compiled module.
    """

    place: str
    was: str
    now: str
    lines: range
    at_import: bool
    code: CodeType


def mutants(source: str, path: str) -> Iterator[Mutant]:
    """Yield every mutant of the module ``source``, which lies at ``path``."""
    tree = ast.parse(source)
    messages = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "stanch.errors"
        for alias in node.names
    }
    seen: Counter[tuple[str, str, str]] = Counter()
    for slot, new, outer in _walk(tree, [], messages):
        old = slot.get()
        trail = [*outer, old]
        within = trail[trail.index(statement := _statement(trail)) :]
        shown = next((node for node in within if len(_text(node)) <= WIDTH), old)
        was = _text(shown)
        slot.put(new)
        now = _text(new if shown is old else shown)
        code = compile(ast.fix_missing_locations(tree), path, "exec")
        slot.put(old)
        key = (_place(outer), was, now)
        seen[key] += 1
        nth = f"  # {seen[key]}" if seen[key] > 1 else ""
        yield Mutant(_place(outer), was, now + nth, _lines(statement), _at_import(trail), code)


@dataclass(frozen=True)
class _Slot:
    """A place in the tree where a node hangs."""

    parent: ast.AST
    field: str
    index: int | None

    def get(self) -> ast.AST:
        found = getattr(self.parent, self.field)
        return found if self.index is None else found[self.index]

    def put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


def _walk(node: ast.AST, trail: list[ast.AST], messages: set[str]) -> Iterator[tuple[_Slot, ast.AST, list[ast.AST]]]:
    """Yield each change below ``node``: where, what to put there, and the nodes around it from the outermost in."""
    inside = [*trail, node]
    for slot in _slots(node, messages):
        child = slot.get()
        for new in _changes(child, slot):
            yield slot, ast.copy_location(new, child), inside
        yield from _walk(child, inside, messages)


def _slots(node: ast.AST, messages: set[str]) -> Iterator[_Slot]:
    """Yield the places below ``node`` that a change may touch."""
    for field, value in ast.iter_fields(node):
        if field in {"annotation", "returns", "type_params"} or _unseen(node, field, messages):
            continue
        for index, child in enumerate(value) if isinstance(value, list) else [(None, value)]:
            if isinstance(child, ast.AST) and not (isinstance(node, ast.Call) and _typed(node, field, index)):
                yield _Slot(node, field, index)


def _unseen(node: ast.AST, field: str, messages: set[str]) -> bool:
    match node:
        case ast.Raise() | ast.Expr(value=ast.Constant()):
            return True
        case ast.JoinedStr(values=parts):
            return any(isinstance(part, ast.Constant) and _is_prose(part.value) for part in parts)
        case ast.Call(func=ast.Name(id=name)):
            return field in {"args", "keywords"} and name in messages | TYPE_MAKERS
        case ast.keyword(arg=name):
            return name in UNSEEN
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Assign(targets=[ast.Name(id=name)], value=value):
            return name in {"__all__", "__slots__"} or (name[0].isupper() and _is_type(value))
        case ast.AnnAssign(annotation=ast.Name(id="TypeAlias")):
            return True
    return False


def _is_type(value: ast.expr) -> bool:
    """Whether ``Name = value`` names a type, as in ``Name = Literal["a"]``."""
    return isinstance(value, ast.Subscript) or (isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr))


def _typed(call: ast.Call, field: str, index: int | None) -> bool:
    """Whether this is the type that ``cast`` is told."""
    return isinstance(call.func, ast.Name) and call.func.id == "cast" and field == "args" and index == 0


def _changes(node: ast.AST, slot: _Slot) -> Iterator[ast.AST]:
    """Yield what could stand in the place of ``node``."""
    match node:
        case ast.AugAssign() if type(node.op) in ARITHMETIC:
            yield ast.AugAssign(node.target, ARITHMETIC[type(node.op)](), node.value)
        case ast.ExceptHandler(type=ast.Tuple(elts=kinds)):
            for kept in _without_one(kinds):
                caught = ast.copy_location(ast.Tuple(kept, ast.Load()), node)
                yield ast.ExceptHandler(caught, node.name, node.body)
        case ast.Name(id=name) if name in NAMES and slot.field == "func":
            yield ast.Name(NAMES[name], ast.Load())
        case ast.expr():
            yield from _values(node)
    if isinstance(node, ast.stmt) and _acts(node):
        yield ast.Pass()
    if _is_condition(slot) and not isinstance(node, ast.Compare | ast.BoolOp | ast.Constant | ast.UnaryOp):
        yield ast.UnaryOp(ast.Not(), node)


def _values(node: ast.expr) -> Iterator[ast.expr]:
    """Yield expressions with another value, mostly."""
    match node:
        case ast.Compare():
            for index, op in enumerate(node.ops):
                for other in COMPARE[type(op)]:
                    yield ast.Compare(node.left, [*node.ops[:index], other(), *node.ops[index + 1 :]], node.comparators)
        case ast.BoolOp():
            for kept in _without_one(node.values):
                yield ast.BoolOp(node.op, kept) if len(kept) > 1 else kept[0]
        case ast.UnaryOp(op=ast.Not() | ast.USub() | ast.Invert()):
            yield node.operand
        case ast.BinOp() if type(node.op) in ARITHMETIC:
            yield ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
        case ast.Constant():
            yield from _other(node.value)


def _without_one(nodes: list[ast.expr]) -> Iterator[list[ast.expr]]:
    for index in range(len(nodes)):
        yield nodes[:index] + nodes[index + 1 :]


def _other(value: object) -> Iterator[ast.Constant]:
    match value:
        case bool():
            yield ast.Constant(not value)
        case int():
            yield ast.Constant(value + 1)
        case float():
            yield ast.Constant(value * 1.5 if value else 1.0)
        case str() if not _is_prose(value):
            yield ast.Constant(value + "!")
        case bytes():
            yield ast.Constant(value + b"!")


def _is_prose(text: str) -> bool:
    return " " in text.strip()


def _acts(node: ast.stmt) -> bool:
    """Whether a statement can be left out and the rest still makes sense."""
    match node:
        case ast.Expr(value=ast.Call() | ast.Await() | ast.YieldFrom()):
            return True
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            return True
    return isinstance(node, ACTS)


def _is_condition(slot: _Slot) -> bool:
    return (isinstance(slot.parent, CONDITIONS) and slot.field == "test") or (
        isinstance(slot.parent, ast.comprehension) and slot.field == "ifs"
    )


def _text(node: ast.AST) -> str:
    """Return a node as code; of a statement with others inside only its first line."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        node = copy.copy(node)
        node.decorator_list = []
        node.body = [ast.Pass()]
    text = ast.unparse(node)
    return text if isinstance(node, ast.expr) else text.partition("\n")[0]


def _place(trail: list[ast.AST]) -> str:
    return ".".join(n.name for n in trail if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef))


def _at_import(trail: list[ast.AST]) -> bool:
    """Whether no function's body is around the change: defaults and decorators are evaluated at import too."""
    return not any(
        isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef) and _has(outer.body, trail) for outer in trail
    )


def _has(body: list[ast.stmt], trail: list[ast.AST]) -> bool:
    return any(node is statement for node in trail for statement in body)


def _statement(trail: list[ast.AST]) -> ast.AST:
    """Return the innermost statement, or the ``except`` or ``case`` that heads some."""
    return next(n for n in reversed(trail) if isinstance(n, ast.stmt | ast.ExceptHandler | ast.match_case))


def _lines(statement: ast.AST) -> range:
    first = (statement.pattern if isinstance(statement, ast.match_case) else statement).lineno
    inner = getattr(statement, "body", None)
    last = inner[0].lineno if inner else statement.end_lineno + 1
    return range(first, max(last, first + 1))
