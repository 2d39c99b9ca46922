"""Proves what a mask depends on, by going through the operations that make it.

No mask is sampled: each operation has a rule that says how its result moves when query and key go one further, and when
the signal gets longer. What is proved holds for all lengths.
"""

import math
from fractions import Fraction
from typing import Any, Callable, Dict, List, Optional

import torch
from torch import Tensor, fx

from .lengths import Sizes, line_of
from .mask_arithmetic import COMPARISONS, DATA, LENGTH, TRUTHS, TURNED, Arithmetic, MaskError
from .mask_numbers import Distance, Known, Line, Number, Regular, constant, regular
from .mask_places import along, entry, looked_up
from .mask_tables import arguments_of, order_of, period_of, range_of
from .refusals import operation_name
from .samplewise import is_pointwise

__all__ = ["CONSTANTS", "COPIES", "FILLED", "PERMUTES", "POINTWISE", "SAME", "Proof"]


_NAMES = {"greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le", "not_equal": "ne"}
SAME = frozenset(
    ["clone", "alias", "contiguous", "detach", "lift_fresh_copy", "expand_as", "hinted", "_assert_tensor_metadata"]
)
_MOVES = frozenset(
    [
        "unsqueeze",
        "squeeze",
        "view",
        "_unsafe_view",
        "reshape",
        "unflatten",
        "flatten",
        "expand",
        "repeat",
        "broadcast_to",
    ]
)
COPIES = frozenset(["_to_copy", "to", "type_as"])
PERMUTES = frozenset(["permute", "transpose", "t", "mT", "swapaxes", "movedim"])
CONSTANTS = {"zeros": 0, "ones": 1, "new_zeros": 0, "new_ones": 1, "zeros_like": 0, "ones_like": 1}
FILLED = frozenset(["full", "new_full", "full_like", "scalar_tensor"])
# What torch does not call pointwise, though it is.
POINTWISE = TRUTHS | frozenset(["where", "masked_fill", "floor_divide", "remainder", "clamp"])


