"""Rules for what draws random numbers in training mode."""

import math
from typing import Any, Dict

from torch import fx

from ..core.frozen import in_training
from ..layers.dropout import ChannelDropoutStream, FrameDropout, RandomSlopes, SampleDropout
from .capture import module_of
from .lowering import Lowering, rule
from .values import Replay, Value

__all__ = ["chance"]


@rule("chance")
def chance(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Value:
    """A dropout, or random slopes: of single samples in a segment, of channels as a stream with a mask."""
    kind = a["kind"]
    begins_in_training = in_training(module_of(node, low.capture.net)[1])
    if kind == "slopes":
        return low.step(node, x, Replay(RandomSlopes(a["a"], a["b"], begins_in_training), (x,)), fresh=True)
    p, alpha, axes = a["a"], kind.startswith("alpha"), int(a["b"])
    if axes == 0:
        return low.step(node, x, Replay(SampleDropout(p, alpha, begins_in_training), (x,)))
    if x.time < axes:
        return low.step(node, x, Replay(FrameDropout(p, alpha, axes, begins_in_training), (x,)))
    if x.rows is not None and x.rows >= axes:
        raise low.refuse(
            node, "rows_mixed", "all rows would share its mask", "give rows the first axis of what it drops"
        )
    sizes = [size for axis, size in enumerate(x.shape) if axis >= axes and axis != x.time]
    shared = math.prod(int(size) for size in sizes)
    return low.derived(node, x, ChannelDropoutStream(p, alpha, begins_in_training, shared), x.length)
