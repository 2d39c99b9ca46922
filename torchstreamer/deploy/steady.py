"""The steady state of a stream, and its step as a function of tensors.

Chunks of one size, a multiple of ``hop``, bring a stream into a state whose shapes repeat. From there on a step is a
function of the chunk and of what its memories hold, recorded here as a graph of ATen operations. It is recorded from
the stream itself, so it serves every handler that keeps its state in rings, counters and cells.
"""

import copy
from typing import Any, List, Sequence, Tuple

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from ..core.memory import Memory
from ..core.stream import BaseStream
from ..core.tracing import tracing
from ..errors import StreamError, StreamInputError, UnsupportedModuleError
from .folding import fold_constants

__all__ = ["Phase", "SteadyStep", "fresh", "held_by", "phase_of", "put"]

Phase = Tuple[Tuple[int, ...], ...]

# The longest start that is tried, in samples.
_LONGEST = 1 << 22


def held_by(stream: BaseStream) -> List[Tensor]:
    """What the memories of a stream hold, rows first, in contiguous memory of their own."""
    return [_own(tensor.detach()) for memory in _memories(stream) for tensor in memory.tensors()]


def phase_of(stream: BaseStream) -> Phase:
    """The whole numbers of a stream's state, by memory."""
    return tuple(memory.phase() for memory in _memories(stream))


def put(stream: BaseStream, phase: Phase, states: Sequence[Tensor]) -> None:
    """Let a stream in this phase hold these tensors.

    Args:
        stream: in any state
        phase: `phase_of` a stream like this
        states: what `held_by` gave in that phase, or another step's
    """
    rest = iter(states)
    for memory, numbers in zip(_memories(stream), phase, strict=True):
        memory.put(numbers, rest)


def _memories(stream: BaseStream) -> List[Memory]:
    return [module for module in stream.modules() if isinstance(module, Memory)]


class SteadyStep:
    """The steady state that chunks of one size lead to.

    Args:
        stream: a new stream, which this uses up
        x: a chunk, ``[B, C, T]``

    Attributes:
        phase: the whole numbers of the state
        states: what the memories hold, rows first, after the chunks that led there

    Raises:
        UnsupportedModuleError: the state does not come to repeat its shape
    """

    def __init__(self, stream: BaseStream, x: Tensor) -> None:
        self.stream = stream
        self.x = x
        with torch.no_grad():
            self.phase = self._reached()
        self.states = held_by(stream)

    def _reached(self) -> Phase:
        """Feed the stream until its state repeats its shape, and does so for good; give the phase."""
        chunks, found = 1, 0
        generator = torch.Generator().manual_seed(0)
        while True:
            try:
                phases = self._phases(chunks, generator)
            except StreamInputError:  # a signal cannot be so long
                if not found:
                    raise
                return self._phases(found, generator)[0]
            if len(set(phases)) == 1:
                found = chunks
                if all(memory.lasting() for memory in _memories(self.stream)):
                    return phases[0]
            chunks *= 2
            if self.x.size(2) * chunks > _LONGEST:
                if found:
                    return self._phases(found, generator)[0]
                raise UnsupportedModuleError(
                    "no_steady_state",
                    self.stream,
                    f"fed with chunks of {self.x.size(2)} samples its state does not come to repeat its shape",
                    "let counters in its handlers wind back, and check hop",
                )

    def _phases(self, chunks: int, generator: torch.Generator) -> List[Phase]:
        # After so many chunks at once, and after each of the next ones.
        x, stream = self.x, self.stream
        stream.reset()
        stream(self.noise([x.size(0), x.size(1), x.size(2) * chunks], generator))
        phases = [phase_of(stream)]
        for _ in range(3):
            stream(self.noise(x.shape, generator))
            phases.append(phase_of(stream))
        return phases

    def noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """A random signal."""
        return _like(torch.rand(list(shape), generator=generator), self.x)

    def place(self, states: Sequence[Tensor]) -> None:
        """Bring the stream into the steady state with these tensors."""
        put(self.stream, self.phase, states)

    def held(self) -> List[Tensor]:
        """What the memories hold now, not copied."""
        return [tensor for memory in _memories(self.stream) for tensor in memory.tensors()]

    def record(self, form: str) -> fx.GraphModule:
        """The step as a graph ``(x, *states) -> (y, *states)``.

        Args:
            form: ``"rows"``, convolutions as products of rows; ``"unfolded"``, the same with one product however long
                the chunk; ``"winograd"``, with fewer products; or ``"channels"``, as torch's convolution

        Raises:
            UnsupportedModuleError: a handler computes in a way that cannot be recorded
        """

        def step(x: Tensor, *states: Tensor) -> Tuple[Tensor, ...]:
            self.place(states)
            # A copy, so that views by address, which are recorded as such, are not of the caller's memory.
            y = self.stream.step(_own(x), False)
            assert y is not None and phase_of(self.stream) == self.phase
            # Memory of their own: neither the chunk's, which is the caller's, nor each other's.
            return tuple(_own(value) for value in (y, *self.held()))

        try:
            with torch.no_grad(), tracing(form):
                graph = make_fx(step)(self.x, *self.states)
        except StreamError:
            raise
        except Exception as error:
            raise UnsupportedModuleError(
                "not_traceable",
                self.stream,
                f"recording its step raised {type(error).__name__}: {next(iter(str(error).splitlines()), '')}",
                "let handlers decide by shapes and whole numbers, not by the values of samples",
            ) from error
        fold_constants(graph)
        return graph


def _own(x: Tensor) -> Tensor:
    return x.clone(memory_format=torch.contiguous_format)


def _like(noise: Tensor, x: Tensor) -> Tensor:
    if x.is_floating_point() or x.is_complex():
        return (noise * 2 - 1).to(x)
    return (noise * 2).to(x)


def fresh(stream: BaseStream) -> Any:
    """A copy of a stream with weights of its own, between signals."""
    twin = copy.deepcopy(stream)
    twin.reset()
    return twin
