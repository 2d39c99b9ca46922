"""Streams of transposed convolutions. TorchScript compiles this file."""

from typing import Iterator, Optional

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.counter import Counter
from ..core.fast_attributes import entry
from ..core.reach import Reach
from ..core.registry import require_plain
from ..core.ring import RingBuffer
from ..core.stream import BaseStream
from ..core.tracing import plain_inference
from ..errors import StreamInputError
from .weights import PackedWeight, plain_bias, register_tensor, weight_source
from .window import affine, spanned, unfold

__all__ = [
    "ConvTranspose1dStream",
    "TransposedStream",
    "conv_transpose_stream",
    "frame_matrix",
    "frame_product",
    "marked",
]


def frame_matrix(weight: Tensor, stride: int, taps: int) -> Tensor:
    """The weight of a transposed convolution without dilation as that of one product.

    Output j = i·s + r of block i is the sum over m of x[i - m] · w[r + m·s], so the transposed convolution is a
    convolution with ``taps`` taps from C to s·O channels, whose output is cut into s samples.

    Args:
        weight: ``[C, O, K]``
        stride: samples from one frame to the next
        taps: inputs that one output may depend on

    Returns:
        ``[taps · C, s · O]``, oldest input first
    """
    c = weight.size(0)
    o = weight.size(1)
    spread = weight.new_zeros([c, o, taps * stride])
    spread[:, :, : weight.size(2)].copy_(weight)
    blocks = spread.view(c, o, taps, stride).flip([2])
    return blocks.permute(2, 0, 3, 1).reshape(taps * c, stride * o).contiguous()


def frame_product(x: Tensor, matrix: Tensor, bias: Optional[Tensor], channels: int, some: int) -> Tensor:
    """The product with a `frame_matrix`, and the bias added.

    Where the kernel is no multiple of the stride, the oldest input takes part in the first outputs of a block alone.
    From the others it is left out: multiplied by 0, ``nan`` and infinity would spread to them.

    Args:
        x: windows ``[N, taps · C]``, oldest input first
        matrix: ``[taps · C, s · O]``
        bias: ``[s · O]``
        channels: ``C``
        some: columns that the oldest input takes part in, 0 if it does in all
    """
    if some == 0:
        return affine(x, matrix, bias)
    y = affine(x.narrow(1, channels, x.size(1) - channels), matrix.narrow(0, channels, x.size(1) - channels), bias)
    y.narrow(1, 0, some).addmm_(x.narrow(1, 0, channels), matrix.narrow(0, 0, channels).narrow(1, 0, some))
    return y


class _TransposedWeight(PackedWeight):
    def __init__(self, source: nn.Module, stride: int, taps: int) -> None:
        super().__init__(source)
        self.stride = stride
        self.taps = taps

    def pack(self, weight: Tensor) -> Tensor:
        return frame_matrix(weight, self.stride, self.taps)


def marked(x: Tensor) -> Tensor:
    """Samples ``[B, C, n]`` with a channel of ones after the others, which says that they are there."""
    return F.pad(x, [0, 0, 0, 1], "constant", 1.0)


