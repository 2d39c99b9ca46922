"""The rule for the inverse of short-time spectra."""

from typing import Any, Dict, List

from torch import fx, nn

from ..core.lengths import LengthFunction
from ..layers.overlap_add import OverlapAdd1d, OverlapAdd1dStream
from ..layers.taper import Taper
from .lowering import Lowering, remade, rule
from .ops.inverses import frames_of, whole_inverse
from .rules_length import settle
from .values import Replay, Static, Value

__all__: List[str] = []


@rule("istft", last=1)
def istft(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Value:
    window = a["window"]
    if window is not None and (not isinstance(window, Static) or window.given or window.sized):
        raise low.refuse(node, "signal_weight", "its window depends on the input", "make it a buffer of the module")
    n_fft, hop, width = a["n_fft"], a["hop_length"], a["win_length"]
    recipe = Replay(frames_of, (x, n_fft, width, window, a["normalized"]))
    shape = tuple(width if axis == x.time - 1 else size for axis, size in enumerate(x.shape))
    frames = low.step(node, x, recipe, shape=shape, dtype=x.dtype.to_real())
    frames.fresh = True
    source = _window(low, window, width)
    result = low.value(node, node.meta["val"], None, 0)
    if result is None:
        raise low.refuse(
            node,
            "fixed_piece",
            "its length is a constant",
            "take it from the input, length=x.shape[-1], or leave it out",
        )
    before = (n_fft - width) // 2
    left = (n_fft // 2 if a["center"] else 0) - before
    if a["length"] is None:
        right = (n_fft // 2 if a["center"] else 0) - (n_fft - width - before)
        return low.stream(node, frames, _overlap(low, node, source, hop, left, right), True)
    # Samples that the longest signal with so many frames takes from where its last one begins.
    furthest = max(result.length(n) - (x.length(n) - 1) * hop for n in _lengths(low, x))
    right = max(width - left - furthest, 0)
    if furthest + left > width:
        right = min(before + width - n_fft, 0)  # torch asks for an envelope up to the end of a whole frame
    stream = _overlap(low, node, source, hop, left, right)
    frames_in: LengthFunction = x.length

    def natural(n: int) -> int:
        return stream.length(frames_in(n))

    if low.constant_difference(result.length, natural) == 0:
        return low.stream(node, frames, stream, True)
    whole = low.derived(node, frames, stream, natural, result)
    return settle(low, node, whole, 0, result.length)


def _lengths(low: Lowering, x: Value) -> List[int]:
    # Of all signals that end alike.
    assert x.clock is not None
    unit = low.sizes.scale * low.capture.multiple
    start = low.lengths[0]
    return [*low.lengths, *(n for n in range(start, start + min(x.clock.hop, 4096) * unit) if low.capture.valid(n))]


def _window(low: Lowering, window: Any, width: int) -> nn.Module:
    return Taper("ones", width) if window is None else low.weights.source(window)


def _overlap(low: Lowering, node: fx.Node, window: nn.Module, hop: int, left: int, right: int) -> OverlapAdd1dStream:
    try:
        return OverlapAdd1dStream(OverlapAdd1d(window, hop, left, right))
    except ValueError as error:
        reason, _, remedy = str(error).partition(": ")[2].rpartition("; ")
        raise low.refuse(node, "zero_envelope", reason, remedy) from None


def _alone(*args: Any) -> Replay:
    return Replay(whole_inverse, args)


remade("istft", _alone)
