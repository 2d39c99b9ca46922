"""The memory of nets in a library of C++, and the library."""

import ctypes
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from ..core.memory import Memory
from ..errors import StreamInputError

__all__ = ["Library", "NetRows"]

_LATEST = 1 << 50  # samples of a signal in a saved state


class Library:
    """Functions of a library that `torchstreamer.native` wrote for rows of nets.

    Args:
        path: of the library
        weights: bytes of them, if they are not inside of it

    Raises:
        OSError: it cannot be opened
    """

    def __init__(self, path: Path, weights: Optional[Tensor] = None) -> None:
        self.path = path
        self.weights = weights  # the nets point to them
        opened = ctypes.CDLL(str(path))
        whole, pointer, number = ctypes.c_int64, ctypes.c_void_p, ctypes.c_int

        def function(name: str, gives: Any, *takes: Any) -> Any:
            found = getattr(opened, f"torchstreamer_{name}")
            found.restype, found.argtypes = gives, takes
            return found

        self.bytes: int = function("bytes", whole)()
        self.state_bytes: int = function("state_bytes", whole)()
        self._begin = function("begin", None, pointer, whole, pointer)
        self._save = function("save", None, pointer, whole, pointer)
        self._load = function("load", number, pointer, whole, pointer)
        self.run = function("run", whole, pointer, whole, pointer, number, number, pointer, whole)

    def __deepcopy__(self, memo: Dict[int, Any]) -> "Library":
        return self

    def begun(self, rows: int) -> Tensor:
        """Nets that have taken nothing, ``[rows, bytes]``."""
        nets = torch.empty([rows, self.bytes], dtype=torch.uint8)
        assert nets.data_ptr() % 64 == 0
        self._begin(nets.data_ptr(), rows, None if self.weights is None else self.weights.data_ptr())
        return nets

    def saved(self, nets: Tensor) -> Tensor:
        """Their states, ``[rows, state_bytes]``."""
        states = torch.empty([nets.size(0), self.state_bytes], dtype=torch.uint8)
        self._save(nets.data_ptr(), nets.size(0), states.data_ptr())
        return states

    def loaded(self, states: Tensor) -> Optional[Tensor]:
        """Nets in these states, or ``None`` if those are of another net."""
        nets = self.begun(states.size(0))
        states = states.contiguous()
        return nets if self._load(nets.data_ptr(), nets.size(0), states.data_ptr()) else None


class NetRows(Memory):
    """Nets, one for each row.

    Args:
        library: that they are of
        settled: after so many samples a net is old
        period: of the samples after which an old net does the same again

    Attributes:
        nets: ``[B, bytes]``, or ``None`` between signals
        came: samples that the first row has had
        oldest: samples that the oldest row has had
    """

    def __init__(self, library: Library, settled: int, period: int) -> None:
        super().__init__()
        self.library = library
        self.settled = -(-settled // period) * period
        self.period = period
        self.nets: Optional[Tensor] = None
        self.came = 0
        self.oldest = 0

    def begin(self, rows: int) -> Tensor:
        """New nets for a signal."""
        self.nets = self.library.begun(rows)
        return self.nets

    def advance(self, samples: int) -> None:
        """Count samples that came."""
        own = self.__dict__  # nn.Module's assignment would cost as much as a small layer
        own["came"] += samples
        own["oldest"] += samples

    # ------------------------------------------------------------------ a memory

    def phase(self) -> Tuple[int, ...]:
        return (-1,) if self.nets is None else (self._phase(self.came),)

    def _phase(self, came: int) -> int:
        return came if came < self.settled else self.settled + (came - self.settled) % self.period

    def tensors(self) -> List[Tensor]:
        return [] if self.nets is None else [self.library.saved(self.nets)]

    def put(self, phase: Sequence[int], tensors: Iterator[Tensor]) -> None:
        self._clear()
        if phase[0] >= 0:
            self._take(next(tensors))

    def _take(self, states: Tensor) -> None:
        came = _clocks(states)
        self.nets = self.library.loaded(states)
        assert self.nets is not None
        self.came, self.oldest = int(came[0]), int(came.max())

    def _clear(self) -> None:
        self.nets = None
        self.came = self.oldest = 0

    def _nbytes(self) -> int:
        return 0 if self.nets is None else self.nets.size(0) * self.library.state_bytes

    def _save_state(self, name: str, state: Dict[str, Tensor]) -> None:
        if self.nets is not None:
            state[f"{name}.phase"] = torch.tensor(self._phase(self.came))
            state[f"{name}.rows"] = self.library.saved(self.nets)

    def _check_state(self, name: str, state: Dict[str, Tensor], rows: int) -> int:
        if f"{name}.rows" not in state and f"{name}.phase" not in state:
            return 0
        nets, phase = state.get(f"{name}.rows"), state.get(f"{name}.phase")
        good = nets is not None and phase is not None and phase.dim() == 0 and phase.dtype == torch.int64
        if not good or not self._fits(nets, int(phase), rows):  # type: ignore[arg-type]
            raise StreamInputError(
                f"invalid_state: '{name}' holds no rows of this net, or of unlike phase; what get_state() of a stream "
                "of this net as C++ gave was expected; make the state with it"
            )
        return 2

    def _fits(self, nets: Any, phase: int, rows: int) -> bool:
        if list(nets.shape) != [rows, self.library.state_bytes] or nets.dtype != torch.uint8 or rows == 0:
            return False
        nets = nets.detach().cpu()
        came = _clocks(nets)
        if not bool(((came >= 0) & (came < _LATEST)).all()) or {self._phase(n) for n in came.tolist()} != {phase}:
            return False
        return self.library.loaded(nets) is not None

    def _load_state(self, name: str, state: Dict[str, Tensor], device: torch.device) -> None:
        self._clear()
        if f"{name}.rows" in state:
            self._take(state[f"{name}.rows"].detach().cpu())


def _clocks(states: Tensor) -> Tensor:
    # Samples that each row has had, which stand first.
    return states[:, :8].contiguous().view(torch.int64)[:, 0]
