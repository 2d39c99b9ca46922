"""Whose memory is that of pieces while a forward runs on them: what stands there is theirs, however it was come by."""

import threading
from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Optional

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from ..errors import StreamOnlineError
from .piece_numbers import REMEDY

__all__ = ["RUNNING", "Owned", "require_own_thread"]


class Owned:
    """The memory of all pieces of one call, without keeping any of it alive.

    Attributes:
        refused: what was refused in another thread, whose errors nobody may look at
    """

    def __init__(self) -> None:
        # A weak reference keeps the address from being used again.
        self._held: Dict[int, StorageWeakRef] = {}
        self.refused: Optional[StreamOnlineError] = None

    def note(self, value: Any) -> None:
        """Pieces stand here, in a tensor or in a sequence of them."""
        if isinstance(value, (list, tuple)):
            for each in value:
                self.note(each)
        elif isinstance(value, Tensor):
            storage = _storage(value)
            if storage is not None and storage._cdata not in self._held:
                self._held[storage._cdata] = StorageWeakRef(storage)  # type: ignore[no-untyped-call]

    def holds(self, x: Tensor) -> bool:
        """Whether a tensor stands in the memory of pieces."""
        storage = _storage(x)
        return storage is not None and storage._cdata in self._held

    @contextmanager
    def running(self) -> Iterator[None]:
        """While it is open, other threads may not compute with the pieces of this one."""
        here = threading.get_ident()
        RUNNING.setdefault(here, []).append(self)
        try:
            yield
        finally:
            RUNNING[here].remove(self)
            if not RUNNING[here]:
                del RUNNING[here]


# By thread, of the forwards that run in it.
RUNNING: Dict[int, List[Owned]] = {}


def require_own_thread(func: Any, values: Any) -> None:
    """Refuse pieces of a forward that runs in another thread, where nobody sees what is done to them.

    Raises:
        StreamOnlineError: ``online_time``
    """
    if threading.get_ident() in RUNNING:
        return
    for owned in [each for these in list(RUNNING.values()) for each in these]:
        if _any_held(owned, values):
            owned.refused = owned.refused or StreamOnlineError(
                f"online_time: {getattr(func, '__name__', func)} of pieces: it runs in a thread that the forward "
                "started; operations in the thread of the forward were expected of a model that is streamed layer by "
                f"layer; {REMEDY}"
            )
            raise owned.refused


def _any_held(owned: Owned, values: Any) -> bool:
    if isinstance(values, (list, tuple)):
        return any(_any_held(owned, each) for each in values)
    return isinstance(values, Tensor) and owned.holds(values)


def _storage(x: Tensor) -> Any:
    with torch._C.DisableTorchFunction():
        try:
            return x.untyped_storage()
        except (NotImplementedError, RuntimeError):  # sparse, or mapped
            return None
