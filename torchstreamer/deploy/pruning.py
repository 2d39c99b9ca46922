"""Which parts of a plan its result depends on, and how long their values are needed."""

from typing import Any, Dict, List, Sequence

from .rows import Part

__all__ = ["needed", "spent"]


def needed(parts: Sequence[Part], result: int) -> List[Part]:
    """The parts that the result depends on."""
    wanted = {result}
    kept: List[Part] = []
    for part in reversed(parts):
        if part.target in wanted:
            wanted.update(part.sources)
            kept.append(part)
    return kept[::-1]


def spent(parts: Any, result: int) -> List[List[int]]:
    """For each part, the values that nobody needs behind it."""
    last: Dict[int, int] = {}
    for i, part in enumerate(parts):
        for slot in (*part.sources, part.target):
            last[slot] = i
    last.pop(result, None)
    return [[slot for slot, at in last.items() if at == i] for i in range(len(parts))]
