"""`estimate_state_size`: how much memory each live signal will take."""

from typing import Any, Callable, List, Optional, Sequence, Union, overload

from torch import Tensor, nn, no_grad

from ..errors import StreamInputError, UnsupportedModuleError
from .rows import RowStream
from .whole_numbers import require_length

__all__ = ["estimate_state_size"]

# The longest start that is tried, in samples.
_LONGEST = 1 << 26


@overload
def estimate_state_size(net: nn.Module, example: Tensor, lengths: None = None, **options: Any) -> int: ...


@overload
def estimate_state_size(net: nn.Module, example: Tensor, lengths: Sequence[int], **options: Any) -> List[int]: ...


def estimate_state_size(
    net: nn.Module, example: Tensor, lengths: Optional[Sequence[int]] = None, **options: Any
) -> Union[int, List[int]]:
    """Bytes that a signal takes in a `RowStream`, found by running silence: the size does not depend on the samples.

    Args:
        net: the network, as for `create_stream`
        example: an input, as for `create_stream`; of its shape, dtype and device are the signals
        lengths: samples of some signals so far; ``None`` for a signal that has gone on for long, or as long as it may
        options: of `create_stream`

    Returns:
        bytes of a signal, after a multiple of ``hop``; or of each that has so many samples, with those that wait

    Raises:
        UnsupportedModuleError: the network cannot be streamed, has several inputs or outputs, or remembers ever more
        StreamInputError: ``signal_too_long``, no signal of the network has so many samples

    Example:
        >>> import torch, torchstreamer as pts
        >>> pts.estimate_state_size(torch.nn.Conv1d(4, 8, 3), torch.zeros(1, 4, 10))
        32
        >>> pts.estimate_state_size(torch.nn.Conv1d(4, 8, 3), torch.zeros(1, 4, 10), [0, 1, 1000])
        [0, 16, 32]
    """
    for n in lengths or ():
        require_length(n)
    rows = RowStream(net, example=example, **options)
    row = example.detach().select(rows._layout.rows, 0).narrow(rows._layout.time, 0, 1)
    hop = rows.stream.hop

    def feed(n: int) -> None:
        shape = list(row.shape)
        shape[rows._layout.time] = n
        rows.step([(0, row.new_zeros(shape), 0 not in rows, False)])

    with no_grad():
        # Shapes are a function of the shapes before, so what repeats once repeats for ever.
        start, phases = 0, [rows._runner.state.phase()]
        while len(phases) < 2 or phases[-1] != phases[-2]:
            if start > _LONGEST:
                raise UnsupportedModuleError(
                    "no_steady_state",
                    net,
                    f"after {start} samples its state does not come to repeat its shape",
                    "let counters in its handlers wind back, and check hop",
                )
            try:
                feed(max(start, hop))
                start += max(start, hop)
                phases = [rows._runner.state.phase()]
                feed(hop)
            except StreamInputError as error:
                if error.code != "signal_too_long":
                    raise
                start += _to_the_end(feed, max(start, hop), hop)
                break
            start += hop
            phases.append(rows._runner.state.phase())
        if lengths is None:
            return rows.nbytes_of(0)
        # Where signals may not grow for ever, only a try tells whether one may be so long.
        limited = any(getattr(module, "_limit", -1) >= 0 for module in rows.stream.modules())
        found = []
        for n in lengths:
            rows.reset()
            rows.step([(0, None, True, False)])
            feed(n if limited or n < start else start + (n - start) % hop)
            found.append(rows.nbytes_of(0))
        return found


def _to_the_end(feed: Callable[[int], None], n: int, hop: int) -> int:
    # As many samples more as a signal may have, less than so many; how many they were.
    came = 0
    while n >= hop:
        try:
            feed(n)
            came += n
        except StreamInputError:  # no row is changed
            n = n // hop // 2 * hop
    return came
