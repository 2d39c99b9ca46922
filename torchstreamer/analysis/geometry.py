"""Which inputs the outputs of a layer depend on, from its geometry alone: one rule for each handler.

A rule says for every output which inputs it is computed from. Needs travel backwards, from chosen outputs to the
inputs of a whole signal, as a mask ``[samples, outputs]``.
"""

from typing import Any, Callable, Dict, Iterator, List, Type, TypeVar

import torch
from torch import Tensor

from ..containers.parallel import Parallel1dStream
from ..containers.residual import Residual1dStream
from ..containers.sequential import Sequential1dStream
from ..core.stream import BaseStream
from ..layers.conv import Conv1dStream
from ..layers.conv_transpose import TransposedStream
from ..layers.elementwise import Elementwise1dStream, IdentityStream, PointwiseStream
from ..layers.normalization import BatchNorm1dStream
from ..layers.padding import Pad1dStream
from ..layers.pooling import Pool1dStream
from ..layers.upsampling import UpsampleStream

__all__ = ["Taps", "field_rule", "needed", "needed_by_taps", "register_needs"]

Taps = Iterator[Tensor]
TapsRule = TypeVar("TapsRule", bound=Callable[[Any, int, int], Any])
NeedsRule = Callable[[Any, Tensor, int], Tensor]

_needs: Dict[Type[BaseStream], NeedsRule] = {}
_fallback: List[NeedsRule] = []


def field_rule(stream_type: Type[BaseStream]) -> Callable[[TapsRule], TapsRule]:
    """Say which inputs the outputs of a handler depend on; a decorator.

    Args:
        stream_type: type of the handler. Subclasses follow the same rule

    Returns:
        a decorator for a function ``(stream, n, m)``: for a whole signal of ``n`` samples, of which the handler makes
        ``m``, it gives tensors of ``m`` positions each. Output ``i`` depends on the inputs at place ``i`` of all of
        them; a position outside of the signal, such as -1, stands for none

    Example:
        >>> import torch, torchstreamer as pts
        >>> from torchstreamer.analysis import field_rule, receptive_field
        >>> class LastTwoStream(pts.BaseStream):
        ...     def output_length(self, n, final=True):
        ...         return n
        >>> @field_rule(LastTwoStream)
        ... def taps(stream, n, m):
        ...     yield torch.arange(m)
        ...     yield torch.arange(m) - 1
        >>> receptive_field(LastTwoStream()).left
        1
    """

    def register(rule: TapsRule) -> TapsRule:
        def needs(stream: Any, need: Tensor, n: int) -> Tensor:
            return needed_by_taps(need, rule(stream, n, need.shape[0]), n)

        register_needs(stream_type, needs)
        return rule

    return register


def register_needs(stream_type: Type[BaseStream], rule: NeedsRule) -> None:
    """Say how needs travel through a stream: ``(stream, need [outputs, …], n) -> [n, …]``."""
    _needs[stream_type] = rule


def register_unknown(rule: NeedsRule) -> None:
    """Say how needs travel through a stream without a rule."""
    _fallback[:] = [rule]


def has_rule(stream: BaseStream) -> bool:
    """Whether there is a rule for a stream."""
    return any(kind in _needs for kind in type(stream).__mro__)


def needed(stream: BaseStream, need: Tensor, n: int) -> Tensor:
    """The inputs that outputs of a stream depend on.

    Args:
        stream: the stream
        need: outputs that are asked for, as columns of a mask ``[outputs of n samples, columns]``
        n: length of the whole signal

    Returns:
        a mask ``[n, columns]``
    """
    for kind in type(stream).__mro__:
        if kind in _needs:
            return _needs[kind](stream, need, n)
    return _fallback[0](stream, need, n)


def needed_by_taps(need: Tensor, taps: Taps, n: int) -> Tensor:
    """The inputs that are needed by outputs with these taps."""
    found = torch.zeros(n + 1, need.shape[1], dtype=torch.int32)
    counted = need.to(torch.int32)
    for tap in taps:
        found.index_add_(0, torch.where((tap >= 0) & (tap < n), tap, n), counted)
    return found[:n] > 0


