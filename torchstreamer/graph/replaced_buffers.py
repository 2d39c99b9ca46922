"""Buffers that a model replaces while it is exported: ``self.count = self.count + 1``."""

import sys
from contextlib import contextmanager
from typing import Any, Callable, Iterator

from torch import nn

from .exporter_patches import replaced
from .places import is_foreign

__all__ = ["replacements_told"]


@contextmanager
def replacements_told(net: nn.Module, tell: Callable[[str], None]) -> Iterator[None]:
    """While this is open, a function is told of each buffer that the model's own code replaces, by name."""
    paths = {id(module): path for path, module in net.named_modules()}
    plain: Any = nn.Module.__setattr__

    def put(module: nn.Module, name: str, value: Any) -> None:
        held = name in module.__dict__.get("_buffers", ()) and id(module) in paths
        plain(module, name, value)
        if held and not is_foreign(sys._getframe(2).f_code.co_filename):
            tell(f"{paths[id(module)]}.{name}".lstrip("."))

    with replaced(nn.Module, "__setattr__", put):
        yield
