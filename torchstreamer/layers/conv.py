"""Streams of convolutions. TorchScript compiles this file."""

import sys
from typing import Iterator, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.jit import is_scripting

from ..core.fast_attributes import entry
from ..core.reach import Reach
from ..core.registry import require_plain
from ..core.tracing import autocasting, plain_inference, recorded_form
from ..errors import StreamInputError
from .limits import (
    BATCH_VALUES,
    CACHED_WEIGHTS,
    DEPTHWISE_PRODUCTS,
    GEMM_COLUMNS,
    GPU_COLUMNS,
    GPU_HALF_COLUMNS,
    MOST_TAPS,
    TAP_CHANNELS,
    TAP_COLUMNS,
    taps_pay,
)
from .padding import Pad1dStream, conv_padding
from .weights import PackedWeight, plain_bias, register_tensor, weight_source
from .window import WindowStream, affine, spanned, time_last, unfold
from .winograd import LARGE, WinogradWeight, winograd

__all__ = ["Conv1dStream", "conv_stream"]


class _ConvWeight(PackedWeight):
    # [O, C, K] -> [K·C, O]: the columns of an unfolded row, oldest sample first.
    def pack(self, weight: Tensor) -> Tensor:
        return weight.permute(2, 1, 0).reshape(-1, weight.size(0)).contiguous()


class _DepthwiseWeight(PackedWeight):
    # [C, 1, K] -> [K, C]
    def pack(self, weight: Tensor) -> Tensor:
        return weight.squeeze(1).t().contiguous()


