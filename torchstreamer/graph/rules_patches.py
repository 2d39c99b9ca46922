"""The rule for patches of pictures, `torch.nn.functional.unfold`, with time on either axis."""

from typing import Any, Dict, List

import torch
from torch import fx

from ..layers.window import spanned, window_count
from .lowering import Lowering, rule
from .ops.rates import MergeTimeStream
from .ops.windows import WindowedStream
from .refusals import operation_name
from .rules_window import numbers, padded
from .values import Replay, Rows, Value

__all__: List[str] = []

_VIEWS = frozenset(["view", "_unsafe_view", "reshape", "unflatten"])


@rule("im2col", last=2)
def im2col(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Value:
    kernels, strides = numbers(a["kernel_size"], 2), numbers(a["stride"], 2)
    dilations, paddings = numbers(a["dilation"], 2), numbers(a["padding"], 2)
    fields = [spanned(kernel, dilation) for kernel, dilation in zip(kernels, dilations, strict=True)]
    axis = x.time - (len(x.shape) - 2)  # of height and width, the one that is time
    other = 1 - axis
    x = padded(low, node, x, paddings[axis], paddings[axis])
    paddings[axis] = 0
    beside = window_count(int(x.shape[other - 2]) + 2 * paddings[other], fields[other], strides[other])
    length = x.length
    # The patches, which torch lays one after the other, row by row, as a picture of patches.
    rank, channels = len(x.shape), int(node.meta["val"].shape[-2])
    front: List[Any] = [Rows(x.inner) if at == x.rows else x.shape[at] for at in range(rank - 3)]
    sizes = [*front, channels, *([beside, -1] if axis == 1 else [-1, beside])]
    columns = x.like(recipe=Replay(torch.ops.aten.im2col.default, (x, kernels, dilations, paddings, strides)))
    picture = x.like(recipe=Replay("reshape", (columns, sizes)), shape=(*x.shape[: rank - 3], *sizes[rank - 3 :]))
    body = low.weights.body(lambda thing: thing is columns)
    body.input(x)
    body.compute(picture)
    layouts = x.layout(), picture.layout()
    stream = WindowedStream(body.finish([picture]), fields[axis], strides[axis], *layouts, operation_name(node))
    y = low.derived(
        node, x, stream, lambda n: window_count(length(n), fields[axis], strides[axis]), x.like(shape=picture.shape)
    )
    if axis == 0 and beside > 1 and any(operation_name(user) not in _VIEWS for user in node.users):
        return low.stream(node, y, MergeTimeStream(beside, 1), True)
    whole = low.value(node, node.meta["val"], y.clock, y.level, Replay("reshape", (y, [*front, channels, -1])))
    assert whole is not None
    whole.folds = (beside, 1, 1) if axis == 1 else (1, 1, beside)
    whole.merged = beside > 1
    return low.record(whole)
