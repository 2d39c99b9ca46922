"""``numpy.arange`` of lengths that are symbols, while a model is exported: NumPy knows no symbols."""

import sys
from contextlib import ExitStack, contextmanager
from typing import Any, Iterator

import torch
from torch import Tensor

from .exporter_patches import replaced
from .symbolic_numbers import is_symbolic

__all__ = ["numpy_ranges"]

# What makes a tensor of an array.
_MAKERS = ("from_numpy", "as_tensor", "tensor")


class _Range:
    # The arguments of a range, until a tensor is made of it.
    def __init__(self, *args: Any) -> None:
        self.args = args

    def tensor(self) -> Tensor:
        # As NumPy makes them: whole numbers of 64 bits, or double precision.
        floating = any(isinstance(number, (float, torch.SymFloat)) for number in self.args)
        return torch.arange(*self.args, dtype=torch.float64 if floating else torch.int64)


@contextmanager
def numpy_ranges() -> Iterator[None]:
    """While a model is exported, tensors made of NumPy's ranges follow the length of the signal."""
    numpy = sys.modules.get("numpy")
    if numpy is None:
        yield
        return
    arange: Any = numpy.arange

    def symbolic(*args: Any, **kwargs: Any) -> Any:
        known = not kwargs and 1 <= len(args) <= 3 and any(is_symbolic(number) for number in args)
        return _Range(*args) if known else arange(*args, **kwargs)

    with ExitStack() as stack:
        stack.enter_context(replaced(numpy, "arange", symbolic))
        for name in _MAKERS:
            stack.enter_context(replaced(torch, name, _maker(getattr(torch, name))))
        yield


def _maker(plain: Any) -> Any:
    def made(data: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(data, _Range):
            return plain(data, *args, **kwargs)
        whole = data.tensor()
        return whole.to(*args, **kwargs) if args or kwargs else whole

    return made
