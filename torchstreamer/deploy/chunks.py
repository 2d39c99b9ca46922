"""What a fixed step takes: its size and its channels."""

from typing import List

from ..core.stream import BaseStream
from ..errors import StreamInputError

__all__ = ["check_chunk", "input_channels"]

# The most channels that are tried, where a stream does not say how many it takes.
_CHANNELS = 8192


def check_chunk(stream: BaseStream, chunk: int) -> None:
    """Refuse a chunk size at which the state does not repeat its shape."""
    if chunk < 1 or chunk % stream.hop:
        below = max(chunk, 0) // stream.hop * stream.hop
        sizes = [str(size) for size in (below, below + stream.hop) if size > 0]
        raise ValueError(
            f"invalid_chunk_size: chunk={chunk} came; a multiple of the stream's hop, {stream.hop}, was expected; the "
            f"next are {' and '.join(sizes)}"
        )


def input_channels(stream: BaseStream) -> int:
    """The channels that a stream takes.

    Raises:
        ValueError: it takes any number
    """
    taken: List[int] = []
    for channels in range(1, _CHANNELS + 1):
        try:
            stream.output_channels(channels)
        except StreamInputError:
            continue
        taken.append(channels)
        if len(taken) > 1:
            raise ValueError(
                "unknown_channels: the stream takes any number of channels; the number was expected; pass channels="
            )
    if not taken:
        raise ValueError("unknown_channels: the number of channels could not be found out; pass channels=")
    return taken[0]
