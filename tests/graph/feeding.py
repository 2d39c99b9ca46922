"""Feed a stream of any number of inputs and outputs in pieces, and compare with the model on the whole."""

import random
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

T = -1  # stands for time in the shape of an input


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@dataclass(frozen=True)
class Input:
    """One input of a model.

    `shape`: with `T` where time stands; without one it is a static input.
    `rate`: its samples per sample of the first input.
    `draw`: gives its values from normal random ones.
    """

    shape: Tuple[int, ...]
    rate: Fraction = Fraction(1)
    draw: Callable[[Tensor], Tensor] = torch.clone

    @property
    def time(self) -> Optional[int]:
        return self.shape.index(T) if T in self.shape else None

    def make(self, length: int, seed: int = 0) -> Tensor:
        return self.draw(normal(*(int(length * self.rate) if size == T else size for size in self.shape), seed=seed))


def real(*shape: int, **fields: Any) -> Input:
    return Input(shape, **fields)


def tokens(count: int, *shape: int, **fields: Any) -> Input:
    return Input(shape, draw=lambda x: (4 * x.abs()).long().clamp(max=count - 1), **fields)


def time_axes(model: Any, inputs: Sequence[Input], length: int, more: int) -> List[int]:
    """The time axis of every output."""
    with torch.no_grad():
        short, long = ([*map(clone, leaves(model(*whole(inputs, n))))] for n in (length, length + more))
    return [
        -1 if y is None else next(axis for axis in range(y.dim()) if y.shape[axis] != z.shape[axis])
        for y, z in zip(short, long, strict=True)
    ]


def whole(inputs: Sequence[Input], length: int, seed: int = 0) -> List[Tensor]:
    return [each.make(length, seed + i) for i, each in enumerate(inputs)]


def clone(y: Optional[Tensor]) -> Optional[Tensor]:
    return None if y is None else y.clone()


def leaves(ys: Any) -> List[Any]:
    return pytree.tree_leaves(ys)


def offline(model: Any, xs: Sequence[Tensor]) -> Any:
    """What the model gives on the whole; ``None`` where it raises."""
    with torch.no_grad():
        try:
            return model(*(x.clone() for x in xs))
        except (RuntimeError, IndexError, ValueError):  # too short
            return None


def even_cuts(xs: Sequence[Tensor], inputs: Sequence[Input], size: int) -> List[List[int]]:
    """Every input in steps of ``size`` samples of the first one."""
    first = next(x.shape[each.time] for x, each in zip(xs, inputs, strict=True) if each.time is not None)
    ends = [*range(size, first, size), first]
    return [[int(end * each.rate) for each in inputs] for end in ends]


def random_cuts(xs: Sequence[Tensor], inputs: Sequence[Input], seed: int) -> List[List[int]]:
    """Every input at its own pace: often nothing, now and then much."""
    draw = random.Random(seed)
    at = [0 for _ in inputs]
    ends = [0 if each.time is None else x.shape[each.time] for x, each in zip(xs, inputs, strict=True)]
    cuts = []
    while at != ends:
        sizes = [draw.choice([0, 0, 1, 2, draw.randint(1, 9), draw.randint(1, 60)]) for _ in inputs]
        at = [min(a + size, end) for a, size, end in zip(at, sizes, ends, strict=True)]
        cuts.append(at)
    return cuts or [at]


def chunks_of(xs: Sequence[Tensor], inputs: Sequence[Input], cuts: Sequence[Sequence[int]]) -> List[List[Any]]:
    """The chunks of every call. A static input comes with the first; ``None`` stands for nothing new, half of the
    times."""
    calls, before = [], [0 for _ in inputs]
    for k, after in enumerate(cuts):
        call: List[Any] = []
        for x, each, start, stop in zip(xs, inputs, before, after, strict=True):
            if each.time is None:
                call.append(x if k == 0 else None)
            elif start == stop and k % 2:
                call.append(None)
            else:
                call.append(x.narrow(each.time, start, stop - start))
        calls.append(call)
        before = list(after)
    return calls


def feed(stream: Any, calls: Sequence[Sequence[Any]], final: bool = True) -> List[List[Optional[Tensor]]]:
    """What comes out of every call, the outputs in a list."""
    found = []
    for k, call in enumerate(calls):
        found.append(leaves(stream(*call, final=final and k == len(calls) - 1)))
    return found


def joined(pieces: Sequence[Sequence[Optional[Tensor]]], axes: Sequence[int]) -> List[Optional[Tensor]]:
    """All that came out of each output; ``None`` where nothing did."""
    ys: List[Optional[Tensor]] = []
    for i, axis in enumerate(axes):
        parts = [call[i] for call in pieces if call[i] is not None]
        assert all(part.shape[axis] > 0 for part in parts)
        ys.append(torch.cat(parts, axis) if parts else None)
    return ys


TOLERANCES = {torch.float32: 1e-5, torch.complex64: 1e-5, torch.float16: 5e-3, torch.bfloat16: 2e-2}


def compare(found: Sequence[Optional[Tensor]], expected: Any, axes: Sequence[int]) -> None:
    wanted = [None] * len(axes) if expected is None else leaves(expected)
    for y, z, axis in zip(found, wanted, axes, strict=True):
        if z is None or z.shape[axis] == 0:
            assert y is None, f"{tuple(y.shape)} came where the model gives nothing"
            continue
        assert y is not None, f"nothing came; the model gives {tuple(z.shape)}"
        assert y.shape == z.shape and y.dtype == z.dtype, f"{y.shape}, {y.dtype}; the model {z.shape}, {z.dtype}"
        if not z.dtype.is_floating_point and not z.dtype.is_complex:
            assert torch.equal(y, z)
            continue
        error = torch.where(y == z, 0.0, (y - z).abs()).double()
        tolerance = TOLERANCES.get(z.dtype, 1e-10)
        scale = max(float(torch.where(z.isfinite(), z.abs().double(), 0.0).max()), 1e-3)
        assert float(error.max()) <= tolerance * scale, f"{float(error.max()):.3g} off; scale {scale:.3g}"


def check_lengths(stream: Any, pieces: Sequence[Any], calls: Sequence[Any], inputs: Sequence[Input], axes: Any) -> None:
    """After every call as many samples are out as `output_length` says, if the inputs come in step."""
    first = next(i for i, each in enumerate(inputs) if each.time is not None)
    came, out = 0, [0 for _ in axes]
    for k, (call, ys) in enumerate(zip(calls, pieces, strict=True)):
        came += 0 if call[first] is None else call[first].shape[inputs[first].time]
        out = [n + (0 if y is None else y.shape[axis]) for n, y, axis in zip(out, ys, axes, strict=True)]
        foretold = leaves(stream.output_length(came, k == len(calls) - 1))
        assert out == foretold, f"{out} out after {came} samples, call {k} of {len(calls)}; foretold {foretold}"


def create_arguments(inputs: Sequence[Input], length: int) -> Dict[str, Any]:
    """``example`` and ``time_dim`` for `create_stream`."""
    xs = whole(inputs, length, seed=99)
    if len(inputs) == 1:
        return {"example": xs[0], "time_dim": inputs[0].time}
    return {"example": tuple(xs), "time_dim": tuple(each.time for each in inputs)}
