"""Which outputs of a model could be streamed without what is refused in it."""

from typing import List, Set

from torch import fx

from ..errors import UnsupportedModuleError
from .capture import Capture

__all__ = ["with_spared"]


def with_spared(error: UnsupportedModuleError, node: fx.Node, capture: Capture) -> UnsupportedModuleError:
    """The refusal of an operation; its remedy names the outputs that do not need it, if only some of them do."""
    answer = capture.answer
    if answer.select is None and not answer.taps and len(answer.names) > 1:
        needing = _after(node)
        pairs = zip(answer.names, capture.outputs, strict=True)
        apart = [name for name, output in pairs if output is not None and output not in needing]
        if 0 < len(apart) < len(answer.names):
            chosen = repr(apart[0]) if len(apart) == 1 else repr(apart)
            error.remedy += f"; or leave out the outputs that need it, with select={chosen}"
    return error


def _after(node: fx.Node) -> Set[str]:
    found: Set[str] = set()
    waiting: List[fx.Node] = [node]
    while waiting:
        at = waiting.pop()
        if at.name not in found:
            found.add(at.name)
            waiting += at.users
    return found
