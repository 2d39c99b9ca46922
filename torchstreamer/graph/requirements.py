"""What operations and outputs of a graph must fulfil, and their arguments by name."""

from typing import Any, Dict, Iterable, Optional, Sequence

import torch
from torch import Tensor, fx

from ..errors import UnsupportedModuleError
from .reasons import REASONS, reason_for
from .refusals import operation_name
from .samplewise import is_samplewise
from .values import Relation, Replay, Skew, Spread, Static, Unusable, Value

__all__ = ["bound_arguments", "is_random", "require_broadcast", "require_samplewise", "returned", "two_times"]


def require_broadcast(low: Any, node: fx.Node, value: Value, things: Iterable[Any]) -> None:
    """Refuse a pointwise operation that brings time together with another axis."""
    place = len(value.shape) - value.time  # of time, from the end
    for thing in things:
        if isinstance(thing, (Value, Spread)) and not getattr(thing, "lifted", False):
            if len(thing.shape) - thing.time != place:
                raise low.refuse(node, "time_mixing", "it relates time to another axis", "bring time to one axis")
        elif isinstance(thing, Static):
            shape = tuple(thing.node.meta["val"].shape)
            if len(shape) >= place and shape[-place] != 1:
                raise low.refuse(node, "fixed_length", "it holds a constant as long as the signal", "use one sample")


def require_samplewise(low: Any, node: fx.Node, recipe: Replay, values: Sequence[Value], metas: Sequence[Any]) -> None:
    """Refuse an operation that does not treat every sample alone."""
    axes, shared = [], all(value.rows is None for value in values)
    for meta in metas:
        if any(value.lifted for value in values) and all(value.lifted for value in values):
            found: Optional[Value] = low.positions.value(node, meta, None, 0, recipe)
        else:
            found = low.value(node, meta, None, 0, None, shared) if isinstance(meta, Tensor) else None
        axes.append(None if found is None else found.time + found.lifted)
    if all(axis is None for axis in axes) or not is_samplewise(low.weights, recipe, values, axes):
        raise low.refuse(node, "time_mixing", *reason_for(operation_name(node)))


def two_times(low: Any, node: fx.Node) -> bool:
    """Whether what an operation gives has two axes of time."""
    meta = node.meta.get("val")
    return isinstance(meta, Tensor) and sum(low.sizes.varies(size) for size in meta.shape) > 1


def returned(low: Any, node: fx.Node, found: Any) -> UnsupportedModuleError:
    """The error for an output that is no value."""
    if isinstance(found, (Relation, Skew)) or (isinstance(found, Unusable) and two_times(low, node)):
        return low.refuse(
            node,
            "attention_weights",
            "it returns what every sample has to do with every other",
            "return the outputs alone; nn.MultiheadAttention leaves its weights out with need_weights=False",
        )
    error: UnsupportedModuleError = found.error or low.refuse(node, "total_length", *REASONS["length"])
    return error


def bound_arguments(node: fx.Node, args: Sequence[Any], kwargs: Dict[str, Any]) -> Dict[str, Any]:
    """The arguments of an operation by name."""
    schema = getattr(node.target, "_schema", None)
    bound = {}
    for i, argument in enumerate([] if schema is None else schema.arguments):
        if i < len(args):
            bound[argument.name] = args[i]
        elif argument.name in kwargs:
            bound[argument.name] = kwargs[argument.name]
        else:
            bound[argument.name] = argument.default_value if argument.has_default_value() else None
    return bound


def is_random(node: fx.Node, bound: Dict[str, Any]) -> bool:
    """Whether an operation draws random numbers."""
    tags = getattr(node.target, "tags", [])
    off = bound.get("dropout_p") == 0 or bound.get("train") is False or bound.get("training") is False
    return torch.Tag.nondeterministic_seeded in tags and not off
