"""How recurrences run in a static step.

At lag ``d``, with ``m`` samples per step, a row's first sample stands at place ``d mod m`` of its step ``d // m``: the
same place in all rows. So a step that may begin in the middle is computed in two pieces, and between them the rows
whose signal begins get a new state. What comes after the end of a signal only reaches states that nobody asks again.
"""

from typing import List, Tuple

import torch
from torch import Tensor

from ..layers.recurrent import RecurrentStream
from .planning import Edge, Planner, static_rule
from .rows import Part, Rows, like

__all__ = ["RecurrentPart"]


class RecurrentPart(Part):
    """A recurrence over time.

    Args:
        stream: which knows its mathematics
        lag: of the input, at least 0
    """

    def __init__(self, stream: RecurrentStream, lag: int) -> None:
        super().__init__()
        self.stream = stream
        self.lag = lag

    def empty(self, xs: List[Tensor]) -> List[Tensor]:
        # Of the shapes and dtypes that a step leaves.
        x = xs[0]
        with torch.no_grad():
            _, state = self.stream.advance(x, self.stream.initial(x))
        return [torch.zeros_like(each, memory_format=torch.contiguous_format) for each in state]

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        x = xs[0]
        m = x.size(2)
        step, place = divmod(self.lag, m)
        state, ys = states, []
        if place > 0:
            y, state = self.stream.advance(x[:, :, :place], state)
            ys.append(y)
            x = x[:, :, place:]
        begins = rows.age == step
        new = self.stream.initial(x)
        state = [torch.where(like(begins, old), each, old) for each, old in zip(new, state, strict=True)]
        y, state = self.stream.advance(x, state)
        ys.append(y)
        kept = [rows.keep(old, each.to(old.dtype)) for old, each in zip(states, state, strict=True)]
        return torch.cat(ys, 2) if place > 0 else y, kept


@static_rule(RecurrentStream)
def recurrent(plan: Planner, stream: RecurrentStream, edge: Edge) -> Edge:
    edge = plan.delayed(edge, max(-edge.lag, 0))
    return plan.add(RecurrentPart(stream, edge.lag), [edge], edge.lag, plan.through(edge, stream))
