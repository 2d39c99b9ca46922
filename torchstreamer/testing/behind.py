"""A stream as it stands in a network, for the static step."""

from typing import List, Optional, Tuple

import torch
from torch import Tensor

from ..core.stream import BaseStream
from ..deploy.planning import Edge, Planner, static_rule
from ..deploy.rows import Part, Rows, like, over

__all__ = ["Behind"]


class Behind(BaseStream):
    """A stream as it stands in a network: what it gets comes later, and is arbitrary where there is no signal.

    Args:
        inner: the stream
        late: samples by which its input is late
        garbage: what stands outside of the signal
    """

    def __init__(self, inner: BaseStream, late: int, garbage: float) -> None:
        super().__init__()
        self.inner = inner
        self.late = late
        self.garbage = garbage
        self.hop, self.ratio = inner.hop, inner.ratio
        self.length_multiple = int(getattr(inner, "length_multiple", 1))

    def output_length(self, n: int, final: bool = True) -> int:
        return self.inner.output_length(n, final)

    def output_channels(self, channels: int) -> int:
        return self.inner.output_channels(channels)

    def anchor(self) -> Optional[Tensor]:
        return self.inner.anchor()


@static_rule(Behind)
def _behind(plan: Planner, stream: Behind, edge: Edge) -> Edge:
    edge = plan.delayed(edge, stream.late)
    return plan.lower(stream.inner, plan.add(Spoiled(stream.garbage, edge.lag, plan.key(edge)), [edge], edge.lag))


class Spoiled(Part):
    """A value with garbage where it is arbitrary: outside of its signal, and in rows that rest.

    Args:
        garbage: what stands there
        lag, key: of the value
    """

    def __init__(self, garbage: float, lag: int, key: int) -> None:
        super().__init__()
        self.garbage = garbage
        self.lag = lag
        self.key = key

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        (x,) = xs
        inside = over(rows.inside(x.size(2), self.lag, self.key), x) & like(rows.active, x)
        return torch.where(inside, x, torch.full_like(x, self.garbage)), []
