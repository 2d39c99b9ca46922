"""What every stream does with its memory: reset, snapshots, cuts, and who may do so. TorchScript compiles this file."""

import zlib
from typing import Dict, Optional

import torch
from torch import Tensor, nn
from torch.compiler import is_compiling
from torch.jit import is_scripting

from ..errors import StreamInputError, StreamStateError
from .backward import Backward
from .fast_attributes import entry, every_module, has
from .state import count_entries, require_named_tensors, require_plain, require_seal, require_whole, seal_of
from .turns import Turn, refuse_shallow_copy

__all__ = ["Remembering"]


class Remembering(nn.Module):
    """A module whose memory is that of all memories and signals in it, taken, set and forgotten as one."""

    _like: Tensor = entry("_buffers")

    # Whether a part of what is remembered stands elsewhere than in memories, for a while.
    _elsewhere = False

    def __init__(self) -> None:
        super().__init__()
        self._layout = -1
        self._failed = False
        self._inside = False  # a handler's own `forward` is at work
        self._unbatched = False
        self._takes_line = False  # also takes signals [T], of one channel and without an axis for it
        self._line = False  # the signal is such a one
        self._turn = Turn()
        self._backward = Backward()
        # Batch, channels, dtype and device of the signal, [B, C, 0]; one-dimensional between signals.
        self.register_buffer("_like", torch.empty(0), persistent=False)

    @torch.jit.export
    def reset(self) -> None:
        """Forget the signal. The stream is as new."""
        if not is_scripting():
            if not is_compiling():
                with self._turn:
                    return self._reset()
        self._reset()

    def _reset(self) -> None:
        self._failed = True  # until it is done
        if not is_scripting():
            if not is_compiling():
                return self._reset_quickly()
        for _, m in self.named_modules():
            if hasattr(m, "_clear"):
                m._clear()
        self._mend()

    @torch.jit.unused
    def _reset_quickly(self) -> None:
        # The same, at the end of every signal: asking a module for what it does not have costs more than all else here.
        parts = every_module(self)
        for m in parts:
            if has(m, "_clear"):
                m._clear()
        for m in parts:
            if has(m, "_failed"):
                m._failed = False

    @torch.jit.export
    def get_state(self) -> Dict[str, Tensor]:
        """A copy of everything the stream remembers: tensors, rows first, and integers as 0-d int64.

        Raises:
            StreamStateError: an earlier call failed half-way, or a call of another thread runs
        """
        if not is_scripting():
            with self._turn:
                return self._collect_state()
        return self._collect_state()

    def _collect_state(self) -> Dict[str, Tensor]:
        self._ensure_sound()
        state: Dict[str, Tensor] = {}
        for name, m in self.named_modules():
            if hasattr(m, "_save_state"):
                m._save_state(name, state)
        state["@layout"] = torch.tensor(self._layout_code())
        state["@entries"] = torch.tensor(count_entries(state))
        state["@seal"] = torch.tensor(seal_of(state))
        return state

    @torch.jit.export
    def set_state(self, state: Dict[str, Tensor]) -> None:
        """Continue from a state that `get_state` gave, here or in another process or on another device.

        Raises:
            StreamInputError: the state belongs to another stream, or is not as `get_state` gave it; nothing was written
            StreamStateError: a call of another thread runs
        """
        if not is_scripting():
            with self._turn:
                require_named_tensors(state)
                return self._restore_state(state)
        self._restore_state(state)

    def _restore_state(self, state: Dict[str, Tensor]) -> None:
        require_plain(state)
        require_whole(state, self._layout_code())
        rows = state["@signal"].size(0) if "@signal" in state and state["@signal"].dim() == 3 else 0
        used = 3
        for name, m in self.named_modules():
            if hasattr(m, "_check_state"):
                used += m._check_state(name, state, rows)
        if used != len(state):
            raise StreamInputError(
                f"invalid_state: the state has {len(state)} entries; this stream knows {used} of them; a state fits "
                "the stream of the same network that it was taken from; make it with get_state()"
            )
        require_seal(state)
        anchor = self.anchor()
        device = self._like.device if anchor is None else anchor.device
        # What can fail is done before anything is written.
        copies: Dict[str, Tensor] = {}
        for key in state.keys():
            value = state[key].detach()
            copies[key] = value if value.dim() == 0 else value.to(device)
        self._failed = True  # until it is done
        for name, m in self.named_modules():
            if hasattr(m, "_load_state"):
                m._load_state(name, copies, device)
        self._mend()

    @torch.jit.export
    def detach_state(self) -> None:
        """Cut the gradient's path into earlier chunks, for truncated back-propagation."""
        if not is_scripting():
            with self._turn:
                return self._cut()
        self._cut()

    def _cut(self) -> None:
        for _, m in self.named_modules():
            if hasattr(m, "_detach"):
                m._detach()

    @torch.jit.export
    def refresh_weights(self) -> None:
        """Renew the packed copies of all weights. Needed only after changes that bypass PyTorch's version counters."""
        for _, m in self.named_modules():
            if hasattr(m, "_refresh"):
                m._refresh()

    @torch.jit.export
    def state_nbytes(self) -> int:
        """Bytes of the samples that the stream holds now."""
        total = 0
        for _, m in self.named_modules():
            if hasattr(m, "_nbytes"):
                total += m._nbytes()
        return total

    def anchor(self) -> Optional[Tensor]:
        """A weight whose dtype and device the input must have, or ``None``."""
        return None

    # ------------------------------------------------------------------ inside

    def _check_signal(self, x: Tensor) -> None:
        raise NotImplementedError

    def _set_rank(self, unbatched: bool) -> None:
        raise NotImplementedError

    def _layout_code(self) -> int:
        # A number for the layers and their geometry. A script has it from the stream that it was made of.
        if not is_scripting():
            if self._layout < 0:
                self._layout = zlib.crc32(repr(self).encode())
        return self._layout

    def _mend(self) -> None:
        for _, m in self.named_modules():
            if hasattr(m, "_failed"):
                m._failed = False

    def _ensure_sound(self) -> None:
        if self._failed:
            raise StreamStateError(
                "failed_stream: an earlier call failed half-way, so the state is not that of any signal; a sound "
                "stream was expected; call reset(), or set_state() with an earlier state"
            )

    def _detach(self) -> None:
        if not is_scripting():
            self._backward.cut(False)

    def _clear(self) -> None:
        if not is_scripting():
            self._backward.cut(True)
        # Most parts of a stream have had no signal of their own, and writing costs more than looking.
        self._inside = False
        if self._unbatched:
            self._unbatched = False
        if self._line:
            self._line = False
        if self._like.dim() != 1:
            self._like = self._like.new_empty([0])

    def _save_state(self, name: str, state: Dict[str, Tensor]) -> None:
        if self._like.dim() == 3:
            prefix = name + "." if len(name) > 0 else ""
            state[prefix + "@signal"] = self._like.clone()
            if self._unbatched:
                state[prefix + "@unbatched"] = torch.tensor(1)
            if self._line:
                state[prefix + "@line"] = torch.tensor(1)

    def _check_state(self, name: str, state: Dict[str, Tensor], rows: int) -> int:
        prefix = name + "." if len(name) > 0 else ""
        if prefix + "@signal" not in state:
            return 0
        like = state[prefix + "@signal"]
        alone = prefix + "@unbatched" in state
        if like.dim() != 3 or like.size(2) != 0 or like.size(0) != rows or (alone and rows != 1):
            expected = "1" if alone else f"{rows}"
            raise StreamInputError(
                f"invalid_state: '{prefix}@signal' has shape {list(like.size())}; [{expected}, channels, 0] was "
                "expected; make the state with get_state()"
            )
        anchor = self.anchor()
        self._check_signal(like if anchor is None else like.to(anchor.device))
        line = alone and self._takes_line and like.size(1) == 1 and prefix + "@line" in state
        return (2 if alone else 1) + (1 if line else 0)

    def _load_state(self, name: str, state: Dict[str, Tensor], device: torch.device) -> None:
        prefix = name + "." if len(name) > 0 else ""
        self._clear()
        if prefix + "@signal" in state:
            self._like = state[prefix + "@signal"].detach().to(device).clone()
            # Streams inside that have a signal of their own come later, and set their own rank.
            self._set_rank(prefix + "@unbatched" in state)
            self._line = prefix + "@line" in state

    def __copy__(self) -> "Remembering":
        raise refuse_shallow_copy(self)
