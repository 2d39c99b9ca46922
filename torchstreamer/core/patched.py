"""Networks that were patched, and twins of networks that share their parameters."""

from typing import Any, Callable, Dict, Optional

from torch import nn

__all__ = ["PATCH", "is_patched", "twin", "unpatched"]

# Where a patched module keeps what was done to it: an object with the attribute ``own``, the attributes of its own that
# other ones took the place of, and ``added``, the names of those that took it.
PATCH = "_stream_patch"


def is_patched(module: nn.Module) -> bool:
    """Whether this module itself is patched."""
    return PATCH in module.__dict__


def unpatched(net: nn.Module) -> nn.Module:
    """The network as it was before it, or modules in it, were patched: itself if none is.

    Args:
        net: it stays as it is; what is given shares its parameters and buffers
    """
    return twin(net, lambda module: None) if any(map(is_patched, net.modules())) else net


def twin(
    net: nn.Module, replaced: Callable[[nn.Module], Optional[nn.Module]], training: Optional[bool] = None
) -> nn.Module:
    """A network of modules like those of another one, that share parameters and buffers with these, without patches.

    Args:
        net: the other network
        replaced: what stands in the place of a module, or ``None``; not asked of ``net``
        training: the mode of all modules; each its own if not given
    """
    made: Dict[int, nn.Module] = {}

    def copied(module: nn.Module) -> nn.Module:
        if id(module) in made:
            return made[id(module)]
        other = None if module is net else replaced(module)
        if other is not None:
            made[id(module)] = other
            return other
        copy: nn.Module = object.__new__(type(module))  # a class may make another one of itself in its own
        made[id(module)] = copy
        attributes: Dict[str, Any] = dict(module.__dict__)
        patch = attributes.pop(PATCH, None)
        if patch is not None:
            for name in patch.added:
                attributes.pop(name, None)
            attributes.update(patch.own)
        if training is not None:
            attributes["training"] = training
        # The tables of parameters and buffers are the module's own, so what is assigned to it is seen here.
        attributes["_modules"] = {
            name: None if child is None else copied(child) for name, child in module._modules.items()
        }
        copy.__dict__.update(attributes)
        return copy

    return copied(net)
