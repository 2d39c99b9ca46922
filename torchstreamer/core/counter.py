"""`Counter`: a whole number that a stream remembers. TorchScript compiles this file."""

from typing import Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from ..errors import StreamInputError
from .memory import Memory

__all__ = ["Counter"]


class Counter(Memory):
    """A whole number that a stream remembers, for instance how many outputs are still to be dropped.

    A counter is part of the phase of a state: in the steady state it must repeat, so count down or wrap around, never
    count samples for ever.

    Args:
        start: its value in a new stream
    """

    def __init__(self, start: int = 0) -> None:
        super().__init__()
        self.start = start
        self.value = start

    def phase(self) -> Tuple[int, ...]:
        return (self.value,)

    def tensors(self) -> List[Tensor]:
        return []

    def opens(self, shape: Sequence[int]) -> Optional[List[float]]:
        return [] if shape[0] == (self.opening[0] if self.opening[0] >= 0 else self.start) else None

    def put(self, phase: Sequence[int], tensors: Iterator[Tensor]) -> None:
        self.value = phase[0]

    def _clear(self) -> None:
        self.value = self.start

    def _save_state(self, name: str, state: Dict[str, Tensor]) -> None:
        state[name] = torch.tensor(self.value)

    def _check_state(self, name: str, state: Dict[str, Tensor], rows: int) -> int:
        if name not in state or state[name].dim() != 0 or state[name].dtype != torch.int64:
            raise StreamInputError(
                f"invalid_state: the state has no whole number '{name}'; a state fits the stream of the same network "
                "that it was taken from; make it with get_state()"
            )
        return 1

    def _load_state(self, name: str, state: Dict[str, Tensor], device: torch.device) -> None:
        self.value = int(state[name].item())

    def __prepare_scriptable__(self) -> "Counter":
        return type(self)(self.start)

    def extra_repr(self) -> str:
        return f"start={self.start}"
