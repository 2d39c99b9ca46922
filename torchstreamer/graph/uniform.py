"""Tensors of one number, of which the number of entries alone may depend on the rows."""

from typing import Any, Dict, Optional

import torch

from .refusals import operation_name
from .samplewise import is_pointwise
from .values import Replay, Static, things_in

__all__ = ["uniform"]

_FILLED: Dict[str, Optional[float]] = {
    **dict.fromkeys(["zeros", "new_zeros", "zeros_like", "zero"], 0.0),
    **dict.fromkeys(["ones", "new_ones", "ones_like"], 1.0),
    **dict.fromkeys(["full", "new_full", "full_like", "fill"], None),
}
_VIEWS = frozenset(
    "view _unsafe_view reshape expand unsqueeze squeeze permute transpose flatten unflatten clone alias repeat slice "
    "select detach lift_fresh_copy".split()
)
_LOGIC = frozenset(["__and__", "__or__", "__xor__"])  # which torch does not call pointwise
_CASTS = frozenset(["to", "_to_copy"])


def uniform(low: Any, thing: Any) -> Optional[float]:
    """The number that all entries of a tensor are, whatever the number of rows; ``None`` if that is not known.

    Args:
        low: the lowering
        thing: a tensor without a time axis, or a number
    """
    if isinstance(thing, (bool, int, float)):
        return float(thing)
    if not isinstance(thing, Static) or thing.given or thing.weights:
        return None
    if not thing.sized:
        entries = low.weights.tensor(thing).flatten()
        same = entries.numel() > 0 and not entries.is_complex() and bool((entries == entries[0]).all())
        return float(entries[0]) if same else None
    recipe = thing.recipe
    assert recipe is not None
    name = operation_name(thing.node)
    if name in _FILLED:
        value = _FILLED[name]
        if value is None:
            # `full` of numbers, which a rule may stand for otherwise.
            value = uniform(low, recipe.args[1])
        return value if value is None else _cast(value, thing)
    if name == "copy":
        return _cast_of(uniform(low, recipe.args[1]), thing)
    if name in _VIEWS:
        return uniform(low, recipe.args[0])
    if name in _CASTS:
        return _cast_of(uniform(low, recipe.args[0]), thing)
    tensors = [part for part in things_in([recipe.args, recipe.kwargs]) if isinstance(part, Static)]
    if not tensors or not (is_pointwise(thing.node) or name in _LOGIC):
        return None
    numbers = {part: uniform(low, part) for part in tensors}
    if any(number is None for number in numbers.values()):
        return None

    def fill(argument: Any) -> Any:
        if isinstance(argument, (list, tuple)):
            return [fill(item) for item in argument]
        if isinstance(argument, Static):
            return torch.tensor(numbers[argument], dtype=torch.float64).to(argument.node.meta["val"].dtype)
        return argument

    made = Replay(
        recipe.target, tuple(fill(part) for part in recipe.args), {k: fill(v) for k, v in recipe.kwargs.items()}
    )
    return float(made.target(*made.args, **made.kwargs))


def _cast(value: float, thing: Static) -> float:
    return float(torch.tensor(value, dtype=torch.float64).to(thing.node.meta["val"].dtype))


def _cast_of(value: Optional[float], thing: Static) -> Optional[float]:
    return None if value is None else _cast(value, thing)
