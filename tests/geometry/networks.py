"""120 random networks: compositions of layers, and captured models; and the models of `tests/models`."""

import math
import sys
from pathlib import Path
from random import Random
from typing import Callable, Iterator, List, Optional, Tuple

from layers import KINDS, Draw, pointwise
from subjects import CHANNELS, Subject, seeded
from torch import nn

import torchstreamer as pts

_TESTS = Path(__file__).parents[1]
COMPOSED, CAPTURED = 80, 40

# A network, and what its output is longer than its input.
Piece = Tuple[nn.Module, int]


def _piece(r: Random) -> Piece:
    """A layer that keeps the rate, the channels, and the length but for a constant."""
    kernel, dilation = r.randint(1, 6), r.randint(1, 3)
    kind = r.choice(["conv", "conv", "conv", "transposed", "pool", "pad", "pointwise", "norm"])
    if kind == "conv":
        padding = r.randint(0, kernel)
        mode = r.choice(["zeros", "zeros", "reflect", "replicate"])
        net: nn.Module = nn.Conv1d(4, 4, kernel, padding=padding, dilation=dilation, padding_mode=mode)
        return net, 2 * padding - (kernel - 1) * dilation
    if kind == "transposed":
        padding = r.randint(0, 3)
        return nn.ConvTranspose1d(4, 4, kernel, padding=padding), kernel - 1 - 2 * padding
    if kind == "pool":
        padding = r.randint(0, kernel // 2)
        return r.choice([nn.AvgPool1d, nn.MaxPool1d])(kernel, 1, padding), 2 * padding - kernel + 1
    if kind == "pad":
        amounts = r.randint(-2, 4), r.randint(-2, 4)
        return r.choice([nn.ZeroPad1d, nn.ReplicationPad1d])(amounts), sum(amounts)
    return (nn.BatchNorm1d(4) if kind == "norm" else nn.ELU()), 0


def _steady(r: Random, depth: int) -> Piece:
    pieces = []
    for _ in range(r.randint(1, 3)):
        kinds: List[Callable[[], Piece]] = [lambda: _piece(r)] * 3
        if depth > 1:
            kinds += [lambda: _residual(r, depth - 1), lambda: _parallel(r, depth - 1)]
        pieces.append(r.choice(kinds)())
    return nn.Sequential(*(net for net, _ in pieces)), sum(growth for _, growth in pieces)


def _residual(r: Random, depth: int) -> Piece:
    net, growth = _steady(r, depth)
    if growth > 0:  # the output must not be longer than the input
        left = r.randint(0, growth)
        net, growth = nn.Sequential(net, nn.ZeroPad1d((-left, left - growth))), 0
    return pts.Residual1d(net), growth


def _parallel(r: Random, depth: int) -> Piece:
    branches = [_steady(r, depth) for _ in range(r.randint(2, 3))]
    growth = min(growth for _, growth in branches)
    return pts.Parallel1d(*(net for net, _ in branches), merge=r.choice(["add", "mul"])), growth


def _rates(r: Random) -> nn.Module:
    """Branches of another rate, whose lengths differ by a constant."""
    factor = r.randint(2, 4)
    if r.random() < 0.5:
        ups = (
            lambda: nn.ConvTranspose1d(4, 4, r.randint(1, 2 * factor), factor, r.randint(0, 2)),
            lambda: nn.Upsample(scale_factor=factor, mode=r.choice(["nearest", "linear"])),
        )
        return pts.Parallel1d(*(r.choice(ups)() for _ in range(2)), merge=r.choice(["add", "mul", "cat"]))
    branches: List[nn.Module] = []
    for _ in range(2):
        kernel = r.randint(1, 5)
        padding = r.randint(0, kernel // 2)
        pools = (
            lambda k=kernel, p=padding: nn.Conv1d(4, 4, k, factor, p),
            lambda k=kernel, p=padding: nn.MaxPool1d(k, factor, p),
        )
        missing = (kernel - 2 * padding) % factor  # lengths must agree modulo the stride
        branches.append(nn.Sequential(nn.ZeroPad1d((0, missing)), r.choice(pools)()))
    return pts.Parallel1d(*branches, merge=r.choice(["add", "mul", "cat"]))


def _composed(r: Random) -> nn.Module:
    """Anything, one after another; the rate goes up and down, within bounds."""
    parts: List[nn.Module] = []
    up = down = 1
    names = [name for name in KINDS if name not in ("refused", "pointwise")]
    for _ in range(r.randint(2, 4)):
        choice = r.random()
        if choice < 0.4:
            part = _of_four(r, KINDS[r.choice(names)][1])
        elif choice < 0.9:
            part = r.choice([_residual, _parallel, _steady])(r, 3)[0]
        else:
            part = _rates(r)
            part = nn.Sequential(part, nn.Conv1d(8, 4, 1)) if part.merge == "cat" else part
        more, fewer = _rate(part)
        if up * more > 12 or down * fewer > 24:
            part, more, fewer = _of_four(r, pointwise), 1, 1
        up, down = up * more, down * fewer
        parts.append(part)
    return nn.Sequential(*parts)


def _of_four(r: Random, draw: Draw) -> nn.Module:
    """A layer that gives as many channels as all take."""
    net = draw(r)
    if isinstance(net, nn.GLU):
        return nn.Sequential(net, nn.Conv1d(2, CHANNELS, 1))
    out = getattr(net, "out_channels", CHANNELS)
    return net if out == CHANNELS else nn.Sequential(net, nn.Conv1d(out, CHANNELS, 1))


def _rate(net: nn.Module) -> Tuple[int, int]:
    """Factors by which the rate goes up and down, at most."""
    up = down = 1
    for m in net.modules():
        stride = getattr(m, "stride", 1)
        stride = stride[0] if isinstance(stride, tuple) else stride
        if isinstance(m, nn.ConvTranspose1d):
            up = max(up, stride)
        elif isinstance(m, nn.Upsample):
            up, down = max(up, math.ceil(m.scale_factor)), max(down, math.ceil(1 / m.scale_factor))
        else:
            down = max(down, stride)
    return up, down


def networks() -> Iterator[Subject]:
    """The networks, in a fixed order."""
    for i in range(COMPOSED):
        yield Subject(f"composed {i}", "composed", seeded(f"composed {i}", _composed), length=240)
    found, seed = 0, 0
    while found < CAPTURED:
        graph = _random_graph(seed)
        seed += 1
        if graph is not None:
            yield graph
            found += 1


def _random_graph(seed: int) -> Optional[Subject]:
    """A random model with a forward of its own, ``None`` where the seed gives none."""
    _import_from("graph")
    import random_steps
    from random_graphs import Builder
    from random_model import RandomGraph

    r = Random(f"graph {seed}")
    multiple = r.choice([1, 1, 1, 2, 4])
    builder = Builder(seed, r.choice([2, 3, 4]), multiple)
    for _ in range(r.randint(4, 8)):
        r.choice(random_steps.STEPS)(builder)
    out = random_steps.joined_ends(builder)
    lines = [*builder.lines, f"return {out.name}"]
    model = RandomGraph(builder.members, lines, seed, builder.channels, multiple).without_dead_lines()
    if len(model.lines) < 2 or not model.measure(out.hop):
        return None
    return Subject(
        f"graph {seed}",
        "graph",
        lambda: model,
        shape=(2, model.channels, model.example_length),
        captured=True,
        length_multiple=multiple,
        length=240,
    )


def models() -> Iterator[Subject]:
    """The models of `tests/models`; one with a layout of its own also as a model of a single signal."""
    _import_from("models")
    _import_from("graph")
    from as_signal import AsSignal, as_signal
    from zoo import ZOO

    for entry in ZOO:
        model, shape, multiple = as_signal(entry)
        if isinstance(model, AsSignal):
            yield Subject(
                f"{entry.name}, own layout",
                entry.name,
                lambda entry=entry: entry.make().double(),
                shape=None,
                length_multiple=entry.length_multiple,
                inputs=[x.double() for x in entry.inputs()],
                time_dim=entry.time_dim,
            )
        yield Subject(
            entry.name,
            entry.name,
            lambda model=model: model.double(),
            shape=shape,
            captured=True,
            length_multiple=multiple,
            length=math.ceil(max(shape[2], 200) / multiple) * multiple,
        )


def _import_from(folder: str) -> None:
    path = str(_TESTS / folder)
    if path not in sys.path:
        sys.path.insert(0, path)
