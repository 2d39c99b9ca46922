"""What the parts of a graph stream are called: by the modules of the model in which their operations stand."""

from collections import Counter
from typing import Dict, Iterable, List, Sequence, Set

from torch import fx, nn

from .capture import module_of
from .refusals import operation_name

__all__ = ["names_of"]

_SHOWN = 3  # operations of a segment that its name tells


def names_of(parts: Sequence[Sequence[fx.Node]], net: nn.Module) -> List[str]:
    """A name for each part, no two of them alike: the path of a layer, or the path and the name of an operation.

    Args:
        parts: the operations of each part; none for what stands for no operation
        net: the model
    """
    nodes = {node for part in parts for node in part}
    short = {node: _layer(node, net) for node in nodes}
    # The name of a layer with several kinds of operations in as many parts, such as one that pads, does not tell which.
    owners: Dict[str, List[Set[str]]] = {"": []}
    for part in parts:
        for name in {short[node] for node in part}:
            owners.setdefault(name, []).append({operation_name(node) for node in part if short[node] == name})
    plain = {name for name, kinds in owners.items() if name and all(kind == kinds[0] for kind in kinds)}
    names = [_joined(short[n] if short[n] in plain else _operation(n, net) for n in part) for part in parts]
    seen: Counter[str] = Counter()
    for i, name in enumerate(names):
        seen[name] += 1
        names[i] = name if seen[name] == 1 else f"{name} ({seen[name]})"
    return names


def _layer(node: fx.Node, net: nn.Module) -> str:
    """The path of the module in which an operation stands, if that is a layer; else nothing."""
    path, module = module_of(node, net)
    return path if type(module).__module__.startswith("torch.nn.") or operation_name(node) == "leaf" else ""


def _operation(node: fx.Node, net: nn.Module) -> str:
    path, name = module_of(node, net)[0], operation_name(node)
    return path if name == "leaf" else f"{path}.{name}" if path else name


def _joined(names: Iterable[str]) -> str:
    found = list(dict.fromkeys(names))
    return ", ".join([*found[:_SHOWN], *(["…"] if len(found) > _SHOWN else [])]) or "align"