# ---------------------------------------------------------------------- layers


def window_taps(m: int, kernel: int, dilation: int, stride: int, left: int) -> Taps:
    """Of a window that begins ``left`` samples before the signal."""
    begin = torch.arange(m) * stride - left
    for k in range(kernel):
        yield begin + k * dilation


def _conv(stream: Conv1dStream, need: Tensor, n: int) -> Tensor:
    pad = stream.pad
    length = n if pad is None else pad.output_length(n, True)
    taps = window_taps(need.shape[0], stream.kernel_size, stream.dilation, stream.stride, 0)
    found = needed_by_taps(need, taps, length)
    return found if pad is None else needed(pad, found, n)


register_needs(Conv1dStream, _conv)


@field_rule(Pool1dStream)
def _pool(stream: Pool1dStream, n: int, m: int) -> Taps:
    return window_taps(m, stream.kernel_size, stream.dilation, stream.stride, stream.padding)


@field_rule(TransposedStream)
def _transposed(stream: TransposedStream, n: int, m: int) -> Taps:
    place = torch.arange(m) + stream.padding
    for k in range(stream.kernel_size):
        begin = place - k * stream.dilation
        yield torch.where(begin % stream.stride == 0, begin // stream.stride, -1)


@field_rule(Pad1dStream)
def _pad(stream: Pad1dStream, n: int, m: int) -> Taps:
    place = torch.arange(m) - stream.left
    if stream.mode == "reflect":
        place = place.abs()
        place = torch.where(place >= n, 2 * (n - 1) - place, place)
    elif stream.mode == "replicate":
        place = place.clamp(0, n - 1)
    yield place


@field_rule(UpsampleStream)
def _upsample(stream: UpsampleStream, n: int, m: int) -> Taps:
    i, p, q = torch.arange(m), stream.p, stream.q
    if stream.mode == "nearest":
        yield i * q // p
    elif stream.mode == "nearest-exact":
        yield (2 * i + 1) * q // (2 * p)
    elif n <= stream.copied:
        yield i
    else:
        numerator = ((2 * i + 1) * q - p).clamp(min=0)
        left = numerator // (2 * p)
        yield left
        # A sample with weight 0 is waited for, and does not count.
        yield torch.where(numerator % (2 * p) > 0, (left + 1).clamp(max=n - 1), -1)


def _same(stream: BaseStream, n: int, m: int) -> Taps:
    yield torch.arange(m)


for _kind in (IdentityStream, PointwiseStream, Elementwise1dStream, BatchNorm1dStream):
    field_rule(_kind)(_same)


# ---------------------------------------------------------------------- containers


def cropped(need: Tensor, lead: int, length: int) -> Tensor:
    """Needs of a value from those of what was cropped from it, which begins at sample ``lead``."""
    found = torch.zeros(length, need.shape[1], dtype=torch.bool)
    stop = min(lead + need.shape[0], length)
    if stop > lead:
        found[lead:stop] = need[: stop - lead]
    return found


def _sequential(stream: Any, need: Tensor, n: int) -> Tensor:
    lengths = [n]
    for part in stream.streams:
        lengths.append(part.output_length(lengths[-1], True))
    for part, length in zip(reversed(stream.streams), reversed(lengths[:-1]), strict=True):
        need = needed(part, need, length)
    return need


def _residual(stream: Residual1dStream, need: Tensor, n: int) -> Tensor:
    return needed(stream.stream, need, n) | cropped(need, stream.lead, n)


def _parallel(stream: Any, need: Tensor, n: int) -> Tensor:
    found = torch.zeros(n, need.shape[1], dtype=torch.bool)
    for part, lead in zip(stream.streams, stream.leads, strict=True):
        found |= needed(part, cropped(need, lead, part.output_length(n, True)), n)
    return found


register_needs(Sequential1dStream, _sequential)
register_needs(Residual1dStream, _residual)
register_needs(Parallel1dStream, _parallel)
