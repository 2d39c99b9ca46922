"""Filters with a finite response, by direct products or by the Fourier transform. TorchScript compiles this file."""

from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.reach import Reach
from ..core.registry import register_streamer, require_plain
from ..core.tracing import compiling
from ..layers.accumulating import working
from ..layers.channelwise import ChannelwiseRecurrence, ChannelwiseRecurrenceStream
from ..layers.linear_recurrence import hold
from ..layers.samples import require_real
from ..layers.weights import version_of
from .configuring import configured
from .fourier import irfft, rfft

__all__ = ["FIR", "FIRStream"]


@configured
class FIR(ChannelwiseRecurrence):
    """A filter with a finite response, such as that of a room: ``y[t] = taps[0]·x[t] + … + taps[n-1]·x[t-n+1]``.

    Nothing is added to the delay of the taps themselves: with every chunk come all outputs of its samples. Short
    responses and chunks are products; others are computed by a partitioned overlap-save transform, whose blocks follow
    the chunk, so a response of a second costs some percent of a processor in chunks of 10 ms.

    An output that uses a sample that is no finite number is ``nan``, and only such a one, though a transform spreads it
    over a block: samples that are not finite are taken out before and marked after.

    Args:
        taps: the response, ``[n]``, or ``[C, n]`` with one for each channel; a parameter is trained

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: the same, in the dtype of the input; what would come after the last sample is left out, as in
          `scipy.signal.lfilter`

    Raises:
        ValueError: the taps have another shape, or are not finite

    Example:
        >>> import torch, torchstreamer as pts
        >>> from torchstreamer.audio import FIR
        >>> difference = FIR([1.0, -1.0])
        >>> difference(torch.tensor([[1.0, 3.0, 6.0]]))
        tensor([[1., 2., 3.]])
        >>> stream = pts.create_stream(difference)
        >>> stream(torch.tensor([[1.0, 3.0]])), stream(torch.tensor([[6.0]]))
        (tensor([[1., 2.]]), tensor([[3.]]))
    """

    taps: Tensor
    kept: Dict[int, Tensor]
    seen: Tensor

    def __init__(self, taps: Union[Tensor, Sequence[Any]]) -> None:
        super().__init__()
        values = taps if isinstance(taps, Tensor) else torch.as_tensor(taps, dtype=torch.float64)
        fit = not values.is_complex() and bool(values.isfinite().all())
        if values.dim() not in (1, 2) or values.numel() == 0 or not fit:
            raise ValueError(
                f"invalid_taps: taps {list(values.shape)} came{'' if fit else ', complex or not all finite'}; finite "
                "real numbers [n], or [C, n] with a response for each channel, were expected; check them"
            )
        hold(self, "taps", values)
        self.length = values.shape[-1]
        self.channels = -1 if values.dim() == 1 else values.shape[0]
        # Transforms of the taps, by the length of a block, and the taps that they were made of.
        self.kept = {}
        self.seen = torch.empty(0)
        self.version = -2

    def initial(self, x: Tensor) -> List[Tensor]:
        """The last samples, of which none came, ``[B, C, n - 1]``, and how many outputs are spoiled, ``[B, C]``."""
        require_real(x)
        past = torch.zeros([x.size(0), x.size(1), max(self.length - 1, 1)], dtype=x.dtype, device=x.device)
        return [past, torch.zeros([x.size(0), x.size(1)], dtype=torch.int64, device=x.device)]

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        """A chunk, filtered, and the state after it."""
        past, spoiled = state
        n, t = self.length, x.size(2)
        zero = x.detach() * 0  # or nan
        bad = zero != zero
        clean = torch.where(bad, 0.0, x)
        if t <= 2 or n * t <= 65536:
            line = torch.cat([past.to(x.dtype), clean], 2)
            y = self._products(self._window(line, t + n - 1))
        elif t > n:
            line = torch.cat([past.to(x.dtype), clean], 2)
            y = self._in_pieces(self._window(line, t + n - 1), t)
        else:
            size, gain = _blocks(t)
            parts = (n + size - gain - 1) // (size - gain)
            span = gain + parts * (size - gain)
            before = torch.zeros([x.size(0), x.size(1), span - t - past.size(2)], dtype=x.dtype, device=x.device)
            line = torch.cat([before, past.to(x.dtype), clean], 2)
            y = self._in_partitions(self._window(line, span), t, size, gain, parts)
        place = torch.arange(1, t + 1, device=x.device)
        if t <= n:
            y = y + zero.cumsum(2)
        else:
            count = bad.to(torch.int64).cumsum(2)
            y = torch.where(F.pad(count, [n, 0]).narrow(2, 0, t) < count, float("nan"), y)
        y = torch.where(place <= spoiled.unsqueeze(2), float("nan"), y)
        latest = (bad * place).amax(2)
        spoiled = torch.where(latest > 0, latest + (n - 1), spoiled) - t
        return y.to(x.dtype), [line.narrow(2, line.size(2) - past.size(2), past.size(2)), spoiled.clamp(min=0)]

    def _window(self, line: Tensor, n: int) -> Tensor:
        return line.narrow(2, line.size(2) - n, n).to(working(line))

    def _products(self, window: Tensor) -> Tensor:
        taps = self.taps.to(window.dtype).flip([-1]).unsqueeze(-1)
        return torch.matmul(window.unfold(2, self.length, 1), taps).squeeze(3)

    def _in_pieces(self, window: Tensor, t: int) -> Tensor:
        # Blocks are pieces of the chunk, and each sees all of the response.
        n, size = self.length, 256
        while size < 4 * n:
            size *= 2
        gain = size - n + 1
        spectra = rfft(F.pad(window, [0, -t % gain]).unfold(2, size, gain), size)
        product = spectra * self._spectrum(size, n, 1, window)
        return irfft(product, size).narrow(3, n - 1, gain).flatten(2).narrow(2, 0, t)

    def _in_partitions(self, window: Tensor, t: int, size: int, gain: int, parts: int) -> Tensor:
        # Blocks are what partitions of the response see, which together give the chunk.
        spectra = rfft(window.unfold(2, size, size - gain), size)
        product = spectra * self._spectrum(size, size - gain, parts, window)
        return irfft(product.sum(2), size).narrow(2, size - t, t)

    def _spectrum(self, size: int, step: int, parts: int, like: Tensor) -> Tensor:
        # Of the response, [parts, F] or [C, parts, F], the oldest partition first.
        taps = self.taps
        if taps.requires_grad and torch.is_grad_enabled():
            return self._transform(taps, size, step, parts, like)
        version = version_of(taps)
        known = version >= 0 and version == self.version and self.seen.is_set_to(taps)
        if known and size * 65536 + parts in self.kept:
            kept = self.kept[size * 65536 + parts]
            if kept.device == like.device and kept.element_size() == 2 * like.element_size():
                return kept
        kept = self._transform(taps.detach(), size, step, parts, like)
        if compiling():
            return kept
        if not known:
            empty: Dict[int, Tensor] = {}
            self.kept = empty
            self.seen = taps.detach()
            self.version = version
        self.kept[size * 65536 + parts] = kept
        return kept

    def _transform(self, taps: Tensor, size: int, step: int, parts: int, like: Tensor) -> Tensor:
        taps = taps.to(like.dtype)
        if parts == 1:
            return rfft(taps, size).unsqueeze(-2)
        taps = F.pad(taps, [0, parts * step - self.length])
        return rfft(taps.view(list(taps.size())[:-1] + [parts, step]), size).flip([-2])

    def __getstate__(self) -> Dict[str, Any]:
        # Copied taps count their changes anew.
        return {**self.__dict__, "kept": {}, "seen": torch.empty(0), "version": -2}

    def extra_repr(self) -> str:
        return f"length={self.length}" + (f", channels={self.channels}" if self.channels > 0 else "")


