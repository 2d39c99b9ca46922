"""``int``, ``float``, ``divmod`` and ``range`` of lengths that are symbols, while a model is exported.

Python's own ask a symbol for its number, which fixes the length of the signal. While a model is exported, the names
mean functions of this file in the files that its code comes from. Where no symbol comes, they are Python's.
"""

import sys
import types
from contextlib import contextmanager, suppress
from typing import Any, Dict, Iterator, List, Optional, Set, Tuple

import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import statically_known_true

__all__ = ["as_float", "as_whole", "is_symbolic", "python_type", "symbolic_numbers"]


_to_int: Any = torch.sym_int  # without types
_to_float: Any = torch.sym_float


def is_symbolic(thing: Any) -> bool:
    """Whether a number is a symbol."""
    return isinstance(thing, (torch.SymInt, torch.SymFloat, torch.SymBool))


def as_whole(number: Any) -> Any:
    """A number without its fraction."""
    if isinstance(number, torch.SymFloat):
        return _to_int(number)
    if isinstance(number, (torch.SymInt, torch.SymBool, bool)):
        return number
    return int(number)


def as_float(number: Any) -> Any:
    """A number as a float."""
    return _to_float(number)


class _Whole(type):
    # In place of int: a type, since models ask isinstance(x, int).
    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if len(args) == 1 and not kwargs:
            if isinstance(args[0], (torch.SymInt, torch.SymFloat)):
                return as_whole(args[0])
            if isinstance(args[0], Tensor):
                found = args[0].item()
                return as_whole(found) if is_symbolic(found) else int(found)
        return int(*args, **kwargs)

    def __instancecheck__(cls, thing: Any) -> bool:
        return isinstance(thing, int)

    def __subclasscheck__(cls, other: Any) -> bool:
        return issubclass(other, int)

    def __eq__(cls, other: Any) -> bool:
        return other is int or other is cls

    def __hash__(cls) -> int:
        return hash(int)


class _Float(type):
    def __call__(cls, *args: Any) -> Any:
        if len(args) == 1:
            if isinstance(args[0], (torch.SymInt, torch.SymFloat)):
                return as_float(args[0])
            if isinstance(args[0], Tensor):
                found = args[0].item()
                return as_float(found) if is_symbolic(found) else float(found)
        return float(*args)

    def __instancecheck__(cls, thing: Any) -> bool:
        return isinstance(thing, float)

    def __subclasscheck__(cls, other: Any) -> bool:
        return issubclass(other, float)

    def __eq__(cls, other: Any) -> bool:
        return other is float or other is cls

    def __hash__(cls) -> int:
        return hash(float)


class _Range(type):
    # Of symbols, wherever it is known how many numbers they are for every length.
    def __call__(cls, *args: Any) -> Any:
        counted = _counted(*args) if any(is_symbolic(each) for each in args) else None
        return range(*args) if counted is None else counted

    def __instancecheck__(cls, thing: Any) -> bool:
        return isinstance(thing, range)

    def __subclasscheck__(cls, other: Any) -> bool:
        return issubclass(other, range)

    def __eq__(cls, other: Any) -> bool:
        return other is range or other is cls

    def __hash__(cls) -> int:
        return hash(range)


def _counted(*args: Any) -> Optional[List[Any]]:
    """The numbers of a range, if their count does not depend on the length; ``None`` if it may."""
    start, stop, step = (0, args[0], 1) if len(args) == 1 else (*args, 1)[:3]
    if is_symbolic(step):  # from a start as far as one step leads
        once = statically_known_true(step > 0) and statically_known_true(stop - start <= step)
        return [start] if once and statically_known_true(stop > start) else None
    span = stop - start
    if is_symbolic(span):
        found = span.node.expr
        if not found.is_Integer:
            return None
        span = int(found)
    return [start + i for i in range(0, span, step)]


class _SymbolicInt(int, metaclass=_Whole):
    pass


class _SymbolicFloat(float, metaclass=_Float):
    pass


class _SymbolicRange(metaclass=_Range):
    pass


def _divmod(x: Any, y: Any) -> Any:
    return (x // y, x % y) if is_symbolic(x) or is_symbolic(y) else divmod(x, y)


_NAMES: Dict[str, Any] = {"int": _SymbolicInt, "float": _SymbolicFloat, "divmod": _divmod, "range": _SymbolicRange}


@contextmanager
def symbolic_numbers(net: nn.Module) -> Iterator[None]:
    """While a model is exported, its code computes with symbols."""
    places = [(space, name) for space, names in _places(net) for name in names if name not in space]
    for space, name in places:
        space[name] = _NAMES[name]
    try:
        yield
    finally:
        for space, name in places:
            del space[name]


def python_type(thing: Any) -> Any:
    """The type of Python that a name of this file stands for; other things as they are."""
    kinds = (_SymbolicInt, int), (_SymbolicFloat, float), (_SymbolicRange, range)
    return next((real for ours, real in kinds if thing is ours), thing)


def _places(net: nn.Module) -> List[Tuple[Dict[str, Any], Set[str]]]:
    """The global names of every function that the model may call, as far as its code names it, and which of ours."""
    waiting: List[Any] = []
    for kind in {kind for module in net.modules() for kind in type(module).__mro__}:
        waiting += _functions_of(kind)
    for module in net.modules():
        waiting += [value for value in vars(module).values() if isinstance(value, _FUNCTIONS)]
    seen: Set[int] = set()
    places: Dict[int, Tuple[Dict[str, Any], Set[str]]] = {}
    while waiting:
        function = waiting.pop()
        function = getattr(function, "__func__", function)
        if hasattr(function, "__wrapped__"):
            waiting.append(function.__wrapped__)
        if not isinstance(function, types.FunctionType) or id(function) in seen or _is_foreign(function.__module__):
            continue
        seen.add(id(function))
        names, space = _names_in(function.__code__), function.__globals__
        places.setdefault(id(space), (space, set()))[1].update(names & set(_NAMES))
        found = [space[name] for name in names if name in space]
        found += [getattr(each, name, None) for each in found if isinstance(each, types.ModuleType) for name in names]
        for cell in function.__closure__ or ():
            with suppress(ValueError):  # an empty cell
                found.append(cell.cell_contents)
        for each in found:
            waiting += _functions_of(each) if isinstance(each, type) else [each] if isinstance(each, _FUNCTIONS) else []
    return list(places.values())


_FUNCTIONS = (types.FunctionType, types.MethodType)


def _is_foreign(module: Any) -> bool:
    name = str(module).split(".")[0]
    return name in ("torch", "torchstreamer", "numpy", "typing", "math") or name in sys.stdlib_module_names


def _functions_of(kind: type) -> List[Any]:
    if _is_foreign(kind.__module__):
        return []
    found = []
    for value in vars(kind).values():
        value = getattr(value, "fget", None) or getattr(value, "__func__", value)
        found += [value] if isinstance(value, types.FunctionType) else []
    return found


def _names_in(code: types.CodeType) -> Set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names_in(constant)
    return names
