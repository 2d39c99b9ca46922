"""How to make the streams of a network that are verified, and what they must equal."""

import copy
from types import MethodType
from typing import Any, Callable, Dict, List, Optional

import torch
from torch import Tensor, nn

from ..containers.contextual import with_context
from ..core.axes import Axes
from ..core.context import Context
from ..core.registry import create_stream
from ..core.stream import BaseStream
from ..layers.weights import copy_network
from .report import VerificationError
from .subject import Reference

__all__ = ["Maker", "capturing", "is_own", "of_module"]

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
    context: Optional[Context] = None,
) -> Maker:
    """The maker for a network, or for a copy of it in another dtype.

    Args:
        module: the network
        dtype: dtype of the signals, and of the copy's weights unless it is one of whole numbers
        device: device of the copy
        reference: what the stream must equal, if it is not the network; then there is no copy, unless it is a method
            of the network, which the copy has too
        multiple: ``length_multiple`` of the stream
        example: the signal to capture the network with; ``None`` for a stream made of handlers
        context: of the attention in the stream

    Raises:
        TypeError: no reference came, and nothing in the network takes the context
    """
    if is_own(reference, module):
        net = copy_network(module)
        net = net.to(device=device, dtype=dtype) if dtype.is_floating_point or dtype.is_complex else net.to(device)
        reference = None if reference is None else MethodType(reference.__func__, net)  # type: ignore[attr-defined]
        known: Optional[nn.Module] = net
    else:
        net = module
        known = net if reference is module else None
    keywords: Dict[str, Any] = {}
    if context is not None:
        keywords["context"] = context
    if example is not None:
        keywords["example"] = example
    if example is not None or multiple != 1:
        keywords["length_multiple"] = multiple

    def make() -> BaseStream:
        return create_stream(net, **keywords)

    whole = net
    if context is not None and reference is None:
        placed = with_context(net, context)
        if placed is None:
            raise TypeError(
                "verify_stream got a context without a reference, and no module of torch's in the network takes one; "
                "pass reference=, the network with its mask"
            )
        whole = placed
    if example is None:
        return Maker(make, reference or _offline(whole, make().axes), known)
    return Maker(capturing(make, net), reference or whole, known, make)


def is_own(reference: Optional[Reference], module: Optional[nn.Module]) -> bool:
    """Whether a stream must equal the network itself, or a method of it, so that a copy of it can be verified."""
    if module is None:
        return False
    return reference is None or (isinstance(reference, MethodType) and reference.__self__ is module)


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
