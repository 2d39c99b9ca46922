"""The state of captured models is as small as their layers and merges allow."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

import torchstreamer as pts
from torchstreamer.core.lengths import LengthTable
from torchstreamer.graph.layout import Layout
from torchstreamer.graph.nodes import AlignNode, EdgeNode, GateNode, SettleNode, StreamNode, SumNode
from torchstreamer.graph.ops.edges import CropStream

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from zoo import ZOO

PLAIN = [entry for entry in ZOO if not entry.refused and entry.time_dim == -1]

pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")


def first(value):
    return value[0] if isinstance(value, tuple) else value


class Remembering(TorchFunctionMode):
    """Counts what functions called outside of layers must remember along time, in numbers."""

    def __init__(self):
        super().__init__()
        self.numbers = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name == "pad" and (kwargs.get("mode") or (args[2:3] or ("constant",))[0]) != "constant":
            amounts = kwargs.get("pad") or args[1]
            self.numbers += (max(amounts[:2]) + 1) * per_sample(args[0])
        elif name in ("interpolate", "cumsum"):  # both neighbours; the sum so far
            self.numbers += 2 * per_sample(args[0])
        elif name == "arange":
            self.numbers += 1
        return func(*args, **kwargs)


def per_sample(x):
    """Numbers that stand at one time, in one row."""
    return x[0].numel() // x.shape[-1]


def layers_numbers(model, x):
    """The sum over all calls of layers of (field - 1) samples of their input."""
    total = 0

    def count(layer, inputs):
        nonlocal total
        kernel, dilation = layer.kernel_size, getattr(layer, "dilation", 1)
        kernel = kernel[-1] if isinstance(kernel, tuple) else kernel
        dilation = dilation[-1] if isinstance(dilation, tuple) else dilation
        samples = (kernel - 1) * dilation
        if isinstance(layer, nn.ConvTranspose1d):  # the inputs that a frame overlaps with
            samples = samples // first(layer.stride)
        if getattr(layer, "padding_mode", "zeros") != "zeros":
            samples += first(layer.padding) + 1
        total += samples * per_sample(inputs[0])

    kinds = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.MaxPool1d, nn.AvgPool1d)
    handles = [layer.register_forward_pre_hook(count) for layer in model.modules() if isinstance(layer, kinds)]
    with torch.no_grad(), Remembering() as functions:
        model(x)
    for handle in handles:
        handle.remove()
    return total + functions.numbers


def merges_numbers(stream, n):
    """What waits where branches meet: of each as many samples as it is ahead of the last one."""
    lengths = [0] * stream.slots
    for i, port in enumerate(getattr(stream, "ports", [None])):
        lengths[i] = n if port is None else port.length(n)
    total = 0
    for node in stream.nodes:
        if isinstance(node, (AlignNode, SumNode)):
            came = [lengths[i] for i in node.sources]
            rings = node.align.rings if isinstance(node, AlignNode) else node.merge.rings
            total += sum((own - min(came)) * ring.data.shape[2] for own, ring in zip(came, rings, strict=True))
        node.count(lengths, n, False)
        if isinstance(node, StreamNode) and isinstance(node.stream, CropStream):
            # A centre crop holds back what its branch is ahead of the valid convolutions that it meets.
            ahead = lengths[node.source] - node.stream.left - lengths[node.target]
            total += ahead * node.stream.ring.data.shape[2]
    return total


@pytest.mark.sample("wavenet", "hifigan", "tcn", "dac_decoder", "subpixel_upsampler", rest=3)
@pytest.mark.parametrize("entry", PLAIN, ids=[entry.name for entry in PLAIN])
def test_state_is_minimal(entry):
    model = entry.make().double()
    x = entry.example(batch=1).double()
    layers = layers_numbers(model, x)
    stream = pts.create_stream(model, example=x, length_multiple=entry.length_multiple)
    settled = 4 * x.shape[-1] + 8 * stream.hop
    with torch.no_grad():
        stream(torch.cat([x] * (settled // x.shape[-1] + 1), -1)[..., :settled])
        for i in range(min(stream.hop, 16)):
            allowed = layers + merges_numbers(stream, settled + i)
            held = stream.state_nbytes() // 8
            assert held <= 1.25 * allowed, (settled + i, held, layers, allowed)
            stream(x[..., :1])


class Branches(nn.Module):
    """Three branches that meet late."""

    def __init__(self):
        super().__init__()
        self.branches = nn.ModuleList([nn.Conv1d(2, 2, k, padding=k // 2) for k in (3, 5, 7)])

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


def test_a_state_fits_every_stream_of_a_model():
    model, x = Branches().double(), torch.randn(1, 2, 40, dtype=torch.float64)
    streams = [pts.create_stream(model, example=x) for _ in range(4)]  # alive together, at addresses in any order
    with torch.no_grad():
        begin = streams[0](x[..., :20])
        state = streams[0].get_state()
        for stream in streams:
            stream.set_state(state)
            torch.testing.assert_close(torch.cat([begin, stream(x[..., 20:], final=True)], -1), model(x))


def test_parts_tell_what_they_do():
    """States of networks are told apart by the representation of these."""
    layout = Layout(2, 0, 1, [1])
    doubled, tripled = (LengthTable([0, 1], 1, 1, rise) for rise in (2, 3))
    parts = [
        GateNode(0, layout, 5),
        GateNode(0, layout, 6),
        GateNode(1, layout, 5),
        EdgeNode([0, 1], 2, layout, layout, False, 1),
        EdgeNode([0, 1], 2, layout, layout, True, 1),
        EdgeNode([0, 1], 2, layout, layout, True, 2),
        SettleNode(0, 1, layout, 0, doubled),
        SettleNode(0, 1, layout, 0, tripled),
        SettleNode(0, 1, layout, 1, doubled),
        SumNode([0, 1], 2),
        SumNode([0, 2], 3),
    ]
    assert len({repr(part) for part in parts}) == len(parts)
