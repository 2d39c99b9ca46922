"""Which rule a function of torch has on tensors with row data, and what befalls those that have none."""

from typing import Any, Callable, Dict, Iterator, Optional, Sequence, Tuple, TypeVar, Union

import torch
import torch.nn.functional as F
import torch.utils._pytree as pytree
from torch import Tensor

from ..errors import StreamInputError
from .row_data import Layout

__all__ = [
    "Fate",
    "Rule",
    "TABLE",
    "attach",
    "by_plan",
    "functions",
    "getter",
    "plainly",
    "require_kept",
    "require_same",
    "rule",
]

Rule = Callable[[Any, Tuple[Any, ...], Dict[str, Any]], Any]
# What a result is: a tensor of this layout, several of these, or plain.
Fate = Union[None, Layout, Sequence[Optional[Layout]]]

_Plan = TypeVar("_Plan", bound=Callable[..., Fate])

TABLE: Dict[Any, Rule] = {}
_MODULES = (torch, Tensor, F, torch.special, torch.linalg)
_plain = torch._C.DisableTorchFunctionSubclass
# Filled by `StreamTensor`, which this file does not import.
_kind: Any = None


def set_kind(kind: Any) -> None:
    """Say which class bears row data."""
    global _kind
    _kind = kind


def functions(*names: str) -> Iterator[Any]:
    """What torch has by these names, as functions and as methods, in place too."""
    for name in names:
        for each in (name, f"{name}_"):
            for module in _MODULES:
                found = getattr(module, each, None)
                if callable(found) and not isinstance(found, type):
                    yield found


def getter(*names: str) -> Iterator[Any]:
    """What is called for attributes of tensors."""
    for name in names:
        yield getattr(Tensor, name).__get__


def rule(*called: Any) -> Callable[[Rule], Rule]:
    """The rule of these functions."""

    def enter(function: Rule) -> Rule:
        for each in called:
            TABLE[each] = function
        return function

    return enter


def by_plan(*called: Any) -> Callable[[_Plan], _Plan]:
    """A rule for functions of one tensor of which a plan says what becomes of its rows, before they run.

    A plan takes the layout, the shape, and the other arguments by the names that torch gives them.
    """

    def enter(plan: _Plan) -> _Plan:
        def run(func: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
            named = dict(kwargs)
            x = args[0] if args else named.pop("input", None)
            if not isinstance(x, _kind):
                return plainly(func, args, kwargs)
            named.pop("out", None)
            with _plain():
                shape = tuple(x.shape)
                try:
                    fate = plan(x._layout, shape, *args[1:], **named)
                except (TypeError, IndexError, AttributeError):  # no such call: torch says why, better than we can
                    fate = None
            if fate is None:
                return plainly(func, args, kwargs)
            for other in (*args[1:], *named.values()):
                if isinstance(other, _kind):
                    require_same(x._layout, other._layout, func)
            with _plain():
                y = func(*args, **kwargs)
                return attach(y, fate)

        for each in called:
            TABLE[each] = run
        return plan

    return enter


def attach(y: Any, fate: Fate) -> Any:
    """A result, with the row data that it has from now on."""
    if isinstance(fate, Layout):
        if isinstance(y, Tensor):
            if not isinstance(y, _kind):
                if y.dim() != fate.rank:
                    return y
                y = y.as_subclass(_kind)
            y._layout = fate
            return y
        fate = [fate] * len(y)
    if fate is None:
        return _bare(y)
    parts = [attach(each, its) for each, its in zip(y, fate, strict=True)]
    return parts if isinstance(y, list) else type(y)(parts)


def plainly(func: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    """Run what has no rule: results are plain tensors.

    Raises:
        StreamInputError: it would leave old row data on what it writes to
    """
    name = getattr(func, "__name__", "")
    if name.endswith("_") and not name.endswith("__") and args and isinstance(args[0], _kind):
        require_kept(None, args[0], name)
    if kwargs:
        require_kept(None, kwargs.get("out"), name)
    with _plain():
        return _bare(func(*args, **kwargs))


def require_kept(fate: Fate, written: Any, name: str) -> None:
    """Refuse to write what has no row data into tensors that have.

    Raises:
        StreamInputError: code ``rows_lost``
    """
    written = written if isinstance(written, (tuple, list)) else (written,)
    if fate is None and any(isinstance(each, _kind) for each in written):
        raise StreamInputError(
            f"rows_lost: {name} would write into a StreamTensor what its row data do not tell of; operations that keep "
            "rows and time were expected in place; take the result instead, or write into x.tensor()"
        )


def require_same(one: Layout, other: Layout, func: Any) -> None:
    """Refuse operands that are not the same samples of the same signals.

    Raises:
        StreamInputError: code ``rows_differ``
    """
    if not one.rows.same(other.rows):
        raise StreamInputError(
            f"rows_differ: {getattr(func, '__name__', 'an operation')} of StreamTensors with the rows [{one.rows}] and "
            f"[{other.rows}]; equal ids, lengths and start were expected; cut and order them alike, or use x.tensor() "
            "if rows are to be ignored"
        )


def _bare(y: Any) -> Any:
    # Functions that give back what they were given must not give its row data back too.
    if isinstance(y, _kind):
        return y.as_subclass(Tensor)
    if isinstance(y, (tuple, list)) and any(isinstance(each, _kind) for each in y):
        return pytree.tree_map_only(_kind, _bare, y)
    return y


def asked(func: Any, args: Tuple[Any, ...], kwargs: Dict[str, Any]) -> Any:
    """What gives no tensor."""
    with _plain():
        return func(*args, **kwargs)


rule(
    *getter("shape", "dtype", "device", "ndim", "requires_grad", "is_leaf", "layout", "is_cuda", "grad_fn", "itemsize"),
    *functions("size", "dim", "ndimension", "numel", "stride", "is_contiguous", "is_floating_point", "is_complex"),
)(asked)
