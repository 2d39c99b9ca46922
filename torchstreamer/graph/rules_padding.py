"""Rules for padding, and for constants and edges in front of a signal and behind it."""

import math
from typing import Any, Dict, List

import torch
from torch import fx

from ..layers.padding import Pad1dStream
from .lengths import LengthFunction
from .lowering import Lowering, rule
from .ops.edges import FramesStream, MirroredEndStream
from .reasons import REASONS
from .refusals import operation_name
from .rules_length import constant, length_table, settle, time_axis
from .values import Edge, Replay, Static, Value

__all__: List[str] = []


@rule("pad", "constant_pad_nd", "reflection_pad1d", "replication_pad1d", "reflection_pad2d", "replication_pad2d")
def pad(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    x = a["self"]
    if not isinstance(x, Value) or x.lifted:
        return NotImplemented
    name = operation_name(node)
    mode = {"r": "reflect" if name.startswith("reflect") else "replicate"}.get(name[0], a.get("mode", "constant"))
    value = float(a.get("value") or 0.0)
    amounts = list(a["pad"] if "pad" in a else a["padding"])
    at = 2 * (len(x.shape) - 1 - x.time)
    if at >= len(amounts):
        return NotImplemented
    left, right = amounts[at], amounts[at + 1]
    others = [0 if i in (at, at + 1) else amount for i, amount in enumerate(amounts)]
    if any(others):
        x = low.step_across(
            node, x, Replay(torch.ops.aten.pad.default, (x, others, mode, value if mode == "constant" else None))
        )
    if mode == "circular":
        raise low.refuse(node, "circular_padding", *REASONS["circular"])
    if isinstance(left, torch.SymInt):
        fixed = constant(low, low.sizes.function(left))
        if fixed is None:
            raise low.refuse(
                node, "varying_pad", "how much it pads on the left depends on the length of the signal",
                "pad a constant amount, or give length_multiple= if the lengths are multiples of one number",
            )  # fmt: skip
        left = fixed
    length = x.length
    if isinstance(right, torch.SymInt):
        amount = low.sizes.function(right)
        fixed = constant(low, amount)
        if fixed is None:
            if mode != "constant":
                return _varying_pad(low, node, x, left, amount, mode)
            x = low.derived(node, x, Pad1dStream(left, 0, mode, value), lambda n: length(n) + left) if left else x
            return settle(low, node, x, 0, None, lambda n: length(n) + left + amount(n), value)
        right = fixed
    if left == right == 0:
        return x
    return low.derived(node, x, Pad1dStream(left, right, mode, value), lambda n: length(n) + left + right)


def _varying_pad(low: Lowering, node: fx.Node, x: Value, left: int, amount: LengthFunction, mode: str) -> Value:
    # As much as can be needed, made of the last samples in their order from the end, and cropped at the end.
    assert x.clock is not None
    length, mirrored = x.length, mode == "reflect"

    def padded(n: int) -> int:
        # What is mirrored must be there.
        return length(n) + left + amount(n) if not mirrored or length(n) > max(left, amount(n)) else 0

    table = length_table(low, node, padded, x.clock.hop)
    first = low.lengths[0]
    valid = [n for n in range(1, first + math.lcm(table.period, x.clock.hop)) if low.capture.valid(n) and padded(n) > 0]
    amounts = [amount(n) for n in [*valid, *low.lengths]]
    if min(amounts) < 0:
        raise low.refuse(node, "varying_pad", "it pads or crops on the right, as the length says", "pad by constants")
    most = max(amounts)
    stream = MirroredEndStream(left, most) if mirrored else Pad1dStream(left, most, mode)
    whole = low.derived(node, x, stream, lambda n: length(n) + left + most)
    return low.alignment.settled(node, whole, 0, table, padded, 0.0)


# ---------------------------------------------------------------------- constants in front and behind


@rule("cat", "concat")
def cat(low: Lowering, node: fx.Node, a: Dict[str, Any]) -> Any:
    parts = list(a["tensors"])
    dim = a["dim"] % len(node.meta["val"].shape)
    signals = [part for part in parts if isinstance(part, Value)]
    if not any(isinstance(part, Edge) for part in parts) and not any(time_axis(x, dim) for x in signals):
        return NotImplemented
    if len(signals) != 1 or signals[0].time != dim:
        raise low.refuse(node, "one_behind_other", *REASONS["cat"])
    x = signals[0]
    at = parts.index(x)
    y = x
    # From the signal outward, so that an edge repeats what stands there.
    for side in (reversed(range(at)), range(at + 1, len(parts))):
        for i in side:
            y = _beside(low, node, x, y, parts[i], i < at)
    return y


def _beside(low: Lowering, node: fx.Node, x: Value, y: Value, part: Any, front: bool) -> Value:
    length = y.length
    if isinstance(part, Edge):
        if part.last == front or part.samples > 1:
            raise low.refuse(node, "one_behind_other", *REASONS["cat"])
        if part.value is not x:
            return low.alignment.edged(node, y, part)
        amounts = (part.count, 0) if front else (0, part.count)
        return low.derived(node, y, Pad1dStream(*amounts, "replicate"), lambda n: length(n) + sum(amounts))
    if not isinstance(part, Static) or part.given:
        raise low.refuse(node, "one_behind_other", *REASONS["cat"])
    tensor = low.weights.tensor(part)
    count = tensor.shape[y.time]
    if count == 0:
        return y
    amounts = (count, 0) if front else (0, count)
    grown = lambda n: length(n) + sum(amounts)  # noqa: E731
    if not part.weights and bool((tensor == tensor.flatten()[0]).all()):
        return low.derived(node, y, Pad1dStream(*amounts, "constant", float(tensor.flatten()[0])), grown)
    body = low.weights.body()
    body.input(y)
    made = body.finish([part])
    layout = y.layout()
    stream = FramesStream(made if front else None, None if front else made, *amounts, layout)
    return low.derived(node, y, stream, grown)
