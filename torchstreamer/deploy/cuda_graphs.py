"""CUDA graphs: what a function does on a GPU, recorded once, and done again by one launch."""

from typing import Callable, List, Sequence

import torch
from torch import Tensor

__all__ = ["CudaGraph"]

# Capture asks for a few runs before, on a stream of their own: libraries set themselves up in them.
_RUNS_BEFORE = 3


class CudaGraph:
    """A function of tensors as a CUDA graph.

    Args:
        run: takes the inputs and gives outputs; what else it changes, it changes at every call, that of making this
            included
        inputs: an example; later ones have the same shapes
    """

    def __init__(self, run: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> None:
        self.run = run  # what it holds, such as weights, the graph reads by address
        self.inputs = [value.clone() for value in inputs]
        with torch.cuda.device(self.inputs[0].device), torch.no_grad():
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_RUNS_BEFORE):
                    run(*self.inputs)
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.outputs = list(run(*self.inputs))

    def __call__(self, *inputs: Tensor) -> List[Tensor]:
        """The outputs, in memory of their own."""
        with torch.no_grad():
            for mine, given in zip(self.inputs, inputs, strict=True):
                mine.copy_(given)
            self.graph.replay()
            return [value.clone() for value in self.outputs]
