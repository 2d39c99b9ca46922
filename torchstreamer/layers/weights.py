"""Where the weight of a layer comes from: a parameter, or parameters of a norm.

A stream holds the layer's own parameters, so it follows a training step; it never holds the layer itself, whose hooks
and parametrizations do not script. TorchScript compiles this file.
"""

# A submodule's methods are not known to the type checker.
# mypy: disable-error-code="operator, union-attr"

import copy
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn
from torch.jit import is_scripting
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from ..core.fast_attributes import entry
from ..core.tracing import autocasting
from ..errors import UnsupportedModuleError

__all__ = [
    "PackedWeight",
    "PlainWeight",
    "WeightSource",
    "copy_network",
    "parameter_source",
    "register_tensor",
    "version_of",
    "weight_source",
]


def version_of(x: Tensor) -> int:
    """Changes with every in-place change of a tensor; -1 if that cannot be known."""
    return -1 if x.is_inference() else _count(x)  # inference tensors keep no count of their changes


def _count(x: Tensor) -> int:
    if is_scripting():
        return x._version()
    else:
        return x._version


class WeightSource(nn.Module):
    """Computes the weight of a layer from the layer's own parameters."""

    def anchor(self) -> Tensor:
        """A parameter that says dtype and device."""
        raise NotImplementedError

    def version(self) -> int:
        """Changes with every in-place change of the weight; -1 if that cannot be known."""
        raise NotImplementedError

    def look(self) -> Tuple[Tensor, int]:
        """`anchor` and `version`."""
        return self.anchor(), self.version()


class PlainWeight(WeightSource):
    """A parameter, or a tensor that stands for one, used as it is."""

    weight: Tensor = entry("_parameters")

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        register_tensor(self, "weight", weight)

    def forward(self) -> Tensor:
        return self.weight

    def anchor(self) -> Tensor:
        return self.weight

    def version(self) -> int:
        return version_of(self.weight)

    def look(self) -> Tuple[Tensor, int]:
        weight = self.weight
        return weight, version_of(weight)


class WeightNormWeight(WeightSource):
    """``g * v / |v|``, the norm over all axes but ``dim``.

    Source: Salimans and Kingma, "Weight Normalization", 2016.
    """

    def __init__(self, g: nn.Parameter, v: nn.Parameter, dim: int) -> None:
        super().__init__()
        self.weight_g = g
        self.weight_v = v
        self.dim = dim

    def forward(self) -> Tensor:
        return torch._weight_norm(self.weight_v, self.weight_g, self.dim)

    def anchor(self) -> Tensor:
        return self.weight_v

    def version(self) -> int:
        g = version_of(self.weight_g)
        v = version_of(self.weight_v)
        return -1 if g < 0 or v < 0 else 1_000_003 * g + v


class SpectralNormWeight(WeightSource):
    """``w / (u · W v)`` with the vectors ``u`` and ``v`` as training left them.

    Source: Miyato et al., "Spectral Normalization for Generative Adversarial Networks", 2018.
    """

    u: Tensor
    v: Tensor

    def __init__(self, weight: nn.Parameter, u: Tensor, v: Tensor, dim: int) -> None:
        super().__init__()
        self.weight = weight
        self.register_buffer("u", u, persistent=False)
        self.register_buffer("v", v, persistent=False)
        self.dim = dim

    def forward(self) -> Tensor:
        matrix = self.weight.movedim(self.dim, 0).flatten(1)
        u = self.u.to(self.weight)
        return self.weight / torch.dot(u, torch.mv(matrix, self.v.to(self.weight)))

    def anchor(self) -> Tensor:
        return self.weight

    def version(self) -> int:
        w = version_of(self.weight)
        u = version_of(self.u)
        v = version_of(self.v)
        return -1 if w < 0 or u < 0 or v < 0 else 1_000_003 * (u + v) + w


