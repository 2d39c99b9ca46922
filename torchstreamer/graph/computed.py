"""Weights that a graph computes from other tensors. TorchScript compiles this file."""

# A submodule's methods are not known to the type checker.
# mypy: disable-error-code="operator, union-attr"

from typing import Sequence, Tuple

import torch
from torch import Tensor, nn

from ..core.fast_attributes import entry
from ..core.tracing import autocasting
from ..layers.weights import PackedWeight, PlainWeight, WeightSource

__all__ = ["ComputedWeight", "KeptValue"]


class ComputedWeight(WeightSource):
    """A weight computed from other tensors by a recorded graph.

    Args:
        body: computes it, from nothing
        sources: the tensors that it depends on
    """

    def __init__(self, body: nn.Module, sources: Sequence[Tensor]) -> None:
        super().__init__()
        self.body = body
        self.sources = nn.ModuleList([PlainWeight(source) for source in sources])
        self.single = len(sources) == 1

    body = entry("_modules")
    sources = entry("_modules")

    def forward(self) -> Tensor:
        return self.body()

    def anchor(self) -> Tensor:
        return self.sources[0].anchor()

    def version(self) -> int:
        """Changes with every in-place change of a source; -1 if that cannot be known."""
        total = 0
        for source in self.sources:
            version = source.version()
            if version < 0:
                return -1
            total = total * 1_000_003 % 2_305_843_009_213_693_951 + version
        return total

    def look(self) -> Tuple[Tensor, int]:
        for source in self.sources:
            if self.single:
                found: Tuple[Tensor, int] = source.look()
                return found
        return self.anchor(), self.version()


class KeptValue(PackedWeight):
    """A computed tensor for use in a segment, kept from call to call while nothing asks for its history."""

    def forward(self) -> Tensor:
        """The value."""
        if torch.is_grad_enabled() or autocasting(self.source.look()[0]):
            return self.source()
        return self.matrix()
