"""What containers with several streams have in common. TorchScript compiles this file."""

# A ModuleList does not tell the type of its modules.
# mypy: disable-error-code="operator, union-attr"

from typing import Optional, Sequence

import torch
from torch import Tensor, nn

from ..core.fast_attributes import entry
from ..core.row_clock import RowClock
from ..core.stream import BaseStream

__all__ = ["BoundedStream", "CompositeStream"]


class BoundedStream(BaseStream):
    """A stream of others, some of which may take signals up to a length only."""

    @torch.jit.unused
    def bound_by(self, stream: BaseStream, before: Sequence[BaseStream] = ()) -> None:
        """Take no signal that is too long for a stream inside, after the streams that stand before it."""
        if stream._limit < 0:
            return

        def reaches(n: int) -> int:
            for each in before:
                n = each.output_length(n, True)
            return n

        n = 1
        while reaches(n) <= stream._limit and n < 1 << 40:
            n *= 2
        low, high = 0, n  # the longest that fits is from `low` to `high - 1`
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if reaches(middle) <= stream._limit else (low, middle)
        self._limit = low if self._limit < 0 else min(low, self._limit)
        # Samples that came; only where there is a longest signal, so that the state of others has nothing more.
        self.came = RowClock(1, endless=True)

    def _require_room(self, x: Tensor) -> None:
        if hasattr(self, "came"):
            came = self.came
            if not came.started():
                if x.size(2) > self._limit:
                    self._like = self._like.new_empty([0])  # as if nothing had come
                came.require_room(x.size(2), self._limit)
                came.begin(x)
            came.require_room(x.size(2), self._limit)
            came.advance(x.size(2))


class CompositeStream(BoundedStream):
    """A stream made of several.

    Args:
        streams: its parts, in order
    """

    streams = entry("_modules")

    def __init__(self, streams: Sequence[BaseStream]) -> None:
        super().__init__()
        self.streams = nn.ModuleList(streams)

    def anchor(self) -> Optional[Tensor]:
        """The first weight says dtype and device."""
        for stream in self.streams:
            anchor = stream.anchor()
            if anchor is not None:
                return anchor
            if not stream.keeps_dtype:
                return None
        return None