class ParametrizedWeight(WeightSource):
    """A weight computed by any parametrization with a single original, anew at every step."""

    def __init__(self, original: nn.Parameter, steps: List[nn.Module]) -> None:
        super().__init__()
        self.original = original
        self.steps = nn.ModuleList(steps)

    def forward(self) -> Tensor:
        weight = self.original
        for step in self.steps:
            weight = step(weight)
        return weight

    def anchor(self) -> Tensor:
        return self.original

    def version(self) -> int:
        return -1


class PackedWeight(nn.Module):
    """A weight, and a copy of it laid out for one matrix product, renewed when the weight changes.

    Args:
        source: computes the weight
    """

    __constants__ = ["computed"]

    source = entry("_modules")
    packed: Tensor
    seen: Tensor

    def __init__(self, source: nn.Module) -> None:
        super().__init__()
        self.source = source
        # Plain attributes: what does not fit the weight any more, after a move for instance, is packed anew.
        self.packed = torch.empty(0)
        self.seen = torch.empty(0)
        self.computed = not isinstance(source, PlainWeight)
        self.version = -2  # of the weight that is packed; -2 if its changes go unnoticed
        self.count = -1  # of `seen` then

    def pack(self, weight: Tensor) -> Tensor:
        """Lay out a weight for the product."""
        return weight

    def forward(self) -> Tensor:
        """The weight as the layer has it, with its history for autograd."""
        return self.source()

    def anchor(self) -> Tensor:
        """A parameter that says dtype and device."""
        return self.source.anchor()

    def steady(self) -> bool:
        """Whether changes of the weight are noticed, so that a packed copy can be kept from chunk to chunk."""
        try:
            return self.source.version() >= 0
        except RuntimeError:  # made in inference mode and moved outside of it: torch calls it no inference tensor
            return False

    def matrix(self) -> Tensor:
        """The packed weight, without history."""
        anchor, version = self.source.look()
        seen = self.seen
        packed = self.packed
        # A copied or loaded weight counts its changes anew; `seen`, which does not follow it then, tells.
        stale = version != self.version or version_of(seen) != self.count
        stale = stale or packed.dtype != anchor.dtype or packed.device != anchor.device
        # `parameter.data = …` leaves the version alone, but not the memory.
        if stale or not seen.is_set_to(anchor):
            packed = self.pack(self.source().detach())
            self.packed = packed
            self.seen = anchor.detach()
            # What autocast computed is not the weight for later.
            self.version = -2 if version < 0 or (self.computed and autocasting(anchor)) else version
            self.count = version_of(self.seen)
        return packed

    def fits(self, x: Tensor) -> bool:
        """Whether `packed` still is the weight, and of the dtype of this chunk of a signal.

        Asked after `matrix`, in the same signal.
        """
        anchor, version = self.source.look()
        seen = self.seen
        # A weight that was moved or converted has other memory, and the same version.
        if x.dtype != self.packed.dtype or not seen.is_set_to(anchor):
            return False
        # A version that is known is not that of an inference tensor, and `seen` is one only if the weight was.
        return version == self.version and _count(seen) == self.count

    def _refresh(self) -> None:
        self.version = -2
        self.packed = self.packed.new_empty([0])
        self.seen = self.seen.new_empty([0])

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "version": -2, "packed": torch.empty(0), "seen": torch.empty(0)}

    def __prepare_scriptable__(self) -> "PackedWeight":
        self._refresh()  # so that the script packs for itself
        return self


def copy_network(net: nn.Module) -> nn.Module:
    """A deep copy of a network, also of one with the weight that the older ``weight_norm`` computed.

    That weight has a history, which `copy.deepcopy` refuses; the copy gets one without.
    """
    memo: Dict[int, Any] = {}
    for module in net.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach().clone()
    return copy.deepcopy(net, memo)


def register_tensor(module: nn.Module, name: str, tensor: Optional[Tensor]) -> None:
    """Register a parameter as such, and another tensor as a buffer outside of ``state_dict()``."""
    if tensor is None or isinstance(tensor, nn.Parameter):
        module.register_parameter(name, tensor)
    else:
        module.register_buffer(name, tensor, persistent=False)


