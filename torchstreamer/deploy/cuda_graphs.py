"""CUDA graphs: what a function does on a GPU, recorded once, and done again by one launch."""

import warnings
from typing import Any, Callable, List, Sequence

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
        keeps: what the graph reads by address and nobody else holds, such as weights
    """

    def __init__(self, run: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor], keeps: Any = None) -> None:
        self.keeps = keeps
        device = inputs[0].device
        with torch.inference_mode(False), torch.no_grad(), torch.cuda.device(device), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # compilers talk in their first run
            self.inputs = [value.clone() for value in inputs]
            side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(_RUNS_BEFORE):
                    run(*self.inputs)
            torch.cuda.current_stream().wait_stream(side)
            self.graph = torch.cuda.CUDAGraph()
            # On a stream of this device: torch's own for captures is of the first device that ever captured.
            with torch.cuda.graph(self.graph, stream=side):
                self.outputs = list(run(*self.inputs))

    def __call__(self, *inputs: Tensor) -> List[Tensor]:
        """The outputs, in memory of their own."""
        with torch.no_grad():
            for mine, given in zip(self.inputs, inputs, strict=True):
                mine.copy_(given)
            self.graph.replay()
            return [value.clone() for value in self.outputs]
