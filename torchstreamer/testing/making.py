"""How to make the streams of a network that are verified, and what they must equal."""

import copy
from typing import Any, Callable, Dict, List, Optional

import torch
from torch import Tensor, nn

from ..core.axes import Axes
from ..core.registry import create_stream
from ..core.stream import BaseStream
from ..layers.weights import copy_network
from .report import VerificationError
from .subject import Reference

__all__ = ["Maker", "capturing", "of_module"]

Make = Callable[[], BaseStream]


class Maker:
    """How to make a stream, what it must equal, and the network that both share, if it is known.

    Args:
        make: makes a stream, maybe as a copy
        reference: what it must equal
        module: the network that both share
        apart: makes a stream with nothing taken over from earlier ones, if that is not what ``make`` does
    """

    def __init__(
        self, make: Make, reference: Reference, module: Optional[nn.Module], apart: Optional[Make] = None
    ) -> None:
        self.make = make
        self.reference = reference
        self.module = module
        self.apart = apart

    def weights(self) -> List[nn.Parameter]:
        """The weights that can have gradients."""
        if self.module is None:
            return []
        return [weight for weight in self.module.parameters() if weight.is_floating_point() or weight.is_complex()]


def of_module(
    module: nn.Module,
    dtype: torch.dtype,
    device: torch.device,
    reference: Optional[Reference],
    multiple: int,
    example: Optional[Tensor],
) -> Maker:
    """The maker for a network, or for a copy of it in another dtype.

    Args:
        module: the network
        dtype: dtype of the signals, and of the copy's weights unless it is one of whole numbers
        device: device of the copy
        reference: what the stream must equal, if it is not the network; then there is no copy
        multiple: ``length_multiple`` of the stream
        example: the signal to capture the network with; ``None`` for a stream made of handlers
    """
    if reference is None:
        net = copy_network(module)
        net = net.to(device=device, dtype=dtype) if dtype.is_floating_point or dtype.is_complex else net.to(device)
    else:
        net = module
    known = net if reference is None or reference is module else None
    keywords: Dict[str, Any] = {}
    if example is not None:
        keywords["example"] = example
    if example is not None or multiple != 1:
        keywords["length_multiple"] = multiple

    def make() -> BaseStream:
        return create_stream(net, **keywords)

    if example is None:
        return Maker(make, reference or _offline(net, make().axes), known)
    return Maker(capturing(make, net), reference or net, known, make)


def _offline(net: nn.Module, axes: Optional[Axes]) -> Reference:
    # What the stream equals, which has [B, C, T] whatever the network has.
    if axes is None or axes.plain:
        return net
    turned = axes
    return lambda x: turned.call(net, x)


def capturing(make: Make, net: nn.Module) -> Make:
    """A function that makes one stream, and gives copies of it which share the network's weights as new ones would."""
    pristine: List[BaseStream] = []

    def copied() -> BaseStream:
        if not pristine:
            pristine.append(make())
        shared: Dict[int, Any] = {id(value): value for value in _tensors(net)}
        try:
            return copy.deepcopy(pristine[0], shared)
        except Exception as error:
            raise VerificationError(
                "state", f"deepcopy of a new stream raised {type(error).__name__}: {error}"
            ) from error

    return copied


def _tensors(net: nn.Module) -> List[Tensor]:
    # Plain attributes too, such as the weight that the older weight_norm computes.
    plain = [value for module in net.modules() for value in vars(module).values() if isinstance(value, Tensor)]
    return [*net.parameters(), *net.buffers(), *plain]