class Proof(Arithmetic):
    """What is proved of the tensors that a mask is made of.

    Args:
        sizes: evaluates sizes
        length: the number of queries and keys, as a size
        tensor: gives the tensor of a placeholder, if it is a weight, a buffer or a constant
        first: whether of keys `Unsettled` is assumed that they stand at the start of the signal

    Attributes:
        divisors: what the period must be a multiple of
        limit: the longest signal, if a table ends
    """

    def __init__(
        self,
        sizes: Sizes,
        length: Any,
        tensor: Callable[[fx.Node], Optional[Tensor]],
        first: Optional[bool] = None,
    ) -> None:
        super().__init__(first)
        self.sizes = sizes
        self.length = length
        self.tensor = tensor
        self.limit: Optional[int] = None
        self._known: Dict[fx.Node, Known] = {}
        self._lines: Dict[Any, Optional[Line]] = {}

    @property
    def period(self) -> int:
        """Queries after which the mask repeats itself."""
        return math.lcm(*self.divisors)

    def of(self, node: fx.Node) -> Known:
        """What is known of a node's tensor or number."""
        if node not in self._known:
            self._known[node] = self._prove(node)
        return self._known[node]

    def argument(self, value: Any, node: fx.Node) -> Known:
        """What is known of an argument."""
        if isinstance(value, fx.Node):
            return self.of(value)
        if isinstance(value, (int, float)):
            return constant(value)
        raise self.refused(node)

    # ------------------------------------------------------------------ sizes

    def line(self, size: Any) -> Optional[Line]:
        """A size as a line of the length; ``None`` if it is none."""
        if isinstance(size, int):
            return Line(Fraction(0), Fraction(size))
        key = size.node.expr
        if key not in self._lines:
            self._lines[key] = self._line(size)
        return self._lines[key]

    def _line(self, size: Any) -> Optional[Line]:
        if not self.sizes.varies(size):
            settled = self.sizes.settled(size)
            return Line(Fraction(0), Fraction(settled)) if isinstance(settled, int) else None
        expression, whole = size.node.expr, self.length.node.expr
        for slope in (1, 2, -1, -2):
            rest = expression - slope * whole
            if rest.is_Integer:
                return Line(Fraction(slope), Fraction(int(rest)))
        one, other = line_of(self.sizes.function(size)), line_of(self.sizes.function(self.length))
        if one is not None and other is not None and (one.rise, one.period) == (other.rise, other.period):
            gap = Fraction(one.offset - other.offset, one.period)
            if gap.denominator == 1:
                return Line(Fraction(1), gap)
        return None

    def axes(self, node: fx.Node) -> List[int]:
        """The axes of a tensor that vary with the length, counted from the last."""
        shape = node.meta["val"].shape
        return [axis - len(shape) for axis, size in enumerate(shape) if self.sizes.varies(size)]

    def lengths(self, node: fx.Node) -> Dict[int, Line]:
        shape = node.meta["val"].shape
        found = {axis: self.line(shape[axis]) for axis in self.axes(node)}
        return {axis: line for axis, line in found.items() if line is not None}

    # ------------------------------------------------------------------ operations

    def refused(self, node: fx.Node, reason: str = "") -> MaskError:
        if self._of_signal(node):
            return MaskError(DATA, "it depends on the values of an input", node)
        return MaskError(LENGTH, reason or f"'{operation_name(node)}' has no rule here", node)

    def _of_signal(self, node: fx.Node) -> bool:
        # Whether an input's values count; its sizes do not.
        waiting, found = [node], set()
        while waiting:
            each = waiting.pop()
            if each not in found and isinstance(each.meta.get("val"), Tensor):
                found.add(each)
                waiting += each.all_input_nodes
                if each.op == "placeholder" and self.tensor(each) is None:
                    return True
        return False

    def _prove(self, node: fx.Node) -> Known:
        value = node.meta.get("val")
        if not isinstance(value, Tensor):
            line = self.line(value) if isinstance(value, (int, torch.SymInt)) else None
            if line is None:
                raise self.refused(node, "it depends on the length of the signal in a way that does not repeat itself")
            return Number({}, line.slope, line.offset, line.offset)
        if node.op == "placeholder":
            return self._placeholder(node)
        name = operation_name(node)
        name = name[:-1] if name.endswith("_") and not name.startswith("_") and name not in ("and_", "or_") else name
        name = _NAMES.get(name, name)
        a = arguments_of(node)
        try:
            return self._operation(node, name, a)
        except ValueError as error:
            raise self.refused(node, str(error)) from None

    def _placeholder(self, node: fx.Node) -> Known:
        tensor = self.tensor(node)
        if tensor is None:
            raise MaskError(DATA, "it depends on an input of the model", node)
        if tensor.numel() == 1 and not tensor.is_complex() and not isinstance(tensor, torch.nn.Parameter):
            return constant(tensor.item() if tensor.dtype != torch.bool else int(tensor.item()))
        return Regular()

    def _operation(self, node: fx.Node, name: str, a: Dict[str, Any]) -> Known:
        if name == "arange":
            return self._arange(node, a)
        if name in CONSTANTS:
            return constant(CONSTANTS[name])
        if name in FILLED:
            return self.argument(a.get("fill_value", a.get("s")), node)
        first = next(iter(a.values()))
        if name in SAME:
            return self.argument(first, node)
        if name in COPIES:
            return self._copied(node, self.argument(first, node))
        if name in _MOVES or name in PERMUTES:
            return self._moved(node, name, a)
        if name in ("slice", "select", "narrow"):
            return self._sliced(node, name, a)
        if name == "repeat_interleave":
            return self._repeated(node, a)
        if name in ("cat", "concat", "diff", "cumsum"):
            return along(self, node, name, a)
        if name in ("triu", "tril"):
            return self._triangle(node, name, a)
        if name in ("embedding", "index", "index_select", "gather"):
            return self._looked_up(node, a)
        if not is_pointwise(node) and name not in POINTWISE:
            raise self.refused(node)
        if name in ("where", "masked_fill"):
            return self._chosen(node, name, a)
        if name in COMPARISONS:
            one, other = self.argument(first, node), self.argument(_second(a), node)
            if isinstance(one, Number) and isinstance(other, Number):
                return self.compared(node, name, one, other)
            for x, bound, op in ((one, other, name), (other, one, TURNED[name])):
                if isinstance(x, Distance) and isinstance(bound, Number) and bound.value() is not None:
                    far = float(COMPARISONS[op](1, 0))
                    return Regular(far, far, x.beyond(bound.low))
        return self.computed(node, name, a)

    def _arange(self, node: fx.Node, a: Dict[str, Any]) -> Known:
        if not self.axes(node):
            return Regular()  # of a fixed length, so no positions
        start, step = a.get("start", 0), a.get("step", 1)
        step = 1 if step is None else step
        begin = self.argument(0 if start is None else start, node)
        if not isinstance(begin, Number) or isinstance(step, fx.Node) or begin.rises or begin.low != begin.high:
            raise self.refused(node, "it counts from a number or by a step that is computed")
        dtype = node.meta["val"].dtype
        whole = float(step).is_integer() and begin.low.denominator == 1
        exact = whole and dtype not in (torch.float16, torch.bfloat16)
        return Number({-1: Fraction(int(step) if whole else step)}, begin.grow, begin.low, begin.high, exact=exact)

    def _copied(self, node: fx.Node, x: Known) -> Known:
        dtype = node.meta["val"].dtype
        source = next(each for each in node.all_input_nodes).meta["val"].dtype
        if isinstance(x, Regular):
            # As 0 or 1, or as a truth; an infinity stays one.
            if dtype == torch.bool:
                left, right = (None if far is None else float(far != 0) for far in (x.left, x.right))
                return Regular(left, right, x.reach)
            keeps = dtype.is_floating_point or not source.is_floating_point
            return x if keeps else Regular(None, None, x.reach)
        if dtype == torch.bool:
            return self.compared(node, "ne", x, Number({}))
        if source.is_floating_point and not dtype.is_floating_point:
            return self.rounded(node, x, "trunc")
        if dtype in (torch.float16, torch.bfloat16) and x.value() is None:
            return Number(x.rises, x.grow, x.low, x.high, x.cap, x.floor, exact=False)
        return x

    def _moved(self, node: fx.Node, name: str, a: Dict[str, Any]) -> Known:
        source = next(iter(a.values()))
        x = self.argument(source, node)
        before, after = self.axes(source), self.axes(node)
        if name in PERMUTES:
            rank = len(source.meta["val"].shape)
            order = order_of(name, a, rank)
            place = {axis: order.index(axis + rank) - rank for axis in before}
            swapped = [place[axis] for axis in before] != sorted(place[axis] for axis in before)
            if isinstance(x, Regular):
                return Regular(x.right, x.left, x.reach) if swapped else x
            return Number(
                {place[axis]: rise for axis, rise in x.rises.items()}, x.grow, x.low, x.high, x.cap, x.floor, x.exact
            )
        if name in ("expand", "broadcast_to"):
            return x  # counted from the last, axes stay where they are
        if len(before) != len(after) or any(
            self.line(source.meta["val"].shape[one]) != self.line(node.meta["val"].shape[other])
            or self.line(node.meta["val"].shape[other]) is None
            for one, other in zip(before, after, strict=True)
        ):
            raise self.refused(node, "it lays the entries of a mask out anew")
        if isinstance(x, Regular):
            return x
        to = dict(zip(before, after, strict=True))
        return Number(
            {to[axis]: rise for axis, rise in x.rises.items()}, x.grow, x.low, x.high, x.cap, x.floor, x.exact
        )

    def _sliced(self, node: fx.Node, name: str, a: Dict[str, Any]) -> Known:
        source = next(iter(a.values()))
        rank = len(source.meta["val"].shape)
        axis = int(a.get("dim") or 0) % rank - rank
        table = self._table(node)
        if table is not None:
            return table
        x = self.argument(source, node)
        before = self.axes(source)
        if name == "select":
            if axis in before:
                found = entry(x, axis, a.get("index"), True)
                if found is None:
                    raise self.refused(node, "it takes a single query or key by its position")
                return found
            if isinstance(x, Regular):
                return x
            rises = {at + 1 if at < axis else at: rise for at, rise in x.rises.items()}
            return Number(rises, x.grow, x.low, x.high, x.cap, x.floor, x.exact)
        start = a.get("start") or 0
        if axis not in before:
            if self.axes(node) != before:
                raise self.refused(node, "it cuts as much from a constant as the length says")
            return x
        if axis not in self.axes(node) and node.meta["val"].shape[axis] == 1 and a.get("step", 1) == 1:
            found = entry(x, axis, start, False)
            if found is not None:
                return found
        if a.get("step", 1) != 1 or not isinstance(start, int) or start < 0 or axis not in self.axes(node):
            raise self.refused(node, "where it cuts depends on the length of the signal")
        if start == 0:
            return x
        if isinstance(x, Regular):
            raise self.refused(node, "it crops a mask on the left")
        by = x.rises.get(axis, Fraction(0)) * start
        return Number(x.rises, x.grow, x.low + by, x.high + by, x.cap, x.floor, x.exact)

    def _table(self, node: fx.Node) -> Optional[Known]:
        """What a buffer gives that is cut to the length of the signal: a range of numbers, or a whole mask."""
        cut: Any = node
        while cut.op != "placeholder":
            a = arguments_of(cut)
            start_fits = (a.get("start") or 0) == 0 and a.get("step", 1) in (1, None)
            same = operation_name(cut) in ("alias", "detach", "lift_fresh_copy")
            if not same and not (operation_name(cut) == "slice" and start_fits):
                return None
            cut = next(iter(a.values()))
        tensor, axes = self.tensor(cut), self.axes(node)
        if tensor is None or not axes:
            return None
        lines = [self.line(node.meta["val"].shape[axis]) for axis in axes]
        if any(line != Line(Fraction(1), Fraction(0)) for line in lines):
            raise self.refused(node, "it cuts a buffer to another length than that of the mask")
        end = min(tensor.shape[axis] for axis in axes)
        self.limit = end if self.limit is None else min(self.limit, end)
        if len(axes) == 1:
            return range_of(tensor, axes[0])
        if len(axes) == 2 and axes == [-2, -1] and not isinstance(tensor, torch.nn.Parameter):
            period = period_of(tensor[..., :end, :end])
            if period is None:
                raise self.refused(node, "the buffer that it is cut from does not repeat itself along its diagonals")
            self.divisors.add(period)
            return Regular(None, None, end)
        return None

    def _repeated(self, node: fx.Node, a: Dict[str, Any]) -> Known:
        x, times = self.argument(next(iter(a.values())), node), a.get("repeats")
        source = next(iter(a.values()))
        rank = len(source.meta["val"].shape)
        if not isinstance(times, int) or not isinstance(x, Number) or x.clamped or not x.exact:
            raise self.refused(node, "it repeats entries as often as a tensor says")
        axis = -1 if rank == 1 and a.get("dim") is None else int(a.get("dim") or 0) % rank - rank
        if a.get("dim") is None and rank != 1:
            raise self.refused(node)
        rise = x.rises.get(axis, Fraction(0))
        self.divisors.add(times * self.period)  # whatever period its entries have, it is so much longer now
        last = rise * Fraction(times - 1, times)
        rises = {**x.rises, axis: rise / times}
        # At place p stands entry p // times.
        return Number(rises, x.grow, x.low - max(last, Fraction(0)), x.high - min(last, Fraction(0)))

    def _triangle(self, node: fx.Node, name: str, a: Dict[str, Any]) -> Known:
        x, diagonal = regular(self.argument(next(iter(a.values())), node)), a.get("diagonal") or 0
        if not isinstance(diagonal, int):
            raise self.refused(node, "its diagonal depends on the length of the signal")
        if x is None or self.axes(node) != [-2, -1]:
            raise self.refused(node)
        reach = max(x.reach, abs(diagonal) + 1)
        return Regular(0.0, x.right, reach) if name == "triu" else Regular(x.left, 0.0, reach)

    def _looked_up(self, node: fx.Node, a: Dict[str, Any]) -> Known:
        # A table without time, by indices that depend on the pattern alone.
        reach, found = 0, looked_up(self, node, a)
        if found is not None:
            return found
        for source in node.all_input_nodes:
            x = regular(self.of(source))
            if x is None:
                raise self.refused(node, "it looks up positions in a table that is no mask")
            reach = max(reach, x.reach)
        return Regular(None, None, reach)

    def _chosen(self, node: fx.Node, name: str, a: Dict[str, Any]) -> Known:
        things = list(a.values())
        things = [things[1], things[2], things[0]] if name == "masked_fill" else things
        found = [regular(self.argument(thing, node)) for thing in things]
        if any(each is None for each in found):
            raise self.refused(node, "it chooses between positions")
        where, yes, no = (each or Regular() for each in found)
        far = []
        for side in ("left", "right"):
            truth, one, other = (getattr(each, side) for each in (where, yes, no))
            far.append((one if truth else other) if truth is not None else one if one == other else None)
        return Regular(far[0], far[1], max(each.reach for each in (where, yes, no)))


def _second(a: Dict[str, Any]) -> Any:
    return list(a.values())[1]
