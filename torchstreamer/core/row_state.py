"""`RowState`: what a stream remembers as rows, taken out and put back without checks, copies or names."""

from typing import Any, Dict, Iterator, List, Sequence, Tuple

import torch
from torch import Tensor

from .counter import Counter
from .memory import Memory
from .remembering import Remembering
from .ring import RingBuffer
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
        # A deep stream has many memories, mostly of two kinds, and each step asks them all: those are read directly.
        self._memories = [_Place(module) for module in modules if isinstance(module, Memory)]
        self._clocks = [place.memory for place in self._memories if isinstance(place.memory, RowClock)]
        # Streams inside have a signal of their own if a handler calls them as others do.
        self._signals = [module._buffers for module in modules if isinstance(module, Remembering)]

    def phase(self) -> Phase:
        """What must be equal for rows to go on as one batch; hashable."""
        found: List[Tuple[int, ...]] = []
        for place in self._memories:
            fields = place.fields
            if place.is_ring:
                found.append((fields["held"], fields["skip"], place.buffers["data"].dim()))
            elif place.is_counter:
                found.append((fields["value"],))
            else:
                found.append(place.memory.shape())
        likes = [signal["_like"] for signal in self._signals]
        found.append(tuple([like.shape[1] if like.dim() == 3 else -1 for like in likes]))
        return tuple(found)

    def rows(self) -> List[Tensor]:
        """What is held, rows of the signal first. Views, of memory that is never written a second time."""
        found: List[Tensor] = []
        for place in self._memories:
            if place.is_counter:
                continue
            fold = place.fields["fold"]
            if place.is_ring and fold == 1:
                data, fields = place.buffers["data"], place.fields
                if data.dim() > 1:
                    found.append(data.narrow(1, fields["begin"], fields["held"]) if fields["free"] >= 0 else data)
                continue
            for tensor in place.memory.tensors():
                found.append(tensor if fold == 1 else torch.unflatten(tensor, 0, (tensor.size(0) // fold, fold)))
        for signal in self._signals:
            like = signal["_like"]
            if like.dim() == 3:
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
        for place, numbers in zip(self._memories, phase, strict=False):
            fields = place.fields
            if place.is_counter:
                fields["value"] = numbers[0]
            elif place.is_ring and numbers[2] > 1 and fields["fold"] == 1:
                place.buffers["data"] = next(rest)
                fields["held"] = fields["room"] = numbers[0]
                fields["skip"] = numbers[1]
                fields["begin"] = 0
                fields["free"] = fields["period"] = -1
                fields["borrowed"] = True
            else:
                place.memory.put(numbers, rest if fields["fold"] == 1 else _folded(rest))
        for clock, least in zip(self._clocks, known, strict=True):
            clock.known = least
        for signal, channels in zip(self._signals, phase[-1], strict=True):
            if channels >= 0:
                signal["_like"] = next(rest)
            elif signal["_like"].dim() == 3:
                signal["_like"] = signal["_like"].new_empty([0])


class _Place:
    # A memory, and its tables.
    __slots__ = ("buffers", "fields", "is_counter", "is_ring", "memory")

    def __init__(self, memory: Memory) -> None:
        self.memory = memory
        self.fields: Dict[str, Any] = memory.__dict__
        self.buffers: Dict[str, Any] = memory._buffers
        self.is_ring = type(memory) is RingBuffer
        self.is_counter = type(memory) is Counter


def _folded(rows: Iterator[Tensor]) -> Iterator[Tensor]:
    # Of the generator only what is asked for is taken.
    for tensor in rows:
        yield tensor.flatten(0, 1)
