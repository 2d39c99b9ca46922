"""Broken handlers: what they remember, their gradients, and their scripts."""

import contextlib
from typing import Any, List, Optional

import torch
from handlers_by_hand import PaddedStream, StridedStream
from torch import Tensor, nn

import torchstreamer as pts


class RingNeverDropped(StridedStream):
    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        before = self.ring.length()
        window = self.ring.append(x)
        done, count = max((before - 1) // 2, 0), (window.size(-1) - 1) // 2
        return self.net(window[..., 2 * done : 2 * count + 1]) if count > done else None


class Diary(StridedStream):
    """Remembers the length of every chunk."""

    def __init__(self, net: nn.Conv1d) -> None:
        super().__init__(net)
        self.lengths: List[int] = []

    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        self.lengths.append(x.size(-1))
        return super().forward(x, final)


class SpareRoom(StridedStream):
    """Holds few samples in much memory."""

    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        y = super().forward(x, final)
        data = self.ring.rows()
        if data.dim() == 3 and data.size(1) > 0 and not torch.is_grad_enabled():
            room = data.new_zeros(data.size(0), data.size(1) + 1000, data.size(2))
            room[:, : data.size(1)] = data
            self.ring.data = room[:, : data.size(1)]
            self.ring.begin = 0
            self.ring.free = -1
        return y


class BytesUncounted(StridedStream):
    def state_nbytes(self) -> int:
        return 0


class StateInAList(StridedStream):
    """Keeps its samples outside of a RingBuffer, and clears them at every end."""

    def __init__(self, net: nn.Conv1d) -> None:
        super().__init__(net)
        self.samples: List[Tensor] = []

    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        window = torch.cat([*self.samples, x], -1)
        count = (window.size(-1) - 1) // 2
        self.samples = [window[..., 2 * max(count, 0) :].clone()]
        return self.net(window[..., : 2 * count + 1]) if count > 0 else None

    def reset(self) -> None:
        super().reset()
        self.samples = []


class LiveState(StridedStream):
    def get_state(self) -> Any:
        state = super().get_state()
        state["ring.data"] = self.ring.rows()
        return state


class StateNotCopied(StridedStream):
    def set_state(self, state: Any) -> None:
        super().set_state(state)
        self.ring.data = state["ring.data"]


class AcceptsForeignStates(StridedStream):
    def set_state(self, state: Any) -> None:
        with contextlib.suppress(pts.StreamInputError):
            super().set_state(state)


class InStateDict(StridedStream):
    def __init__(self, net: nn.Conv1d) -> None:
        super().__init__(net)
        self.ring._non_persistent_buffers_set.clear()


class RowsLast(StridedStream):
    def get_state(self) -> Any:
        state = super().get_state()
        return {key: value.movedim(0, -1) if value.dim() == 3 else value for key, value in state.items()}

    def set_state(self, state: Any) -> None:
        super().set_state({key: value.movedim(-1, 0) if value.dim() == 3 else value for key, value in state.items()})


class CopyIsItself(StridedStream):
    def __deepcopy__(self, memo: Any) -> "CopyIsItself":
        return self


class CannotBePickled(StridedStream):
    def __init__(self, net: nn.Conv1d) -> None:
        super().__init__(net)
        self.act = lambda x: x


class NoGradients(StridedStream):
    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        with torch.no_grad():
            return super().forward(x, final)


class DetachedState(StridedStream):
    """Gradients do not reach through the ring."""

    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        self.ring.data = self.ring.data.detach()
        return super().forward(x, final)


class NeverDetached(StridedStream):
    def detach_state(self) -> None:
        pass


class WritesInPlace(StridedStream):
    """Keeps its samples in one tensor, also while gradients are on."""

    def __init__(self, net: nn.Conv1d) -> None:
        super().__init__(net)
        self.scale: Optional[Tensor] = None

    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        if self.scale is None:
            self.scale = torch.ones((), dtype=torch.float64)
        y = super().forward(x * self.scale, final)
        with torch.no_grad():
            self.scale.mul_(1.0)
        return y


class StaleWeight(PaddedStream):
    """Packs its weight once."""

    def __init__(self, net: nn.Conv1d) -> None:
        super().__init__(net)
        self.packed: Optional[Tensor] = None

    def forward(self, x: Optional[Tensor], final: bool = False) -> Optional[Tensor]:
        if torch.is_grad_enabled():
            return super().forward(x, final)
        if self.packed is None:
            self.packed = self.weight.detach().clone()
        weight, self.weight = self.weight, nn.Parameter(self.packed, requires_grad=False)
        try:
            return super().forward(x, final)
        finally:
            self.weight = weight


class OtherWhenScripted(StridedStream):
    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        window = self.ring.append(x)
        count = (window.size(-1) - 1) // 2
        if count <= 0:
            return None
        self.ring.drop(2 * count)
        y = self.net(window[..., : 2 * count + 1])
        return y + 1e-6 if torch.jit.is_scripting() else y


class CannotBeScripted(StridedStream):
    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        return super().forward(x, final=final)


class LengthWhenScripted(StridedStream):
    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        window = self.ring.append(x)
        count = (window.size(-1) - 1) // 2
        if count <= 0:
            return None
        self.ring.drop(2 * count)
        return self.net(window[..., : 2 * count + 1])

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        length = max((n - 1) // 2, 0)
        return length + 1 if torch.jit.is_scripting() and final and n == 9 else length


class GoesOnWhenScripted(OtherWhenScripted):
    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        window = self.ring.append(x)
        count = (window.size(-1) - 1) // 2
        if count <= 0:
            return None
        self.ring.drop(2 * count)
        return self.net(window[..., : 2 * count + 1])

    def _ensure_sound(self) -> None:
        if self._failed and not torch.jit.is_scripting():
            raise pts.StreamStateError("failed_stream: an earlier call failed; call reset()")
