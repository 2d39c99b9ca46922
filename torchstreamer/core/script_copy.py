"""Copies of module objects around the same weights, for `torch.jit.script`."""

from typing import Tuple, TypeVar

from torch import nn

__all__ = ["script_copy"]

Module = TypeVar("Module", bound=nn.Module)


def script_copy(module: Module, own: Tuple[type, ...]) -> Module:
    """A copy of the module object around the same weights, whose child tables can be changed.

    Args:
        module: a stream, or what holds streams
        own: types of children that make their own copies; what holds such children is copied with the module
    """
    twin = module.__new__(type(module))
    twin.__dict__.update(module.__dict__)
    for table in ("_modules", "_buffers", "_parameters"):
        twin.__dict__[table] = dict(module.__dict__[table])
    for name, child in module._modules.items():
        if child is not None and not isinstance(child, own):
            if any(isinstance(m, own) for m in child.modules()):
                twin._modules[name] = script_copy(child, own)
    return twin
