"""What a patched model remembers of its signals."""

from typing import Dict, Hashable, Iterator, Tuple

from torch import Tensor, nn

from ..core.patched import PATCH, is_patched
from ..errors import StreamOnlineError
from .online import Patch

__all__ = ["StreamState", "stream_state"]


def stream_state(model: nn.Module) -> "StreamState":
    """What a patched model remembers of its signals.

    Args:
        model: patched

    Raises:
        StreamOnlineError: ``not_patched``
    """
    return StreamState(model)


class StreamState:
    """What a patched model remembers of its signals; it is always what it is now.

    Args:
        model: patched

    Example:
        >>> import torch, torchstreamer as pts
        >>> model = pts.patch_module(torch.nn.Conv1d(1, 1, 3)).online()
        >>> _ = model(pts.stream_tensor([torch.ones(1, 5)], ids=["a"], first=True))
        >>> state = pts.stream_state(model)
        >>> state.ids(), state.nbytes
        (('a',), 8)
        >>> state.drop("a")
        >>> len(state)
        0
    """

    def __init__(self, model: nn.Module) -> None:
        if not is_patched(model):
            raise StreamOnlineError(
                f"not_patched: a {type(model).__name__} came that is not patched; a model that pts.patch_module was "
                "called on was expected; call it"
            )
        self._model = model

    @property
    def _patch(self) -> "Patch":
        patch: Patch = self._model.__dict__[PATCH]
        return patch

    def ids(self) -> Tuple[Hashable, ...]:
        """The ids of all signals that have begun and not ended."""
        return self._patch.ids()

    def get(self, id: Hashable) -> Dict[str, Tensor]:
        """The state of a signal: named tensors, which ``torch.save`` takes.

        Raises:
            StreamInputError: ``unknown_id``
        """
        with self._patch.turn:
            return self._patch.known(id).get(id)

    def set(self, id: Hashable, state: Dict[str, Tensor]) -> None:
        """Let a signal, new or not, go on from a state of the same model.

        Raises:
            StreamInputError: ``invalid_state``
        """
        with self._patch.turn:
            self._patch.ready(self._model).set(id, state)

    def drop(self, id: Hashable) -> None:
        """Forget a signal.

        Raises:
            StreamInputError: ``unknown_id``
        """
        with self._patch.turn:
            self._patch.known(id).drop(id)

    def detach(self, *ids: Hashable) -> None:
        """Cut the gradient's path into earlier pieces, of these signals or of all.

        Raises:
            StreamInputError: ``unknown_id``
        """
        with self._patch.turn:
            for id in ids or self._patch.ids():
                self._patch.known(id).detach([id])

    def nbytes_of(self, id: Hashable) -> int:
        """Bytes of the state of a signal.

        Raises:
            StreamInputError: ``unknown_id``
        """
        return self._patch.known(id).nbytes_of(id)

    @property
    def nbytes(self) -> int:
        """Bytes of the states of all signals."""
        return sum(map(self.nbytes_of, self.ids()))

    def __len__(self) -> int:
        return len(self.ids())

    def __contains__(self, id: Hashable) -> bool:
        return id in self.ids()

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self.ids())

    def __repr__(self) -> str:
        return f"StreamState({type(self._model).__name__}, {len(self)} signals, {self.nbytes} bytes)"
