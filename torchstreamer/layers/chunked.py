"""Networks that see the whole signal, run on windows of it instead: another model, by name.

TorchScript compiles the stream of this file, so it uses no postponed annotations.
"""

from typing import Iterator, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.context import Context
from ..core.fast_attributes import entry
from ..core.frozen import in_training
from ..core.reach import Reach
from ..core.registry import require_plain
from ..core.ring import RingBuffer
from ..core.stream import BaseStream
from ..core.whole_numbers import require_length
from ..errors import StreamError, UnsupportedModuleError
from .elementwise import refuse_training

__all__ = ["Chunked1d", "Chunked1dStream"]


class Chunked1d(nn.Module):
    """A network run on windows, each of one chunk of the signal with samples before and after it; the middle is kept.

    The way out for networks that need the end of the signal first, such as bidirectional recurrences and attention to
    everything. **It is another model** than the network on the whole signal: it gives other values, offline and
    streamed alike, so judge it, and better train it, as it stands here. Before the signal and after its end windows
    hold zeros.

    Args:
        net: the network; of a window ``[B, C, left + chunk + right]`` it gives as many samples
        chunk: samples that one window answers for
        left: samples before them
        right: samples after them, for which a stream waits

    Shape:
        - input: ``[B, C, T]``
        - output: ``[B, C', T]``

    Example:
        >>> import torch, torchstreamer as pts
        >>> net = pts.Chunked1d(torch.nn.Softmax(dim=-1), chunk=4, left=8, right=2)
        >>> stream, x = pts.create_stream(net), torch.randn(1, 2, 21)
        >>> y = [stream(chunk) for chunk in x.split(5, -1)] + [stream.flush()]
        >>> torch.testing.assert_close(torch.cat([each for each in y if each is not None], -1), net(x))
    """

    def __init__(self, net: nn.Module, chunk: int, left: int, right: int = 0) -> None:
        super().__init__()
        self.context = Context(left, right, chunk)
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """The middles of all windows."""
        context = self.context
        left = context.left or 0
        rest = -x.size(2) % context.chunk
        y = on_windows(self.net, F.pad(x, [left, rest + context.right]), context.chunk, left, context.right)
        return y[:, :, : x.size(2)]

    def extra_repr(self) -> str:
        return f"chunk={self.context.chunk}, left={self.context.left}, right={self.context.right}"


def on_windows(net: nn.Module, x: Tensor, chunk: int, left: int, right: int) -> Tensor:
    """The middles of the windows of a padded signal, which has whole ones only."""
    count = (x.size(2) - left - right) // chunk
    windows = x.unfold(2, left + chunk + right, chunk)
    windows = windows.transpose(1, 2).reshape(x.size(0) * count, x.size(1), left + chunk + right)
    return joined_middles(net(windows), count, chunk, left, right)


def joined_middles(y: Tensor, count: int, chunk: int, left: int, right: int) -> Tensor:
    """The middles of so many windows of each row, side by side."""
    if y.dim() != 3 or y.size(2) != left + chunk + right:
        raise StreamError(
            f"invalid_output: for windows of {left + chunk + right} samples the network of a Chunked1d gave "
            f"{list(y.size())}; as many samples, [B, C, T], were expected; check its padding and strides"
        )
    rows = y.size(0) // count
    middles = y.narrow(2, left, chunk).reshape(rows, count, y.size(1), chunk)
    return middles.transpose(1, 2).reshape(rows, y.size(1), count * chunk)


class Chunked1dStream(BaseStream):
    """Stream of a `Chunked1d`.

    Args:
        net: the module

    Raises:
        UnsupportedModuleError: a module inside is in training mode
    """

    net = entry("_modules")
    ring = entry("_modules")
    sample: Optional[Tensor]

    def __init__(self, net: Chunked1d) -> None:
        require_plain(net, Chunked1d)
        refuse_training(net)
        for part in net.modules():
            if isinstance(part, (nn.RNNBase, nn.MultiheadAttention)) and in_training(part) and part.dropout > 0:
                raise UnsupportedModuleError(
                    "training_mode", part, "in training mode its dropout is random", "call eval() first"
                )
        context = net.context
        left = context.left or 0
        super().__init__(Reach(first=-(left + context.chunk - 1), last=context.lookahead))
        self.hop = self.chunk = context.chunk
        self.left = left
        self.right = context.right
        self.net = net.net
        self.ring = RingBuffer()
        weight = next((weight for weight in net.parameters() if weight.is_floating_point()), None)
        self.register_parameter("sample", weight)  # which says dtype and device

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        ring = self.ring
        if x is None:
            if not final or not ring.started():
                return None
            window = ring.rows().transpose(1, 2)
        else:
            if not ring.started():
                ring.fill(x, self.left, 0.0)
            window = ring.join(x)
        waiting = window.size(2) - self.left
        count = -(-waiting // self.chunk) if final else max((waiting - self.right) // self.chunk, 0)
        if count == 0:
            if x is not None:
                ring.keep(window, 0)
            return None
        span = count * self.chunk + self.left + self.right
        whole = window
        if span > window.size(2):
            whole = F.pad(window, [0, span - window.size(2)])
        field = self.left + self.chunk + self.right
        windows = whole.narrow(2, 0, span).unfold(2, field, self.chunk).transpose(1, 2)
        y = self.net(windows.reshape(window.size(0) * count, window.size(1), field))
        y = joined_middles(y, count, self.chunk, self.left, self.right)
        if not final:
            ring.keep(window, count * self.chunk)
        return y.narrow(2, 0, min(waiting, y.size(2)))

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        """Number of samples out after ``n`` samples in; see `BaseStream.output_length`."""
        require_length(n)
        return n if final else max((n - self.right) // self.chunk * self.chunk, 0)

    def anchor(self) -> Optional[Tensor]:
        """The first weight says dtype and device."""
        return self.sample

    def taps(self, n: int, m: int) -> Iterator[Tensor]:
        """Which inputs the outputs are computed from; see `BaseStream.taps`."""
        begin = torch.arange(m) // self.chunk * self.chunk
        for offset in range(-self.left, self.chunk + self.right):
            yield begin + offset

    def extra_repr(self) -> str:
        return f"chunk={self.chunk}, left={self.left}, right={self.right}"
