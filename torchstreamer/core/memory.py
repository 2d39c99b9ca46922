"""`Memory`, the base of all that a stream remembers. TorchScript compiles this file."""

from typing import Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from .turns import refuse_shallow_copy

__all__ = ["Memory"]


class Memory(nn.Module):
    """What a stream remembers from one chunk to the next: tensors, rows first, and whole numbers.

    A stream finds its memories among its modules; so it is reset, saved, stacked, moved and recorded without any code
    in the handler. `RingBuffer` keeps samples, `Counter` a whole number, `Cell` any tensors.

    The whole numbers that decide shapes are the phase: in the steady state it repeats, and what else changes from
    step to step is tensors alone. What is counted for each row, such as positions, is data of the row: a tensor.

    Attributes:
        opening: what the owner's first step of a signal puts here before it goes on as any other step does: how many
            samples, and of which value, or a counter's value; -1 where it does otherwise, or nobody has said. Rows that
            begin may join others that are there
    """

    fold: int

    def __init__(self) -> None:
        super().__init__()
        self.fold = 1  # entries of the batch axis per row of the signal, where a network merged another axis into it
        self.opening = (-1, 0.0)

    def __copy__(self) -> "Memory":
        raise refuse_shallow_copy(self)

    # ------------------------------------------------------------------ who records a step asks these, in Python only

    def phase(self) -> Tuple[int, ...]:
        """The whole numbers that decide the shapes of a step."""
        raise NotImplementedError

    def shape(self) -> Tuple[int, ...]:
        """The phase without what is told of the values of tensors: where it is equal, rows may share a batch."""
        return self.phase()

    def lasting(self) -> bool:
        """Whether a phase that repeats itself goes on doing so, however long the signal becomes."""
        return True

    def tensors(self) -> List[Tensor]:
        """What is held, rows first; not to be written to."""
        raise NotImplementedError

    def opens(self, shape: Sequence[int]) -> Optional[List[float]]:
        """With which values a row begins, one for each tensor, if it may begin in this `shape`; else ``None``."""
        return None

    def put(self, phase: Sequence[int], tensors: Iterator[Tensor]) -> None:
        """Be in this phase, and hold the next of these tensors, as many as `tensors` gives in it."""
        raise NotImplementedError

    # ------------------------------------------------------------------ the tree of streams calls these

    def _clear(self) -> None:
        # As new.
        raise NotImplementedError

    def _detach(self) -> None:
        # Cut the gradient's path into earlier chunks.
        pass

    def _seal_memory(self) -> None:
        # What made the present memory is over, inference mode for instance: write no more to it.
        pass

    def _nbytes(self) -> int:
        # Bytes of the tensors held.
        return 0

    def _save_state(self, name: str, state: Dict[str, Tensor]) -> None:
        # Add entries that begin with the name of the memory: copies, rows first, whole numbers as 0-d int64.
        raise NotImplementedError

    def _check_state(self, name: str, state: Dict[str, Tensor], rows: int) -> int:
        # Refuse entries that do not fit with StreamInputError; give the number of those that are its own.
        raise NotImplementedError

    def _load_state(self, name: str, state: Dict[str, Tensor], device: torch.device) -> None:
        # Go on from checked entries.
        raise NotImplementedError
