"""Lengths at which a model fills up its last frame, and those at which it has nothing to fill up.

``if n % k: x = F.pad(x, (0, k - n % k))`` is captured for one of the two. Captured with a frame to fill up, it says
``k - n % k``, which is ``k`` where the branch says 0. But the remainder was above 0 there, and counted from 1 to ``k``
it is the same remainder, with 0 to fill up where the frames are whole. So it is counted so, and the trial tells whether
the model does the same. The conditions on the length under which it does are those of both captures.
"""

import math
from typing import Any, Dict, Iterator, Optional

import torch

__all__ = ["counted_from_one", "frame_of"]

_REMAINDERS = frozenset(["Mod", "PythonMod"])


def counted_from_one(size: torch.SymInt) -> Dict[Any, Any]:
    """Of each remainder that a capture holds for as long as it is not 0, what equals it there and is ``k`` for 0.

    Args:
        size: any size of the capture
    """
    from torch.utils._sympy.functions import PythonMod

    found: Dict[Any, Any] = {}
    for remainder in sorted(_decided(size, whole=False), key=lambda each: int(each.count_ops())):
        of, by = remainder.args
        found[remainder] = PythonMod(of.xreplace(found) - 1, by) + 1
    return found


def frame_of(size: torch.SymInt, whole: bool) -> Optional[int]:
    """Samples of a frame, of as many as all frames hold together; ``None`` if a capture has no frames.

    Args:
        size: any size of the capture
        whole: whether of the frames that the capture takes for whole, or of those that it fills up
    """
    sizes = [int(remainder.args[1]) for remainder in _decided(size, whole)]
    return math.prod(sizes) if sizes else None


def _decided(size: torch.SymInt, whole: bool) -> Iterator[Any]:
    """The remainders that a branch found to be 0, or found not to be."""
    seen = set()
    for guard in size.node.shape_env.guards:
        expression = guard.expr
        kind, sides = type(expression).__name__, list(expression.args)
        decides = kind == "Equality" if whole else kind in ("Unequality", "StrictGreaterThan", "StrictLessThan")
        if not decides or len(sides) != 2:
            continue
        if kind == "StrictLessThan" or sides[0] == 0:
            sides.reverse()
        remainder, other = sides
        is_one = type(remainder).__name__ in _REMAINDERS and remainder.args[1].is_Integer and remainder.args[1] > 1
        if is_one and other == 0 and remainder not in seen:
            seen.add(remainder)
            yield remainder
