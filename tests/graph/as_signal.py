"""Any model as one of a single signal: [B, C, T] to [B, D, T']."""

import math
from typing import Any, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn


class AsSignal(nn.Module):
    """Lays all inputs of a model in the channels of one signal, and all but time of its output too.

    An input of a higher rate comes in frames, one behind the other in the channels. A static input is a constant.

    Args:
        model: the model
        inputs: an example of each input
        times: the time axis of each, ``None`` for a static one
        output_time: the time axis of the output
    """

    def __init__(
        self, model: nn.Module, inputs: Sequence[Tensor], times: Sequence[Optional[int]], output_time: int = -1
    ) -> None:
        super().__init__()
        self.model = model
        self.output_time = output_time
        self.times = [None if time is None else time % x.dim() for x, time in zip(inputs, times, strict=True)]
        streamed = [(x, time) for x, time in zip(inputs, self.times, strict=True) if time is not None]
        base = min(x.shape[time] for x, time in streamed)
        self.rates = [x.shape[time] // base for x, time in streamed]
        self.others = [[size for axis, size in enumerate(x.shape) if axis not in (0, time)] for x, time in streamed]
        self.counts = [rate * math.prod(other) for rate, other in zip(self.rates, self.others, strict=True)]
        for i, (x, time) in enumerate(zip(inputs, self.times, strict=True)):
            if time is None:
                self.register_buffer(f"static{i}", x[:1].clone())

    def forward(self, x: Tensor) -> Tensor:
        inputs: List[Any] = []
        parts = iter(zip(x.split(self.counts, dim=1), self.rates, self.others, strict=True))
        for i, time in enumerate(self.times):
            if time is None:
                static = getattr(self, f"static{i}")
                inputs.append(static.expand(x.shape[0], *static.shape[1:]))
                continue
            part, rate, others = next(parts)
            if rate > 1:
                part = part.unflatten(1, (rate, -1)).permute(0, 2, 3, 1).flatten(2)
            if len(others) != 1:
                part = part.unflatten(1, others) if others else part.squeeze(1)
            inputs.append(part.movedim(-1, time))
        y = self.model(*inputs).movedim(self.output_time, -1)
        return y if y.dim() == 3 else y.flatten(1, -2)


def times_of(entry: Any) -> Tuple[Optional[int], ...]:
    """The time axis of each input of an entry of the zoo."""
    return entry.time_dim if isinstance(entry.time_dim, tuple) else (entry.time_dim,)


def as_signal(entry: Any) -> Tuple[nn.Module, Tuple[int, ...], int]:
    """The entry's model as one of a single signal, the shape of an example, and what lengths are multiples of."""
    model, examples = entry.make(), entry.inputs()
    with torch.no_grad():
        y = model(*examples)
    if len(examples) == 1 and examples[0].dim() == y.dim() == 3 and entry.output_time_dim == -1:
        return model, (2, *examples[0].shape[1:]), entry.length_multiple
    model = AsSignal(model, examples, times_of(entry), entry.output_time_dim)
    length = examples[0].shape[times_of(entry)[0]] // model.rates[0]
    return model, (2, sum(model.counts), length), max(entry.length_multiple // model.rates[0], 1)
