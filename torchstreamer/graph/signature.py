"""The ``forward`` of a script with several inputs or outputs, which needs names and types where Python does not."""

import itertools
import keyword
import linecache
from collections import OrderedDict
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Type

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .fields import children_of, keys_of

__all__ = ["Structure", "scripted_class"]

_count = itertools.count()


class Structure:
    """How a model puts its outputs together. It never changes, so copies share it."""

    def __init__(self, spec: pytree.TreeSpec) -> None:
        self.spec = spec

    def filled(self, leaves: Sequence[Any]) -> Any:
        """The structure with given outputs."""
        return leaves[0] if self.spec.is_leaf() else pytree.tree_unflatten(leaves, self.spec)

    def __deepcopy__(self, memo: Dict[int, Any]) -> "Structure":
        return self

    def __reduce__(self) -> Any:
        return _loaded_structure, (pytree.treespec_dumps(self.spec),)


def _loaded_structure(text: str) -> Structure:
    return Structure(pytree.treespec_loads(text))


def scripted_class(base: Type[Any], names: Sequence[str], structure: pytree.TreeSpec) -> Type[Any]:
    """A class like ``base`` whose methods TorchScript can compile.

    Args:
        base: a `PortedGraphStream`
        names: of the inputs
        structure: of the outputs. What is no tensor, tuple, list or dict with names, such as a dataclass, comes as a
            named tuple of its fields; lists and dicts of unequal parts as tuples
    """
    names = [name if name.isidentifier() and not keyword.iskeyword(name) else f"x{i}" for i, name in enumerate(names)]
    places = itertools.count()
    kinds: Dict[str, Any] = {}
    value, kind = _expression(structure, places, "ys", "Optional[Tensor]", kinds)
    places = itertools.count()
    number, counts = _expression(structure, places, "found", "int", kinds)
    arguments = ", ".join(f"{name}: Optional[Tensor] = None" for name in names)
    source = (
        f"def forward(self, {arguments}, final: bool = False) -> {kind}:\n"
        f"    ys = self._advance([{', '.join(names)}], final)\n"
        f"    return {value}\n"
        "@torch.jit.export\n"
        f"def flush(self) -> {kind}:\n"
        f"    chunks = torch.jit.annotate(List[Optional[Tensor]], [{', '.join(['None'] * len(names))}])\n"
        "    ys = self._advance(chunks, True)\n"
        f"    return {value}\n"
        "@torch.jit.export\n"
        f"def output_length(self, n: int, final: bool = True) -> {counts}:\n"
        "    found = self._lengths(n, final)\n"
        f"    return {number}\n"
    )
    file = f"<torchstreamer signature {next(_count)}>"
    # TorchScript reads the source of what it compiles.
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    scope: Dict[str, Any] = {
        "torch": torch,
        "Tensor": Tensor,
        "Optional": Optional,
        "List": List,
        "Dict": Dict,
        "Tuple": Tuple,
        **kinds,
    }
    exec(compile(source, file, "exec"), scope)
    methods = {name: scope[name] for name in ("forward", "flush", "output_length")}
    for method in methods.values():
        method.__module__ = base.__module__
    return type(base.__name__, (base,), {**methods, "step": base.step, "__module__": base.__module__})


_TYPES = {"Tensor": Tensor, "int": int, "List": List, "Dict": Dict, "Optional": Optional, "Tuple": Tuple}


def _expression(
    structure: pytree.TreeSpec, places: Any, source: str, leaf: str, named: Dict[str, Any]
) -> Tuple[str, str]:
    """The expression that makes a structure of the items of a list, and its type; adds named tuples to ``named``."""
    if structure.is_leaf():
        return f"{source}[{next(places)}]", leaf
    parts = [_expression(child, places, source, leaf, named) for child in children_of(structure)]
    values, kinds = [part[0] for part in parts], [part[1] for part in parts]
    keys = keys_of(structure)
    if structure.type is not tuple and len(set(kinds)) == 1:
        if structure.type is list:
            return f"torch.jit.annotate(List[{kinds[0]}], [{', '.join(values)}])", f"List[{kinds[0]}]"
        if structure.type in (dict, OrderedDict) and keys:
            items = ", ".join(f"{key!r}: {value}" for key, value in zip(keys, values, strict=True))
            kind = f"Dict[str, {kinds[0]}]"
            return f"torch.jit.annotate({kind}, {{{items}}})", kind
    if keys and all(key.isidentifier() and not keyword.iskeyword(key) and key[0] != "_" for key in keys):
        name = f"Answer{next(_count)}"
        fields = [(key, eval(kind, {**_TYPES, **named})) for key, kind in zip(keys, kinds, strict=True)]
        named[name] = NamedTuple(name, fields)
        return f"{name}({', '.join(values)})", name
    return f"({', '.join(values)},)", f"Tuple[{', '.join(kinds)}]"
