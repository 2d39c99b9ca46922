"""Products of two values of one sample, as of queries and keys."""

from typing import List, Optional, Tuple, Union

import torch
from torch import Tensor

from .arrays import SAMPLES, Array, Arrays
from .program import Fault, Operation, Program, Ref, Value
from .samplewise import Rows

__all__ = ["Pairs", "paired"]

# Which number of a sample the first factor is, and how far apart its neighbours stand, axis by axis.
_Place = Tuple[int, List[int]]


class Pairs(Operation):
    """Products of matrices, both of one sample.

    Args:
        program: all of the net
        x: rows of the first ones, ``[b, i, k]``, or where they stand among the weights; and where their numbers stand
        y: of the second ones, ``[b, k, j]``
        sizes: ``b, i, k, j``
        makes: the value, ``[b, i, j]``
    """

    def __init__(
        self,
        program: Program,
        x: Tuple[Union[Ref, int], _Place],
        y: Tuple[Union[Ref, int], _Place],
        sizes: Tuple[int, int, int, int],
        makes: Value,
    ) -> None:
        super().__init__([source for source, _ in (x, y) if isinstance(source, Ref)], makes)
        for ref in self.reads:
            ref.hold()
        self.program, self.x, self.y, self.sizes = program, x, y, sizes

    def text(self) -> List[str]:
        assert self.makes is not None
        b, i, k, j = self.sizes
        rows = []
        for source, (first, _) in (self.x, self.y):
            if isinstance(source, Ref):
                rows.append(f"{source.rows()} + i * {source.value.stride} + {first}")
            else:
                rows.append(f"weights + {source + first}")
        (xb, xi, xk), (yb, yk, yj) = self.x[1][1], self.y[1][1]
        numbers = ", ".join(map(str, [b, i, j, k, xb, xi, xk, yb, yj, yk]))
        to = f"r{self.makes.index} + i * {self.makes.stride}"
        return [
            f"for (int i = 0; i < {self.makes.count}; ++i)",
            f"  kernels::pairs<{numbers}>({rows[0]}, {rows[1]}, {to});",
        ]


def paired(arrays: Arrays, x: Union[Array, Tensor], y: Union[Array, Tensor]) -> Array:
    """A product of arrays ``[b, i, k]`` and ``[b, k, j]``, which stand in one sample; one of them may be weights."""
    if len(x.shape) != 3:
        raise Fault("a product of two values along time")
    (b, i, k), j = x.shape, y.shape[2]
    if b % SAMPLES:
        raise Fault("a product of two values along time")
    count = b // SAMPLES
    # The samples and what else there is may be merged into one axis, either first.
    for apart, time in (([SAMPLES, count], 0), ([count, SAMPLES], 1)):
        first, second = (_apart(each, apart) for each in (x, y))
        if all(_has_time(arrays, each, time) for each in (first, second)):
            break
    else:
        raise Fault("a product of two values along time")
    made = arrays.program.value(arrays.rate, count * i * j, arrays.note)
    factors = _placed(arrays, first, time), _placed(arrays, second, time)
    arrays.program.add(Pairs(arrays.program, *factors, (count, i, k, j), made))
    found = arrays.of(Ref(made), [*apart, i, j], time)
    return found.laid_out(lambda index: index.reshape(b, i, j))


def _apart(each: Union[Array, Tensor], apart: List[int]) -> Union[Array, Tensor]:
    shape = [*apart, *each.shape[1:]]
    return each.reshape(shape) if isinstance(each, Tensor) else each.laid_out(lambda index: index.reshape(shape))


def _has_time(arrays: Arrays, each: Union[Array, Tensor], axis: int) -> bool:
    if isinstance(each, Array):
        return arrays.has_time(each, axis)
    return torch.equal(each, each.narrow(axis, 0, 1).expand_as(each))


def _placed(arrays: Arrays, array: Union[Array, Tensor], time: int) -> Tuple[Union[Ref, int], _Place]:
    # Where the numbers of a sample stand; they are copied if they do not stand at even distances.
    if isinstance(array, Tensor):
        one = array.select(time, 0)
        place = _even(torch.arange(one.numel()).reshape(one.shape))
        assert place is not None
        return arrays.program.weights.add(one), place
    if isinstance(array.expression, Rows) and not array.truth:
        place = _even(array.index.movedim(time, 0)[0] % array.expression.size)
        if place is not None:
            return array.expression.ref, place
    ref, _ = arrays.ref(array)
    shape = array.index.movedim(time, 0).shape[1:]
    place = _even(torch.arange(shape.numel()).reshape(shape))
    assert place is not None
    return ref, place


def _even(numbers: Tensor) -> Optional[_Place]:
    first = int(numbers.flatten()[0])
    steps = []
    expected = torch.full_like(numbers, first)
    for axis, size in enumerate(numbers.shape):
        step = int(numbers.select(axis, 1).flatten()[0]) - first if size > 1 else 0
        shape = [-1 if at == axis else 1 for at in range(numbers.dim())]
        expected = expected + step * torch.arange(size).reshape(shape)
        steps.append(step)
    return (first, steps) if torch.equal(expected, numbers) else None
