"""The words of a refusal: the operation, where it stands in the model, why it has no stream, and what to do."""

import torch
from torch import fx, nn

from ..errors import UnsupportedModuleError
from .capture import module_of, source_line

__all__ = ["OperationError", "Refusals", "operation_name"]


class OperationError(UnsupportedModuleError):
    """The refusal of an operation, by name; ``plain`` is the reason without its place."""

    plain = ""
    operation = ""


def operation_name(node: fx.Node) -> str:
    """The name of an operation, without its overload."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target._schema.name).split("::")[-1]
    return getattr(target, "__name__", str(target))


class Refusals:
    """Makes the errors that refuse operations of a model.

    Args:
        net: the model
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net

    def __call__(self, node: fx.Node, code: str, reason: str, remedy: str) -> UnsupportedModuleError:
        """The error that names an operation, its module and the line of the model's source."""
        path, module = module_of(node, self.net)
        line = source_line(node)
        where = f" (at {line})" if line else ""
        error = OperationError(code, module, f"'{operation_name(node)}'{where}: {reason}", remedy)
        error.path = path
        error.plain = f"{reason}; {remedy}"
        error.operation = operation_name(node)
        return error
