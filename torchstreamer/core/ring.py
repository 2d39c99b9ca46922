"""`RingBuffer`: the samples that a stream remembers.

TorchScript compiles this file, so it uses no postponed annotations and copies what it needs to locals.
"""

from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from ..errors import StreamInputError
from .fast_attributes import entry
from .memory import Memory
from .tracing import in_place, inference_mode, plain_inference

__all__ = ["RingBuffer"]


# The attributes of a RingBuffer that are plain numbers.
_NUMBERS = frozenset(
    ["held", "skip", "begin", "room", "free", "period", "borrowed", "again", "undone", "lead", "_rank_two", "fold"]
)


class RingBuffer(Memory):
    """The last samples of a stream, kept until they are no longer needed.

    Every sample that a stream keeps is in a `RingBuffer`, so whole trees of streams can be reset, saved, stacked and
    moved between devices without any code in the handler. Two calls do the work:

        window = ring.append(x)    # all that is held, the new samples last
        ring.drop(n)               # the n oldest samples are no longer needed

    Dropping more than is held is allowed: the surplus is owed, and taken from the samples that come next.

    Inside, samples stand in time-major rows ``[B, n, C]``. A chunk that is longer than the history is joined to it into
    a new tensor. Shorter ones are written after it, into storage with room to spare, which costs no more than the new
    samples; that is done only while gradients are off. A position once written is never written again.

    Args:
        skip: samples to drop at the start of every signal

    Shape:
        - chunks: ``[B, C, T]`` or ``[C, T]``; windows come in the rank of the chunk.

    Example:
        >>> import torch
        >>> from torchstreamer import RingBuffer
        >>> ring = RingBuffer()
        >>> ring.append(torch.tensor([[1.0, 2.0, 3.0]]))
        tensor([[1., 2., 3.]])
        >>> ring.drop(2)
        >>> ring.append(torch.tensor([[4.0]]))
        tensor([[3., 4.]])
    """

    data: Tensor = entry("_buffers")

    def __init__(self, skip: int = 0) -> None:
        super().__init__()
        self.register_buffer("data", torch.empty(0), persistent=False)
        self.held = 0  # samples held
        self.debt = skip  # samples owed at the start of a signal
        self.skip = skip  # samples owed
        self.begin = 0  # where the held rows begin in `data`, or in what `extend` returned last
        self.room = 0  # rows of the memory under `data`, as far as it may be written
        self.free = -1  # rows after the held ones that may be written in place; -1 if `data` may not be written at all
        self.period = -1  # length of the chunks that `advance` takes; -1 if it takes none
        self.borrowed = False  # the window handed out last may be somebody else's memory
        self.again = False  # memory may be written a second time, since nobody keeps a view of it
        self.undone = False  # whether what was held when `again` was last set may be wanted back
        self.lead = 0  # channels before each row of memory that is written in place, for who computes them with the row
        self._rank_two = False

    # ------------------------------------------------------------------ for handlers

    def append(self, x: Tensor) -> Tensor:
        """Add a chunk after what is held, and return all of it.

        Args:
            x: new samples, ``[B, C, T]`` or ``[C, T]``

        Returns:
            all samples held, the oldest first, in the rank of ``x``; not to be written to

        Raises:
            StreamInputError: ``x`` does not continue what the ring holds; nothing was written
        """
        self._check(x)
        self._rank_two = x.dim() == 2
        self._add(x.unsqueeze(0) if self._rank_two else x)
        return self.window()

    def drop(self, n: int) -> None:
        """Forget the ``n`` oldest samples; what is not held yet is dropped when it comes."""
        if self.data.dim() == 1:
            self.skip += n
        else:
            self.borrowed = False
            self.forget(n)

    def window(self) -> Tensor:
        """All samples held, in the rank of the chunks that came; not to be written to. Of one axis if none came."""
        if self.data.dim() == 1:
            return self.data
        window = self.rows().transpose(1, 2)
        return window.squeeze(0) if self._rank_two else window

    def length(self) -> int:
        """Number of samples held."""
        return self.held

    # ------------------------------------------------------------------ for kernels: chunks are [B, C, T]

    def started(self) -> bool:
        """Whether any sample has ever come."""
        return self.data.dim() > 1

    def rows(self) -> Tensor:
        """What is held, ``[B, n, C]``; a view."""
        if self.free >= 0:
            return self.data.narrow(1, self.begin, self.held)
        return self.data

    def fill(self, x: Tensor, n: int, value: float, write: bool = False) -> None:
        """Start with ``n`` samples of ``value``, shaped as those of ``x``.

        Args:
            x: the chunk that comes after them
            n: how many they are
            value: of each
            write: whether memory may be written in place, `plain_inference`; then there is room for the chunk
        """
        if write and 0 < x.size(2) <= n and in_place():
            self._take_room(x, n, x.size(2))
            self.data.narrow(1, 0, n).fill_(value)
        else:
            self._set(x.new_full([x.size(0), n, x.size(1)], value), n)
        self.held = n

    def join(self, x: Tensor) -> Tensor:
        """All that is held and the chunk, ``[B, C, n]``, channel-major. Follow with `keep`."""
        if self.skip > 0:
            x = self._pay(x)
        if self.held == 0:
            self.borrowed = True
            return x
        self.borrowed = False
        # `cat` is fast only if all are contiguous, and the history is short.
        return torch.cat([self.rows().transpose(1, 2).contiguous(), x], 2)

    def keep(self, window: Tensor, drop: int) -> None:
        """Keep what `join` returned but for its first ``drop`` samples."""
        self.free = -1
        self.retain(window.transpose(1, 2), drop, window.size(2) - drop)

    def extend(self, x: Tensor, write: bool) -> Tensor:
        """Add a chunk to what is held. Follow with `retain`.

        Args:
            x: the chunk, longer than what is owed
            write: whether memory may be written in place, `plain_inference`

        Returns:
            rows ``[B, m, C]``, each contiguous; what is held begins at row `begin`, and the chunk follows it
        """
        if self.skip > 0:
            x = self._pay(x)
        held = self.held
        t = x.size(2)
        # A longer chunk would fill the room at once.
        if write and 0 < t <= held and x.dtype == self.data.dtype and in_place():
            # A move in inference mode makes memory that cannot be written to elsewhere, and a script has no `_apply`.
            if t > self.free or (self.data.is_inference() and not inference_mode(x)):
                self._move(held, t)
            self._write(x, self.begin + held, t)
            return self.data
        rows = x.transpose(1, 2)
        self.borrowed = held == 0
        rows = rows.contiguous() if held == 0 else torch.cat([self.rows(), rows], 1)
        self.free = -1
        self.begin = 0
        return rows

    def expect(self, t: int) -> None:
        """Let `advance` take chunks of this length, if memory is written in place: one left as many as it found."""
        if self.free >= 0:
            self.period = t

    def advance(self, x: Tensor, t: int) -> int:
        """Add a chunk of length `period`, and drop as many of the oldest samples: `extend` and `retain` in one.

        Args:
            x: the chunk, of the dtype of `data`, while memory may be written in place, `plain_inference`
            t: its length

        Returns:
            row of `data` at which what was held begins; the chunk follows it
        """
        held = self.held
        if t > self.free:
            self._move(held, t)
            self.period = t
        first = self.begin
        self._write(x, first + held, t)
        self.begin = first + t
        self.free -= t
        return first

    @torch.jit.unused
    def reserve(self, t: int) -> int:
        """`advance` for one who writes the chunk himself, each row after its lead, `lead + C` values apart."""
        if t > self.free:
            self._move(self.held, t)
            self.period = t
        own = self.__dict__
        first: int = self.begin
        own["begin"] = first + t
        own["free"] -= t
        return first

    def retain(self, rows: Tensor, first: int, n: int) -> None:
        """Keep ``n`` of the rows that `extend` returned, from ``first`` on. If ``n`` is negative, samples are owed."""
        self._retain(rows, first, n, self.room if self.free >= 0 else rows.size(1))

    def forget(self, n: int) -> None:
        """Drop the ``n`` oldest samples, once any have come."""
        self._retain(self.data, self.begin + n, self.held - n, self.room)

    def _retain(self, rows: Tensor, first: int, n: int, room: int) -> None:
        self.period = -1
        if self.free >= 0 and n > 0 and room <= 4 * n:
            self.begin = first
            self.free = room - first - n
        elif n > 0:
            kept = rows.narrow(1, first, n)
            # State stays small: no memory is kept for the sake of its last few samples.
            if self.free >= 0 or self.borrowed or room > 4 * n:
                kept = kept.clone(memory_format=torch.contiguous_format)
                room = n
            self._set(kept, room)
        elif self.held > 0 or self.data.dim() == 1:
            self._set(rows.new_empty([rows.size(0), 0, rows.size(2)]), 0)
        self.held = max(n, 0)
        self.skip -= min(n, 0)

    def _set(self, rows: Tensor, room: int) -> None:
        self.data = rows
        self.room = room
        self.begin = 0
        self.free = -1
        self.period = -1

    def add_after(self, ahead: Tensor, other: Tensor) -> Tensor:
        """The sum of ``other`` and of what is held with ``ahead`` after it, which need not be joined for that.

        As much of ``ahead`` is kept as goes beyond. Gradients must be off, and ``other`` longer than what is held.
        """
        n = self.held
        t = other.size(2)
        y = torch.empty_like(other)
        torch.add(self.rows().transpose(1, 2), other.narrow(2, 0, n), out=y.narrow(2, 0, n))
        torch.add(ahead.narrow(2, 0, t - n), other.narrow(2, n, t - n), out=y.narrow(2, n, t - n))
        self.borrowed = True
        self.keep(ahead, t - n)
        return y

    def push(self, x: Tensor) -> None:
        """Add a chunk."""
        if x.size(2) <= self.skip:
            self.skip -= x.size(2)
            if self.data.dim() == 1:
                self.data = x.new_empty([x.size(0), 0, x.size(1)])
        else:
            self._add(x)

    def _add(self, x: Tensor) -> None:
        n = self.held - self.skip + x.size(2)
        rows = self.extend(x, plain_inference())
        self.retain(rows, self.begin, max(n, 0))

    def _pay(self, x: Tensor) -> Tensor:
        owed = min(self.skip, x.size(2))
        self.skip -= owed
        return x.narrow(2, owed, x.size(2) - owed)

    def _move(self, held: int, t: int) -> None:
        # To new memory with room after what is held, of which no position was ever written.
        if self.again and self.free >= 0 and self._stays(held, t):
            return
        rows = self.rows()
        self._take_room(rows.transpose(1, 2), held, t)
        self.data.narrow(1, 0, held).copy_(rows)

    def _stays(self, held: int, t: int) -> bool:
        # Whether there is room in the same memory after all, which takes no new pages.
        data = self.data
        if data.is_inference() and not inference_mode(data):
            return False
        begin = self.begin
        room = data.size(1)
        if begin + held + t > room:
            if begin < held + (t if self.undone else 0):
                return False
            data.narrow(1, 0, held).copy_(self.rows())
            if self.undone:
                room = begin  # what stands there may be wanted back, until the next time
            self.begin = 0
        self.room = room
        self.free = room - self.begin - held
        return True

    def _take_room(self, x: Tensor, held: int, t: int) -> None:
        # New memory for so many rows of the channels of `x`, and room after them.
        room = max(2 * held + t, min(4 * held, 16))
        if self.undone and 4 * t <= held:
            room += t
        memory = x.new_empty([x.size(0), room, self.lead + x.size(1)])
        if self.lead > 0:
            memory = memory.narrow(2, self.lead, x.size(1))
        self._set(memory, room)
        self.free = room - held

    def _write(self, x: Tensor, place: int, t: int) -> None:
        data = self.data
        c = data.size(2)
        width = self.lead + c
        data.as_strided([data.size(0), c, t], [data.stride(0), 1, width], place * width + self.lead).copy_(x)

    def _check(self, x: Tensor) -> None:
        if x.dim() != 2 and x.dim() != 3:
            raise StreamInputError(
                f"invalid_chunk: a RingBuffer got a chunk of {x.dim()} dimensions; it takes [B, C, T] or [C, T]; "
                "reshape the chunk"
            )
        if self.started():
            held = self.data
            rows = 1 if x.dim() == 2 else x.size(0)
            fits = rows == held.size(0) and x.size(-2) == held.size(2)
            if not fits or x.dtype != held.dtype or x.device != held.device:
                raise StreamInputError(
                    f"invalid_chunk: a RingBuffer that holds {held.size(0)} rows of {held.size(2)} channels got a "
                    f"chunk {list(x.size())} of another shape, dtype or device; a chunk must continue the signal; "
                    "reset() first to begin another one"
                )

    # ------------------------------------------------------------------ who records a step asks these

    def phase(self) -> Tuple[int, ...]:
        return self.held, self.skip, self.data.dim()

    def tensors(self) -> List[Tensor]:
        # None before any sample has come: what is there then has no rows.
        return [self.rows()] if self.started() else []

    def opens(self, shape: Sequence[int]) -> Optional[List[float]]:
        held, skip, axes = shape
        if axes == 1:
            return [] if skip == self.debt else None
        return [self.opening[1]] if held == self.opening[0] and skip == self.debt == 0 else None

    def put(self, phase: Sequence[int], tensors: Iterator[Tensor]) -> None:
        held, skip, axes = phase
        self._buffers["data"] = next(tensors) if axes > 1 else self.data.new_empty([0])
        # One assignment, since whoever keeps rows apart does this for every ring in every step.
        self.__dict__.update(held=held, skip=skip, room=held, begin=0, free=-1, period=-1, borrowed=True)

    # ------------------------------------------------------------------ the tree of streams calls these

    def _clear(self) -> None:
        self._set(self.data.new_empty([0]), 0)
        self.held = 0
        self.skip = self.debt
        self._rank_two = False

    def _seal_memory(self) -> None:
        # Write no more to the present memory: what made it is over, inference mode for instance.
        if self.free >= 0:
            self._set(self.rows(), self.room)

    def _detach(self) -> None:
        self.data = self.data.detach()

    def _nbytes(self) -> int:
        return self.rows().numel() * self.data.element_size()

    def _save_state(self, name: str, state: Dict[str, Tensor]) -> None:
        rows = self.rows().detach()
        if self.fold > 1 and rows.dim() == 3:
            # Rows of the signal first: [B·k, n, C] -> [B, n, k·C].
            shape = [rows.size(0) // self.fold, self.fold, rows.size(1), rows.size(2)]
            rows = rows.reshape(shape).transpose(1, 2).flatten(2)
        if rows.dim() == 1:
            # Nothing has come: that an earlier signal had another dtype is no part of the state.
            rows = rows.new_empty([0], dtype=torch.float32)
        state[name + ".data"] = rows.clone(memory_format=torch.contiguous_format)
        state[name + ".skip"] = torch.tensor(self.skip)

    def _check_state(self, name: str, state: Dict[str, Tensor], rows: int) -> int:
        for key in [name + ".data", name + ".skip"]:
            if key not in state:
                raise StreamInputError(
                    f"invalid_state: the state has no '{key}'; a state fits the stream of the same network that it "
                    "was taken from; make it with get_state()"
                )
        data = state[name + ".data"]
        if data.dim() != 3 and not (data.dim() == 1 and data.numel() == 0):
            raise StreamInputError(
                f"invalid_state: '{name}.data' has shape {list(data.size())}; expected [rows, samples, channels]; make "
                "the state with get_state()"
            )
        skip = state[name + ".skip"]
        sound = skip.dim() == 0 and skip.dtype == torch.int64 and int(skip.item()) >= 0
        if not sound or (data.dim() == 3 and data.size(0) != rows):
            raise StreamInputError(
                f"invalid_state: '{name}' has shape {list(data.size())}; {rows} rows, as the signal has, and a whole "
                "number of samples owed were expected; make the state with get_state()"
            )
        return 2

    def _load_state(self, name: str, state: Dict[str, Tensor], device: torch.device) -> None:
        data = state[name + ".data"].detach().to(device)
        if self.fold > 1 and data.dim() == 3:
            shape = [data.size(0), data.size(1), self.fold, data.size(2) // self.fold]
            data = data.reshape(shape).transpose(1, 2).flatten(0, 1)
        self.held = data.size(1) if data.dim() > 1 else 0
        self._set(data.clone(memory_format=torch.contiguous_format), self.held)
        self.skip = int(state[name + ".skip"].item())

    def __setattr__(self, name: str, value: Any) -> None:
        # nn.Module searches all its tables first, which costs more than the rest of a short step.
        if name in _NUMBERS:
            object.__setattr__(self, name, value)
        elif name == "data":
            self._buffers["data"] = value
        else:
            super().__setattr__(name, value)

    def __prepare_scriptable__(self) -> "RingBuffer":
        ring = type(self)(self.debt)
        ring.fold = self.fold
        ring.again = self.again
        ring.undone = self.undone
        ring.data = self.data.new_empty([0])
        return ring

    def _apply(self, fn: Any, recurse: bool = True) -> "RingBuffer":
        self._seal_memory()  # a move in inference mode makes memory that cannot be written to elsewhere
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def __deepcopy__(self, memo: Dict[int, Any]) -> "RingBuffer":
        ring = type(self).__new__(type(self))
        memo[id(self)] = ring
        ring.__setstate__(self.__getstate__())  # type: ignore[no-untyped-call]
        ring.data = ring.data.clone(memory_format=torch.contiguous_format)
        return ring

    def __getstate__(self) -> Dict[str, Any]:
        entries = dict(self.__dict__)
        entries.update(
            free=-1, period=-1, begin=0, room=self.held, borrowed=False, _buffers={"data": self.rows().detach()}
        )
        return entries

    def extra_repr(self) -> str:
        return f"skip={self.debt}" if self.debt else ""
