"""A step whose backward pass computes it again, and a stream's place in its signal as data for that."""

from contextlib import contextmanager
from typing import Any, Dict, Iterator, List, Tuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .memory import Memory
from .remembering import Remembering

__all__ = ["Place", "checkpoint_step"]

# What a stream, or a memory, knows of the rank and soundness of its signal besides what is held.
_OF_SIGNAL = ("_like", "_unbatched", "_failed", "_inside", "_inferred", "_rank_two")


class Place:
    """Where a stream stands: all that its next step depends on, but for the weights. Nothing is copied.

    Args:
        stream: whose place it is

    Attributes:
        tensors: what the memories hold, in order; they carry gradients
    """

    def __init__(self, stream: nn.Module) -> None:
        self._parts: List[Tuple[nn.Module, Dict[str, Any], Tuple[int, ...]]] = []
        self.tensors: List[Tensor] = []
        for part in stream.modules():
            if isinstance(part, (Memory, Remembering)):
                told = {name: getattr(part, name) for name in _OF_SIGNAL if hasattr(part, name)}
                self._parts.append((part, told, part.phase() if isinstance(part, Memory) else ()))
                if isinstance(part, Memory):
                    part._seal_memory()  # what was written to in place so far is written to no more
                    self.tensors += part.tensors()

    def restore(self) -> None:
        """Let the stream stand there again."""
        tensors = iter(self.tensors)
        for part, told, phase in self._parts:
            for name, value in told.items():
                setattr(part, name, value)
            if isinstance(part, Memory):
                part.put(phase, tensors)


@contextmanager
def _set_aside(stream: Remembering) -> Iterator[None]:
    """For a step at another place of the signal, after which the stream stands where it stood."""
    with stream._turn:
        present = Place(stream)
        stream._backward.recomputing = True
        try:
            yield
        finally:
            stream._backward.recomputing = False
            present.restore()


def checkpoint_step(stream: Any, *chunks: Any, final: bool = False) -> Any:
    """``stream(*chunks, final=final)`` that keeps for the backward pass the state alone, and computes the step again.

    Memory is saved for time, as `torch.utils.checkpoint.checkpoint` does for modules, which does not know that a
    stream has a state: it would compute the step again from where the stream stands by then. Gradients are those of
    the plain step; random numbers (dropout) are drawn alike again. With gradients off this is the plain step.

    Args:
        stream: from `create_stream`; not a script
        chunks: as for the stream
        final: whether the signal ends here

    Returns:
        what the stream gives

    Raises:
        StreamInputError, StreamStateError: as from the stream

    Example:
        >>> import torch, torchstreamer as pts
        >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 3, padding=1), torch.nn.ReLU())
        >>> stream, x = pts.create_stream(net), torch.randn(1, 1, 30)
        >>> pieces = [pts.checkpoint_step(stream, piece) for piece in x.split(10, -1)] + [stream.flush()]
        >>> torch.cat(pieces, -1).sum().backward()
    """
    if not torch.is_grad_enabled():
        return stream(*chunks, final=final)
    before = Place(stream)
    again = False

    def step(*given: Any) -> Any:
        nonlocal again
        if not again:
            again = True
            return stream(*given, final=final)
        with _set_aside(stream):
            before.restore()
            return stream(*given, final=final)

    # The caller may overwrite a chunk before the backward pass.
    kept = [x.clone() if isinstance(x, Tensor) else x for x in chunks]
    return checkpoint(step, *kept, use_reentrant=False)
