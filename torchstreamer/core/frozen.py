"""A network as its stream in training mode takes it: statistics frozen, dropout random, and the network left alone."""

from contextlib import contextmanager
from typing import Any, Callable, Iterator, Optional, Set

from torch import nn
from torch.nn.modules import batchnorm, dropout

from ..errors import UnsupportedModuleError
from .patched import twin

__all__ = ["follow_modes", "frozen_twin", "in_training", "is_twin", "random_parts", "recorded_in_training"]

# In a module of a twin: whether the network's own module was in training mode when the twin was made.
_MODE = "_mode_of_network"

_DROPS = (dropout._DropoutNd, nn.RReLU)
# Modules whose training form has no stream; a twin has them in their eval form.
_EVAL_ONLY = (batchnorm._NormBase, nn.RNNBase, nn.MultiheadAttention)

_ALONE = "call eval() on this module alone, and its eval form is streamed; or let it drop nothing, p=0"


def frozen_twin(net: nn.Module, whole: Callable[[nn.Module], bool]) -> nn.Module:
    """A network of the same parameters and buffers, in eval mode, that knows the mode of each module.

    Args:
        net: the network
        whole: whether a module is to be taken as it is, as one that has a handler of the user's own

    Raises:
        UnsupportedModuleError: a module is random in training mode in a way that no stream is, or normalises by
            statistics of the batch; the module is the network's own
    """
    if whole(net):
        _refuse_inside(net)
        return net
    made = twin(net, lambda module: module if whole(module) else None, training=False)
    seen: Set[nn.Module] = set()
    for module, copy in zip(net.modules(), made.modules(), strict=True):
        if copy is not module:
            _refuse(module)
            copy.__dict__[_MODE] = module.training
        elif module not in seen:
            seen.update(module.modules())
            _refuse_inside(module)
    return made


def is_twin(module: nn.Module) -> bool:
    """Whether a module is one of a twin, so that its stream may be put into training mode."""
    return _MODE in module.__dict__


def in_training(module: nn.Module) -> bool:
    """Whether a module is in training mode; of a twin, whether the network's own was."""
    return bool(module.__dict__.get(_MODE, module.training))


@contextmanager
def recorded_in_training(net: nn.Module) -> Iterator[bool]:
    """For the time of an export, a twin draws what it draws in training mode, whatever mode the network was in.

    Yields:
        whether the network is a twin
    """
    changed = [
        module
        for module in net.modules()
        if is_twin(module)
        and (isinstance(module, _DROPS) or not type(module).__module__.startswith("torch.nn."))
        and not isinstance(module, _EVAL_ONLY)
    ]
    for module in changed:
        module.training = True
    try:
        yield is_twin(net)
    finally:
        for module in changed:
            module.training = False


def random_parts(stream: nn.Module) -> Iterator[Any]:
    """The modules in a stream that draw random numbers in training mode, and say whether they begin in it."""
    for part in stream.modules():
        if hasattr(part, "begins_in_training"):
            yield part


def follow_modes(stream: nn.Module) -> None:
    """Put the random parts of a new stream into the mode of the network's modules."""
    for part in random_parts(stream):
        part.training = part.begins_in_training


def _refuse(module: nn.Module) -> None:
    if isinstance(module, batchnorm._BatchNorm) and module.running_mean is None:
        raise UnsupportedModuleError(
            "untracked_statistics",
            module,
            "without running statistics it normalises by those of the whole signal",
            "train it with track_running_stats=True",
        )
    reason = _reason(module) if module.training else None
    if reason is not None:
        raise UnsupportedModuleError(
            "training_mode",
            module,
            f"in training mode {reason}, which no stream does",
            _ALONE,
        )


def _reason(module: nn.Module) -> Optional[str]:
    if isinstance(module, nn.RNNBase) and module.dropout > 0 and module.num_layers > 1:
        return "it drops random values between its layers"
    own = type(module).__module__.startswith("torchstreamer.")
    drops = getattr(module, "dropout", 0.0) if own or isinstance(module, nn.MultiheadAttention) else 0.0
    if isinstance(drops, float) and drops > 0:
        return "it drops random weights of its attention"
    hooks = [type(hook).__name__ for hook in module._forward_pre_hooks.values()]
    if "SpectralNorm" in hooks or type(module).__name__ == "_SpectralNorm":
        return "its spectral norm changes with every call"
    return None


def _refuse_inside(module: nn.Module) -> None:
    for part in module.modules():
        random = isinstance(part, (*_DROPS, batchnorm._BatchNorm)) and getattr(part, "p", 1.0) > 0
        if random and part is not module and part.training:
            raise UnsupportedModuleError(
                "training_mode",
                part,
                f"it stands in a {type(module).__name__}, whose handler computes the eval form",
                _ALONE,
            )
