"""Small models of one operation each, for layers that only captured models have."""

import copy
from random import Random
from typing import Any, Callable, Dict, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Function = Callable[[Any, Tensor], Tensor]


class Model(nn.Module):
    """A function of itself and its input, with parameters and modules."""

    def __init__(self, function: Function, **parts: Any) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def model(function: Function, **parts: Any) -> Callable[[Random], nn.Module]:
    return lambda r: Model(function, **copy.deepcopy(parts))


def param(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def crop(left: int, right: int, **parts: Any) -> Callable[[Random], nn.Module]:
    def function(m: Any, x: Tensor) -> Tensor:
        y = m.conv(x) if hasattr(m, "conv") else x
        return y[..., left : y.shape[-1] - right] if right else y[..., left:]

    return model(function, **parts)


def merge(factor: int, last: bool) -> Callable[[Random], nn.Module]:
    def function(m: Any, x: Tensor) -> Tensor:
        b, c, t = x.shape
        if last:
            return x.view(b, factor, c // factor, t).permute(0, 2, 3, 1).flatten(2)
        return x.reshape(b, c // factor, factor, t).transpose(2, 3).reshape(b, c // factor, factor * t)

    return model(function)


def split(factor: int, form: str) -> Callable[[Random], nn.Module]:
    def function(m: Any, x: Tensor) -> Tensor:
        b, c, t = x.shape
        if form == "mean":
            return x.unflatten(-1, (t // factor, factor)).mean(-1)
        if form == "largest":
            return x.view(b, c, -1, factor).amax(-1)
        return x.reshape(b, c, t // factor, factor).transpose(2, 3).reshape(b, factor * c, t // factor)

    return model(function)


def corners(factor: int) -> Callable[[Random], nn.Module]:
    return model(lambda m, x: F.interpolate(x, size=factor * (x.shape[-1] - 1) + 1, mode="linear", align_corners=True))


def positions(first: float, step: float, dtype: torch.dtype) -> Callable[[Random], nn.Module]:
    def function(m: Any, x: Tensor) -> Tensor:
        i = torch.arange(x.shape[-1], dtype=dtype)
        return x * torch.sin(i * step + first) + (i % 3 == 0)

    return model(function)


def joined(front: int, back: int) -> Callable[[Random], nn.Module]:
    def function(m: Any, x: Tensor) -> Tensor:
        parts = [x]
        if front:
            parts.insert(0, m.front.expand(x.shape[0], -1, -1))
        if back:
            parts.append(m.back.tanh().expand(x.shape[0], -1, -1))
        return torch.cat(parts, -1)

    return model(function, front=param(1, 4, max(front, 1)), back=param(1, 4, max(back, 1)))


def images(
    kernel: int, stride: int, padding: int, dilation: int = 1, up: bool = False
) -> Callable[[Random], nn.Module]:
    def draw(r: Random) -> nn.Module:
        layer = nn.ConvTranspose2d if up else nn.Conv2d
        conv = layer(2, 2, (2, kernel), stride=(1, stride), padding=(0, padding), dilation=(1, dilation))
        return Model(lambda m, x: m.conv(x.unflatten(1, (2, 2))).flatten(1, 2), conv=conv)

    return draw


def folded(kernel: int, stride: int) -> Callable[[Random], nn.Module]:
    def function(m: Any, x: Tensor) -> Tensor:
        return F.fold(x, (1, (x.shape[-1] - 1) * stride + kernel), (1, kernel), stride=(1, stride)).squeeze(2)

    return model(function)


def unfolded(size: int, step: int) -> Callable[[Random], nn.Module]:
    return model(lambda m, x: x.unfold(-1, size, step).square().mean(-1))


def to_multiple(left: int, multiple: int, mode: str) -> Callable[[Random], nn.Module]:
    def function(m: Any, x: Tensor) -> Tensor:
        return m.down(F.pad(x, (left, -x.shape[-1] % multiple), mode=mode))

    return model(function, down=nn.Conv1d(4, 3, multiple, stride=multiple))


# The layers of each kind, and how they differ from others as subjects.
CAPTURED: Dict[str, Tuple[Sequence[Callable[[Random], nn.Module]], Dict[str, Any]]] = {
    "crop": (
        [
            crop(3, 0),
            crop(0, 3),
            crop(2, 5),
            crop(0, 2, conv=nn.Conv1d(4, 4, 3, padding=2)),
            crop(1, 4, conv=nn.Conv1d(4, 4, 5, padding=4)),
            crop(2, 2, conv=nn.ConvTranspose1d(4, 4, 6, stride=2)),
        ],
        {},
    ),
    "time-merged": ([merge(2, False), merge(4, False), merge(2, True), merge(4, True)], {}),
    "time-split": (
        [split(4, "mean"), split(4, "largest"), split(4, "channels"), split(2, "mean"), split(2, "channels")],
        {"length_multiple": 4},
    ),
    "corners": ([corners(2), corners(3), corners(5)], {}),
    "cumulative": (
        [
            model(lambda m, x: x.cumsum(2)),
            model(lambda m, x: torch.cumprod(1 + 0.1 * torch.tanh(x), dim=-1)),
            model(lambda m, x: torch.logcumsumexp(x, -1)),
            model(lambda m, x: torch.cummax(x, -1).values),
            model(lambda m, x: x.cummin(2)[0]),
        ],
        {},
    ),
    "positions": (
        [
            positions(0.0, 1.0, torch.float64),
            positions(2.0, 0.1, torch.float64),
            positions(0.0, 1.0, torch.int64),
        ],
        {},
    ),
    "joined-frames": ([joined(2, 0), joined(0, 3), joined(1, 1), joined(4, 2)], {}),
    "windowed": (
        [
            images(3, 1, 0),
            images(4, 2, 1),
            images(3, 1, 2, 2),
            images(2, 5, 0),
            unfolded(8, 4),
            unfolded(3, 5),
            model(lambda m, x: torch.diff(x)),
            model(lambda m, x: x[..., 1::3]),
        ],
        {},
    ),
    "overlapping": (
        [images(4, 2, 0, up=True), images(5, 3, 1, up=True), images(2, 4, 0, up=True), folded(4, 1), folded(2, 2)],
        {},
    ),
    "mirrored-end": (
        [to_multiple(2, 4, "reflect"), to_multiple(1, 3, "reflect"), to_multiple(3, 2, "reflect")]
        + [to_multiple(0, 4, "constant"), to_multiple(2, 3, "replicate")],
        {},
    ),
}