class Conv1dStream(WindowStream):
    """Stream of a `torch.nn.Conv1d`, with all its arguments but circular padding.

    Short chunks take one matrix product on unfolded rows, long ones a product per tap, or
    `torch.nn.functional.conv1d` where the channels are few or grouped.

    Args:
        net: the convolution; weight norm of either API, and spectral norm in eval mode, are computed from their own
            parameters

    Shape:
        - input: ``[B, in_channels, T]`` or ``[in_channels, T]``
        - output: ``[B, out_channels, T']`` or ``[out_channels, T']``

    Raises:
        UnsupportedModuleError: circular padding, a lazy module without weight, spectral norm in training mode

    Example:
        >>> import torch, torchstreamer as pts
        >>> conv = torch.nn.Conv1d(2, 3, 3, stride=2, padding=1)
        >>> stream = pts.Conv1dStream(conv)
        >>> x = torch.randn(2, 9)
        >>> y = torch.cat([stream(x[:, :4]), stream(x[:, 4:]), stream.flush()], dim=-1)
        >>> torch.testing.assert_close(y, conv(x))
    """

    __constants__ = [
        *WindowStream.__constants__,
        "in_channels",
        "out_channels",
        "kernel_size",
        "dilation",
        "groups",
        "depthwise",
        "batch_columns",
        "gemm_columns",
        "gpu_columns",
        "gpu_half_columns",
        "tap_columns",
        "double_tap_columns",
    ]

    fresh = True
    weight = entry("_modules")
    bias: Optional[Tensor] = entry("_parameters")

    def __init__(self, net: nn.Conv1d) -> None:
        require_plain(net, nn.Conv1d)
        kernel, dilation = net.kernel_size[0], net.dilation[0]
        geometry = (net.in_channels, net.out_channels, net.groups, kernel, net.stride[0], dilation)
        self._set_up(weight_source(net), plain_bias(net), *geometry, pad=conv_padding(net, kernel, dilation))

    def _set_up(
        self,
        source: nn.Module,
        bias: Optional[Tensor],
        in_channels: int,
        out_channels: int,
        groups: int,
        kernel_size: int,
        stride: int,
        dilation: int,
        pad: Optional[Pad1dStream],
    ) -> None:
        field = spanned(kernel_size, dilation)
        reach = Reach.window(field, stride, spacing=dilation)
        super().__init__(field, stride, reach if pad is None else reach.padded(pad.reach))
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = kernel_size
        self.dilation = dilation
        self.groups = groups
        self.depthwise = groups == in_channels == out_channels and groups > 1
        self.weight = _DepthwiseWeight(source) if self.depthwise else _ConvWeight(source)
        self.gemm_columns = self.gpu_columns = self.gpu_half_columns = 0
        if self.weight.steady() and self.depthwise:
            self.gemm_columns = DEPTHWISE_PRODUCTS // (in_channels * kernel_size)
        elif self.weight.steady() and groups == 1:
            self.gemm_columns = GEMM_COLUMNS
            if kernel_size <= MOST_TAPS:
                self.gpu_columns, self.gpu_half_columns = GPU_COLUMNS, GPU_HALF_COLUMNS
        self.tap_columns = self.double_tap_columns = sys.maxsize
        self.batch_columns = 0
        if self.weight.steady() and groups == 1 and in_channels >= TAP_CHANNELS:
            self.double_tap_columns = TAP_COLUMNS
            if taps_pay():
                self.tap_columns, self.batch_columns = TAP_COLUMNS, BATCH_VALUES // kernel_size
        register_tensor(self, "bias", bias)
        self.pad = pad
        if pad is None:
            self.ring.opening = (0, 0.0)
        elif pad.opens_at_once():
            self.ring.opening = (pad.left, pad.value)

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if self.pad is not None:
            x = self.pad.step(x, final)
        if x is None:
            return None
        ring = self.ring
        t = x.size(2)
        if t == ring.period and x.size(1) == self.in_channels and plain_inference() and self.weight.fits(x):
            first = ring.advance(x, t)
            return self._product(ring.data, first, t // self.stride, self.weight.packed)
        if x.size(1) != self.in_channels:
            self.output_channels(x.size(1))  # after a module whose channels are not known, nobody has looked yet
        n = ring.held - ring.skip + t
        count = (n - self.field) // self.stride + 1 if n >= self.field else 0
        left = n - count * self.stride if count > 0 else max(n, 0)
        columns = x.size(0) * count
        short = columns <= self.gemm_columns
        taps = False
        if not short and x.is_cuda:
            short = columns <= (self.gpu_half_columns if x.element_size() == 2 else self.gpu_columns)
        elif not short:
            taps = count >= (self.double_tap_columns if x.element_size() == 8 else self.tap_columns)
            taps = taps and not autocasting(x)
            short = columns <= self.batch_columns and x.size(0) > 1 and not taps and x.element_size() < 8
        if not is_scripting():
            form = recorded_form()
            if form == "winograd" and self._reducible(x, count):
                return self._reduced(x, count, left)
            unfolds = form == "unfolded" or form == "winograd"
            short = short or (unfolds and self.gemm_columns > 0 and not self.depthwise)
        y: Optional[Tensor] = None
        if (short or taps) and plain_inference():
            rows = ring.extend(x, True)
            first = ring.begin
            if count > 0:
                matrix = self.weight.matrix()
                if short:
                    y = self._product(rows, first, count, matrix)
                else:
                    y = self._sum_of_products(rows, first, count, matrix)
            ring.retain(rows, first + count * self.stride, left)
            if short and t == count * self.stride and self.weight.packed.dtype == rows.dtype:
                ring.expect(t)
            return y
        window = ring.join(x)
        if count > 0:
            # What lies after the last window stays in the ring only.
            y = F.conv1d(
                window.narrow(2, 0, (count - 1) * self.stride + self.field),
                self.weight(),
                self.bias,
                self.stride,
                0,
                self.dilation,
                self.groups,
            )
        ring.keep(window, window.size(2) - left)
        return y

    def _product(self, rows: Tensor, first: int, count: int, matrix: Tensor) -> Tensor:
        # Window t of row b is the K samples rows[b, first + t·s + k·d]: a view, and one of two axes where d = 1.
        b = rows.size(0)
        c = self.in_channels
        k = self.kernel_size
        bias = self.bias
        if self.dilation == 1 and not self.depthwise:
            flat = unfold(rows, first * c, count, self.stride * c, k * c)
        else:
            steps = [rows.stride(0), self.stride * c, self.dilation * c, 1]
            taps = rows.as_strided([b, count, k, c], steps, rows.storage_offset() + first * c)
            if self.depthwise:
                return self._weighted(taps, matrix, bias)
            flat = taps.reshape(b * count, k * c)
        return time_last(affine(flat, matrix, bias), b, count)

    def _reducible(self, x: Tensor, count: int) -> bool:
        # Whether fewer products pay: those of a long kernel take sums and differences that cost as much if few, and
        # all take more weights, which come from memory, not from a cache, where they are many.
        plain = self.stride == 1 and self.groups == 1 and x.dtype in (torch.float32, torch.float64)
        channels = min(self.in_channels, self.out_channels)
        pair = self.in_channels * self.out_channels
        if self.kernel_size <= 3:
            pays = self.kernel_size > 1 and channels >= 16
        else:
            halved = count - count % (4 * self.dilation)  # as `winograd` takes them
            pays = channels >= 64 and x.size(0) * halved * pair >= 4 * LARGE
        cached = pair * self.kernel_size <= CACHED_WEIGHTS or x.size(0) * count >= 4 * channels
        return plain and pays and cached and count >= 2 * self.dilation

    def _reduced(self, x: Tensor, count: int, left: int) -> Tensor:
        ring = self.ring
        rows = ring.extend(x, True)
        first = ring.begin
        paired = count - count % (2 * self.dilation)
        weight = WinogradWeight(self.weight())
        y = winograd(rows, first, paired, self.dilation, weight, self.bias).transpose(1, 2)
        if paired < count:
            y = torch.cat([y, self._product(rows, first + paired, count - paired, self.weight.matrix())], 2)
        ring.retain(rows, first + count, left)
        return y

    def _weighted(self, taps: Tensor, matrix: Tensor, bias: Optional[Tensor]) -> Tensor:
        y = (taps * matrix).sum(2)
        if bias is not None:
            y = y + bias
        if is_scripting() or autocasting(y):
            # A sum keeps its dtype under autocast, a convolution does not; a product tells which it would have.
            one = matrix.narrow(0, 0, 1).narrow(1, 0, 1)
            y = y.to(torch.mm(one, one))
        return y.transpose(1, 2)

    def _sum_of_products(self, rows: Tensor, first: int, count: int, matrix: Tensor) -> Tensor:
        # One product per tap, on shifted views of the rows: nothing is unfolded, and dilation costs nothing.
        b = rows.size(0)
        c = rows.size(2)
        step = self.stride * c
        bias = self.bias
        y = rows.new_empty([b, count, self.out_channels])
        for i in range(b):
            row = rows.select(0, i)
            out = y.select(0, i)
            for k in range(self.kernel_size):
                taps = row.as_strided([count, c], [step, 1], row.storage_offset() + (first + k * self.dilation) * c)
                tap = matrix.narrow(0, k * c, c)
                if k > 0:
                    out.addmm_(taps, tap)
                elif bias is None:
                    torch.mm(taps, tap, out=out)
                else:
                    torch.addmm(bias, taps, tap, out=out)
        return y.transpose(1, 2)

    def around(self) -> Optional[Pad1dStream]:
        """The padding of the convolution."""
        return self.pad

    def taps(self, n: int, m: int) -> Iterator[Tensor]:
        """Which inputs the outputs are computed from; see `BaseStream.taps`."""
        taps = super().taps(n, m)
        return taps if self.pad is None else (self.pad.source(tap, n) for tap in taps)

    def multiply_adds(self, came: int, given: int) -> int:
        """Multiply-adds of one row."""
        return given * self.weight().numel()

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        if channels != self.in_channels and channels != -1:
            raise StreamInputError(
                f"invalid_chunk: {channels} channels came; a Conv1d takes {self.in_channels}; check the axes, a chunk "
                "is [B, C, T] or [C, T]"
            )
        return self.out_channels

    def anchor(self) -> Optional[Tensor]:
        """The weight that says dtype and device."""
        return self.weight.anchor()

    def __repr__(self) -> str:
        text = f"Conv1dStream({self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        text += f", stride={self.stride}"
        for name, value, default in (("dilation", self.dilation, 1), ("groups", self.groups, 1)):
            if value != default:
                text += f", {name}={value}"
        if self.pad is not None:
            text += f", padding=({self.pad.left}, {self.pad.right})"
        return text + ")"


def conv_stream(
    source: nn.Module, bias: Optional[Tensor], *geometry: int, pad: Optional[Pad1dStream] = None
) -> Conv1dStream:
    """The stream of a convolution without a module.

    Args:
        source: computes the weight
        bias: a parameter or a constant
        geometry: in_channels, out_channels, groups, kernel_size, stride, dilation
        pad: what stands around the signal
    """
    stream = Conv1dStream.__new__(Conv1dStream)
    in_channels, out_channels, groups, kernel_size, stride, dilation = geometry
    stream._set_up(source, bias, in_channels, out_channels, groups, kernel_size, stride, dilation, pad)
    return stream
