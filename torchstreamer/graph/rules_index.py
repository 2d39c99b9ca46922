"""Rules for frames that are taken, or added, by positions: ``x[:, i]`` and ``index_add``, as a lattice of positions."""

from typing import Any, Dict, List, Optional

import torch
from torch import fx

from ..core.lengths import LengthFunction
from ..layers.padding import Pad1dStream
from ..layers.window import window_count
from .lattices import Lattice, lattice
from .layout import Layout
from .lengths import Lengthened
from .lowering import Lowering, rule
from .ops.edges import CropStream
from .ops.windows import Fold, OverlapStream, SplitTimeStream, WindowedStream
from .rules_length import settle
from .values import Replay, Rows, Spread, Static, Value

__all__: List[str] = []

_aten = torch.ops.aten


def _refused(low: Lowering, node: fx.Node) -> Exception:
    return low.refuse(
        node,
        "position",
        "it takes samples by positions that do not move on by a constant from frame to frame",
        "use Tensor.unfold, F.unfold or F.fold",
    )


@rule("index")
def index(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Any:
    places = [axis for axis, item in enumerate(a["indices"]) if item is not None]
    if places != [x.time] or not isinstance(a["indices"][x.time], Spread):
        return NotImplemented
    return _taken(low, node, x, a["indices"][x.time])


@rule("index_select", along="dim")
def index_select(low: Lowering, node: fx.Node, x: Value, a: Dict[str, Any]) -> Any:
    return _taken(low, node, x, a["index"]) if isinstance(a["index"], Spread) else NotImplemented


def _taken(low: Lowering, node: fx.Node, x: Value, places: Spread) -> Value:
    found = lattice(low, places)
    result = low.value(node, node.meta["val"], None, 0)
    if found is None or found.outer is not None or found.step < 1 or int(found.offsets.min()) < 0 or result is None:
        raise _refused(low, node)
    begin = int(found.offsets.min())
    if begin > 0:
        before = x.length
        x = low.derived(node, x, CropStream(begin, 0, 0), lambda n: before(n) - begin)
    field, length = int(found.offsets.max()) - begin + 1, x.length
    # [.., frames, .., field] to [.., entries, frames, ..], and the entries to their axes.
    body = low.weights.body(lambda thing: thing is not x)
    body.input(x)
    rank, entries = len(x.shape), len(found.offsets.shape)
    table = Static(node, Replay(torch.tensor, ((found.offsets - begin).flatten().tolist(),)), False, False, False)
    frames = x.like(recipe=Replay(_aten.unfold.default, (x, x.time, field, found.step)))
    taken = x.like(recipe=Replay(_aten.index_select.default, (frames, rank, table)))
    # The axis of frames stands among those of the entries where the positions have it.
    sizes: List[Any] = [Rows(x.inner) if axis == x.rows else int(n) for axis, n in enumerate(x.shape) if axis != x.time]
    sizes = [*sizes, *found.offsets.shape, -1]
    moved = x.like(recipe=Replay(_aten.movedim.int, (taken, x.time, -1)))
    apart = x.like(recipe=Replay("reshape", (moved, sizes)))
    others = list(range(rank - 1))
    inner = [rank - 1 + i for i in range(entries)]
    inner.insert(places.time, rank - 1 + entries)
    order = [*others[: x.time], *inner, *others[x.time :]]
    last = x.like(recipe=Replay(_aten.permute.default, (apart, order)))
    body.compute(last)
    layouts = x.layout(), result.layout()
    stream = WindowedStream(body.finish([last]), field, found.step, *layouts, "index")

    def natural(n: int) -> int:
        return window_count(length(n), field, found.step)

    y = low.derived(node, x, stream, natural, result)
    return y if low.constant_difference(result.length, natural) == 0 else settle(low, node, y, 0, result.length)


# ---------------------------------------------------------------------- overlap-add


@rule("index_add", takes=None)
def index_add(low: Lowering, node: fx.Node, target: Any, a: Dict[str, Any]) -> Any:
    source, places = a["source"], a["index"]
    result = low.value(node, node.meta["val"], None, 0)
    if not isinstance(source, Value) or not isinstance(places, Spread) or result is None or source.lifted:
        return NotImplemented
    found = lattice(low, places)
    axis = a["dim"] % len(source.shape)
    if found is None or not _is_zero(target) or axis != source.time or axis < len(source.shape) - 1 or a["alpha"] != 1:
        raise _refused(low, node)
    steps = set(found.offsets.flatten().diff().tolist())
    first, count = int(found.offsets.min()), found.offsets.numel()
    gap = next(iter(steps), 1)
    if len(steps) > 1 or gap < 1 or first < 0 or found.step < 1 or (source.rows is not None and source.rows > axis):
        raise _refused(low, node)
    frames = _frames(low, node, source, found, count)
    if frames is None:
        raise _refused(low, node)
    body = Fold(1, 1, [1, count], [1, gap], 0, [1, found.step])
    channels = frames.layout().channels
    layouts = Layout(2, 0, 1, [channels]), Layout(3, 0, 1, [channels // count, 1])
    stream = OverlapStream(body, count, found.step, gap, 0, 0, *layouts, "index_add")
    length: LengthFunction = frames.length

    def natural(n: int) -> int:
        return stream.length(length(n))

    y = low.derived(node, frames, stream, natural, result)
    if first:
        y = low.derived(node, y, Pad1dStream(first, 0), Lengthened(natural, first))
    difference = low.constant_difference(result.length, y.length)
    return y if difference == 0 else settle(low, node, y, 0, result.length)


def _is_zero(target: Any) -> bool:
    recipe = target.recipe if isinstance(target, Spread) else None
    if recipe is None:
        return False
    name = getattr(recipe.target, "_opname", "")
    return name in ("zeros", "new_zeros") or (name == "full" and recipe.args[1] == 0)


def _frames(low: Lowering, node: fx.Node, source: Value, found: Lattice, count: int) -> Optional[Value]:
    """The frames apart: ``[.., count, frames]``."""
    shape = (*source.shape[:-1], count, source.shape[-1])
    front: List[Any] = [Rows(source.inner) if i == source.rows else int(n) for i, n in enumerate(source.shape[:-1])]
    if source.merged:
        if found.outer is not True or source.folds != (count, 1, 1):
            return None
        total = source.length
        changes: Dict[str, Any] = {"merged": False, "folds": (1, 1, 1), "length": lambda n: total(n) // count}
        recipe = Replay("reshape", (source, [*front, count, -1]))
        return low.step(node, source, recipe, shape=shape, time=source.time + 1, **changes)
    if found.outer is None and count == 1:
        recipe = Replay(_aten.unsqueeze.default, (source, -2))
        return low.step(node, source, recipe, shape=shape, time=source.time + 1)
    if found.outer is not False:
        return None
    whole = source.length
    # [.., frames, count]
    split = source.like(shape=(*source.shape, count))
    y = low.derived(node, source, SplitTimeStream(count, 1), lambda n: whole(n) // count, split)
    return low.step(node, y, Replay(_aten.transpose.int, (y, -1, -2)), shape=shape, time=source.time + 1)


@rule("view", "_unsafe_view", "reshape", "flatten", takes=Spread)
def flattened(low: Lowering, node: fx.Node, x: Spread, a: Dict[str, Any]) -> Any:
    meta = node.meta["val"]
    if x.dtype.is_floating_point or len(x.shape) != 2 or len(meta.shape) != 1:
        return NotImplemented
    length = low.sizes.function(meta.shape[0], 1)
    made = Spread(node, tuple(meta.shape), x.dtype, 0, length, Replay(node.target, tuple(a.values())))
    found = lattice(low, made)
    return NotImplemented if found is None or found.outer is None else made