def _blocks(t: int) -> Tuple[int, int]:
    """How many samples a transform takes, and how many outputs it gives at most: alike for many lengths of chunks."""
    gain = 1
    while gain < t:
        gain *= 2
    return max((4 if gain <= 512 else 2) * gain, 256), gain


@register_streamer(FIR)
class FIRStream(ChannelwiseRecurrenceStream):
    """Stream of an `FIR`.

    Args:
        net: the filter

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: the same

    Example:
        >>> import torch, torchstreamer as pts
        >>> from torchstreamer.audio import FIR
        >>> stream = pts.create_stream(FIR(torch.ones(5)))
        >>> stream(torch.ones(1, 3)), stream(torch.ones(1, 4))
        (tensor([[1., 2., 3.]]), tensor([[4., 5., 5., 5.]]))
    """

    def __init__(self, net: FIR) -> None:
        require_plain(net, FIR)
        super().__init__(net, ["past", "spoiled"])
        self.reach = Reach.window(net.length, left=net.length - 1)

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None:
            return None
        if not self.memory.started():
            self.memory.keep(self.net.initial(x))
        y, state = self.net.advance(x, self.memory.rows())
        if x.size(2) <= self.net.length:
            self.memory.take(state)
        else:  # which would keep the chunk
            self.memory.keep(state)
        return y
