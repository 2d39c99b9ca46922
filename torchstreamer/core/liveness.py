"""How long the values of a plan are needed."""

from typing import Collection, List, Sequence

__all__ = ["spent"]


def spent(slots: Sequence[Sequence[int]], kept: Collection[int]) -> List[List[int]]:
    """For each part, of the slots that it reads and writes those that no later part needs, and that are not kept."""
    last = {slot: i for i, used in enumerate(slots) for slot in used}
    return [
        [slot for slot in dict.fromkeys(used) if last[slot] == i and slot not in kept] for i, used in enumerate(slots)
    ]
