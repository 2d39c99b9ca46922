"""`SampleLoop`, a recurrence that a model writes as a loop over time.

TorchScript compiles this file, so it uses no postponed annotations.
"""

# A submodule's methods are not known to the type checker.
# mypy: disable-error-code="operator"

from typing import List, Sequence, Tuple

import torch
from torch import Tensor, nn

__all__ = ["SampleLoop"]


class SampleLoop(nn.Module):
    """One turn of a loop, sample after sample, on signals that stand side by side in one.

    Args:
        start: gives the state before the first turn, of a list with the first sample, for the number of rows
        prepared: gives what is the same in every turn, of the same
        turn: gives the output of a turn and the state after it, of a list of its samples, the state, and what is the
            same in every turn
        shapes: of the samples, without rows
        states: how many tensors the state has
    """

    def __init__(
        self, start: nn.Module, prepared: nn.Module, turn: nn.Module, shapes: Sequence[Sequence[int]], states: int
    ) -> None:
        super().__init__()
        self.states = states
        self.start, self.prepared, self.turn = start, prepared, turn
        self.shapes: List[List[int]] = [list(shape) for shape in shapes]
        self.channels: List[int] = [int(torch.Size(shape).numel()) for shape in shapes]

    def initial(self, x: Tensor) -> List[Tensor]:
        """The state before the first turn."""
        return self.start([x[:, :, 0]]) if self.states > 0 else [torch.zeros_like(x[:, :1, 0])]

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        """The outputs ``[B, C', t]`` of a chunk, and the state after it."""
        same: List[Tensor] = self.prepared([x[:, :, 0]])
        ys: List[Tensor] = []
        for sample in x.unbind(2):
            given: List[Tensor] = []
            for part, shape in zip(torch.split(sample, self.channels, 1), self.shapes):  # noqa: B905
                given.append(part.reshape([x.size(0)] + shape))
            found: List[Tensor] = self.turn(given + (state if self.states > 0 else []) + same)
            ys.append(found[0].reshape(x.size(0), -1))
            state = found[1:] if self.states > 0 else state
        return torch.stack(ys, 2), state
