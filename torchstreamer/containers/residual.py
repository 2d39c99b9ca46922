"""A network and the way around it. TorchScript compiles the streams of this file."""

from typing import List, Optional

import torch
from torch import Tensor, nn

from ..core.fast_attributes import entry
from ..core.registry import create_stream, require_plain
from ..core.whole_numbers import require_length
from ..errors import StreamInputError, UnsupportedModuleError
from ..layers.elementwise import IdentityStream
from ..layers.merge import Merge1d
from .composite import BoundedStream
from .parallel import left_crops, works_in_place

__all__ = ["Residual1d", "Residual1dStream"]

_STRIDED = (nn.Conv1d, nn.ConvTranspose1d, nn.AvgPool1d, nn.MaxPool1d, nn.LPPool1d)


class Residual1d(nn.Module):
    """``net(x) + x``. Where ``net(x)`` is shorter by ``p`` samples, ``x`` loses ``p // 2`` on the left and the rest on
    the right.

    Args:
        net: the inner network, without strides

    Shape:
        - input: ``[B, C, T]``
        - output: ``[B, C, T']``; ``T'`` is the length of the inner output

    Raises:
        UnsupportedModuleError: a layer inside has a stride (``invalid_residual_stride``)
        StreamInputError: the inner output is longer than the input

    Example:
        >>> import torch, torchstreamer as pts
        >>> pts.Residual1d(torch.nn.Conv1d(4, 4, 3))(torch.randn(1, 4, 10)).shape
        torch.Size([1, 4, 8])
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        for module in net.modules():
            if isinstance(module, _STRIDED):
                stride = module.kernel_size if module.stride is None else module.stride
                if any(s != 1 for s in (stride if isinstance(stride, tuple) else (stride,))):
                    raise _stride_error(module)
            elif isinstance(module, nn.Upsample) and module.scale_factor not in (1, (1,)):
                raise _stride_error(module)
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        """The inner output with the input added."""
        y = self.net(x.clone() if works_in_place(self.net) else x)
        p = x.shape[-1] - y.shape[-1]
        if p < 0:
            raise StreamInputError(
                f"invalid_residual_length: the inner network made {y.shape[-1]} samples of {x.shape[-1]}; as many or "
                "fewer were expected; reduce its padding"
            )
        return y + x.narrow(-1, p // 2, y.shape[-1])


class Residual1dStream(BoundedStream):
    """Stream of a `Residual1d`.

    Args:
        net: the `Residual1d`, or the network inside it

    Raises:
        UnsupportedModuleError: the inner network cannot be streamed, changes the rate (``invalid_residual_stride``), or
            lengthens the signal (``invalid_residual_length``)

    Example:
        >>> import torch, torchstreamer as pts
        >>> net = pts.Residual1d(torch.nn.Conv1d(4, 4, 3))
        >>> stream = pts.Residual1dStream(net)
        >>> x = torch.randn(4, 10)
        >>> torch.testing.assert_close(stream(x, final=True), net(x))
    """

    stream = entry("_modules")
    merge = entry("_modules")

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        if isinstance(net, Residual1d):
            require_plain(net, Residual1d)
        inner = net.net if isinstance(net, Residual1d) else net
        try:
            self.stream = create_stream(inner)
        except UnsupportedModuleError as error:
            raise error.within(net) from None
        if self.stream.ratio != (1, 1):
            raise _stride_error(inner)
        self.lead = left_crops(net, [IdentityStream(), self.stream], self.stream.hop)[0]
        n = 1
        while self.stream.output_length(n, True) == 0:
            n *= 2
        if self.stream.output_length(n, True) > n:
            raise UnsupportedModuleError(
                "invalid_residual_length", inner, "its output is longer than its input", "reduce its padding"
            )
        self.hop = self.stream.hop
        self.bound_by(self.stream)
        self.merge = Merge1d([0, self.lead])
        self.aliasing = 0
        self.keeps_dtype = self.stream.keeps_dtype

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        chunks: List[Optional[Tensor]] = [self.stream.step(x, final), x]
        return self.merge(chunks)

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        """Number of samples out after ``n`` samples in; see `BaseStream.output_length`."""
        require_length(n)
        length = self.stream.output_length(n, final)
        return length if final else min(length, max(n - self.lead, 0))

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        out = self.stream.output_channels(channels)
        if out >= 0 and channels >= 0 and out != channels and out != 1 and channels != 1:
            raise StreamInputError(
                f"invalid_chunk: {channels} channels came, of which the inner network makes {out}; equal numbers were "
                "expected by a Residual1d; check the network"
            )
        return -1 if out < 0 or channels < 0 else max(out, channels)

    def anchor(self) -> Optional[Tensor]:
        """The first weight of the inner network says dtype and device."""
        return self.stream.anchor()


def _stride_error(module: nn.Module) -> UnsupportedModuleError:
    return UnsupportedModuleError(
        "invalid_residual_stride",
        module,
        "inside a residual connection the signal must keep its rate",
        "put strides outside Residual1d, or use Parallel1d with a strided shortcut",
    )
