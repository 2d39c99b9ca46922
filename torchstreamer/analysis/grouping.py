"""Which frames can be probed together: those that no output depends on two of."""

from dataclasses import dataclass
from typing import List, Sequence, Tuple

import torch
from torch import Tensor

__all__ = ["Grouping", "hulls"]


def hulls(matrix: Tensor) -> Tuple[Tensor, Tensor]:
    """First and last ``True`` of every row; from the width to -1 for a row without one."""
    width = matrix.shape[1]
    places = torch.arange(width)
    first = torch.where(matrix, places, width).amin(1) if width else torch.zeros(len(matrix), dtype=torch.int64)
    last = torch.where(matrix, places, -1).amax(1) if width else torch.full((len(matrix),), -1)
    return first, last


@dataclass
class Grouping:
    """Frames in groups, each to be probed at once.

    Args:
        group: of every frame
        count: how many groups there are
        reach: outputs that each frame may change, ``[frames, ΣT']``. Within a group they do not overlap, so a changed
            output tells which frame changed it
    """

    group: Tensor
    count: int
    reach: Tensor

    @classmethod
    def alone(cls, frames: int, outputs: int) -> "Grouping":
        """Every frame for itself."""
        return cls(torch.arange(frames), frames, torch.ones(frames, outputs, dtype=torch.bool))

    @classmethod
    def of(cls, first: Sequence[Tensor], last: Sequence[Tensor], lengths: Sequence[int], spare: bool) -> "Grouping":
        """Groups of frames whose outputs lie apart.

        Args:
            first: of every output, the first frame that each frame may change
            last: and the last one
            lengths: frames of every output
            spare: whether to leave as much room between the frames of a group again, where nothing may change
        """
        frames = len(first[0])
        step, parts = 1, []
        for low, high, length in zip(first, last, lengths, strict=True):
            # From `later` on all frames change only what lies after; frames so far apart never meet.
            low = low.flip(0).cummin(0).values.flip(0)
            high = high.cummax(0).values
            later = torch.searchsorted(low, high, right=True)
            step = max(step, int((later - torch.arange(frames)).amax()))
            places = torch.arange(length)
            parts.append((places >= low[:, None]) & (places <= high[:, None]))
        step = min(2 * step if spare else step, frames)
        return cls(torch.arange(frames) % step, step, torch.cat(parts, 1))

    def members(self, groups: range) -> Tensor:
        """The frames of some groups, as a mask ``[groups, frames]``."""
        return self.group == torch.arange(groups.start, groups.stop)[:, None]

    def told_apart(self, changed: Tensor) -> Tensor:
        """From what the groups changed ``[groups, ΣT']`` to what each frame did ``[frames, ΣT']``."""
        return changed[self.group] & self.reach

    def beyond(self, changed: Tensor) -> bool:
        """Whether a group changed what none of its frames may."""
        known = torch.zeros(changed.shape, dtype=torch.float32).index_add_(0, self.group, self.reach.float())
        return bool((changed & (known == 0)).any())


def per_output(matrix: Tensor, lengths: Sequence[int]) -> Tuple[List[Tensor], List[Tensor]]:
    """First and last changed frame of every output, for each row of ``[frames, ΣT']``."""
    found = [hulls(part) for part in torch.split(matrix, list(lengths), 1)]
    return [first for first, _ in found], [last for _, last in found]
