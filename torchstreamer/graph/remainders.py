"""Lengths at which a model fills up its last frame, and those at which it has nothing to fill up.

``if n % k: x = F.pad(x, (0, k - n % k))`` is captured for one of the two. Captured with a frame to fill up, it says
``k - n % k``, which is ``k`` where the branch says 0. But the remainder was above 0 there, and counted from 1 to ``k``
it is the same remainder, with 0 to fill up where the frames are whole. So it is counted so, and the trial tells whether
the model does the same. The conditions on the length under which it does are those of both captures.

Where frames have two samples, models say 1 in place of ``2 - n % 2``.
"""

import math
from typing import Any, Dict, Iterator, Optional

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

__all__ = ["FilledPairs", "counted_from_one", "frame_of"]

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


class FilledPairs(TorchFunctionMode):
    """While a model is exported, one sample after an odd number of them is one that fills up a pair."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.pad and len(args) > 1:
            x, amounts = args[0], list(args[1])
            for axis, after in enumerate(amounts[1::2]):
                n = x.shape[-1 - axis]
                if isinstance(after, int) and after == 1 and isinstance(n, torch.SymInt) and _is_odd(n):
                    amounts[2 * axis + 1] = 2 - n % 2
            args = (x, amounts, *args[2:])
        return func(*args, **(kwargs or {}))


def _is_odd(n: torch.SymInt) -> bool:
    """Whether a branch found that a length is odd."""
    return any(of == n.node.expr and by == 2 for of, by in (each.args for each in _decided(n, whole=False)))


def _decided(size: torch.SymInt, whole: bool) -> Iterator[Any]:
    """The remainders that a branch found to be 0, or found not to be."""
    seen = set()
    for guard in size.node.shape_env.guards:
        expression = guard.expr
        kind, sides = type(expression).__name__, list(expression.args)
        if len(sides) != 2:
            continue
        if kind == "StrictLessThan" or sides[0].is_Integer:
            sides.reverse()
        remainder, other = sides
        if type(remainder).__name__ not in _REMAINDERS or not remainder.args[1].is_Integer or remainder.args[1] < 2:
            continue
        none = kind == "Equality" and other == 0
        some = kind in ("Unequality", "StrictGreaterThan", "StrictLessThan") and other == 0
        some = some or (kind == "Equality" and other == 1 and remainder.args[1] == 2)
        if (none if whole else some) and remainder not in seen:
            seen.add(remainder)
            yield remainder
