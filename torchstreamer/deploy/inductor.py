"""Functions of tensors, compiled by Inductor in this process."""

from typing import Any, Callable, Dict, Sequence

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

__all__ = ["inductor"]


def inductor(run: Callable[..., Any], example: Sequence[Tensor], options: Dict[str, Any]) -> Callable[..., Any]:
    """The same function, compiled: kernels of the compiler's own take all that stands between the products.

    Args:
        run: a function of tensors, whose shapes never change; it may write to them
        example: tensors to record it with, which it may write to
        options: of Inductor
    """
    # Recorded first, since what Dynamo reads must write to nothing but whole tensors, and so that each function has
    # code of its own: of one code object it compiles eight at most.
    with torch.no_grad():
        run(*example)  # what is computed once and kept is so from here on, and not recorded
        graph = make_fx(torch.func.functionalize(run, remove="mutations"))(*example)
    return torch.compile(graph, dynamic=False, fullgraph=True, options=options)
