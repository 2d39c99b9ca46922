"""The lag of a static step is the least there can be: no output waits for more than what it needs.

It is so of every single layer. A value inside a chain has one lag for the whole signal, so a chain may wait for more.

Of single layers the least follows from ``output_length``, of chains from the network itself, on whole signals that are
``nan`` from some sample on. `StaticStream` knows neither: it plans by reaches.
"""

import math
from random import Random
from typing import Any, List

import pytest
import torch
from layers import KINDS, layers
from networks import CHANNELS
from subjects import Subject, filled
from torch import Tensor, nn

import torchstreamer as pts

# torch says so once a process.

EACH = 16  # layers of each kind; fewer where each is captured
TURNS = (1, 3)

SUBJECTS: List[Subject] = [each for each in layers() if each.kind != "refused"]


def static_of(stream: Any, turns: int, channels: int = CHANNELS) -> pts.StaticStream:
    return pts.StaticStream(stream, stream.hop * turns, channels=channels, dtype=torch.float64)


# ---------------------------------------------------------------------- single layers


def least_of_a_layer(stream: Any, static: pts.StaticStream) -> int:
    """After step ``k`` the outputs before ``(k + 1) · outputs - lag`` are out, which are no more than there are."""
    most = 0
    for k in range(200 // static.chunk + 4):
        most = max(most, (k + 1) * static.outputs - stream.output_length((k + 1) * static.chunk, False))
    return most


@pytest.mark.parametrize("kind", sorted({each.kind for each in SUBJECTS}))
def test_of_a_layer(kind: str) -> None:
    tried = 0
    subjects = [each for each in SUBJECTS if each.kind == kind]
    for subject in subjects[: EACH // 5 if subjects[0].captured else EACH]:
        net = subject.make()
        try:
            stream = pts.create_stream(net, **subject.create_arguments())
            static = static_of(stream, 1)
        except pts.UnsupportedModuleError as error:
            assert error.code in ("short_copies", "untracked_statistics"), error
            continue
        for turns in TURNS:
            static = static if turns == 1 else static_of(stream, turns)
            least = least_of_a_layer(stream, static)
            tried += 1
            assert static.lag == least, (subject.name, net, static, least)
    assert tried > 3


# ---------------------------------------------------------------------- chains


def least_of_a_network(net: nn.Module, stream: Any, static: pts.StaticStream) -> int:
    """Sure after a step is what stays the same wherever the signal ends, and with ``nan`` for all later samples."""
    chunk = static.chunk
    steps = static.lag // static.outputs + 40 // chunk + 4
    ends = [(k + 1) * chunk for k in range(steps)]
    longest = ends[-1] + chunk + 20
    signal = torch.randn(CHANNELS, longest + 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unsure = signal.repeat(steps, 1, 1)
    for row, n in zip(unsure, ends, strict=True):
        row[:, n:] = math.nan
    with torch.no_grad():
        whole = net(signal[None].clone())[0]
        settled = [first(y.isnan().any(0)) for y in net(unsure.clone())]
        same = [first_difference(net, signal, n, whole) for n in range(longest)]
    sure = [min(settled[k], *same[n : n + chunk + 20]) for k, n in enumerate(ends)]
    return max(0, *((k + 1) * static.outputs - sure[k] for k in range(steps)))


def first(marks: Tensor) -> int:
    return int(marks.long().argmax()) if marks.any() else len(marks)


def first_difference(net: nn.Module, signal: Tensor, n: int, whole: Tensor) -> int:
    """The first output that another end changes or takes away."""
    try:
        y = net(signal[None, :, :n].clone())[0]
    except (RuntimeError, IndexError, ValueError):  # too short
        return 0
    return first((y - whole[:, : y.shape[1]]).abs().amax(0) > 1e-9) if y.shape[1] > 0 else 0


def starts_late(net: nn.Module) -> bool:
    """Whether a layer's first outputs wait for more than later ones: its lag stays so, and layers after it wait for it.

    The padding mirrors samples, or linear upsampling reads a second sample for what stands before the first one.
    """
    if isinstance(net, nn.Upsample):
        return net.mode == "linear" and float(net.scale_factor) > 1
    if isinstance(net, (nn.ReflectionPad1d, nn.ReplicationPad1d)):
        return max(net.padding) > 0
    return isinstance(net, nn.Conv1d) and net.padding_mode != "zeros" and max(net._reversed_padding_repeated_twice) > 0


def leads(net: nn.Module) -> bool:
    """Whether a layer has more outputs than its steps give: no lag is below 0, so layers after it wait all the same."""
    stream = pts.create_stream(net)
    static = static_of(stream, 1)
    pace = [(k + 1) * static.outputs - stream.output_length((k + 1) * static.chunk, False) for k in range(60, 90)]
    return max(pace) < 0


def of_four(r: Random, kind: str) -> nn.Module:
    """A layer that gives as many channels as all take."""
    net = KINDS[kind][1](r)
    out = CHANNELS // 2 if isinstance(net, nn.GLU) else getattr(net, "out_channels", CHANNELS)
    return net if out == CHANNELS else nn.Sequential(net, nn.Conv1d(out, CHANNELS, 1))


class Doubled(nn.Module):
    """Of a type that nobody knows, pointwise."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


def chain(seed: int) -> nn.Module:
    r = Random(f"lag {seed}")
    kinds = [kind for kind in KINDS if kind not in ("refused", "norm")]
    with torch.random.fork_rng(devices=[]):
        parts = [of_four(r, r.choice(kinds)) for _ in range(r.randint(2, 4))]
        if r.random() < 0.3:
            parts.insert(r.randrange(len(parts)), Doubled())
        if r.random() < 0.3:
            parts.append(pts.Residual1d(nn.Conv1d(CHANNELS, CHANNELS, r.randint(1, 5))))
        return filled(nn.Sequential(*parts), seed)


def test_of_chains() -> None:
    equal = 0
    for seed in range(90):
        net = chain(seed)
        try:
            stream = pts.create_stream(net)
            static = static_of(stream, 1 + seed % 3)
        except pts.UnsupportedModuleError as error:
            assert error.code == "short_copies", error
            continue
        if stream.hop > 60:
            continue
        least = least_of_a_network(net, stream, static)
        assert static.lag >= least, (seed, net, static, least)
        if static.lag > least:
            assert any(starts_late(each) for each in net.modules()) or any(leads(each) for each in net), net
        equal += static.lag == least
    assert equal >= 70
