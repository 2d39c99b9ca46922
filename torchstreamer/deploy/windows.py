"""Parts that look through a sliding window, or add overlapping frames."""

from typing import List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.reach import Reach
from ..layers.conv_transpose import frame_matrix, frame_product
from ..layers.window import affine, spanned, window_count
from .kernels import time_major
from .rows import Part, Rows, over

__all__ = ["ConvolveTaps", "Taps", "TransposeTaps", "TransposedPart", "WindowPart"]


# So many unfolded values are made at once.
_VALUES = 1 << 28


class ConvolveTaps(nn.Module):
    """A convolution of a window ``[B, C, n]``.

    Args:
        weight: ``[O, C / groups, K]``
        bias: ``[O]``
        stride, dilation, groups: of the convolution
        columns: up to so many outputs, over all rows, it is computed as one product of unfolded windows
    """

    weight: Tensor
    matrix: Tensor
    bias: Optional[Tensor]

    def __init__(
        self, weight: Tensor, bias: Optional[Tensor], stride: int, dilation: int, groups: int, columns: int
    ) -> None:
        super().__init__()
        self.stride = stride
        self.dilation = dilation
        self.groups = groups
        self.columns = columns
        # cuDNN's kernels for matrix units take channels by eights; its others are slow with the channels last.
        self.eights = groups == 1 and weight.size(0) % 8 == weight.size(1) % 8 == 0
        weight = weight.detach()
        if self.eights and time_major(weight.device, weight.dtype):  # each filter so, too
            weight = weight.transpose(1, 2).contiguous().transpose(1, 2)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach(), persistent=False)
        if self.columns > 0:
            packed = weight.detach().permute(2, 1, 0).reshape(-1, weight.size(0)).contiguous()
            self.register_buffer("matrix", packed, persistent=False)

    def forward(self, window: Tensor) -> Tensor:
        kernel = self.weight.size(2)
        count = window_count(window.size(2), spanned(kernel, self.dilation), self.stride)
        if window.size(0) * count > self.columns:
            return self._convolution(window)
        rows = max(_VALUES // (count * self.matrix.size(0)), 1)
        if window.size(0) <= rows:
            return self._product(window, count)
        return torch.cat([self._product(some, count) for some in torch.split(window, rows)])

    def _convolution(self, window: Tensor) -> Tensor:
        if not self.eights or not time_major(window.device, window.dtype):
            return F.conv1d(window, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)
        # Of a picture one sample high, which cuDNN takes, and gives, with the channels last: nothing is transposed.
        steps, dilation = (1, self.stride), (1, self.dilation)
        y = F.conv2d(window.unsqueeze(2), self.weight.unsqueeze(2), self.bias, steps, 0, dilation, self.groups)
        return y.squeeze(2)

    def _product(self, window: Tensor, count: int) -> Tensor:
        flat = _unfolded(window, self.weight.size(2), count, self.stride, self.dilation)
        return affine(flat, self.matrix, self.bias).view(window.size(0), count, -1).transpose(1, 2)


class TransposeTaps(nn.Module):
    """A transposed convolution of a window ``[B, C, n]``, as one product: what its last ``n - taps + 1`` inputs end.

    Args:
        weight: ``[C, O, K]``
        bias: ``[O]``
        stride: of the convolution
        taps: inputs that one output may depend on
    """

    matrix: Tensor
    bias: Optional[Tensor]

    def __init__(self, weight: Tensor, bias: Optional[Tensor], stride: int, taps: int) -> None:
        super().__init__()
        self.stride = stride
        self.taps = taps
        self.channels = weight.size(0)
        self.some = weight.size(2) % stride * weight.size(1)
        self.register_buffer("matrix", frame_matrix(weight.detach(), stride, taps), persistent=False)
        self.register_buffer("bias", None if bias is None else bias.detach().repeat(stride), persistent=False)

    def forward(self, window: Tensor) -> Tensor:
        count = window.size(2) - self.taps + 1
        y = frame_product(_unfolded(window, self.taps, count, 1, 1), self.matrix, self.bias, self.channels, self.some)
        return y.view(window.size(0), count * self.stride, -1).transpose(1, 2)


def _unfolded(window: Tensor, taps: int, count: int, stride: int, dilation: int) -> Tensor:
    # What `count` outputs of each row look at, as the rows of a matrix.
    span = (count - 1) * stride + 1
    time_major = window.transpose(1, 2)
    columns = [time_major[:, k * dilation : k * dilation + span : stride] for k in range(taps)]
    return torch.cat(columns, 2).reshape(window.size(0) * count, -1)


class Taps(nn.Module):
    """Weighted sums of samples of a window ``[B, C, n]``, each of its own.

    Args:
        places: of these samples in the window, ``[m, taps]``
        weights: ``[m, taps]`` in float64
    """

    places: Tensor
    weights: Tensor

    def __init__(self, places: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.count, self.taps = places.shape
        self.span = int(places.max()) + 1
        self.register_buffer("places", places.reshape(-1), persistent=False)
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, window: Tensor) -> Tensor:
        exact = torch.float64 if window.dtype == torch.float64 else torch.float32
        taps = window.index_select(2, self.places).to(exact)
        taps = taps.view(window.size(0), window.size(1), self.count, self.taps)
        return (taps * self.weights.to(exact)).sum(3).to(window.dtype)


class WindowPart(Part):
    """An operation that looks through a sliding window.

    Args:
        body: the operation, on windows ``[B, C, n]``
        held: samples of the state; negative if so many of the new ones are not looked at
        need: samples of the window, which may be fewer than there are
        mask: lag and key of the input if what lies outside of the signal counts, else ``None``
        value: what lies there
        places: lag and reach of the output, if the operation is also told where its windows begin, and of what length
            the signal is; it has a mask
    """

    def __init__(
        self,
        body: nn.Module,
        held: int,
        need: int,
        mask: Optional[Tuple[int, int]],
        value: float = 0.0,
        places: Optional[Tuple[int, Reach]] = None,
    ) -> None:
        super().__init__(max(held, 0))
        self.body = body
        self.begin = max(-held, 0)
        self.need = need
        self.mask = mask
        self.value = value
        self.places = places

    def window(self, x: Tensor, states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        """The window and the next state, with the padding in place."""
        if self.mask is None:
            return self.join(x, states, rows)
        inside = over(rows.inside(x.size(2), *self.mask), x)
        return self.join(torch.where(inside, x, torch.full_like(x, self.value)), states, rows, self.value)

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        window, states = self.window(xs[0], states, rows)
        window = window[:, :, self.begin : self.begin + self.need]
        if self.places is None or self.mask is None:
            return self.body(window), states
        lag, reach = self.places
        begin = rows.position(xs[0].size(2) // reach.q, lag) * reach.q + reach.first
        return self.body(window, over(begin, window), over(rows.length(self.mask[1]), window)), states


class TransposedPart(WindowPart):
    """Frames added where they overlap.

    Args:
        body: adds the frames of ``[B, C, n]``
        held: samples of the state
        mask: lag and key of the input
        begin: first sample of its output that is given
        count: samples given per step
    """

    def __init__(self, body: nn.Module, held: int, mask: Tuple[int, int], begin: int, count: int) -> None:
        super().__init__(body, held, 0, mask)
        self.begin = begin
        self.count = count

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: Rows) -> Tuple[Tensor, List[Tensor]]:
        window, states = self.window(xs[0], states, rows)
        return self.body(window)[:, :, self.begin : self.begin + self.count], states
