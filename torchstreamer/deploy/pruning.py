"""Which parts of a plan its result depends on."""

from typing import List, Sequence

from .rows import Part

__all__ = ["needed"]


def needed(parts: Sequence[Part], result: int) -> List[Part]:
    """The parts that the result depends on."""
    wanted = {result}
    kept: List[Part] = []
    for part in reversed(parts):
        if part.target in wanted:
            wanted.update(part.sources)
            kept.append(part)
    return kept[::-1]
