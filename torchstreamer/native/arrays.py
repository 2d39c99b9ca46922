"""Arrays of a recorded graph that hold samples, as expressions: which number of which sample stands where."""

import math
from typing import Any, Callable, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from .program import Fault, Program, Ref
from .samplewise import Apply, Constant, Expression, Loop, Number, Reduction, Rows

__all__ = ["SAMPLES", "Array", "Arrays"]

# Samples for which a graph is recorded. Axes are told apart by the places of samples, not by sizes.
SAMPLES = 5


class Array:
    """Numbers of samples.

    Args:
        expression: what they are
        index: for each entry ``sample * expression.size + number``
        truth: whether they are truth values
        whole: whether they are whole numbers, rounded as a cast rounds them, with which nothing is computed
    """

    def __init__(self, expression: Expression, index: Tensor, truth: bool = False, whole: bool = False) -> None:
        self.expression = expression
        self.index = index
        self.truth = truth
        self.whole = whole
        self.uses = 1

    @property
    def shape(self) -> torch.Size:
        """Of the recorded tensor."""
        return self.index.shape

    def laid_out(self, change: Callable[[Tensor], Tensor]) -> "Array":
        """The same numbers in another order."""
        return Array(self.expression, change(self.index), self.truth, self.whole)


class Arrays:
    """Makes arrays of arrays.

    Args:
        program: where the operations go
        rate: samples in each hop
        note: what the values are called
    """

    def __init__(self, program: Program, rate: int, note: str) -> None:
        self.program = program
        self.rate = rate
        self.note = note

    def of(self, ref: Ref, shape: Sequence[int], time: int) -> Array:
        """The array that a value is.

        Args:
            ref: the value
            shape: of the tensor, with any number of samples
            time: its time axis
        """
        others = [size for axis, size in enumerate(shape) if axis != time]
        if math.prod(others) != ref.value.width:
            raise Fault("a value of other axes than its rows hold")
        numbers = torch.arange(ref.value.width).reshape(others).unsqueeze(time)
        samples = torch.arange(SAMPLES).reshape([-1 if axis == time else 1 for axis in range(len(shape))])
        return Array(Rows(ref), samples * ref.value.width + numbers)

    def ref(self, array: Union[Array, Tensor], time: Optional[int] = None) -> Tuple[Ref, int]:
        """The value that an array is, which is computed if need be; and its time axis."""
        if isinstance(array, Tensor):
            raise Fault("an output that is the same for all samples")
        axis, (wanted,) = self._maps([array], array.shape)
        own = array.expression
        if isinstance(own, Rows) and own.size == wanted.numel() and torch.equal(wanted, torch.arange(own.size)):
            return own.ref, axis
        value = self.program.value(self.rate, wanted.numel(), self.note)
        expression: Expression = Apply("{0}", [(own, wanted)], wanted.numel())
        if torch.equal(wanted, torch.arange(own.size)):
            expression = own
        if array.truth:
            expression = _numbers(expression)
        self.program.add(Loop(self.program, expression, value))
        return Ref(value), axis

    def time_of(self, array: Array) -> int:
        """The time axis of an array."""
        return self._maps([array], array.shape)[0]

    def has_time(self, array: Array, axis: int) -> bool:
        """Whether an axis of an array is time, and no other is."""
        try:
            return self.time_of(array) == axis
        except Fault:
            return False

    def constant(self, values: Tensor) -> Ref:
        """A value of constants, ``[numbers]``."""
        expression, wanted = self._constant(values.expand(SAMPLES, -1), [SAMPLES, values.numel()], 0)
        value = self.program.value(self.rate, values.numel(), self.note)
        self.program.add(Loop(self.program, Apply("{0}", [(expression, wanted)], values.numel()), value))
        return Ref(value)

    def stored(self, array: Array) -> Array:
        """The same array, of a value that is computed already."""
        if isinstance(array.expression, Rows):
            return array
        shape = array.shape
        ref, time = self.ref(array)
        made = self.of(ref, shape, time)
        if array.truth:
            truth = Apply("({0} != V{{}})", [(made.expression, torch.arange(ref.value.width))], ref.value.width)
            return Array(truth, made.index, True)
        return made

    def applied(self, template: str, *arguments: Any, truth: bool = False) -> Array:
        """A function of arrays, constants and numbers, entry by entry."""
        shapes = [each.shape for each in arguments if isinstance(each, (Array, Tensor))]
        shape = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
        time, maps = self._maps([each for each in arguments if isinstance(each, Array)], shape)
        size = maps[0].numel()
        found, streamed = [], iter(maps)
        for each in arguments:
            if isinstance(each, Array):
                found.append((each.expression, next(streamed)))
            elif isinstance(each, Tensor):
                found.append(self._constant(each, shape, time))
            else:
                found.append((Number(float(each)), torch.zeros(size, dtype=torch.int64)))
        return self._array(Apply(template, found, size), shape, time, truth)

    def reduced(self, kind: str, array: Array, axes: Sequence[int], keep: bool) -> Array:
        """Sums or extremes along axes."""
        array = self.stored(array)
        rank = len(array.shape)
        axes = sorted(axis % rank for axis in axes) or list(range(rank))
        time, _ = self._maps([array], array.shape)
        if time in axes:
            raise Fault("a reduction over samples")
        others = [axis for axis in range(rank) if axis not in axes and axis != time]
        index = array.index.permute([time, *others, *axes])
        outs = [array.shape[axis] for axis in others]
        numbers = index[0].reshape(_count(outs), -1) % array.expression.size
        value = self.program.value(self.rate, _count(outs), self.note)
        self.program.add(Reduction(self.program, kind, array.expression, numbers, value))
        shape = [1 if axis in axes else size for axis, size in enumerate(array.shape)]
        made = self.of(Ref(value), shape, time)
        if keep:
            return made
        return made.laid_out(lambda index: index.reshape([s for axis, s in enumerate(shape) if axis not in axes]))

    def joined(self, arrays: Sequence[Union[Array, Tensor]], axis: int) -> Array:
        """Arrays side by side."""
        shape = torch.cat([torch.empty(each.shape, device="meta") for each in arrays], axis).shape
        axis %= len(shape)
        time = self._maps([each for each in arrays if isinstance(each, Array)][:1], None)[0]
        if axis == time:
            raise Fault("samples joined along time")
        sizes = [each.shape[axis] for each in arrays]
        width = _count([size for at, size in enumerate(shape) if at != time])
        value = self.program.value(self.rate, width, self.note)
        made = self.of(Ref(value), shape, time)
        for piece, each in zip(torch.split(made.index, sizes, axis), arrays, strict=True):
            places = piece.movedim(time, 0)[0].reshape(-1) % width
            if isinstance(each, Array):
                own, (wanted,) = self._maps([each], each.shape)
                if own != time:
                    raise Fault("samples of unlike axes joined")
                expression: Expression = _numbers(each.expression) if each.truth else each.expression
            else:
                expression, wanted = self._constant(each, each.shape, time)
            for start, stop in _runs(places):
                first = int(places[start])
                self.program.add(Loop(self.program, expression, value, wanted[start:stop], first))
        return made

    def kept(self, array: Array, axis_of_time: int) -> Tuple[Ref, int]:
        """The value of which an array's numbers are neighbours, and which of them is the first."""
        _, (wanted,) = self._maps([array], array.shape)
        own, first = array.expression, int(wanted[0])
        if isinstance(own, Rows) and torch.equal(wanted, torch.arange(first, first + wanted.numel())):
            return own.ref, first
        return self.ref(array)[0], 0

    # ------------------------------------------------------------------ inside

    def _array(self, expression: Expression, shape: Sequence[int], time: int, truth: bool) -> Array:
        others = [size for axis, size in enumerate(shape) if axis != time]
        numbers = torch.arange(expression.size).reshape(others).unsqueeze(time)
        samples = torch.arange(SAMPLES).reshape([-1 if axis == time else 1 for axis in range(len(shape))])
        return Array(expression, samples * expression.size + numbers, truth)

    def _constant(self, values: Tensor, shape: Sequence[int], time: int) -> Tuple[Expression, Tensor]:
        spread = values.expand(shape).movedim(time, 0).reshape(shape[time], -1)
        if not torch.equal(spread, spread[:1].expand_as(spread)) and not bool(spread.isnan().any()):
            raise Fault("constants that change from sample to sample")
        flat = spread[0]
        if flat.numel() == 1 or bool((flat == flat[0]).all()):
            return Number(float(flat[0])), torch.zeros(spread.size(1), dtype=torch.int64)
        return Constant(flat, self.program.weights.add(flat.to(torch.float64))), torch.arange(flat.numel())

    def _maps(self, arrays: Sequence[Array], shape: Optional[Sequence[int]]) -> Tuple[int, List[Tensor]]:
        # The time axis of arrays spread over a shape, and which numbers of theirs each number of a sample is.
        found: Optional[int] = None
        maps = []
        for array in arrays:
            index = array.index if shape is None else array.index.expand(shape)
            size = array.expression.size
            sample = index.div(size, rounding_mode="floor")
            axes = [
                axis
                for axis, count in enumerate(index.shape)
                if count == SAMPLES
                and torch.equal(
                    sample,
                    torch.arange(SAMPLES)
                    .reshape([-1 if at == axis else 1 for at in range(index.dim())])
                    .expand_as(sample),
                )
            ]
            if len(axes) != 1 or found not in (None, axes[0]):
                raise Fault("an axis that holds time and something else")
            found = axes[0]
            numbers = index.movedim(found, 0).reshape(SAMPLES, -1) % size
            if not torch.equal(numbers, numbers[:1].expand_as(numbers)):
                raise Fault("numbers that change their places from sample to sample")
            maps.append(numbers[0])
        assert found is not None
        return found, maps


def _numbers(truth: Expression) -> Expression:
    # Truth values as numbers.
    return Apply("({0} ? splat<V>(real(1)) : V{{}})", [(truth, torch.arange(truth.size))], truth.size)


def _count(sizes: Sequence[int]) -> int:
    count = 1
    for size in sizes:
        count *= size
    return count


def _runs(places: Tensor) -> List[Tuple[int, int]]:
    # Stretches of neighbours.
    cuts = (places[1:] != places[:-1] + 1).nonzero().flatten() + 1
    edges = [0, *cuts.tolist(), places.numel()]
    return [(start, stop) for start, stop in zip(edges[:-1], edges[1:], strict=True) if stop > start]
