"""Rules for padding, and for constants and end samples in front of a signal and after it."""

import math
from typing import Any, Dict, List, Optional

import torch
from torch import fx

from ..core.lengths import LengthFunction
from ..layers.padding import Pad1dStream
from .lengths import Lengthened
from .lowering import Lowering, rule
from .ops.edges import FilledMirrorStream, FramesStream
from .reasons import REASONS
from .refusals import operation_name
from .rules_length import constant, length_table, settle
from .uniform import uniform
from .values import EndSamples, Replay, Spread, Static, Value

__all__: List[str] = []

_MODES = {
    "reflection_pad1d": "reflect",
    "reflection_pad2d": "reflect",
    "replication_pad1d": "replicate",
    "replication_pad2d": "replicate",
}


@rule("pad", "constant_pad_nd", "reflection_pad1d", "replication_pad1d", "reflection_pad2d", "replication_pad2d")
def pad(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Any:
    mode = _MODES.get(operation_name(node)) or a.get("mode", "constant")
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
            x = low.derived(node, x, Pad1dStream(left, 0, mode, value), Lengthened(length, left)) if left else x
            return settle(low, node, x, 0, lambda n: length(n) + left + amount(n), value)
        right = fixed
    if left == right == 0:
        return x
    if mode == "reflect" and min(left, right) >= 0:
        low.mirrors.append((length, left, lambda n: right))
        if low.fills:
            stream = FilledMirrorStream(left, right, [right] * (max(left, right) + 1))
            return low.derived(node, x, stream, Lengthened(length, left + right))
    return low.derived(node, x, Pad1dStream(left, right, mode, value), Lengthened(length, left + right))


def _varying_pad(low: Lowering, node: fx.Node, x: Value, left: int, amount: LengthFunction, mode: str) -> Value:
    # As much as can be needed, made of the last samples in their order from the end, and cropped at the end.
    assert x.clock is not None
    length, mirrored = x.length, mode == "reflect"

    if mirrored:
        low.mirrors.append((length, left, amount))

    def padded(n: int) -> int:
        # What is mirrored must be there.
        here = not mirrored or length(n) > (0 if low.fills else max(left, amount(n)))
        return length(n) + left + amount(n) if here else 0

    table = length_table(low, node, padded, x.clock.hop)
    first = low.lengths[0]
    valid = [n for n in range(1, first + math.lcm(table.period, x.clock.hop)) if low.capture.valid(n) and padded(n) > 0]
    amounts = [amount(n) for n in [*valid, *low.lengths]]
    if min(amounts) < 0:
        raise low.refuse(node, "varying_pad", "it pads or crops on the right, as the length says", "pad by constants")
    most = max(amounts)
    stream: Any = Pad1dStream(left, most, mode, shortest=left + 1 if mirrored else None)
    if mirrored and low.fills:
        stream = FilledMirrorStream(left, most, _amounts(low, node, length, amount, max(left, most)))
    whole = low.derived(node, x, stream, Lengthened(length, left + most))
    return low.alignment.settled(node, whole, 0, table, padded, 0.0)


def _amounts(low: Lowering, node: fx.Node, length: LengthFunction, amount: LengthFunction, most: int) -> List[int]:
    """By how much signals of up to ``most`` samples are padded on the right."""
    found: Dict[int, int] = {}
    for n in range(1, low.lengths[0]):
        if low.capture.valid(n) and 0 < length(n) <= most and found.setdefault(length(n), amount(n)) != amount(n):
            raise low.refuse(
                node, "varying_pad", "it pads short signals of one length differently", "pad by what the length says"
            )
    return [found.get(n, 0) for n in range(most + 1)]


@rule("where", takes=Static)
def chosen(low: Lowering, node: fx.Node, mask: Static, a: Dict[str, Any]) -> Any:
    # One of two by a mask of one number, as what is remembered begins with the first sample.
    which = uniform(low, mask)
    if which is None:
        return NotImplemented
    taken, given = (a["self"], node.args[1]) if which else (a["other"], node.args[2])
    meta, before = node.meta["val"], getattr(given, "meta", {}).get("val")
    if not isinstance(taken, (Value, EndSamples, Static)) or before is None or before.dtype != meta.dtype:
        return NotImplemented
    if str(before.shape) == str(meta.shape):
        return taken
    if not isinstance(taken, EndSamples) or before.dim() != meta.dim():
        return NotImplemented
    time = taken.value.time
    wide = [axis for axis in range(meta.dim()) if str(before.shape[axis]) != str(meta.shape[axis])]
    once = taken.samples == taken.count == 1 and not taken.beyond
    if wide != [time] or low.sizes.varies(meta.shape[time]) or not once:
        return NotImplemented
    return EndSamples(taken.value, taken.last, int(meta.shape[time]))


# ---------------------------------------------------------------------- constants in front and after


@rule("cat", "concat", takes=list)
def cat(low: Lowering, node: fx.Node, parts: List[Any], a: Dict[str, Any]) -> Any:
    dim = a["dim"] % len(node.meta["val"].shape)
    signals = [part for part in parts if isinstance(part, Value)]
    ends = any(isinstance(part, EndSamples) for part in parts)
    if not ends and not any(x.time == dim and not x.lifted for x in signals):
        return NotImplemented
    if len(signals) != 1 or signals[0].time != dim:
        raise low.refuse(node, "one_behind_other", *REASONS["cat"])
    x = signals[0]
    at = parts.index(x)
    y = x
    # From the signal outward, so that an end repeats what stands there.
    for side in (reversed(range(at)), range(at + 1, len(parts))):
        for i in side:
            y = _beside(low, node, x, y, parts[i], i < at, abs(i - at) == 1)
    return y


def _beside(low: Lowering, node: fx.Node, x: Value, y: Value, part: Any, front: bool, next_to: bool) -> Value:
    length = y.length
    if isinstance(part, EndSamples):
        if part.last != front and part.mirrored and part.beyond == 1 and part.value is x and next_to:
            # As reflection does.
            amounts = (part.samples, 0) if front else (0, part.samples)
            before = low.constant_difference(length, x.length) or 0
            mirror = Pad1dStream(*amounts, "reflect", shortest=before + part.samples + 1)
            return low.derived(node, y, mirror, Lengthened(length, part.samples))
        if part.last == front or part.samples > 1 or part.beyond:
            raise low.refuse(node, "one_behind_other", *REASONS["cat"])
        if part.value is not x:
            return low.alignment.edged(node, y, part)
        amounts = (part.count, 0) if front else (0, part.count)
        return low.derived(node, y, Pad1dStream(*amounts, "replicate"), Lengthened(length, sum(amounts)))
    if isinstance(part, Spread) and not front and part.time == y.time:
        value, n, more = _number(part), y.length, part.length
        if value is not None:  # as F.pad by so much
            return settle(low, node, y, 0, lambda length: n(length) + more(length), value)
    if not isinstance(part, Static) or part.given:
        raise low.refuse(node, "one_behind_other", *REASONS["cat"])
    tensor = low.weights.tensor(part)
    count = 0 if tensor.shape == (0,) else tensor.shape[y.time]  # one without axes is passed over by torch, too
    if count == 0:
        return y
    amounts = (count, 0) if front else (0, count)
    grown = Lengthened(length, sum(amounts))
    if not part.weights and bool((tensor == tensor.flatten()[0]).all()):
        return low.derived(node, y, Pad1dStream(*amounts, "constant", float(tensor.flatten()[0])), grown)
    body = low.weights.body()
    body.input(y)
    made = body.finish([part])
    layout = y.layout()
    stream = FramesStream(made if front else None, None if front else made, *amounts, layout)
    return low.derived(node, y, stream, grown)


def _number(part: Spread) -> Optional[float]:
    """The number that a constant repeats, if it is one of a single number."""
    recipe = part.recipe
    if (
        recipe is None
        or recipe.target is not torch.ops.aten.full.default
        or not isinstance(recipe.args[1], (int, float))
    ):
        return None
    return float(recipe.args[1])
