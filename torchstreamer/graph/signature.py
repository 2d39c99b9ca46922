"""The ``forward`` of a script with several inputs or outputs, which needs names and types where Python does not."""

import itertools
import keyword
import linecache
from typing import Any, Dict, List, Optional, Sequence, Tuple, Type

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

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
        structure: of the outputs: a tensor, or tuples, lists and dicts with names of them

    Raises:
        TypeError: another structure
    """
    names = [name if name.isidentifier() and not keyword.iskeyword(name) else f"x{i}" for i, name in enumerate(names)]
    places = itertools.count()
    value, kind = _expression(structure, places, "ys", "Optional[Tensor]")
    places = itertools.count()
    number, counts = _expression(structure, places, "found", "int")
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
    }
    exec(compile(source, file, "exec"), scope)
    methods = {name: scope[name] for name in ("forward", "flush", "output_length")}
    for method in methods.values():
        method.__module__ = base.__module__
    return type(base.__name__, (base,), {**methods, "step": base.step, "__module__": base.__module__})


def _expression(structure: pytree.TreeSpec, places: Any, source: str, leaf: str) -> Tuple[str, str]:
    """The expression that makes a structure of the items of a list, and its type."""
    if structure.is_leaf():
        return f"{source}[{next(places)}]", leaf
    parts = [_expression(child, places, source, leaf) for child in structure.children()]
    values, kinds = [part[0] for part in parts], [part[1] for part in parts]
    if structure.type is tuple:
        return f"({', '.join(values)},)", f"Tuple[{', '.join(kinds)}]"
    if len(set(kinds)) == 1:
        if structure.type is list:
            return f"torch.jit.annotate(List[{kinds[0]}], [{', '.join(values)}])", f"List[{kinds[0]}]"
        if structure.type is dict and all(isinstance(key, str) for key in structure.context):
            items = ", ".join(f"{key!r}: {value}" for key, value in zip(structure.context, values, strict=True))
            kind = f"Dict[str, {kinds[0]}]"
            return f"torch.jit.annotate({kind}, {{{items}}})", kind
    raise TypeError(
        f"a script cannot give outputs in the structure {structure}; tuples, and lists and dicts with names of equal "
        "parts, can be given; wrap the model"
    )
