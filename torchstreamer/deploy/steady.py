"""The steady state of a stream, and its step as a function of tensors.

Chunks of one size, a multiple of ``hop``, bring a stream into a state whose shapes repeat. From there on a step is a
function of the chunk and of what the rings hold, which is recorded here as a graph of ATen operations. It is recorded
from the stream itself, so it serves every handler that keeps its state in rings.
"""

import copy
from typing import Any, List, Sequence, Tuple

import torch
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from ..core.counter import Counter
from ..core.ring import RingBuffer
from ..core.stream import BaseStream
from ..core.tracing import tracing
from ..errors import StreamError, UnsupportedModuleError
from .folding import fold_constants

__all__ = ["Phase", "SteadyStep", "fresh", "held_by", "phase_of", "put", "rings_of"]

Phase = Tuple[int, ...]

# The longest start that is tried, in samples.
_LONGEST = 1 << 22


def rings_of(stream: BaseStream) -> List[RingBuffer]:
    """The rings of a stream, in order."""
    return [module for module in stream.modules() if isinstance(module, RingBuffer)]


def held_by(stream: BaseStream) -> List[Tensor]:
    """What the rings of a stream hold, as rows ``[B, n, C]``, in contiguous memory of their own."""
    return [_own(ring.rows().detach()) for ring in rings_of(stream)]


def phase_of(stream: BaseStream) -> Phase:
    """The whole numbers of a stream's state."""
    numbers: List[int] = []
    for module in stream.modules():
        if isinstance(module, RingBuffer):
            numbers += (module.held, module.skip, module.data.dim())
        elif isinstance(module, Counter):
            numbers.append(module.value)
    return tuple(numbers)


class SteadyStep:
    """The steady state that chunks of one size lead to.

    Args:
        stream: a new stream, which this uses up
        x: a chunk, ``[B, C, T]``

    Attributes:
        phase: the whole numbers of the state
        states: what the rings hold, as rows, after the chunks that led there

    Raises:
        UnsupportedModuleError: the state does not come to repeat its shape
    """

    def __init__(self, stream: BaseStream, x: Tensor) -> None:
        self.stream = stream
        self.x = x
        chunk = x.size(2)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            chunks = 1
            while True:
                stream.reset()
                stream(self.noise([x.size(0), x.size(1), chunk * chunks], generator))
                phases = [phase_of(stream)]
                for _ in range(3):
                    stream(self.noise(x.shape, generator))
                    phases.append(phase_of(stream))
                if len(set(phases)) == 1:
                    break
                chunks *= 2
                if chunk * chunks > _LONGEST:
                    raise UnsupportedModuleError(
                        "no_steady_state",
                        stream,
                        f"fed with chunks of {chunk} samples its state does not come to repeat its shape",
                        "let counters in its handlers wind back, and check hop",
                    )
        self.phase = phases[0]
        self.rings = rings_of(stream)
        self.counters = [module for module in stream.modules() if isinstance(module, Counter)]
        self.numbers = [(ring.held, ring.skip) for ring in self.rings]
        self._values = [counter.value for counter in self.counters]
        self.states = held_by(stream)

    def noise(self, shape: Sequence[int], generator: torch.Generator) -> Tensor:
        """A random signal."""
        return _like(torch.rand(list(shape), generator=generator), self.x)

    def place(self, states: List[Tensor]) -> None:
        """Bring the stream into the steady state with these rows."""
        for ring, rows, (held, skip) in zip(self.rings, states, self.numbers, strict=True):
            put(ring, rows, held, skip)
        for counter, value in zip(self.counters, self._values, strict=True):
            counter.value = value

    def record(self, form: str) -> fx.GraphModule:
        """The step as a graph ``(x, *states) -> (y, *states)``.

        Args:
            form: ``"rows"``, convolutions as products of rows; ``"unfolded"``, the same with one product however long
                the chunk; ``"winograd"``, with fewer products; or ``"channels"``, as torch's convolution

        Raises:
            UnsupportedModuleError: a handler computes in a way that cannot be recorded
        """

        def step(x: Tensor, *states: Tensor) -> Tuple[Tensor, ...]:
            self.place(list(states))
            # A copy, so that views by address, which are recorded as such, are not of the caller's memory.
            y = self.stream.step(_own(x), False)
            assert y is not None and phase_of(self.stream) == self.phase
            # Memory of their own: neither the chunk's, which is the caller's, nor each other's.
            return tuple(_own(value) for value in (y, *(ring.rows() for ring in self.rings)))

        try:
            with torch.no_grad(), tracing(form):
                graph = make_fx(step)(self.x, *self.states)
        except StreamError:
            raise
        except Exception as error:
            raise UnsupportedModuleError(
                "not_traceable",
                self.stream,
                f"recording its step raised {type(error).__name__}: {str(error).splitlines()[0]}",
                "let handlers decide by shapes and whole numbers, not by the values of samples",
            ) from error
        fold_constants(graph)
        return graph


def put(ring: RingBuffer, rows: Tensor, held: int, skip: int) -> None:
    """Let a ring hold these rows."""
    ring.data = rows
    ring.held = held
    ring.skip = skip
    ring.begin = 0
    ring.room = held
    ring.free = -1
    ring.period = -1
    ring.borrowed = True


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
