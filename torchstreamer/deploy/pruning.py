"""Which parts of a plan its results depend on."""

from typing import Iterable, List, Sequence

from .rows import Part

__all__ = ["needed"]


def needed(parts: Sequence[Part], results: Iterable[int]) -> List[Part]:
    """The parts that the results depend on."""
    wanted = set(results)
    kept: List[Part] = []
    for part in reversed(parts):
        if part.target in wanted:
            wanted.update(part.sources)
            kept.append(part)
    return kept[::-1]
