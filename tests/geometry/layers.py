"""400 random layers of all kinds, with any of their arguments; some kinds are reached by small captured models only."""

from random import Random
from typing import Callable, Dict, Iterator, Tuple

from captured import CAPTURED
from subjects import CHANNELS, Subject, seeded
from torch import nn

Draw = Callable[[Random], nn.Module]


def common_divisor(r: Random, one: int, other: int) -> int:
    return r.choice([g for g in range(1, one + 1) if one % g == 0 and other % g == 0])


def conv(*modes: str) -> Draw:
    def draw(r: Random) -> nn.Module:
        out = r.choice([2, CHANNELS, 6])
        kernel = r.choice([r.randint(1, 7), r.randint(1, 4), r.randint(8, 20)])
        return nn.Conv1d(
            CHANNELS,
            out,
            kernel,
            stride=r.choice([1, r.randint(1, 7)]),
            padding=r.choice([0, r.randint(0, kernel), r.randint(0, 2 * kernel)]),
            dilation=r.randint(1, 3),
            groups=common_divisor(r, CHANNELS, out),
            bias=r.random() < 0.7,
            padding_mode=r.choice(modes),
        )

    return draw


def conv_same(r: Random) -> nn.Module:
    mode = r.choice(["zeros", "reflect", "replicate"])
    return nn.Conv1d(CHANNELS, 2, r.randint(1, 9), padding="same", dilation=r.randint(1, 3), padding_mode=mode)


def transposed(r: Random) -> nn.Module:
    kernel, dilation, stride = r.randint(1, 8), r.randint(1, 3), r.randint(1, 6)
    out = r.choice([2, CHANNELS, 6])
    return nn.ConvTranspose1d(
        CHANNELS,
        out,
        kernel,
        stride=stride,
        padding=r.choice([0, max(kernel - stride, 0) // 2, r.randint(0, (kernel - 1) * dilation + 3)]),
        output_padding=r.choice([0, r.randint(0, max(stride, dilation) - 1)]),
        dilation=dilation,
        groups=common_divisor(r, CHANNELS, out),
        bias=r.random() < 0.7,
    )


def average(r: Random) -> nn.Module:
    kernel = r.randint(1, 7)
    return nn.AvgPool1d(
        kernel, r.choice([None, 1, 2, 3, 5, 8]), r.randint(0, kernel // 2), r.random() < 0.5, r.random() < 0.5
    )


def largest(r: Random) -> nn.Module:
    kernel = r.randint(1, 7)
    stride = r.choice([None, 1, 2, 3, 5, 8])
    return nn.MaxPool1d(kernel, stride, r.randint(0, kernel // 2), r.randint(1, 3), ceil_mode=r.random() < 0.5)


def power(r: Random) -> nn.Module:
    return nn.LPPool1d(r.choice([1, 2, 4]), r.randint(1, 6), r.choice([None, 1, 2, 3, 5, 8]), r.random() < 0.5)


def upsample(mode: str) -> Draw:
    scales = [1, 2, 3, 4, 5, 1.5, 2.5, 1.25, 0.5, 0.25, 0.75, 0.4, 2 / 3, 1 / 3, 4 / 3]
    return lambda r: nn.Upsample(scale_factor=r.choice(scales), mode=mode)


def pad(kind: Callable[..., nn.Module], *args: float) -> Draw:
    def draw(r: Random) -> nn.Module:
        return kind((r.choice([0, r.randint(-4, 6)]), r.choice([0, r.randint(-4, 6), r.randint(-4, 6)])), *args)

    return draw


def pointwise(r: Random) -> nn.Module:
    inplace = r.random() < 0.5
    choices: Tuple[Callable[[], nn.Module], ...] = (
        lambda: nn.ReLU(inplace),
        lambda: nn.GLU(1),
        nn.GELU,
        nn.Identity,
        nn.Dropout,
        lambda: nn.ELU(inplace=inplace),
        nn.Hardshrink,
        lambda: nn.Hardtanh(inplace=inplace),
        lambda: nn.LeakyReLU(inplace=inplace),
        lambda: nn.LocalResponseNorm(2),
        lambda: nn.PReLU(CHANNELS if inplace else 1),
        lambda: nn.RReLU(inplace=inplace),
        lambda: nn.SiLU(inplace),
        nn.Tanh,
        nn.Sigmoid,
        lambda: nn.Softmax(1),
        lambda: nn.ChannelShuffle(2),
    )
    return r.choice(choices)()


def norm(r: Random) -> nn.Module:
    return nn.BatchNorm1d(CHANNELS, affine=r.random() < 0.7, track_running_stats=r.random() < 0.9)


def refused(r: Random) -> nn.Module:
    choices: Tuple[Callable[[], nn.Module], ...] = (
        lambda: nn.Conv1d(CHANNELS, 2, 3, padding=1, padding_mode="circular"),
        lambda: nn.GroupNorm(2, CHANNELS),
        lambda: nn.LSTM(CHANNELS, 3),
        lambda: nn.Linear(6, 6),
        lambda: nn.AdaptiveAvgPool1d(3),
        lambda: nn.Softmax(2),
        lambda: nn.Upsample(size=20),
        lambda: nn.Upsample(scale_factor=2, mode="linear", align_corners=True),
        lambda: nn.Upsample(scale_factor=3.14159, mode="nearest"),
        lambda: nn.ConvTranspose1d(CHANNELS, 2, 3, padding=40),
    )
    return r.choice(choices)()


# Each kind with how many there are of it; together with those of `captured`, 400.
KINDS: Dict[str, Tuple[int, Draw]] = {
    "conv": (59, conv("zeros")),
    "conv-mirrored": (34, conv("reflect", "replicate")),
    "conv-same": (16, conv_same),
    "transposed": (56, transposed),
    "average-pool": (30, average),
    "max-pool": (30, largest),
    "power-pool": (14, power),
    "nearest": (14, upsample("nearest")),
    "nearest-exact": (14, upsample("nearest-exact")),
    "linear": (16, upsample("linear")),
    "zero-pad": (12, pad(nn.ZeroPad1d)),
    "constant-pad": (6, pad(nn.ConstantPad1d, -0.7)),
    "reflection-pad": (12, pad(nn.ReflectionPad1d)),
    "replication-pad": (12, pad(nn.ReplicationPad1d)),
    "pointwise": (17, pointwise),
    "norm": (4, norm),
    "refused": (6, refused),
}


def layers() -> Iterator[Subject]:
    """The layers, in a fixed order."""
    for kind, (count, draw) in KINDS.items():
        for i in range(count):
            yield Subject(f"{kind} {i}", kind, seeded(f"{kind} {i}", draw))
    for kind, (draws, options) in CAPTURED.items():
        for i, one in enumerate(draws):
            yield Subject(f"{kind} {i}", kind, seeded(f"{kind} {i}", one), captured=True, **options)
