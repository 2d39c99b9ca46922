"""``nan`` and infinity stay where the layer itself puts them: nothing is multiplied by 0 that it does not read."""

import math
from random import Random
from typing import Tuple

import pytest
import torch
from layers import KINDS, layers
from networks import CHANNELS
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.testing.live_rows import LiveRows

EACH = 6
VALUES = (math.nan, math.inf, -math.inf)
SUBJECTS = [each for each in layers() if each.kind != "refused"]

# Kernels that are no multiple of the stride, shorter than it, spread, and with ends that reach further.
TRANSPOSED = [
    nn.ConvTranspose1d(2, 3, 3, stride=2),
    nn.ConvTranspose1d(2, 3, 7, stride=3, padding=2, bias=False),
    nn.ConvTranspose1d(2, 3, 1, stride=3, bias=False),
    nn.ConvTranspose1d(2, 3, 2, stride=5, output_padding=4),
    nn.ConvTranspose1d(2, 3, 2, stride=2, output_padding=1),
    nn.ConvTranspose1d(2, 3, 5, stride=2, output_padding=1),
    nn.ConvTranspose1d(2, 3, 2, dilation=2),
    nn.ConvTranspose1d(2, 3, 4, stride=3, dilation=2, padding=1),
    nn.ConvTranspose1d(2, 2, 3, stride=2, groups=2),
]


def streamed(stream: nn.Module, x: Tensor, chunk: int) -> Tensor:
    pieces = [stream(piece) for piece in x.split(chunk, -1)] + [stream.flush()]  # type: ignore[operator]
    return torch.cat([piece for piece in pieces if piece is not None], -1)


def marks(y: Tensor) -> Tensor:
    """0 for a number, else which it is."""
    return y.isnan() + 2 * y.isposinf() + 3 * y.isneginf()


def hold(net: nn.Module, stream: nn.Module, channels: int, r: Random, values: Tuple[float, ...] = VALUES) -> int:
    g = torch.Generator().manual_seed(r.randrange(1000))
    hop = int(stream.hop)  # type: ignore[arg-type]
    compared = 0
    for n in (max(31 // hop, 1) * hop, max(12 // hop, 1) * hop):
        for value in values:
            x = torch.randn(1, channels, n, dtype=torch.float64, generator=g)
            x[:, r.randrange(channels) if r.random() < 0.5 else slice(None), r.randrange(n)] = value
            try:
                expected = net(x.clone())
            except RuntimeError:  # too short
                continue
            if expected.shape[-1] == 0:
                continue
            for chunk in (2, n):
                assert torch.equal(marks(streamed(stream, x, chunk)), marks(expected)), (net, n, value)
                compared += 1
    return compared


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "refused"])
@torch.inference_mode()
def test_of_every_kind(kind: str) -> None:
    r = Random(kind)
    compared = 0
    for subject in [each for each in SUBJECTS if each.kind == kind][:EACH]:
        net = subject.make()
        # At scale 1 torch adds a sample and 0 times itself, and makes nan of infinity; the stream copies.
        values = VALUES[:1] if kind == "linear" else VALUES
        try:
            stream = pts.create_stream(net, **subject.create_arguments())
        except pts.UnsupportedModuleError as error:
            assert error.code == "untracked_statistics", error
            continue
        compared += hold(net, stream, CHANNELS, r, values)
    assert compared > 0


@pytest.mark.parametrize("net", TRANSPOSED, ids=str)
@torch.no_grad()
def test_of_transposed_convolutions(net: nn.ConvTranspose1d) -> None:
    net = net.double()
    stream = pts.create_stream(net)
    assert hold(net, stream, 2, Random(1)) > 3
    assert hold(net, torch.jit.script(stream), 2, Random(2)) > 3
    LiveRows(stream, net, 2, (5, 2), seed=3, nan=0.7).run(60).compare(30)
    LiveRows(stream, net, 3, (5,), seed=4, nan=0.7, columns=0).run(60).compare(20)


@pytest.mark.parametrize("chunk", [1, 2, 5])
@pytest.mark.parametrize(
    "net",
    [
        nn.Upsample(scale_factor=4, mode="linear"),
        nn.Upsample(scale_factor=2.5, mode="linear"),
        nn.ReflectionPad1d((4, 2)),
        nn.Conv1d(2, 2, 5, padding=4, padding_mode="reflect"),
        nn.Conv1d(2, 2, 5, stride=2, padding=3, padding_mode="replicate"),
    ],
    ids=str,
)
@torch.no_grad()
def test_at_the_start_of_static_rows(net: nn.Module, chunk: int) -> None:
    net = net.double()
    stream = pts.create_stream(net)
    live = LiveRows(stream, net, chunk * int(stream.hop), (5, 2), seed=chunk, nan=0.7, longest=12, channels=2)
    live.run(90).compare(30)
