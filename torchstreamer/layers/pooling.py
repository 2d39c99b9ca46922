"""Streams of pooling layers. TorchScript compiles this file."""

from typing import Optional, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.counter import Counter
from ..core.fast_attributes import entry
from ..core.reach import Reach
from ..core.registry import require_plain
from ..errors import UnsupportedModuleError
from .window import WindowStream, spanned, window_count

__all__ = ["Pool1dStream", "pool_reach"]


def _first(value: Union[int, tuple]) -> int:  # type: ignore[type-arg]
    return int(value[0] if isinstance(value, tuple) else value)


def pool_reach(kernel_size: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> Reach:
    """What the outputs of a pooling layer read.

    In ceil mode torch lets a last window reach over the end, which begins before the right padding does. Of ``n``
    samples there are then ``ceil((n + 2·padding - field) / stride) + 1`` windows, and no more than
    ``ceil((n + padding) / stride)``: as many as if ``min(padding + stride, field) - 1`` samples stood on the right.
    """
    field = spanned(kernel_size, dilation)
    right = min(padding + stride, field) - 1 if ceil_mode else padding
    return Reach.window(field, stride, padding, right, dilation)


class Pooling(nn.Module):
    """The operation of a pooling layer on windows of which all samples are there.

    Args:
        kind: ``"Avg"``, ``"Max"`` or ``"LP"``
        kernel_size, stride, dilation, padding, count_include_pad: of the layer
        power: of an LP pool
    """

    __constants__ = ["kind", "kernel_size", "stride", "dilation", "padding", "count_include_pad", "power"]

    def __init__(
        self,
        kind: str,
        kernel_size: int,
        stride: int,
        dilation: int,
        padding: int,
        count_include_pad: bool,
        power: float,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.kernel_size = kernel_size
        self.stride = stride
        self.dilation = dilation
        self.padding = padding
        self.count_include_pad = count_include_pad
        self.power = power

    def forward(self, window: Tensor, begin: Optional[Tensor] = None, length: Optional[Tensor] = None) -> Tensor:
        """One output per window.

        Args:
            window: the samples ``[B, C, n]``
            begin: where in the signal each window begins, if some reach over its ends
            length: of the signal, where ``begin`` is given
        """
        if self.kind == "Max":
            return F.max_pool1d(window, self.kernel_size, self.stride, 0, self.dilation)
        if self.kind == "LP":
            window = window.pow(self.power)
        y = F.avg_pool1d(window, self.kernel_size, self.stride)
        if begin is not None and length is not None:
            y = y * self._correction(y, begin, length)
        if self.kind == "LP":
            # As torch.nn.functional.lp_pool1d: the mean becomes a sum again before the root.
            y = (torch.sign(y) * F.relu(torch.abs(y))).mul(self.kernel_size).pow(1.0 / self.power)
        return y

    def _correction(self, y: Tensor, begin: Tensor, length: Tensor) -> Tensor:
        # kernel_size over the number of samples that the module divides by, for each of the windows.
        end = begin + self.kernel_size
        if self.count_include_pad:
            samples = torch.minimum(end, length + self.padding) - begin
        else:
            samples = torch.minimum(end, length) - begin.clamp(min=0)
        wide = torch.float64 if y.dtype == torch.float64 else torch.float32
        return (self.kernel_size / samples.clamp(min=1).to(wide)).to(y.dtype)


class Pool1dStream(WindowStream):
    """Stream of `torch.nn.AvgPool1d`, `MaxPool1d` or `LPPool1d`, with all their arguments but ``return_indices``.

    Padding is put around the signal: zeros, or the least value for a maximum. A window at an edge is divided by the
    number of samples that the module counts.

    Args:
        net: the pooling layer

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: ``[B, C, T']`` or ``[C, T']``

    Raises:
        UnsupportedModuleError: another module (``invalid_pool_module``), or ``return_indices``

    Example:
        >>> import torch, torchstreamer as pts
        >>> pool = torch.nn.MaxPool1d(3, stride=2, ceil_mode=True)
        >>> stream = pts.Pool1dStream(pool)
        >>> x = torch.randn(2, 10)
        >>> y = torch.cat([stream(x[:, :4]), stream(x[:, 4:]), stream.flush()], dim=-1)
        >>> torch.testing.assert_close(y, pool(x))
    """

    __constants__ = [*WindowStream.__constants__, "kind", "padding", "beyond", "corrects", "fill"]

    lead = entry("_modules")
    pooling = entry("_modules")

    def __init__(self, net: Union[nn.AvgPool1d, nn.MaxPool1d, nn.LPPool1d]) -> None:
        kinds = {nn.AvgPool1d: "Avg", nn.MaxPool1d: "Max", nn.LPPool1d: "LP"}
        kind = next((kind for net_type, kind in kinds.items() if isinstance(net, net_type)), None)
        if kind is None:
            raise UnsupportedModuleError(
                "invalid_pool_module",
                net,
                "Pool1dStream takes AvgPool1d, MaxPool1d and LPPool1d",
                "use pts.create_stream(net), or register a handler",
            )
        require_plain(net, *kinds)
        if getattr(net, "return_indices", False):
            raise UnsupportedModuleError(
                "return_indices",
                net,
                "it also returns indices into the whole signal",
                "set return_indices=False",
            )
        kernel = _first(net.kernel_size)
        stride = kernel if net.stride is None else _first(net.stride)
        dilation = _first(getattr(net, "dilation", 1))
        padding = _first(getattr(net, "padding", 0))
        reach = pool_reach(kernel, stride, padding, dilation, bool(net.ceil_mode))
        super().__init__(spanned(kernel, dilation), stride, reach)
        self.kind: str = kind
        self.kernel_size = kernel
        self.padding = padding
        self.beyond = reach.end  # samples that the last windows may reach over the end
        self.fill = -float("inf") if kind == "Max" else 0.0
        include = bool(getattr(net, "count_include_pad", True))
        self.placed = kind != "Max" and (padding > 0 or reach.end > 0)
        self.corrects = kind != "Max" and not include  # also where all padding is on the left
        power = float(getattr(net, "norm_type", 1.0))
        self.pooling = Pooling(kind, kernel, stride, dilation, padding, include, power)
        # Padding samples among those that the next windows see.
        self.lead = Counter(padding)

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None:
            if not final or not self.ring.started():
                return None
            x = self.ring.data.new_empty([self.ring.data.size(0), self.ring.data.size(2), 0])
        if not self.ring.started() and self.padding > 0:
            self.ring.fill(x, self.padding, self.fill)
        n = self.ring.held - self.ring.skip + x.size(2)
        count = window_count(n + self.beyond if final else n, self.field, self.stride)
        if count == 0:
            self.ring.push(x)
            return None
        window = self.ring.join(x)
        need = (count - 1) * self.stride + self.field
        over = need - n
        seen = F.pad(window, [0, over], "constant", self.fill) if over > 0 else window.narrow(2, 0, need)
        lead = self.lead.value
        if self.kind != "Max" and (over > 0 or (lead > 0 and self.corrects)):
            begin = torch.arange(count, device=x.device) * self.stride - lead
            y = self.pooling.forward(seen, begin, torch.tensor(n - lead, device=x.device))
        else:
            y = self.pooling.forward(seen)
        if lead > 0:
            self.lead.value = max(lead - count * self.stride, 0)
        self.ring.keep(window, count * self.stride)
        return y

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        return channels

    def __repr__(self) -> str:
        return f"{self.kind}Pool1dStream(kernel_size={self.kernel_size}, stride={self.stride})"
