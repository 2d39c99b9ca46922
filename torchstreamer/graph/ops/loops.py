"""`LoopStream`: a loop over time that a model wrote in Python.

TorchScript compiles this file, so it uses no postponed annotations.
"""

# A submodule's call is not known to the type checker.
# mypy: disable-error-code="operator"

import math
from typing import List, Sequence, Tuple

import torch
from torch import Tensor, nn

from ...core.fast_attributes import entry
from ...layers.recurrent import RecurrentStream

__all__ = ["LoopStream"]


class LoopStream(RecurrentStream):
    """A loop over time, of which a module computes a turn.

    Args:
        begin: gives the states before the first turn, of the list of a chunk
        turn: gives what a turn makes and the states after it, of the list of its samples and the states before it
        shapes: of the samples, without rows, which are the channels one after the other
        made: how many tensors a turn makes
        channels: of all of them
        carries: whether there is a state
    """

    begin = entry("_modules")
    turn = entry("_modules")
    shapes: List[List[int]]

    def __init__(
        self,
        begin: nn.Module,
        turn: nn.Module,
        shapes: Sequence[Sequence[int]],
        made: int,
        channels: int,
        carries: bool,
    ) -> None:
        super().__init__(sum(math.prod(shape) for shape in shapes), channels)
        self.begin = begin
        self.turn = turn
        self.shapes = [list(shape) for shape in shapes]
        self.counts = [math.prod(shape) for shape in shapes]
        self.made = made
        self.carries = carries

    def initial(self, x: Tensor) -> List[Tensor]:
        """What the loop begins with."""
        states: List[Tensor] = self.begin([x])
        return states if self.carries else [x[:, :1, 0]]  # a stream of the family holds something

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        """Turn by turn."""
        pieces: List[Tensor] = []
        rows = x.size(0)
        for sample in x.unbind(2):
            given: List[Tensor] = []
            for i, part in enumerate(torch.split(sample, self.counts, 1)):
                given.append(part.reshape([rows] + self.shapes[i]))
            found: List[Tensor] = self.turn(given + state if self.carries else given)
            made: List[Tensor] = []
            for y in found[: self.made]:
                made.append(y.reshape([rows, -1]))
            pieces.append(torch.cat(made, 1))
            if self.carries:
                state = found[self.made :]
        return torch.stack(pieces, 2), state
