"""Normalisation by the statistics of what came so far. TorchScript compiles this file."""

from typing import List, Optional, Tuple

import torch
from torch import Tensor, nn

from ..core.registry import require_plain
from .accumulating import accumulator, working
from .recurrent import ModuleRecurrenceStream

__all__ = [
    "CumulativeGroupNorm1d",
    "CumulativeGroupNorm1dStream",
    "CumulativeLayerNorm1d",
    "CumulativeLayerNorm1dStream",
]


class CumulativeGroupNorm1d(nn.Module):
    r"""Group normalisation that can be streamed: by mean and variance of all frames up to each.

    Frame ``t`` is normalised by the mean and the variance of the channels of its group over the frames ``0 … t``:

    .. code-block:: text

        y_t = (x_t - mean(x_0 … x_t)) / sqrt(var(x_0 … x_t) + eps) * weight + bias

    `torch.nn.GroupNorm` takes those of the whole signal, which a stream cannot know. With as many groups as channels it
    is a cumulative instance norm; with one, `CumulativeLayerNorm1d`. Sums are formed in float64 of differences from the
    mean so far, so that neither a large mean nor a long signal costs digits. The first frames are normalised by little:
    a group of one channel gives 0 for the first.

    Args:
        num_groups: number of groups, which must divide the channels
        num_channels: number of channels
        eps: added to the variance
        affine: whether it has a weight and a bias for each channel

    Shape:
        - input: ``[B, num_channels, T]`` or ``[num_channels, T]``
        - output: the same, in the dtype of the input

    Example:
        >>> import torch, torchstreamer as pts
        >>> norm = pts.CumulativeGroupNorm1d(2, 4)
        >>> x = torch.randn(1, 4, 10) + 300
        >>> stream = pts.create_stream(norm)
        >>> y = torch.cat([stream(x[..., :3]), stream(x[..., 3:])], -1)
        >>> torch.testing.assert_close(y, norm(x))
    """

    weight: Optional[Tensor]
    bias: Optional[Tensor]

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True) -> None:
        super().__init__()
        if num_groups < 1 or num_channels < 1 or num_channels % num_groups != 0:
            raise ValueError(
                f"invalid_groups: {num_groups} groups of {num_channels} channels came; a number of groups that divides "
                "the channels was expected; choose another"
            )
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        self.register_parameter("weight", nn.Parameter(torch.ones(num_channels)) if affine else None)
        self.register_parameter("bias", nn.Parameter(torch.zeros(num_channels)) if affine else None)

    def forward(self, x: Tensor) -> Tensor:
        """The whole signal, normalised."""
        if (x.dim() != 2 and x.dim() != 3) or x.size(-2) != self.num_channels:
            raise ValueError(
                f"invalid_chunk: a cumulative norm got {list(x.size())}; [B, {self.num_channels}, T] or "
                f"[{self.num_channels}, T] was expected; check the axes"
            )
        rows = x.unsqueeze(0) if x.dim() == 2 else x
        if rows.size(2) > 0:
            rows, _ = self.advance(rows, self.initial(rows))
        return rows.squeeze(0) if x.dim() == 2 else rows

    def initial(self, x: Tensor) -> List[Tensor]:
        """No frame yet."""
        return nothing_yet(x, self.num_groups)

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        """The frames, normalised, and the statistics after them."""
        return normalised(x, state, self.eps, self.weight, self.bias)

    def extra_repr(self) -> str:
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


class CumulativeLayerNorm1d(CumulativeGroupNorm1d):
    """Layer normalisation over the channels and all frames up to each: the ``cLN`` of Conv-TasNet.

    That of the paper (Luo and Mesgarani, 2019) and of its authors' code, which asteroid calls ``CumLN`` or ``cgLN``.
    Asteroid's and others' ``cLN`` is another: it takes each frame alone, as `LayerNorm1d` does.

    Args:
        channels: number of channels
        eps: added to the variance
        affine: whether it has a weight and a bias for each channel

    Shape:
        - input: ``[B, channels, T]`` or ``[channels, T]``
        - output: the same, in the dtype of the input

    Example:
        >>> import torch, torchstreamer as pts
        >>> norm = pts.CumulativeLayerNorm1d(2)
        >>> norm(torch.tensor([[[1.0, 3.0], [-1.0, -3.0]]]))[0, 0]  # 1 / 1, then 3 / sqrt((1 + 1 + 9 + 9) / 4)
        tensor([1.0000, 1.3416], grad_fn=<SelectBackward0>)
    """

    def __init__(self, channels: int, eps: float = 1e-8, affine: bool = True) -> None:
        super().__init__(1, channels, eps, affine)

    def extra_repr(self) -> str:
        return f"{self.num_channels}, eps={self.eps}, affine={self.affine}"