def weight_source(net: nn.Module) -> nn.Module:
    """The module that computes the weight of a layer of which nothing else is computed.

    Raises:
        UnsupportedModuleError: the weight is computed in a way that is not known, or in training mode; or another
            parameter is computed
    """
    if parametrize.is_parametrized(net):
        if not parametrize.is_parametrized(net, "weight") or len(net.parametrizations) != 1:  # type: ignore[arg-type]
            raise UnsupportedModuleError(
                "parametrized_bias",
                net,
                "a parameter other than its weight is parametrized",
                "remove the parametrization with torch.nn.utils.parametrize.remove_parametrizations",
            )
    else:
        for hook in net._forward_pre_hooks.values():
            if isinstance(hook, (WeightNorm, SpectralNorm)) and hook.name != "weight":
                raise _computed(net, hook.name)
    return parameter_source(net, "weight")


def parameter_source(net: nn.Module, name: str) -> nn.Module:
    """The module that computes a parameter from the layer's own parameters.

    Args:
        net: the layer
        name: of the parameter

    Raises:
        UnsupportedModuleError: it is computed in a way that is not known, or in training mode
    """
    if parametrize.is_parametrized(net, name):
        return _parametrized(net, name)
    for hook in net._forward_pre_hooks.values():
        if isinstance(hook, WeightNorm) and hook.name == name:
            return WeightNormWeight(getattr(net, f"{name}_g"), getattr(net, f"{name}_v"), hook.dim)
        if isinstance(hook, SpectralNorm) and hook.name == name:
            _refuse_training(net, net.training)
            weight, u, v = (getattr(net, f"{name}_{part}") for part in ("orig", "u", "v"))
            return SpectralNormWeight(weight, u, v, hook.dim)
    value = net._parameters.get(name)
    if value is None:
        raise _computed(net, name)
    return PlainWeight(value)


def plain_bias(net: nn.Module) -> Optional[nn.Parameter]:
    """The bias of a layer.

    Raises:
        UnsupportedModuleError: the bias is no parameter
    """
    bias = net.bias
    if bias is not None and not isinstance(bias, nn.Parameter):
        raise _computed(net, "bias")
    return bias


def _computed(net: nn.Module, name: str) -> UnsupportedModuleError:
    return UnsupportedModuleError(
        "computed_parameter",
        net,
        f"its {name} is computed from something else, in a way that a stream cannot follow",
        "make it a parameter, or use torch.nn.utils.parametrize on the weight",
    )


def _parametrized(net: nn.Module, name: str) -> nn.Module:
    steps = net.parametrizations[name]  # type: ignore[index]
    first = type(steps[0]).__name__
    module = type(steps[0]).__module__
    if module == "torch.nn.utils.parametrizations" and len(steps) == 1:
        if first == "_WeightNorm":
            dim: Any = steps[0].dim
            return WeightNormWeight(steps.original0, steps.original1, -1 if dim is None else dim)
        if first == "_SpectralNorm" and steps.original.dim() > 1:
            _refuse_training(net, steps[0].training)
            return SpectralNormWeight(steps.original, steps[0]._u, steps[0]._v, steps[0].dim)  # type: ignore[arg-type]
    if not hasattr(steps, "original") or any(
        step.training and type(step).__name__ == "_SpectralNorm" for step in steps
    ):
        raise UnsupportedModuleError(
            "parametrization",
            net,
            f"its {name} is computed by {', '.join(type(step).__name__ for step in steps)} from several tensors or in "
            "training mode",
            "call eval(), or torch.nn.utils.parametrize.remove_parametrizations",
        )
    return ParametrizedWeight(steps.original, list(steps))


def _refuse_training(net: nn.Module, training: bool) -> None:
    if training:
        raise UnsupportedModuleError(
            "training_mode", net, "its spectral norm changes with every call in training mode", "call eval() first"
        )
