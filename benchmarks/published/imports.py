"""Imports of published packages: empty modules for what is not used, packages without their ``__init__``."""

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

__all__ = ["reach"]


class _Named(type):
    # Any attribute of an empty class is such a class again.

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _stand_in(name)


def _stand_in(name: str) -> Any:
    def new(cls: Any, *args: Any, **kwargs: Any) -> Any:
        # As a decorator it gives back what it decorates.
        if len(args) == 1 and callable(args[0]) and not kwargs and not isinstance(args[0], nn.Module):
            return args[0]
        return nn.Module.__new__(cls)

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        nn.Module.__init__(self)

    lists: dict[str, Any] = {"INTERN": [], "EXTERN": []}
    return _Named(name, (nn.Module,), {"__new__": new, "__init__": init, **lists})


class _Empty(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name == "__version__":
            return "99.0"
        if name.startswith("__"):
            raise AttributeError(name)
        return _stand_in(name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def __init__(self, stand_ins: Sequence[str], bare: Sequence[str], folder: Path) -> None:
        self.stand_ins, self.bare, self.folder = set(stand_ins), set(bare), folder

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:
        parts = fullname.split(".")
        stands = any(".".join(parts[: i + 1]) in self.stand_ins for i in range(len(parts)))
        if not stands and fullname not in self.bare:
            return None
        spec = importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        if not stands:
            spec.submodule_search_locations = [str(self.folder.joinpath(*parts))]
        return spec

    def create_module(self, spec: Any) -> ModuleType:
        bare = spec.name in self.bare
        return ModuleType(spec.name) if bare else _Empty(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


def reach(folder: Path, bare: Sequence[str] = (), stand_ins: Sequence[str] = ()) -> None:
    """Make a folder of packages importable, behind everything else so that it shadows nothing."""
    sys.path.append(str(folder))
    sys.meta_path.insert(0, _Finder(stand_ins, bare, folder))
