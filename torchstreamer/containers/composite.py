"""What containers with several streams have in common. TorchScript compiles this file."""

# A ModuleList does not tell the type of its modules.
# mypy: disable-error-code="operator, union-attr"

from typing import Optional, Sequence

from torch import Tensor, nn

from ..core.fast_attributes import entry
from ..core.stream import BaseStream

__all__ = ["CompositeStream"]


class CompositeStream(BaseStream):
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
