"""`Cell`: tensors that a stream remembers, such as the hidden states of a recurrence.

TorchScript compiles this file, so it uses no postponed annotations and copies what it needs to locals.
"""

from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import Tensor
from torch.jit import is_scripting

from ..errors import StreamError, StreamInputError
from .describe import describe, dtype_name
from .memory import Memory

__all__ = ["Cell"]


class Cell(Memory):
    """Tensors that a stream carries from chunk to chunk, rows first: hidden states, running sums, positions.

    Their number and shapes are what the first chunk of a signal leaves; later ones must leave the same. A number for
    each row, such as a position, is a tensor ``[B]`` of whole numbers here, so rows of different age share a batch.

        h, c = cell.get() if cell.started() else start(x)
        y, h, c = advance(x, h, c)
        cell.set([h, c])

    Tensors are copied when they come, so they may be views of anything. None is ever written in place.

    Args:
        names: of the tensors, in the entries of a saved state; numbers unless they are given
        clocks: those of the names that count samples: whole numbers, which a saved state has from 0 to 2^62

    Shape:
        - tensors: ``[B, …]``, without ``B`` in a handler that gets chunks ``[C, T]``

    Example:
        >>> import torch
        >>> from torchstreamer import Cell
        >>> cell = Cell()
        >>> cell.started()
        False
        >>> cell.set([torch.zeros(2, 3), torch.tensor([5, 7])])
        >>> cell.get()[1]
        tensor([5, 7])
    """

    names: List[str]
    clocks: List[str]
    held: List[Tensor]
    ranks: List[int]
    like: Tensor

    def __init__(self, names: Sequence[str] = (), clocks: Sequence[str] = ()) -> None:
        super().__init__()
        self.names = list(names)
        self.clocks = list(clocks)
        self.held = []
        self.ranks = []  # dimensions of each, once they are known
        self._rank_two = False
        # Moves with the module where a list does not, in a script; see `_follow`.
        self.register_buffer("like", torch.empty(0), persistent=False)

    # ------------------------------------------------------------------ for handlers

    def started(self) -> bool:
        """Whether anything is held."""
        return len(self.held) > 0

    def get(self) -> List[Tensor]:
        """What is held; empty before the first `set` of a signal. Not to be written to."""
        tensors: List[Tensor] = []
        for tensor in self.rows():
            tensors.append(tensor.squeeze(0) if self._rank_two else tensor)
        return tensors

    def set(self, tensors: List[Tensor]) -> None:
        """Hold copies of these tensors instead.

        Raises:
            StreamError: they are not as many as before, or of another shape
        """
        if self._rank_two:
            batched: List[Tensor] = []
            for tensor in tensors:
                batched.append(tensor.unsqueeze(0))
            tensors = batched
        self.keep(tensors)

    # ------------------------------------------------------------------ for kernels: rows always come first

    def rows(self) -> List[Tensor]:
        """What is held, ``[B, …]`` each."""
        if is_scripting():
            self._follow()
        if torch.is_grad_enabled():
            # Autograd takes nothing that was made in inference mode.
            for tensor in self.held:
                if tensor.is_inference():
                    self._seal_memory()
                    break
        return self.held

    def keep(self, tensors: List[Tensor]) -> None:
        """Hold copies of these tensors ``[B, …]`` instead."""
        self._check(tensors)
        held: List[Tensor] = []
        for tensor in tensors:
            held.append(tensor.clone(memory_format=torch.contiguous_format))
        self._hold(held)

    def take(self, tensors: List[Tensor]) -> None:
        """The same without copies, for tensors that nobody else sees, as many as before and of the same shapes."""
        self._hold(tensors)

    def forget(self) -> None:
        """Hold nothing, as before the first chunk."""
        held: List[Tensor] = []
        self.held = held

    # ------------------------------------------------------------------ inside

    def _hold(self, tensors: List[Tensor]) -> None:
        if len(self.held) == 0:
            ranks: List[int] = []
            for tensor in tensors:
                ranks.append(tensor.dim())
            self.ranks = ranks
        self.held = tensors
        if is_scripting():
            sample = self._sample()
            if sample.dtype != self.like.dtype or sample.device != self.like.device:
                self.like = sample.new_empty([0])

    def _check(self, tensors: List[Tensor]) -> None:
        held = self.held
        if len(held) == 0:
            fits = len(tensors) > 0 and (len(self.names) == 0 or len(tensors) == len(self.names))
            for tensor in tensors:
                fits = fits and tensor.dim() > 0 and tensor.size(0) == tensors[0].size(0)
        else:
            fits = len(tensors) == len(held)
            if fits:
                for i, tensor in enumerate(tensors):
                    fits = fits and tensor.size() == held[i].size()
        if not fits:
            came: List[str] = []
            for tensor in tensors:
                came.append(f"{list(tensor.size())}")
            expected: List[str] = []
            for tensor in held:
                expected.append(f"{list(tensor.size())}")
            if len(held) == 0:
                expected.append(f"one for each of {self.names}" if len(self.names) > 0 else "one or more")
            raise StreamError(
                f"invalid_memory: a Cell got tensors of shapes {', '.join(came)}; {', '.join(expected)} was expected, "
                "rows first, of the same shapes through a signal; check what the handler keeps"
            )

    def _sample(self) -> Tensor:
        # What `like` is like: the first tensor of floating-point numbers, which `.to()` may give another dtype.
        for tensor in self.held:
            if tensor.is_floating_point():
                return tensor
        return self.held[0] if len(self.held) > 0 else self.like

    def _follow(self) -> None:
        # Moving a script moves its buffers only, so the rest goes where `like` went.
        sample = self._sample()
        like = self.like
        if sample.dtype != like.dtype or sample.device != like.device:
            moved: List[Tensor] = []
            for tensor in self.held:
                dtype = like.dtype if tensor.is_floating_point() else tensor.dtype
                moved.append(tensor.to(like.device, dtype))
            self.held = moved

    def _name(self, name: str, i: int) -> str:
        return name + "." + (self.names[i] if len(self.names) > 0 else str(i))

    # ------------------------------------------------------------------ who records a step asks these

    def phase(self) -> Tuple[int, ...]:
        # With the shape of a row, which the first chunk of a signal may have decided.
        numbers = [len(self.held)]
        for tensor in self.held:
            numbers += [tensor.dim(), *tensor.shape[1:]]
        return tuple(numbers)

    def tensors(self) -> List[Tensor]:
        return self.held

    def opens(self, shape: Sequence[int]) -> Optional[List[float]]:
        return [self.opening[1]] * shape[0] if self.opening[0] >= 0 or not shape[0] else None

    def put(self, phase: Sequence[int], tensors: Iterator[Tensor]) -> None:
        self.held = [next(tensors) for _ in range(phase[0])]

    # ------------------------------------------------------------------ the tree of streams calls these

    def _clear(self) -> None:
        self.forget()
        self._rank_two = False

    def _detach(self) -> None:
        held: List[Tensor] = []
        for tensor in self.held:
            held.append(tensor.detach())
        self.held = held

    def _seal_memory(self) -> None:
        held: List[Tensor] = []
        for tensor in self.held:
            held.append(tensor.clone())
        self.held = held

    def _nbytes(self) -> int:
        total = 0
        for tensor in self.held:
            total += tensor.numel() * tensor.element_size()
        return total

    def _save_state(self, name: str, state: Dict[str, Tensor]) -> None:
        for i, tensor in enumerate(self.rows()):
            if self.fold > 1:
                # Rows of the signal first: [B·k, …] -> [B, k, …].
                tensor = tensor.reshape([tensor.size(0) // self.fold, self.fold] + list(tensor.size())[1:])
            state[self._name(name, i)] = tensor.detach().clone()

    def _check_state(self, name: str, state: Dict[str, Tensor], rows: int) -> int:
        n = 0
        while (len(self.names) == 0 or n < len(self.names)) and self._name(name, n) in state:
            key = self._name(name, n)
            size = state[key].size()
            leading = [rows, self.fold] if self.fold > 1 else [rows]
            fits = list(size)[: len(leading)] == leading
            if fits and n < len(self.ranks):
                fits = len(size) == self.ranks[n] + len(leading) - 1
            if not fits:
                rank = f"{self.ranks[n] + len(leading) - 1} axes, " if n < len(self.ranks) else ""
                raise StreamInputError(
                    f"invalid_state: '{key}' has shape {list(size)}, {dtype_name(state[key])}; {rank}{leading} first, "
                    "was expected; make the state with get_state()"
                )
            if n < len(self.names) and self.names[n] in self.clocks:
                self._check_clock(key, state[key])
            n += 1
        expected = len(self.names) if len(self.names) > 0 else len(self.ranks)
        if n > 0 and expected > 0 and n != expected:
            raise StreamInputError(
                f"invalid_state: '{name}' has {n} entries that follow each other; {expected} were expected; make the "
                "state with get_state()"
            )
        return n

    def _check_clock(self, key: str, clock: Tensor) -> None:
        whole = not clock.is_floating_point() and not clock.is_complex()
        # Up to 2^62 some more samples overflow nothing.
        if not whole or bool((clock < 0).any()) or bool((clock > 4611686018427387904).any()):
            came = f"from {int(clock.min().item())} to {int(clock.max().item())}" if whole else describe(clock)
            raise StreamInputError(
                f"invalid_state: the clock '{key}' came {came}; whole numbers from 0 to 2^62 were expected; make the "
                "state with get_state()"
            )

    def _load_state(self, name: str, state: Dict[str, Tensor], device: torch.device) -> None:
        tensors: List[Tensor] = []
        n = 0
        while (len(self.names) == 0 or n < len(self.names)) and self._name(name, n) in state:
            tensor = state[self._name(name, n)].detach().to(device)
            if self.fold > 1:
                tensor = tensor.flatten(0, 1)
            tensors.append(tensor.clone(memory_format=torch.contiguous_format))
            n += 1
        self.forget()
        if n > 0:
            self._hold(tensors)

    # ------------------------------------------------------------------ Python only

    def __setattr__(self, name: str, value: Any) -> None:
        # nn.Module searches all its tables first.
        if name == "held":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def __prepare_scriptable__(self) -> "Cell":
        cell = type(self)(self.names, self.clocks)
        cell.fold = self.fold
        cell.ranks = list(self.ranks)
        cell.like = self.like.new_empty([0])
        return cell

    def _apply(self, fn: Any, recurse: bool = True) -> "Cell":
        self.held = [fn(tensor) for tensor in self.held]
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "held": [tensor.detach() for tensor in self.held]}

    def extra_repr(self) -> str:
        return ", ".join(self.names)
