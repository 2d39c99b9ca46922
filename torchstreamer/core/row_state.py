"""`RowState`: what a stream remembers as rows, taken out and put back without checks, copies or names."""

from typing import Iterator, List, Sequence, Tuple

import torch
from torch import Tensor

from .memory import Memory
from .remembering import Remembering
from .row_clock import RowClock

__all__ = ["Phase", "RowState"]

# Of every memory, in the order of modules, and at last the channels of the signals.
Phase = Tuple[Tuple[int, ...], ...]


class RowState:
    """What a stream remembers, as tensors with rows first, and the whole numbers that rows of one batch share.

    All of it is derived from what every memory says of itself, so it serves every handler. Nothing is checked, copied
    or named, for those who take rows out of a batch and put others in at every step; `Remembering.get_state` is for
    everyone else.

        phase, rows, known = state.phase(), state.rows(), state.known()
        ...                                                # other rows run meanwhile
        state.go_on(phase, rows, known)

    Args:
        stream: whose state this is; its modules stay the same from here on
    """

    def __init__(self, stream: Remembering) -> None:
        modules = list(stream.modules())
        self._memories = [module for module in modules if isinstance(module, Memory)]
        self._clocks = [memory for memory in self._memories if isinstance(memory, RowClock)]
        # Streams inside have a signal of their own if a handler calls them as others do.
        self._signals = [module for module in modules if isinstance(module, Remembering)]

    def phase(self) -> Phase:
        """What must be equal for rows to go on as one batch; hashable."""
        found = [memory.shape() for memory in self._memories]
        likes = [signal._buffers["_like"] for signal in self._signals]
        found.append(tuple([like.shape[1] if like.dim() == 3 else -1 for like in likes if like is not None]))
        return tuple(found)

    def rows(self) -> List[Tensor]:
        """What is held, rows of the signal first. Views, of memory that is never written a second time."""
        found = []
        for memory in self._memories:
            fold = memory.fold
            for tensor in memory.tensors():
                found.append(tensor if fold == 1 else torch.unflatten(tensor, 0, (tensor.size(0) // fold, fold)))
        for signal in self._signals:
            like = signal._buffers["_like"]
            if like is not None and like.dim() == 3:
                found.append(like)
        return found

    def known(self) -> Tuple[int, ...]:
        """Of every clock how many samples all rows have had at least, -1 if it would have to look."""
        return tuple([clock.known for clock in self._clocks])

    def go_on(self, phase: Phase, rows: Sequence[Tensor], known: Sequence[int]) -> None:
        """Be in this phase and hold these rows, which nobody writes to from here on.

        Args:
            phase: of a stream like this
            rows: as many as there are in that phase, of any one batch size
            known: of every clock no more than is true of each row
        """
        rest = iter(rows)
        for memory, numbers in zip(self._memories, phase, strict=False):
            memory.put(numbers, rest if memory.fold == 1 else _folded(rest))
        for clock, least in zip(self._clocks, known, strict=True):
            clock.known = least
        for signal, channels in zip(self._signals, phase[-1], strict=True):
            if channels >= 0:
                signal._buffers["_like"] = next(rest)
            else:
                like = signal._like
                if like.dim() == 3:
                    signal._buffers["_like"] = like.new_empty([0])


def _folded(rows: Iterator[Tensor]) -> Iterator[Tensor]:
    # Of the generator only what is asked for is taken.
    for tensor in rows:
        yield tensor.flatten(0, 1)
