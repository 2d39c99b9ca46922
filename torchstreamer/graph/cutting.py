"""What stands for the result of a refused operation while a report looks for more of them."""

from typing import Any

from torch import Tensor, fx

from ..errors import UnsupportedModuleError
from .lengths import line_of
from .values import Refused, Static

__all__ = ["given_instead"]


def given_instead(low: Any, node: fx.Node, error: UnsupportedModuleError) -> Any:
    """Values of the shapes that an operation gives, as if they came with the signal; others stay refused.

    Args:
        low: the lowering
        node: the operation
        error: its refusal
    """
    meta = node.meta.get("val")
    if isinstance(meta, (list, tuple)):
        return [_given(low, node, each, error) for each in meta]
    return _given(low, node, meta, error)


def _given(low: Any, node: fx.Node, meta: Any, error: UnsupportedModuleError) -> Any:
    if not isinstance(meta, Tensor):
        return Refused(error)
    try:
        value = low.value(node, meta, None, 0)
        if value is None:
            return Static(node, None, False, True, False)
        line = line_of(value.length)
        if line is None or value.merged:
            return Refused(error)
        ratio = line.rise, line.period
        value.clock = low.clocks.clock(lambda n, final: value.length(n), line.period, ratio, (line, line))
        return value
    except Exception:  # it relates samples, mixes rows, or has sizes made of values
        return Refused(error)
