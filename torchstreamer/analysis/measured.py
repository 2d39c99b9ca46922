"""Receptive fields by experiment."""

import math
from fractions import Fraction
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .dependencies import infer_dependency_matrix
from .grouping import hulls
from .phases import Period, Phase, relative
from .probed import as_function

__all__ = ["Measured", "measured_phases"]

_LONGEST = 1024
_ROUNDS = 8  # random signals, while anything is undecided: units that are off in one are on in another
_PERIODS = 64  # periods that are tried, in multiples of length_multiple


class Measured:
    """A model as a function of one of its inputs, at any length.

    Args:
        model: the model, or a stream
        examples: all inputs
        times: the axis of time of each, ``None`` for a static one
        output_time_dim: that of the outputs
        input: which input, counted among those with time
        output: which output
    """

    def __init__(
        self,
        model: Callable[..., Any],
        examples: Sequence[Tensor],
        times: Sequence[Optional[int]],
        output_time_dim: int,
        input: int,
        output: int,
    ) -> None:
        streamed = [i for i, time in enumerate(times) if time is not None]
        if not 0 <= input < len(streamed):
            raise ValueError(
                f"invalid_input: input {input} came; the model has {len(streamed)} with an axis of time; a number "
                "below that was expected"
            )
        self.model = as_function(model)
        self.examples = list(examples)
        self.times = list(times)
        self.first, self.place = streamed[0], streamed[input]
        self.output = output
        self.output_time_dim = output_time_dim

    @property
    def length(self) -> int:
        """Samples of the first input in the example."""
        return self.examples[self.first].shape[self._time(self.first)]

    def samples(self, i: int, n: int) -> int:
        """Samples of an input for ``n`` of the first one."""
        return n * self.examples[i].shape[self._time(i)] // self.length

    def inputs(self, n: int) -> List[Tensor]:
        """All inputs, random, for ``n`` samples of the first one."""
        generator = torch.Generator().manual_seed(n)
        found: List[Tensor] = []
        for i, (x, time) in enumerate(zip(self.examples, self.times, strict=True)):
            if time is None:
                found.append(x)
                continue
            shape = list(x.shape)
            shape[time] = self.samples(i, n)
            if x.is_floating_point():
                # Of both signs where the example is.
                draw = torch.randn if bool((x < 0).any()) else torch.rand
                found.append(draw(shape, generator=generator, dtype=torch.float64).to(x))
            else:  # tokens that occur in the example
                picked = torch.randint(x.numel(), shape, generator=generator)
                found.append(x.flatten()[picked.to(x.device)])
        return found

    def run(self, inputs: Sequence[Tensor]) -> Tensor:
        """The output for whole inputs."""
        result = self.model(*inputs)
        leaves = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
        if not 0 <= self.output < len(leaves):
            raise ValueError(
                f"invalid_output: output {self.output} came; the model gives {len(leaves)} tensors for this length; a "
                "number below that was expected"
            )
        return leaves[self.output]

    def outputs(self, n: int) -> int:
        """Samples out for ``n`` samples of the first input; 0 where the model refuses that."""
        try:
            with torch.no_grad():
                return self.run(self.inputs(n)).shape[self.output_time_dim]
        except Warning:
            raise
        except Exception:  # too short
            return 0

    def bounds(self, n: int) -> Tuple[Tensor, Tensor]:
        """Lower and upper bound of the dependency matrix for ``n`` samples of the first input."""
        inputs = self.inputs(n)
        x = inputs[self.place]
        tokens = 0 if x.is_floating_point() else max(int(self.examples[self.place].max()) + 1, 2)

        def model(probes: Tensor) -> Tensor:
            count = probes.shape[0] // x.shape[0]
            given = [
                probes if i == self.place else _repeated(other, count, x.shape[0]) for i, other in enumerate(inputs)
            ]
            return self.run(given)

        lower, upper = infer_dependency_matrix(
            model,
            x.shape,
            time_dim=self._time(self.place),
            output_time_dim=self.output_time_dim,
            bounds=True,
            tokens=tokens,
            rounds=_ROUNDS,
            dtype=x.dtype,
            device=x.device,
        )
        return lower, upper

    def _time(self, i: int) -> int:
        time = self.times[i]
        assert time is not None
        return time


def _repeated(x: Tensor, count: int, rows: int) -> Tensor:
    if x.dim() == 0 or x.shape[0] != rows:
        return x
    return x.repeat(count, *[1] * (x.dim() - 1))


def measured_phases(
    model: Callable[..., Any],
    examples: Sequence[Tensor],
    times: Sequence[Optional[int]],
    output_time_dim: int,
    multiple: int,
    input: int,
    output: int,
    longest: Optional[int],
) -> Tuple[Period, Tuple[Phase, ...], bool]:
    """Period and phases of a receptive field as measured, and whether all ways of measuring agree."""
    found = Measured(model, examples, times, output_time_dim, input, output)
    n = -(-found.length // multiple) * multiple
    longest = max(longest or max(_LONGEST, 4 * n), n)
    while True:
        lower, upper = found.bounds(n)
        last = 2 * n > longest
        for matrix in (upper, lower):
            fit = _fit(found, matrix, n, multiple, last)
            if fit is not None:
                period = fit
                shown = _widest(lower, period)
                return period, tuple(shown), shown == _widest(upper, period)
        if last:
            raise ValueError(
                f"no_period: in signals of {n} samples what an output depends on does not repeat; a model that treats "
                "the middle of a signal alike was expected; pass a longer example, or look at "
                "infer_dependency_matrix"
            )
        n *= 2


def _fit(found: Measured, matrix: Tensor, n: int, multiple: int, last: bool) -> Optional[Period]:
    ins, outs = matrix.shape
    first, final = hulls(matrix.T)
    middle = range(outs // 3, outs - outs // 3)
    seen = [i for i in middle if final[i] >= first[i]]
    touches = any(first[i] <= 0 or final[i] >= ins - 1 for i in seen)
    if touches and not last:
        return None
    for turns in range(1, _PERIODS + 1):
        hop = turns * multiple
        up, more = found.outputs(n + hop) - outs, found.outputs(n + 2 * hop) - outs
        inputs = Fraction(found.samples(found.place, n), n) * hop
        if up <= 0 or more != 2 * up or inputs.denominator > 1:
            continue
        if 2 * up > len(middle):
            break
        period = (int(inputs), up)
        if _repeats(matrix, period):
            return period
    return None


def _open(matrix: Tensor, period: Period) -> List[Tuple[int, Phase]]:
    """Every output of the middle with its field, ``inf`` where it begins or ends with the signal."""
    ins, outs = matrix.shape
    first, last = hulls(matrix.T)
    begin, end = outs // 3, outs - outs // 3
    low, high = first[begin:end].tolist(), last[begin:end].tolist()
    found: List[Tuple[int, Phase]] = []
    for i, phase in enumerate(relative(low, high, begin, period)):
        if phase is not None:
            left = math.inf if low[i] == 0 else phase[0]
            right = math.inf if high[i] == ins - 1 else phase[1]
            phase = (left, right)
        found.append(((begin + i) % period[1], phase))
    return found


def _repeats(matrix: Tensor, period: Period) -> bool:
    phases: Dict[int, Phase] = {}
    return all(phases.setdefault(i, phase) == phase for i, phase in _open(matrix, period))


def _widest(matrix: Tensor, period: Period) -> List[Phase]:
    phases: List[Phase] = [None] * period[1]
    for i, phase in _open(matrix, period):
        known = phases[i]
        if phase is not None:
            phases[i] = phase if known is None else (max(known[0], phase[0]), max(known[1], phase[1]))
    return phases
