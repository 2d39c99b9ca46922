"""Checks of values, which have no effect on results: asserts, and branches that only raise or tell.

An exporter cannot decide what depends on values. While a model is exported, a check is taken as passed; what it was
stays in a list, for reports. It is one exactly if the source says so: the statement is an assert, or an ``if`` whose
body ends in a raise, or only tells, and nothing in the model catches what it raises. What else depends on values is
refused, with its line.
"""

import ast
import dis
import linecache
import os
import sys
from contextlib import contextmanager
from types import FrameType
from typing import Any, Dict, Iterator, List, Optional, Tuple

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.overrides import TorchFunctionMode

from ..errors import UnsupportedModuleError
from .exporter_patches import replaced
from .places import around, is_foreign, place_of, steps_to

__all__ = ["ValueChecks", "undecided_conditions", "user_frame"]

_DATA = vars(torch._C.TensorBase)["data"]
_TELLING = frozenset(["warn", "warning", "warning_once", "info", "debug", "error", "print", "log"])
_CHECKING = frozenset(["_assert", "_check", "_check_value", "_check_with"])

# Instructions between one that gives a value and one that asks whether it is true.
_BETWEEN = frozenset(["CACHE", "COPY", "TO_BOOL", "NOP", "EXTENDED_ARG"])

_EXPORTING = os.path.join(os.path.dirname(__file__), "exporting.py")

# What ends statements before their last one, or an error that was raised.
_LEAVING = (ast.Return, ast.Break, ast.Continue, ast.Yield, ast.YieldFrom)

_trees: Dict[str, Optional[ast.Module]] = {}


