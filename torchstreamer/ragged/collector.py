"""Pieces of many signals, joined by their ids."""

from typing import Dict, Hashable, List, Optional, Tuple

import torch
from torch import Tensor

from ..errors import StreamInputError
from .tensor import StreamTensor, bare

__all__ = ["StreamCollector"]


class StreamCollector:
    """Joins pieces by id, until their signals end.

    Pieces are copied, so that a row does not keep its batch in memory.

    Example:
        >>> import torch, torchstreamer as pts
        >>> collected = pts.StreamCollector()
        >>> collected.update(pts.stream_tensor([torch.ones(1, 3), torch.ones(1, 2)], ids=["a", "b"], first=True))
        []
        >>> collected.update(pts.stream_tensor([torch.zeros(1, 2)], ids=["a"], last=True))
        ['a']
        >>> collected.pop("a")
        tensor([[1., 1., 1., 0., 0.]])
    """

    def __init__(self) -> None:
        self._signals: Dict[Hashable, _Signal] = {}

    def update(self, pieces: StreamTensor) -> List[Hashable]:
        """Take the pieces of a batch. If one of them does not fit, none is taken.

        Args:
            pieces: of other lengths than 0 or not, of signals known or new

        Returns:
            ids of the signals that ended

        Raises:
            StreamInputError: codes ``doubled_first``, ``missing_piece`` and ``ended_row``: a piece begins a signal that
                is here already, is not what comes next, or comes after the last
        """
        if not isinstance(pieces, StreamTensor):
            raise StreamInputError(
                f"invalid_pieces: {type(pieces).__name__} came; a StreamTensor was expected; see pts.stream_tensor"
            )
        found: Dict[Hashable, _Signal] = {}
        for piece in pieces.unbatch():
            (name,), (first,), (last,), (length,), (start,) = piece._layout.rows.fields
            signal = found.get(name, self._signals.get(name))
            _require_next(name, signal, first, start, length)
            signal = _Signal() if signal is None else signal.copy()
            if length or signal.empty is None:
                signal.take(bare(piece), piece.time_axis)
            if start is not None:
                signal.position = start + length
            elif signal.position is not None:
                signal.position += length
            signal.last = signal.last or last
            found[name] = signal
        ended = [name for name, signal in found.items() if signal.last and not self.done(name)]
        self._signals.update(found)
        return ended

    def ids(self) -> Tuple[Hashable, ...]:
        """Of the signals that are here, ended or not."""
        return tuple(self._signals)

    def done(self, id: Hashable) -> bool:
        """Whether the last piece of a signal is here.

        Args:
            id: of the signal
        """
        return id in self._signals and self._signals[id].last

    def pop(self, id: Hashable) -> Tensor:
        """Hand out a signal, ended or not, and forget it.

        Args:
            id: of the signal

        Returns:
            its pieces, joined along time

        Raises:
            StreamInputError: code ``unknown_row``: no piece of it is here
        """
        if id not in self._signals:
            raise StreamInputError(
                f"unknown_row: {id!r} was asked for, and no piece of it is here; one of {list(self._signals)} was "
                "expected; signals that were handed out are forgotten"
            )
        return self._signals.pop(id).joined()

    def __len__(self) -> int:
        """How many signals are here."""
        return len(self._signals)


class _Signal:
    """What is here of a signal."""

    def __init__(self) -> None:
        self.pieces: List[Tensor] = []
        self.empty: Optional[Tensor] = None  # of the right shape, where no sample came
        self.time = -1
        self.position: Optional[int] = None
        self.last = False

    def copy(self) -> "_Signal":
        other = _Signal()
        other.__dict__.update(self.__dict__)
        other.pieces = self.pieces[:]
        return other

    def take(self, piece: Tensor, time: int) -> None:
        self.time = time
        self.empty = piece.narrow(time, 0, 0).clone()
        if piece.shape[time]:
            self.pieces.append(piece.clone())

    def joined(self) -> Tensor:
        assert self.empty is not None
        return torch.cat(self.pieces, self.time) if self.pieces else self.empty


def _require_next(name: Hashable, signal: Optional[_Signal], first: bool, start: Optional[int], length: int) -> None:
    if signal is None:
        if not first:
            raise StreamInputError(
                f"missing_piece: a piece of {name!r} came that is not its first, and none is here; the first piece of "
                "a signal, with first=True, was expected; was it popped before its end?"
            )
    elif first:
        raise StreamInputError(
            f"doubled_first: the first piece of {name!r} came, and pieces of it are here already; the next one was "
            "expected; pop the signal before another of this id begins"
        )
    elif signal.last:
        raise StreamInputError(
            f"ended_row: a piece of {length} samples of {name!r} came after its last; none was expected; pop it "
            "before another of this id begins"
        )
    elif start is not None and signal.position is not None and start != signal.position:
        raise StreamInputError(
            f"missing_piece: samples of {name!r} from {start} came; those from {signal.position} were expected; hand "
            "in every piece, in order"
        )
