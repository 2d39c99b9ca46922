"""What a loader gives without a ``collate_fn``: one chunk of every row, and where in its stream each row is."""

from dataclasses import dataclass, fields
from typing import Any, Callable, Iterable, List, Tuple

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from .trees import map_tensors

__all__ = ["StreamBatch", "set_maker"]


@dataclass(eq=False)
class StreamBatch:
    """One chunk of every row.

    Row ``b`` of a batch continues row ``b`` of the batch before, until its stream ends; then another stream takes the
    row, and ``first`` says so.

    Attributes:
        data: the chunks, stacked along a new first axis: a tensor, or the tuple, list or dict that the chunks are, of
            tensors. Where chunks differ along time, the shorter ones are padded at their end with the dataset's
            ``padding_value``. What is no number, array or tensor becomes a list with an entry for every row.
        lengths: ``[B]`` int64: the samples of each row before padding, 0 for a row of padding. It has the structure of
            ``data``, with ``None`` for what has no axis of time.
        first: ``[B]`` bool: this chunk is the first of its stream; the state carried in this row must be reset
        last: ``[B]`` bool: this chunk is the last of its stream
        ids: ``[B]`` int64: the stream's position in the dataset's list; -1 for a row of padding
        chunk_index: ``[B]`` int64: how many chunks of the stream came before this one; -1 for a row of padding
        valid: ``[B]`` bool: whether the row counts. ``False`` where a row has no stream left: it is padding
            (``ids`` is -1) or data read before (``ids`` says which).
        place: what tells `StreamDataLoader.state_dict` where the loader stood after this batch; ``None`` in a batch
            that no loader gave

    To ``torch.utils._pytree`` a batch is a node of all of these but ``place``, which goes along.
    """

    data: Any
    lengths: Any
    first: Tensor
    last: Tensor
    ids: Tensor
    chunk_index: Tensor
    valid: Tensor
    place: Any = None

    def __len__(self) -> int:
        """The number of rows."""
        return self.valid.shape[0]

    def to(self, device: "torch.device | str", non_blocking: bool = False) -> "StreamBatch":
        """The batch on another device.

        Args:
            device: where to
            non_blocking: whether copies from pinned memory run beside other work
        """
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "StreamBatch":
        """The batch in pinned memory, for fast copies to a GPU."""
        return self._map(lambda tensor: tensor.pin_memory())

    def stream_tensor(self, time_dim: int = -1) -> Any:
        """The rows that count as a `StreamTensor`, which carries ids, lengths and marks through operations of torch.

        Args:
            time_dim: the axis of time of ``data``, rows first: -1 for ``[B, …, T]``, 1 for ``[B, T, C]``

        Returns:
            a `StreamTensor`; where ``data`` has several parts, their structure with one for each part that has time
        """
        return _makers[0](self, time_dim=time_dim)

    def _map(self, function: Callable[[Tensor], Tensor]) -> "StreamBatch":
        return _unflatten([map_tensors(function, getattr(self, name)) for name in _CHILDREN], self.place)


# Rows of the room above, which this one does not import.
_makers: List[Callable[..., Any]] = []


def set_maker(maker: Callable[..., Any]) -> None:
    """Say what makes a `StreamTensor` of a batch."""
    _makers[:] = [maker]


_CHILDREN = tuple(field.name for field in fields(StreamBatch) if field.name != "place")


def _flatten(batch: StreamBatch) -> Tuple[List[Any], Any]:
    return [getattr(batch, name) for name in _CHILDREN], batch.place


def _flatten_with_keys(batch: StreamBatch) -> Tuple[List[Tuple[Any, Any]], Any]:
    return [(pytree.GetAttrKey(name), getattr(batch, name)) for name in _CHILDREN], batch.place


def _unflatten(children: Iterable[Any], place: Any) -> StreamBatch:
    return StreamBatch(*children, place)  # type: ignore[call-arg]  # as many as there are fields


# Private, as all of torch's trees are; its users are functorch, FSDP, torch.export and trainers.
pytree.register_pytree_node(
    StreamBatch,
    _flatten,
    _unflatten,
    serialized_type_name="torchstreamer.StreamBatch",
    flatten_with_keys_fn=_flatten_with_keys,
)
