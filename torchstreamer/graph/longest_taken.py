"""The longest signal that a model takes, where it says so: ``if n > 5000: raise ValueError(…)``."""

from typing import Optional

from .capture import Capture
from .guard_ends import first_broken
from .model_trial import runs_on

__all__ = ["longest_taken"]

_NEAR, _FAR = 64, 1 << 20
_LONGEST = 1 << 16  # samples of a signal on which the model is run only to see it refuse


def longest_taken(found: Capture) -> Optional[int]:
    """The length beyond which a condition of the capture holds no more, if the model raises there; ``None`` if there is
    none, or if that is not known.

    Args:
        found: the capture
    """
    axis = found.streamed[0].time
    assert axis is not None
    typical = found.streamed[0].example.shape[axis]
    unit = found.sizes.scale * found.multiple
    step = next(n for n in range(_FAR, _FAR + 2 * unit) if found.valid(n)) - typical
    far = set(found.broken_guards(typical + step)) & set(found.broken_guards(typical + 2 * step))
    if not far:
        return None
    for n in range(typical, typical + _NEAR * unit, unit):
        far -= set(found.broken_guards(n))  # what is broken now and then
    if not far:
        return None
    over = first_broken(found, far, typical, typical + step)
    if over > _LONGEST or not found.valid(over) or not runs_on(found, typical) or runs_on(found, over):
        return None
    return over - 1
