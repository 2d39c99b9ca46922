"""`RowState`: what a stream remembers as rows, taken out and put back without checks, copies or names."""

from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

from .counter import Counter
from .memory import Memory
from .remembering import Remembering
from .ring import RingBuffer
from .row_clock import RowClock

__all__ = ["ParkedState", "Phase", "RowState"]

# Of every memory, in the order of modules, and at last the channels of the signals.
Phase = Tuple[Tuple[int, ...], ...]


class ParkedState(NamedTuple):
    """A state that went out of a stream, with the room in memory in which the stream may go on.

    Attributes:
        phase: as of `RowState.phase`
        rows: as of `RowState.rows`
        known: as of `RowState.known`
        memory: of every ring that may be written in place its data, where the samples begin, its room, and what is free
    """

    phase: Phase
    rows: List[Tensor]
    known: Tuple[int, ...]
    memory: List[Tuple[int, Tensor, int, int, int]]


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
        self._stream = stream
        modules = list(stream.modules())
        # A deep stream has many memories, mostly of two kinds, and each step asks them all: those are read directly.
        self._memories = [_Place(module) for module in modules if isinstance(module, Memory)]
        self._again = [place for place in self._memories if place.is_ring and place.fields["undone"]]
        self._writes_again = False
        self._clocks = [place.memory for place in self._memories if isinstance(place.memory, RowClock)]
        # Streams inside have a signal of their own if a handler calls them as others do.
        self._signals: List[Dict[str, Any]] = [m._buffers for m in modules if isinstance(m, Remembering)]

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

    def opening(self, phase: Phase) -> Optional[List[float]]:
        """With which values a row begins, one for each of `rows`, if rows in this phase may be new; else ``None``.

        Of such rows the clocks know nothing, and their first step from there is what it is in a stream of their own,
        if all memories have begun after it.
        """
        found: List[float] = []
        for place, numbers in zip(self._memories, phase, strict=False):
            values = place.memory.opens(numbers)
            if values is None:
                return None
            found += values
        return found + [0.0 for channels in phase[-1] if channels >= 0]

    def park(self) -> ParkedState:
        """What the stream holds, for `unpark`, once, as long as nothing else goes on from there."""
        memory = []
        for i, place in enumerate(self._memories):
            fields = place.fields
            if place.is_ring and fields["free"] >= 0:
                memory.append((i, place.buffers["data"], fields["begin"], fields["room"], fields["free"]))
        return ParkedState(self.phase(), self.rows(), self.known(), memory)

    def unpark(self, parked: ParkedState) -> None:
        """Hold that again."""
        self.go_on(parked.phase, parked.rows, parked.known)
        for i, data, begin, room, free in parked.memory:
            place = self._memories[i]
            if data.is_inference() and not torch.is_inference_mode_enabled():
                continue
            place.buffers["data"] = data
            place.fields.update(begin=begin, room=room, free=free, borrowed=False)

    def write_again(self, may: bool) -> None:
        """Say whether steps may write where earlier ones did: if nothing but what is held now may be wanted back."""
        if may is not self._writes_again:
            self._writes_again = may
            for place in self._again:
                place.fields["again"] = may

    def join(self, slots: List[int], rows: Sequence[Tensor], known: Sequence[int]) -> None:
        """Put rows of the same phase in the place of others, which nobody wants anymore; gradients must be off.

        Args:
            slots: places of those, as many as there are rows
            rows: as `rows` gives them
            known: as `known` gives it, of these rows
        """
        rest, before = iter(rows), self.known()
        index: Any = None
        for place in self._memories:
            fields, memory = place.fields, place.memory
            if place.is_counter:
                continue
            if place.is_ring and fields["fold"] == 1:
                data = place.buffers["data"]
                if data.dim() == 1:
                    continue
                given = next(rest)
                if not fields["held"]:
                    continue
                if index is None:
                    index = torch.tensor(slots, device=data.device)
                if fields["free"] >= 0 and (torch.is_inference_mode_enabled() or not data.is_inference()):
                    data.narrow(1, fields["begin"], fields["held"]).index_copy_(0, index, given)
                else:
                    place.buffers["data"] = memory.tensors()[0].index_copy(0, index, given)
                    fields.update(begin=0, room=fields["held"], free=-1, period=-1)
                continue
            now = memory.tensors()
            if not now:
                continue
            fold = fields["fold"]
            mixed = []
            for tensor in now:
                whole = tensor if fold == 1 else torch.unflatten(tensor, 0, (tensor.size(0) // fold, fold))
                mixed.append(whole.index_copy(0, torch.tensor(slots, device=tensor.device), next(rest)))
            memory.put(memory.shape(), iter(mixed) if fold == 1 else _folded(iter(mixed)))
        for clock, least, other in zip(self._clocks, before, known, strict=True):
            clock.known = min(least, other)

    def __reduce__(self) -> Tuple[Any, ...]:
        # It holds the tables of modules, which copies have of their own.
        return RowState, (self._stream,)


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