def nothing_yet(x: Tensor, groups: int) -> List[Tensor]:
    """The state before the first frame: how many there were, ``[B]``, their mean and their variance, ``[B, G, 1]``."""
    zero = torch.zeros([x.size(0), groups, 1], dtype=accumulator(x), device=x.device)
    return [torch.zeros([x.size(0)], dtype=torch.int64, device=x.device), zero, zero]


def normalised(
    x: Tensor, state: List[Tensor], eps: float, weight: Optional[Tensor], bias: Optional[Tensor]
) -> Tuple[Tensor, List[Tensor]]:
    """The frames of a chunk ``[B, C, t]``, normalised, and the state after them."""
    if x.size(2) == 1:
        return _one_frame(x, state, eps, weight, bias)
    count, mean, variance = state
    exact, work, t = accumulator(x), working(x), x.size(2)
    frames = x.to(exact).view([x.size(0), mean.size(1), x.size(1) // mean.size(1), t])
    # Of each frame alone, [B, G, t]. What is left of the samples is small, so it needs no double precision.
    here = frames.mean(2)
    left = (frames - here.unsqueeze(2)).to(work)
    spread = (left * left).mean(2).to(exact)
    before = (count.view([-1, 1, 1]) + torch.arange(t, device=x.device)).to(exact)
    after = before + 1
    held = count.view([-1, 1, 1]).to(exact)
    total = here.cumsum(2) + mean * held
    # How far each frame is from the mean before it. What that adds to the variance is never negative: nothing cancels.
    apart = here - (total - here) / before.clamp(min=1)
    power = (spread + apart * apart * (before / after)).cumsum(2) + variance * held
    means, variances = total / after, power / after
    scale = (variances + eps).rsqrt().to(work)
    y = ((left + (here - means).to(work).unsqueeze(2)) * scale.unsqueeze(2)).view(x.size())
    if weight is not None and bias is not None:
        y = torch.addcmul(bias.unsqueeze(1), y, weight.unsqueeze(1))
    return y.to(x.dtype), [count + t, means.narrow(2, t - 1, 1), variances.narrow(2, t - 1, 1)]


def _one_frame(
    x: Tensor, state: List[Tensor], eps: float, weight: Optional[Tensor], bias: Optional[Tensor]
) -> Tuple[Tensor, List[Tensor]]:
    # The same in few operations.
    count, mean, variance = state
    exact = accumulator(x)
    frame = x.to(exact).view([x.size(0), mean.size(1), x.size(1) // mean.size(1)])
    spread, here = torch.var_mean(frame, [2], correction=0, keepdim=True)
    count = count + 1
    share = count.to(exact).reciprocal().view([-1, 1, 1])
    after = torch.lerp(mean.to(exact), here, share)
    variance = torch.lerp(variance.to(exact), torch.addcmul(spread, here - mean, here - after), share)
    y = ((frame - after).to(working(x)) * (variance + eps).rsqrt().to(working(x))).view([x.size(0), x.size(1)])
    if weight is not None and bias is not None:
        y = torch.addcmul(bias, y, weight)
    return y.to(x.dtype).unsqueeze(2), [count, after, variance]


class CumulativeGroupNorm1dStream(ModuleRecurrenceStream):
    """Stream of a `CumulativeGroupNorm1d`.

    Its state is how many frames came, a clock of each row, and mean and variance of them in float64.

    Args:
        net: the normalisation

    Shape:
        - input: ``[B, num_channels, T]`` or ``[num_channels, T]``
        - output: the same

    Example:
        >>> import torch, torchstreamer as pts
        >>> stream = pts.CumulativeGroupNorm1dStream(pts.CumulativeGroupNorm1d(2, 4))
        >>> _ = stream(torch.ones(1, 4, 7))
        >>> stream.get_state()["memory.count"]
        tensor([7])
    """

    fresh = True

    def __init__(self, net: CumulativeGroupNorm1d) -> None:
        require_plain(net, CumulativeGroupNorm1d, CumulativeLayerNorm1d)
        super().__init__(net, net.num_channels, names=["count", "mean", "variance"])
        self.memory.clocks = ["count"]
        self.aliasing = 0
        self.keeps_dtype = True


class CumulativeLayerNorm1dStream(CumulativeGroupNorm1dStream):
    """Stream of a `CumulativeLayerNorm1d`.

    Its state is how many frames came, a clock of each row, and mean and variance of them in float64.

    Args:
        net: the normalisation

    Shape:
        - input: ``[B, channels, T]`` or ``[channels, T]``
        - output: the same

    Example:
        >>> import torch, torchstreamer as pts
        >>> norm = pts.CumulativeLayerNorm1d(4)
        >>> x = torch.randn(4, 10)
        >>> torch.testing.assert_close(pts.CumulativeLayerNorm1dStream(norm)(x), norm(x))
    """