class ValueChecks(TorchFunctionMode):
    """While a model is exported, checks of values pass.

    Args:
        net: the model

    Attributes:
        passed: the lines of those that came
        refused: the error of the first condition that is no check, which the model may have caught
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net
        self.passed: List[str] = []
        self.refused: Optional[UnsupportedModuleError] = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name == "__bool__" and isinstance(args[0], FakeTensor) and args[0].constant is None:
            return self.decide(user_frame(sys._getframe(1)))
        if name == "item" and isinstance(args[0], FakeTensor) and args[0].dtype is torch.bool:
            answer = self.answer(user_frame(sys._getframe(1)))
            if answer is not None:
                return answer
        if name == "__get__" and getattr(func, "__self__", None) is _DATA:
            return args[0].detach()  # the exporter loses .data
        return func(*args, **(kwargs or {}))

    def answer(self, frame: FrameType) -> Optional[bool]:
        """What a condition must be for a check to pass, if it is a check that asks for it."""
        wanted = None if _caught(frame) else _wanted(frame)
        if wanted is not None:
            line = _line(frame)
            if line not in self.passed:
                self.passed.append(line)
        return wanted

    def decide(self, frame: FrameType) -> bool:
        """The same.

        Raises:
            UnsupportedModuleError: it is no check
        """
        answer = self.answer(frame)
        if answer is None:
            place = place_of(steps_to(frame), self.net)
            error = UnsupportedModuleError(
                "data_dependent",
                place.module,
                f"it takes a branch that depends on values (at {_line(frame)})",
                "compute both sides and choose with torch.where, or register a handler for "
                f"{type(place.module).__name__}",
            )
            error.path = place.path
            self.refused = self.refused or error
            raise error
        return answer


@contextmanager
def undecided_conditions(checks: ValueChecks) -> Iterator[None]:
    """While a model is exported, conditions on numbers taken from values are decided as `ValueChecks` says."""
    plain: Any = torch.SymBool.__bool__

    def decided(self: torch.SymBool) -> bool:
        try:
            return plain(self)
        except GuardOnDataDependentSymNode:
            return checks.decide(user_frame(sys._getframe(1)))

    with replaced(torch.SymBool, "__bool__", decided):
        yield


def user_frame(frame: Optional[FrameType]) -> FrameType:
    """The frame of the call that a mode was told of."""
    assert frame is not None
    while frame.f_back is not None and frame.f_code.co_name in (
        "__torch_function__",
        "handle_torch_function",
        "wrapped",
    ):
        frame = frame.f_back
    return frame


def _line(frame: FrameType) -> str:
    name, number = frame.f_code.co_filename.replace("\\", "/").rsplit("/", 1)[-1], frame.f_lineno
    return f"{name}, line {number}: {linecache.getline(frame.f_code.co_filename, number).strip()}"


# ---------------------------------------------------------------------- the source


def _wanted(frame: FrameType) -> Optional[bool]:
    """What a condition must be so that a check passes; ``None`` if it is not that of a check, or not sure to be."""
    path = _path_to(frame)
    if not path:
        return None
    places = [i for i, node in enumerate(path) if isinstance(node, ast.stmt)]
    at = places[-1]
    if at + 1 == len(path):
        return None
    wanted = _outcome(path[at], path[at + 1])
    # From the whole condition to the part that asks.
    for outer, inner in zip(path[at + 1 :], path[at + 2 :], strict=False):
        if wanted is None:
            return None
        if isinstance(outer, ast.UnaryOp) and isinstance(outer.op, ast.Not):
            wanted = not wanted
        elif isinstance(outer, ast.Call) and outer.args[:1] == [inner] and _name(outer) in ("bool", *_CHECKING):
            continue
        elif not isinstance(outer, ast.BoolOp):
            return None
    return wanted


def _caught(frame: FrameType) -> bool:
    """Whether the model goes on after an error at a frame, so that it is no mere check that raises it."""
    outer: Optional[FrameType] = frame
    while outer is not None and outer.f_code.co_filename != _EXPORTING:
        name, line = outer.f_code.co_filename, outer.f_lineno
        if not is_foreign(name) and any(_goes_on(node, line) for node in around(name, line)):
            return True
        outer = outer.f_back
    return False


def _goes_on(node: Any, line: int) -> bool:
    """Whether a statement goes on after an error at a line of its body."""
    body = getattr(node, "body", None)
    if not isinstance(body, list) or not body[0].lineno <= line <= body[-1].end_lineno:
        return False
    if isinstance(node, (ast.With, ast.AsyncWith)):
        return any(
            isinstance(each.context_expr, ast.Call) and _name(each.context_expr) == "suppress" for each in node.items
        )
    left = any(isinstance(each, _LEAVING) for last in getattr(node, "finalbody", ()) for each in ast.walk(last))
    return left or any(not _fails(handler.body) for handler in getattr(node, "handlers", ()))


def _outcome(statement: ast.AST, inner: ast.AST) -> Optional[bool]:
    if isinstance(statement, ast.Assert):
        return True if inner is statement.test else None
    if isinstance(statement, ast.If) and inner is statement.test:
        if _fails(statement.body):
            return False
        if _fails(statement.orelse):
            return True
        return False if not statement.orelse and all(_only_tells(each) for each in statement.body) else None
    if isinstance(statement, ast.Expr) and inner is statement.value and isinstance(inner, ast.Call):
        return True if _name(inner) in _CHECKING else None
    return None


def _fails(body: List[ast.stmt]) -> bool:
    """Whether statements raise whatever happens."""
    if not body:
        return False
    last = body[-1]
    failing = isinstance(last, ast.Raise) or (
        isinstance(last, ast.Assert) and isinstance(last.test, ast.Constant) and not last.test.value
    )
    return failing and not any(isinstance(node, _LEAVING) for each in body for node in ast.walk(each))


def _only_tells(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Pass):
        return True
    return (
        isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call) and _name(statement.value) in _TELLING
    )


def _name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def _path_to(frame: FrameType) -> List[ast.AST]:
    """The nodes around what a frame is at, from the outermost inward; empty if the source does not tell."""
    tree, place = _tree(frame.f_code.co_filename), _place(frame)
    if tree is None:
        return []
    if place is None:
        return _path_in_line(tree, frame.f_lineno)
    path: List[ast.AST] = []
    node: Optional[ast.AST] = tree
    while node is not None:
        path.append(node)
        if _extent(node) == place:
            break
        inside = [child for child in ast.iter_child_nodes(node) if _around(child, place)]
        node = inside[0] if len(inside) == 1 else None
    return path if _extent(path[-1]) == place else []


def _path_in_line(tree: ast.Module, line: int) -> List[ast.AST]:
    # For Python 3.10, whose frames know lines alone: the only condition in a line, if it asks for one value only.
    found: List[List[ast.AST]] = []
    for node in ast.walk(tree):
        path: List[ast.AST] = []
        if isinstance(node, (ast.Assert, ast.If, ast.IfExp, ast.While)):
            path = [node, node.test]
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) and _name(node.value) in _CHECKING:
            path = [node, node.value, *node.value.args[:1]]
        extent = _extent(path[1]) if path else None
        if extent is None or not extent[0] <= line <= extent[2]:
            continue
        while isinstance(path[-1], ast.UnaryOp) and isinstance(path[-1].op, ast.Not):
            path.append(path[-1].operand)
        found.append([] if isinstance(path[-1], ast.BoolOp) else path)
    return found[0] if len(found) == 1 else []


def _tree(name: str) -> Optional[ast.Module]:
    if name not in _trees or name.startswith("<"):
        try:
            _trees[name] = ast.parse("".join(linecache.getlines(name)))
        except (SyntaxError, ValueError):
            _trees[name] = None
    return _trees[name]


Place = Tuple[int, int, int, int]


def _place(frame: FrameType) -> Optional[Place]:
    """The lines and columns of the expression that a frame evaluates."""
    positions = getattr(frame.f_code, "co_positions", None)  # from Python 3.11 on
    if positions is None:
        return None
    codes, at = frame.f_code.co_code, frame.f_lasti // 2
    if "CALL" not in dis.opname[codes[2 * at]]:
        # A jump may bear the place of its whole statement. What it asks for is what the instruction before it gave.
        at -= 1
        while at > 0 and dis.opname[codes[2 * at]] in _BETWEEN:
            at -= 1
    found = list(positions())[at]
    return None if any(number is None for number in found) else (found[0], found[2], found[1], found[3])


def _extent(node: Any) -> Optional[Place]:
    if getattr(node, "lineno", None) is None:
        return None
    return (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset)


def _around(node: ast.AST, place: Place) -> bool:
    extent = _extent(node)
    if extent is None:
        return any(_around(child, place) for child in ast.iter_child_nodes(node))
    return extent[:2] <= place[:2] and place[2:] <= extent[2:]
