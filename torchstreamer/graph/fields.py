"""The parts of what a model gives, and their names; dataclasses too that no pytree knows."""

import dataclasses
import importlib
from typing import Any, Iterable, Iterator, List, Mapping, Sequence, Tuple

from torch.utils import _pytree as pytree

__all__ = ["Fields", "children_of", "keys_of", "leaf_names", "opened"]


class Fields:
    """The fields of an instance of a dataclass; filled, it is one again.

    Args:
        kind: the dataclass
        values: of its fields
    """

    def __init__(self, kind: type, values: Mapping[str, Any]) -> None:
        self.kind = kind
        self.values = dict(values)


def opened(answer: Any) -> Any:
    """An answer of which pytrees see every part: dataclasses that are not registered are their `Fields`."""
    parts, structure = pytree.tree_flatten(answer)
    if not any(map(_unknown, parts)):
        return answer
    return pytree.tree_unflatten([_fields(part) if _unknown(part) else part for part in parts], structure)


def _fields(answer: Any) -> Fields:
    values = {field.name: opened(getattr(answer, field.name)) for field in dataclasses.fields(answer)}
    return Fields(type(answer), values)


def leaf_names(structure: pytree.TreeSpec, path: str = "") -> Iterator[str]:
    """The path of each leaf of a structure."""
    if structure.is_leaf():
        yield path
        return
    parts = children_of(structure)
    keys = keys_of(structure) or [str(i) for i in range(len(parts))]
    for key, child in zip(keys, parts, strict=True):
        yield from leaf_names(child, f"{path}.{key}" if path else key)


def children_of(structure: pytree.TreeSpec) -> List[pytree.TreeSpec]:
    """The structures of its parts."""
    found: Any = getattr(structure, "children", None)
    return found() if found is not None else structure.children_specs  # the latter in torch 2.9


def keys_of(structure: pytree.TreeSpec) -> Sequence[str]:
    """The names of the parts, if these have names."""
    context = structure.context
    if structure.type is Fields:
        return list(context[1])
    if isinstance(context, type) and issubclass(context, tuple):  # of a named tuple
        return list(getattr(context, "_fields", ()))
    count = len(children_of(structure))
    for keys in (context, *(context if isinstance(context, (tuple, list)) else ())):
        # A registered dataclass tells its fields first.
        if isinstance(keys, (tuple, list)) and len(keys) == count and all(isinstance(key, str) for key in keys):
            return list(keys)
    return []


def _unknown(answer: Any) -> bool:
    # Of the leaves of a tree.
    return dataclasses.is_dataclass(answer) and not isinstance(answer, type)


def _flatten(fields: Fields) -> Tuple[List[Any], Tuple[type, Tuple[str, ...]]]:
    return list(fields.values.values()), (fields.kind, tuple(fields.values))


def _filled(values: Iterable[Any], context: Tuple[Any, Tuple[str, ...]]) -> Any:
    kind, names = context
    given = dict(zip(names, values, strict=True))
    made = {field.name: given.pop(field.name) for field in dataclasses.fields(kind) if field.init}
    instance = kind(**made)
    for name, value in given.items():  # those that its __init__ does not take
        object.__setattr__(instance, name, value)
    return instance


def _dumped(context: Tuple[Any, Tuple[str, ...]]) -> Any:
    kind, names = context
    return [kind.__module__, kind.__qualname__, list(names)]


def _loaded(dumped: Any) -> Tuple[Any, Tuple[str, ...]]:
    module, path, names = dumped
    kind: Any = importlib.import_module(module)
    for name in path.split("."):
        kind = getattr(kind, name)
    return kind, tuple(names)


pytree.register_pytree_node(
    Fields,
    _flatten,
    _filled,
    serialized_type_name="torchstreamer.graph.fields.Fields",
    to_dumpable_context=_dumped,
    from_dumpable_context=_loaded,
)
