"""The inputs and outputs of a static step: ``[B, C, T]``, or as a captured model has them."""

import math
from dataclasses import dataclass
from typing import Any, List, Sequence, Tuple

import torch
from torch import Tensor

from ..core.describe import describe, is_plain
from ..errors import StreamInputError, UnsupportedModuleError
from ..graph.several import PortedGraphStream
from .planning import Edge, Planner
from .rows import Part, Rows, like

__all__ = ["Given", "Result", "Source", "check_inputs", "common_multiple", "sources_of"]


@dataclass(frozen=True)
class Source:
    """An input.

    Attributes:
        name: of the argument
        shape: its sizes in a step
        dtype: its dtype
        time: its time axis, -1 for a static input
        rows: its batch axis
        rate: samples per sample of the first streamed input, a pair of integers
    """

    name: str
    shape: Tuple[int, ...]
    dtype: torch.dtype
    time: int = 2
    rows: int = 0
    rate: Tuple[int, int] = (1, 1)

    def zeros(self, device: torch.device) -> Tensor:
        """A step of nothing."""
        return torch.zeros(self.shape, dtype=self.dtype, device=device)

    def came(self, x: Tensor, brings: Tensor) -> Tensor:
        """The samples that rows bring, and 0 where they bring none, so that nothing inside meets what is no sample."""
        if self.time < 0:
            return x
        p, q = self.rate
        counts = brings if p == q else torch.div(brings * p, q, rounding_mode="floor")
        there = torch.arange(self.shape[self.time], device=x.device) < counts.unsqueeze(1)
        shape = [1] * len(self.shape)
        shape[self.rows], shape[self.time] = there.shape
        return torch.where((there if self.rows < self.time else there.t()).reshape(shape), x, torch.zeros_like(x))


@dataclass(frozen=True)
class Result:
    """An output.

    Attributes:
        slot: where it stands in the step
        shape: its sizes in a step
        dtype: its dtype
        time: its time axis
        rows: its batch axis
        lag: samples by which it lags behind
        key: under which the step finds its length
    """

    slot: int
    shape: Tuple[int, ...]
    dtype: torch.dtype
    time: int
    rows: int
    lag: int
    key: int

    @staticmethod
    def of(plan: Planner, edge: Edge) -> "Result":
        """The output that a value is."""
        shape, dtype = tuple(edge.example.shape), edge.example.dtype
        return Result(edge.slot, shape, dtype, edge.time, edge.rows, edge.lag, plan.key(edge))

    @property
    def per_step(self) -> int:
        """Samples in a step."""
        return self.shape[self.time]


class Given(Part):
    """A static input, which a row brings with the first step of its signal.

    Args:
        axis: its batch axis
    """

    def __init__(self, axis: int) -> None:
        super().__init__()
        self.axis = axis

    def empty(self, xs: List[Tensor]) -> List[Tensor]:
        return [torch.zeros_like(xs[0].movedim(self.axis, 0)).contiguous()]

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        x = xs[0].movedim(self.axis, 0)
        kept = torch.where(like(rows.first, x), x, states[0])
        return kept.movedim(0, self.axis), [kept]


def sources_of(stream: PortedGraphStream, chunk: int, batch: int) -> List[Source]:
    """The inputs of a captured model in a step.

    Raises:
        UnsupportedModuleError: ``fixed_batch``, ``unequal_steps``
    """
    found = []
    ports: Any = stream.ports
    for port in ports:
        if port.rows < 0:
            shared = port.static and any(each.rows >= 0 for each in ports)
            raise UnsupportedModuleError(
                "shared_by_rows" if shared else "fixed_batch",
                stream,
                f"in a static step: its input '{port.name}' has no axis of rows, which are of different age here",
                "give the model an example with an axis of rows, or use the stream itself",
            )
        shape = list(port.shape)
        shape[port.rows] = batch
        if not port.static:
            if port.c != 0:
                raise UnsupportedModuleError(
                    "unequal_steps",
                    stream,
                    f"in a static step: its input '{port.name}' is longer or shorter than the first by a constant, so "
                    "no step has as many samples of both",
                    "pad or crop it in the model, or use the stream itself",
                )
            shape[port.time] = chunk * port.p // port.q
        found.append(Source(port.name, tuple(shape), port.like.dtype, port.time, port.rows, (port.p, port.q)))
    return found


def common_multiple(sources: Sequence[Source], multiple: int) -> int:
    """What total lengths of the first streamed input are multiples of."""
    return math.lcm(multiple, *(source.rate[1] for source in sources if source.time >= 0))


def check_inputs(given: Any, sources: Sequence[Source], device: torch.device) -> List[Tensor]:
    """The inputs of a call of a step, in a list.

    Raises:
        StreamInputError: their number, a shape, a dtype or a device is another
    """
    inputs: List[Any] = (
        [given] if isinstance(given, Tensor) else list(given) if isinstance(given, (tuple, list)) else []
    )
    if len(inputs) != len(sources):
        came = f"{len(inputs)} inputs" if isinstance(given, (Tensor, tuple, list)) else f"a {type(given).__name__}"
        raise StreamInputError(
            f"invalid_chunk: {came} came; a tuple of {len(sources)} tensors was expected, "
            f"{', '.join(source.name for source in sources)}; pass a tensor for every input, at every call"
        )
    for x, source in zip(inputs, sources, strict=True):
        good = isinstance(x, Tensor) and is_plain(x)
        if not (good and tuple(x.shape) == source.shape and x.dtype == source.dtype and x.device == device):
            came = describe(x) if isinstance(x, Tensor) else f"a {type(x).__name__}"
            raise StreamInputError(
                f"invalid_chunk: for '{source.name}' {came} came; {list(source.shape)}, {source.dtype}, on "
                f"{device} was expected; fill rows that bring less with anything"
            )
    return inputs
