"""What the pin is of: networks with how to call them, the same at every run and of every version of the package.

Each is drawn from its own seed, its name, by Python's `random`; so one more of a kind leaves the others as they are.
"""

import math
from dataclasses import dataclass
from random import Random
from typing import Any, Callable, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

CHANNELS = 4


@dataclass(frozen=True)
class Subject:
    """A network to be described.

    Args:
        name: of this one, unique in the pin
        kind: of layer or of network, under which differences are grouped
        make: makes the network, always the same one
        shape: of an example, ``[B, C, T]``; ``None`` with ``inputs``
        captured: whether `create_stream` gets an example
        length_multiple: of all lengths
        inputs: examples of a network with a layout of its own; then it is not fed
        time_dim: the time axes of these
        length: samples of the signal that is fed, a multiple of ``length_multiple``
    """

    name: str
    kind: str
    make: Callable[[], nn.Module]
    shape: Optional[Tuple[int, ...]] = (2, CHANNELS, 36)
    captured: bool = False
    length_multiple: int = 1
    inputs: Sequence[Tensor] = ()
    time_dim: Any = -1
    length: int = 120

    def signal(self, n: int, rows: int = 2, seed: int = 0) -> Tensor:
        assert self.shape is not None
        generator = torch.Generator().manual_seed(seed)
        return torch.randn([rows, self.shape[1], n], generator=generator, dtype=torch.float64)

    def create_arguments(self) -> Any:
        """What `create_stream` gets beside the network."""
        if self.inputs:
            example = tuple(self.inputs) if isinstance(self.time_dim, tuple) else self.inputs[0]
            return {"example": example, "time_dim": self.time_dim, "length_multiple": self.length_multiple}
        if not self.captured:
            return {}
        assert self.shape is not None
        return {"example": self.signal(self.shape[2], self.shape[0]), "length_multiple": self.length_multiple}


def filled(net: nn.Module, seed: int) -> nn.Module:
    """The network in eval mode, float64, with weights that depend on a seed alone."""
    generator = torch.Generator().manual_seed(seed)
    net = net.double().eval()
    with torch.no_grad():
        for weight in net.parameters():
            fan = math.sqrt(max(weight[0].numel(), 1)) if weight.dim() > 1 else 2.0
            weight.copy_(torch.randn(weight.shape, generator=generator, dtype=torch.float64) / fan)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm1d) and module.track_running_stats:
                module.running_mean.copy_(torch.randn(module.num_features, generator=generator) / 2)
                module.running_var.copy_(torch.rand(module.num_features, generator=generator) + 0.5)
    return net


def seeded(name: str, draw: Callable[[Random], nn.Module]) -> Callable[[], nn.Module]:
    """Makes the network that ``draw`` gives for the seed ``name``."""

    def make() -> nn.Module:
        seed = Random(name)
        with torch.random.fork_rng(devices=[]):
            net = draw(seed)
        return filled(net, seed.randrange(2**31))

    return make
