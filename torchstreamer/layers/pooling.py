"""Streams of pooling layers. TorchScript compiles this file."""

from typing import Optional, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.counter import Counter
from ..core.entry import entry
from ..core.registry import require_plain
from ..errors import UnsupportedModuleError
from .window import WindowStream, window_count

__all__ = ["Pool1dStream"]


def _first(value: Union[int, tuple]) -> int:  # type: ignore[type-arg]
    return int(value[0] if isinstance(value, tuple) else value)


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

    __constants__ = [
        *WindowStream.__constants__,
        "kind",
        "kernel_size",
        "dilation",
        "padding",
        "ceil_mode",
        "count_include_pad",
        "power",
    ]

    lead = entry("_modules")

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
        super().__init__((kernel - 1) * dilation + 1, stride)
        self.kind: str = kind
        self.kernel_size = kernel
        self.dilation = dilation
        self.padding = _first(getattr(net, "padding", 0))
        self.ceil_mode = bool(net.ceil_mode)
        self.count_include_pad = bool(getattr(net, "count_include_pad", True))
        self.power = float(getattr(net, "norm_type", 1.0))
        # Padding samples among those that the next windows see.
        self.lead = Counter(self.padding)

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None:
            if not final or not self.ring.started():
                return None
            x = self.ring.data.new_empty([self.ring.data.size(0), self.ring.data.size(2), 0])
        if not self.ring.started() and self.padding > 0:
            self.ring.fill(x, self.padding, self._fill_value(x))
        n = self.ring.held - self.ring.skip + x.size(2)
        count = self._last_count(n) if final else window_count(n, self.field, self.stride)
        if count == 0:
            self.ring.push(x)
            return None
        window = self.ring.join(x)
        need = (count - 1) * self.stride + self.field
        if need > n:
            y = self._pool(F.pad(window, [0, need - n], "constant", self._fill_value(x)))
        else:
            y = self._pool(window.narrow(2, 0, need))
        if self.kind != "Max":
            if need > n or (self.lead.value > 0 and not self.count_include_pad):
                y = y * self._correction(y, n)
            if self.kind == "LP":
                y = self._root(y)
        if self.lead.value > 0:
            self.lead.value = max(self.lead.value - count * self.stride, 0)
        self.ring.keep(window, count * self.stride)
        return y

    def _fill_value(self, x: Tensor) -> float:
        return -float("inf") if self.kind == "Max" else 0.0

    def _last_count(self, n: int) -> int:
        # The rule of torch's pooling_output_shape: in ceil mode the last window must begin before the right padding.
        room = n + self.padding - self.field
        if not self.ceil_mode:
            return room // self.stride + 1 if room >= 0 else 0
        count = max((room + self.stride - 1) // self.stride + 1, 0)
        return count - 1 if count > 0 and (count - 1) * self.stride >= n else count

    def _pool(self, window: Tensor) -> Tensor:
        if self.kind == "Max":
            return F.max_pool1d(window, self.kernel_size, self.stride, 0, self.dilation)
        if self.kind == "LP":
            window = window.pow(self.power)
        return F.avg_pool1d(window, self.kernel_size, self.stride)

    def _correction(self, y: Tensor, n: int) -> Tensor:
        # kernel_size over the number of samples that the module divides by, for each of the windows.
        begin = torch.arange(y.size(2), device=y.device) * self.stride
        end = begin + self.kernel_size
        if self.count_include_pad:
            samples = end.clamp(max=n + self.padding) - begin
        else:
            samples = end.clamp(max=n) - begin.clamp(min=self.lead.value)
        wide = torch.float64 if y.dtype == torch.float64 else torch.float32
        return (self.kernel_size / samples.to(wide)).to(y.dtype)

    def _root(self, y: Tensor) -> Tensor:
        # As torch.nn.functional.lp_pool1d: the mean becomes a sum again before the root.
        return (torch.sign(y) * F.relu(torch.abs(y))).mul(self.kernel_size).pow(1.0 / self.power)

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        """Number of samples out after ``n`` samples in; see `BaseStream.output_length`."""
        if n <= 0:
            return 0
        if final:
            return self._last_count(n + self.padding)
        return window_count(n + self.padding, self.field, self.stride)

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        return channels

    def __repr__(self) -> str:
        return f"{self.kind}Pool1dStream(kernel_size={self.kernel_size}, stride={self.stride})"
