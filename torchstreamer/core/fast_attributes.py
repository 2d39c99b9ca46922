"""Faster access to what a module has registered."""

from typing import Any, List, Optional, Set, Type

import torch
from torch import nn

__all__ = ["entry", "every_module", "has"]


class _Entry:
    # nn.Module finds a submodule, parameter or buffer only after Python has looked everywhere else, which costs as much
    # as a tensor operation. The tables of the module stay what they are: this only reads them.

    def __init__(self, table: str, name: str) -> None:
        self.table = table
        self.name = name

    def __set_name__(self, owner: Type[nn.Module], name: str) -> None:
        self.name = name

    def __get__(self, module: Optional[nn.Module], owner: Optional[Type[nn.Module]] = None) -> Any:
        if module is None:
            return self
        try:
            return module.__dict__[self.table][self.name]
        except KeyError:
            return nn.Module.__getattr__(module, self.name)


def entry(table: str, name: str = "") -> Any:
    """A class attribute that finds what a module registered under its name at once.

    Args:
        table: where the module most likely keeps it, ``"_modules"``, ``"_parameters"`` or ``"_buffers"``
        name: for an attribute that is added to a class that is made already; others know theirs
    """
    return _Entry(table, name)


def every_module(root: nn.Module) -> List[Any]:
    """The modules in ``root``, itself included, each once, in the order of ``root.modules()``."""
    found: List[Any] = []
    seen: Set[int] = set()
    waiting: List[nn.Module] = [root]
    while waiting:
        m = waiting.pop()
        if id(m) in seen:
            continue
        seen.add(id(m))
        found.append(m)
        waiting += [child for child in reversed(m._modules.values()) if child is not None]
    return found


def has(module: nn.Module, name: str) -> bool:
    """Whether a module, or its class, has an attribute that is no parameter, buffer or submodule.

    ``hasattr`` tells the same, but to find out that there is none takes as long as a tensor operation.
    """
    if isinstance(module, torch.jit.ScriptModule):  # which keeps its attributes elsewhere
        return hasattr(module, name)
    return name in module.__dict__ or hasattr(type(module), name)
