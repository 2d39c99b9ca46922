"""Faster access to what a module has registered."""

from typing import Any, Optional, Type

from torch import nn

__all__ = ["entry"]


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
