"""Where conditions of a capture end: the first length from which on they do not hold."""

from typing import Collection

from .capture import Capture

__all__ = ["first_broken"]


def first_broken(found: Capture, guards: Collection[str], near: int, far: int) -> int:
    """The first length at which one of several conditions does not hold, if that is so from some length on.

    Args:
        found: the capture
        guards: the conditions
        near: a length at which they hold
        far: one that can come, at which they do not
    """
    unit, wanted = found.sizes.scale * found.multiple, set(guards)
    low, high = 0, (far - near) // unit
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if wanted & set(found.broken_guards(near + middle * unit)) else (middle, high)
    return near + high * unit
