"""Models of one function each, their inputs, and the lengths for which they are tried."""

import copy
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Optional, Sequence

import torch
from feeding import (
    Input,
    T,
    check_lengths,
    chunks_of,
    compare,
    create_arguments,
    even_cuts,
    feed,
    joined,
    offline,
    random_cuts,
    real,
    time_axes,
    whole,
)
from torch import nn

import torchstreamer as pts

SIGNAL = real(2, 4, T)


class Model(nn.Module):
    """A function of itself and its inputs, with parameters, buffers and modules."""

    def __init__(self, function: Callable[..., Any], parts: Dict[str, Any]) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            part = copy.deepcopy(part)
            if isinstance(part, (nn.Module, nn.Parameter)) or not isinstance(part, torch.Tensor):
                setattr(self, name, part)
            else:
                self.register_buffer(name, part)
        generator = torch.Generator().manual_seed(1)
        for p in self.parameters():
            p.data = torch.randn(p.shape, generator=generator, dtype=torch.float64) * 0.5

    def forward(self, *xs: Any) -> Any:
        return self.function(self, *xs)


@dataclass
class Case:
    """A model, its inputs, the lengths for which it is tried, and what it takes."""

    function: Callable[..., Any]
    inputs: Sequence[Input] = (SIGNAL,)
    parts: Dict[str, Any] = field(default_factory=dict)
    length: int = 36
    multiple: int = 1
    lengths: Optional[Sequence[int]] = None

    def model(self) -> Model:
        return Model(self.function, self.parts).eval()

    def tried(self) -> Sequence[int]:
        """The example's, shorter ones than most windows, and two others."""
        if self.lengths is not None:
            return self.lengths
        return [n * self.multiple for n in (1, 2, 3, 5, 8, -(-self.length // self.multiple), 31, 53)]


def case(
    function: Callable[..., Any], *inputs: Input, length: int = 36, multiple: int = 1, lengths: Any = None, **parts: Any
) -> Case:
    return Case(function, inputs or (SIGNAL,), parts, length, multiple, lengths)


def param(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape, dtype=torch.float64))


def check(case: Case) -> None:
    """Stream signals of all lengths in pieces of several sizes, and compare with the model on the whole."""
    model = case.model().double()
    stream = pts.create_stream(model, **create_arguments(case.inputs, case.length), length_multiple=case.multiple)
    axes = time_axes(model, case.inputs, case.length, 24 * case.multiple)
    for n in case.tried():
        xs = whole(case.inputs, n, seed=n)
        expected = offline(model, xs)
        for size in (1, 3, 7, 13, n):
            calls = chunks_of(xs, case.inputs, even_cuts(xs, case.inputs, size))
            kept = [x.clone() for x in xs]
            with torch.no_grad():
                pieces = feed(stream, calls)
            compare(joined(pieces, axes), expected, axes)
            check_lengths(stream, pieces, calls, case.inputs, axes)
            assert all(torch.equal(x, y) for x, y in zip(xs, kept, strict=True))
        with torch.no_grad():
            pieces = feed(stream, chunks_of(xs, case.inputs, random_cuts(xs, case.inputs, seed=n)))
        compare(joined(pieces, axes), expected, axes)