class TransposedStream(BaseStream):
    """A layer that turns every sample into a frame and adds the frames where they overlap.

    It keeps the last inputs that later outputs still overlap with, so its state is that of a convolution, and an
    output is computed once, when its last input has come.

    Args:
        in_channels: channels of the input
        kernel_size: taps of a frame
        stride: samples from one frame to the next
        dilation: samples between the taps
        padding: samples cropped at both ends
        output_padding: samples added to the end
    """

    # What a script takes as constant: it leaves out the branches that these decide.
    __constants__ = [
        "in_channels",
        "kernel_size",
        "stride",
        "dilation",
        "padding",
        "output_padding",
        "field",
        "end",
        "late",
        "history",
    ]

    fresh = True
    reach: Reach
    ring = entry("_modules")
    lead = entry("_modules")

    # Whether the frames have a channel more, which says by 1 or 0 whether they are there; see `marked`.
    marks: bool = False

    def __init__(
        self, in_channels: int, kernel_size: int, stride: int, dilation: int, padding: int, output_padding: int
    ) -> None:
        field = spanned(kernel_size, dilation)
        reach = Reach.frames(field, stride, padding, padding - output_padding)
        super().__init__(reach)
        self.in_channels = in_channels
        self.kernel_size = kernel_size
        self.stride = stride
        self.dilation = dilation
        self.padding = padding
        self.output_padding = output_padding
        self.field = field
        self.gap = max(stride - field, 0)  # samples between frames that lie apart
        self.aliasing = 0
        self.keeps_dtype = True
        # Let n inputs have come. Position j of the uncropped output is complete when j < n·s, and is known to exist
        # when j < (n - 1)·s + end. What is complete but may still be cropped waits: `late` positions.
        self.end = stride + reach.end
        self.late = max(-reach.end, 0)
        # The first position not given, n·s - late, overlaps with so many earlier inputs.
        self.history = (self.late + self.field - 1) // self.stride
        if self.end > self.stride:
            self.history = max(self.history, 1)  # output padding reaches further than the last input
        self.ring = RingBuffer()
        self.lead = Counter(self.padding + self.late)  # outputs still to be cropped

    def overlap(self, x: Tensor) -> Tensor:
        """The frames of ``[B, C, n]`` added, uncropped, with the output padding."""
        raise NotImplementedError

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None:
            if not final or not self.ring.started():
                return None
            x = self.ring.data.new_empty([self.ring.data.size(0), self.in_channels, 0])
        self.output_channels(x.size(1))  # after a module whose channels are not known, nobody has looked yet
        if not self.ring.started():
            self.ring.fill(x, self.history, 0.0)
        return self._crop(self._advance(x, final))

    def _advance(self, x: Tensor, final: bool) -> Optional[Tensor]:
        return self._overlapped(x, final)

    def _overlapped(self, x: Tensor, final: bool) -> Optional[Tensor]:
        s = self.stride
        t = x.size(2)
        window = self.ring.join(x)
        start = self.history * s - self.late
        stop = (self.history + t - 1) * s + self.end if final else start + t * s
        if stop <= start:
            return None
        seen = window
        if start < 0:  # a gap before the oldest input, where stride > field: it gets a zero in front
            seen = F.pad(window, [1, 0])
            start += s
            stop += s
        y = self.overlap(seen).narrow(2, start, stop - start)
        self.ring.keep(window, t)
        return y

    def _crop(self, y: Optional[Tensor]) -> Optional[Tensor]:
        if y is not None and self.lead.value > 0:
            n = min(self.lead.value, y.size(2))
            self.lead.value -= n
            if n == y.size(2):
                return None
            y = y.narrow(2, n, y.size(2) - n)
        return y

    def taps(self, n: int, m: int) -> Iterator[Tensor]:
        """Which inputs the outputs are computed from; see `BaseStream.taps`."""
        # Frames have holes where the dilation is more than 1, and lie apart where the stride is more than the field.
        place = torch.arange(m) + self.padding
        for k in range(self.kernel_size):
            begin = place - k * self.dilation
            yield torch.where(begin % self.stride == 0, begin // self.stride, -1)


class ConvTranspose1dStream(TransposedStream):
    """Stream of a `torch.nn.ConvTranspose1d`, with all its arguments.

    It keeps the last inputs that later outputs still overlap with, so its state is that of a convolution, and an
    output is computed once, when its last input has come.

    Args:
        net: the transposed convolution; normed weights as in `Conv1dStream`

    Shape:
        - input: ``[B, in_channels, T]`` or ``[in_channels, T]``
        - output: ``[B, out_channels, T']`` or ``[out_channels, T']``

    Raises:
        UnsupportedModuleError: a lazy module without weight, spectral norm in training mode

    Example:
        >>> import torch, torchstreamer as pts
        >>> up = torch.nn.ConvTranspose1d(2, 3, 4, stride=2, padding=1)
        >>> stream = pts.ConvTranspose1dStream(up)
        >>> x = torch.randn(2, 9)
        >>> y = torch.cat([stream(x[:, :4]), stream(x[:, 4:]), stream.flush()], dim=-1)
        >>> torch.testing.assert_close(y, up(x))
    """

    __constants__ = [*TransposedStream.__constants__, "out_channels", "groups", "product", "some", "width", "unread"]

    weight = entry("_modules")
    bias: Optional[Tensor] = entry("_parameters")

    def __init__(self, net: nn.ConvTranspose1d) -> None:
        require_plain(net, nn.ConvTranspose1d)
        geometry = (net.kernel_size[0], net.stride[0], net.dilation[0], int(net.padding[0]), net.output_padding[0])
        channels = (net.in_channels, net.out_channels, net.groups)
        self._set_up(weight_source(net), plain_bias(net), *channels, *geometry)

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
        padding: int,
        output_padding: int,
    ) -> None:
        super().__init__(in_channels, kernel_size, stride, dilation, padding, output_padding)
        self.out_channels = out_channels
        self.groups = groups
        taps = self.reach.depth
        self.weight = _TransposedWeight(source, self.stride, taps)
        self.width = taps * in_channels
        self.unread = (self.history + 1) * in_channels - self.width  # of what is held, for the output padding alone
        # Without groups one product beats torch's transposed convolution at every size. Dilation would fill it with 0.
        self.product = groups == 1 and dilation == 1 and self.late == 0 and self.weight.steady()
        self.some = kernel_size % stride * out_channels
        register_tensor(self, "bias", bias)

    def overlap(self, x: Tensor) -> Tensor:
        """The frames added, uncropped."""
        return F.conv_transpose1d(
            x, self.weight(), self.bias, self.stride, 0, self.output_padding, self.groups, self.dilation
        )

    def _advance(self, x: Tensor, final: bool) -> Optional[Tensor]:
        t = x.size(2)
        ring = self.ring
        if t == ring.period and not final and plain_inference() and self.weight.fits(x):
            first = ring.advance(x, t)
            return self._product(ring.data, first, t, self.weight.packed)
        if final or not self.product or not plain_inference():
            return self._overlapped(x, final)
        rows = ring.extend(x, True)
        first = ring.begin
        matrix = self.weight.matrix()
        y = self._product(rows, first, t, matrix)
        ring.retain(rows, first + t, self.history)
        if matrix.dtype == rows.dtype:
            ring.expect(t)
        return y

    def multiply_adds(self, came: int, given: int) -> int:
        """Multiply-adds of one row."""
        return came * self.weight().numel()

    def _product(self, rows: Tensor, first: int, t: int, matrix: Tensor) -> Tensor:
        c = self.in_channels
        flat = unfold(rows, first * c + self.unread, t, c, self.width)
        bias = self.bias
        y = frame_product(flat, matrix, bias if bias is None else bias.repeat(self.stride), c, self.some)
        return y.view(rows.size(0), t * self.stride, self.out_channels).transpose(1, 2)

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        if channels != self.in_channels and channels != -1:
            raise StreamInputError(
                f"invalid_chunk: {channels} channels came; a ConvTranspose1d takes {self.in_channels}; check the axes, "
                "a chunk is [B, C, T] or [C, T]"
            )
        return self.out_channels

    def anchor(self) -> Optional[Tensor]:
        """The weight that says dtype and device."""
        return self.weight.anchor()

    def __repr__(self) -> str:
        text = f"ConvTranspose1dStream({self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        text += f", stride={self.stride}"
        defaults = (
            ("padding", self.padding, 0),
            ("output_padding", self.output_padding, 0),
            ("dilation", self.dilation, 1),
            ("groups", self.groups, 1),
        )
        for name, value, default in defaults:
            if value != default:
                text += f", {name}={value}"
        return text + ")"


def conv_transpose_stream(source: nn.Module, bias: Optional[Tensor], *geometry: int) -> ConvTranspose1dStream:
    """The stream of a transposed convolution without a module.

    Args:
        source: computes the weight
        bias: a parameter or a constant
        geometry: in_channels, out_channels, groups, kernel_size, stride, dilation, padding, output_padding
    """
    stream = ConvTranspose1dStream.__new__(ConvTranspose1dStream)
    stream._set_up(source, bias, *geometry)
    return stream
