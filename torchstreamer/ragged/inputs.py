"""Single pieces, and batches of them that are put together when they are needed."""

from typing import Any, Hashable, Iterable, Iterator, List, Optional, Union

from torch import Tensor

from .making import stream_tensor
from .tensor import StreamTensor

__all__ = ["Batch", "Input"]


class Input:
    """A piece of one signal.

    Args:
        data: ``[C, t]``, or any shape with time as the last axis
        id: of the signal
        first: whether it is the first piece of the signal
        last: whether it is the last
        start: position in the signal of its first sample; 0 for a first piece, else unknown, where it is left out
    """

    __slots__ = ("data", "first", "id", "last", "start")

    def __init__(
        self, data: Tensor, id: Hashable, first: bool = False, last: bool = False, start: Optional[int] = None
    ) -> None:
        self.data = data
        self.id = id
        self.first = first
        self.last = last
        self.start = 0 if start is None and first else start

    def __repr__(self) -> str:
        return (
            f"Input({list(self.data.shape)}, id={self.id!r}, first={self.first}, last={self.last}, start={self.start})"
        )


class Batch:
    """Pieces of several signals, put together to one `StreamTensor` when it is asked for.

    Args:
        inputs: pieces to begin with

    Attributes:
        inputs: the pieces
        is_collated: whether ``data`` lies ready

    Example:
        >>> import torch, torchstreamer as pts
        >>> batch = pts.Batch([pts.Input(torch.ones(1, 4), id="a", first=True)])
        >>> batch.append(pts.Input(torch.ones(1, 3), id="b", first=True))
        >>> batch.is_collated, batch.data.shape, batch.is_collated
        (False, torch.Size([2, 1, 4]), True)
    """

    def __init__(self, inputs: Iterable[Input] = ()) -> None:
        self.inputs: List[Input] = list(inputs)
        self._data: Optional[StreamTensor] = None

    @property
    def is_collated(self) -> bool:
        return self._data is not None

    @property
    def data(self) -> StreamTensor:
        """All pieces as one tensor ``[B, …, T]``, padded with zeros.

        Raises:
            StreamInputError: codes ``invalid_pieces`` and ``doubled_ids``
        """
        if self._data is None:
            self._data = stream_tensor(
                [piece.data for piece in self.inputs],
                ids=[piece.id for piece in self.inputs],
                first=[piece.first for piece in self.inputs],
                last=[piece.last for piece in self.inputs],
                start=[piece.start for piece in self.inputs],
            )
        return self._data

    def append(self, input: Input) -> None:
        """Add a piece.

        Args:
            input: of a signal that has none here yet
        """
        self.inputs.append(input)
        self._data = None

    def extend(self, inputs: "Union[Iterable[Input], Batch]") -> None:
        """Add pieces.

        Args:
            inputs: a list of them, or another batch
        """
        self.inputs.extend(inputs)
        self._data = None

    def collate(self) -> "Batch":
        """Put the pieces together now.

        Returns:
            the batch itself

        Raises:
            StreamInputError: codes ``invalid_pieces`` and ``doubled_ids``
        """
        _ = self.data
        return self

    def __iter__(self) -> Iterator[Input]:
        return iter(self.inputs)

    def __len__(self) -> int:
        """How many pieces there are."""
        return len(self.inputs)

    def __getitem__(self, index: Any) -> Any:
        return self.inputs[index]
