"""Sums of two values that meet by position, as one part."""

from typing import Any, Dict, List, Sequence

import torch

from .lowering import Lowering
from .values import AlignCall, Replay, SumCall, Value, things_in

__all__ = ["fuse_sums"]


def fuse_sums(lowering: Lowering, outputs: Sequence[Any]) -> None:
    """Put one part in the place of an alignment whose values only a single sum needs."""
    calls, recorded = lowering.alignment.calls, lowering.alignment.recorded
    users: Dict[Any, List[Any]] = {}
    for thing in recorded:
        for inner in set(things_in([thing.recipe.args, thing.recipe.kwargs])):
            if isinstance(inner, Value):
                users.setdefault(inner, []).append(thing)
    taken = {value for value in outputs if isinstance(value, Value)}
    taken.update(value for call in calls for value in call.sources)
    for i, call in enumerate(calls):
        if isinstance(call, AlignCall) and len(call.targets) == 2 and not taken & set(call.targets):
            sums = users.get(call.targets[0], []) + users.get(call.targets[1], [])
            if len(sums) == 2 and sums[0] is sums[1] and _is_sum(sums[0], call):
                order = [call.targets.index(value) for value in sums[0].recipe.args[:2]]
                sums[0].recipe = None
                recorded.remove(sums[0])
                calls[i] = SumCall([call.sources[k] for k in order], [sums[0]])


def _is_sum(value: Any, call: AlignCall) -> bool:
    if not isinstance(value, Value) or not isinstance(value.recipe, Replay):
        return False
    recipe = value.recipe
    plain = recipe.target is torch.ops.aten.add.Tensor and not recipe.kwargs and len(recipe.args) == 2
    if not plain or set(recipe.args) != set(call.targets):
        return False
    one, two = call.targets
    same = one.dtype == two.dtype == value.dtype and one.others() == two.others() == value.others()
    return same and one.layout().plain and two.layout().plain and value.layout().plain
