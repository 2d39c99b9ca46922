"""A graph that is traced once gives the stream that it gave when it was traced twice."""

import os
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_models import case
from torch import nn

import torchstreamer as pts
from torchstreamer.graph import exporting

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from smallest import SMALLEST
from zoo import ZOO

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
REFUSED = [entry for entry in ZOO if entry.refused]

pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")


def padded_in_parts(m, x):
    y = F.pad(x, (4, 0)).contiguous()
    left, right = y.chunk(2, dim=1)
    return torch.cat([torch.tanh(left), right.to(torch.float32).to(torch.float64)], 1).narrow(1, 1, 3)


def regrouped(m, x):
    y = x.unflatten(1, (2, 2)).movedim(1, 2).flatten(1, 2)
    first, *rest = torch.tensor_split(y, 4, dim=1)
    return (first.expand_as(y) + y).mT.reshape(x.shape[0], -1, 4).mT, rest


def normed(m, x):
    return m.drop(m.norm(m.conv(x))) + x


def frames(m, x):
    y = x[..., : x.shape[-1] // 2 * 2].reshape(x.shape[0], 4, -1, 2)
    return torch.einsum("bctk,k->bct", y, m.weights) + y.mean(-1)


def shrunk(m, x):
    return F.hardshrink(x) + F.softshrink(x)


def in_place(m, x):
    y = m.conv(x)
    y += x
    return y.relu_()


def in_place_between(m, x):
    y = m.conv(x)
    y.relu_()
    before = y.transpose(1, 2) + 1
    y.mul_(3).add_(y)
    return y + before.transpose(1, 2)


def in_place_under_a_view(m, x):
    y = m.conv(x)
    view = y.transpose(1, 2)
    y.relu_()
    return y + view.transpose(1, 2)


def in_place_through_a_view(m, x):
    y = m.conv(x)
    y.view(y.shape).relu_()
    return y


def in_place_of_less(m, x):
    y = torch.zeros_like(x, dtype=torch.float32)
    return y.add_(x).to(x.dtype)


CONV = nn.Conv1d(4, 4, 3, padding=1).double()
# Models, and whether one trace is enough.
CASES = {
    "plain": (case(lambda m, x: x + torch.tanh(m.conv(x)), conv=CONV), True),
    "padded, in parts": (case(padded_in_parts), True),
    "regrouped": (case(regrouped), True),
    "normed": (case(normed, conv=CONV, norm=nn.BatchNorm1d(4).double(), drop=nn.Dropout(0.5)), True),
    "frames": (case(frames, weights=torch.ones(2, dtype=torch.float64)), True),
    "pooled": (case(lambda m, x: F.max_pool1d(x, 3, 2, ceil_mode=True) + F.avg_pool1d(x, 3, 2, ceil_mode=True)), True),
    "refused": (case(lambda m, x: torch.softmax(x.contiguous(), -1)), True),
    "shrunk": (case(shrunk), False),
    "interpolated": (case(lambda m, x: F.interpolate(x, scale_factor=2.0)), False),
    "in place": (case(in_place, conv=CONV), True),
    "in place, read in between": (case(in_place_between, conv=CONV), True),
    "in place, under a view": (case(in_place_under_a_view, conv=CONV), False),
    "in place, through a view": (case(in_place_through_a_view, conv=CONV), False),
    "in place, of another dtype": (case(in_place_of_less), False),
    "a part in place, by a literal": (case(lambda m, x: x.clone().index_fill_(1, torch.tensor([1]), 2.0)), True),
    "without gradients": (case(lambda m, x: x + torch.no_grad()(torch.exp)(x)), True),
}


def made(net, **arguments):
    """What a stream is made of, or why there is none."""
    try:
        stream = pts.create_stream(net, **arguments)
    except pts.UnsupportedModuleError as error:
        return error.code, str(error)
    return str(stream), [(name, value.shape) for name, value in stream.get_state().items()]


def made_both_ways(monkeypatch, net, **arguments):
    """The stream of each way, and whether one trace was enough for the first."""
    found = []

    def watched(program):
        found.append(original(program))
        return found[-1]

    original = exporting.made_functional
    monkeypatch.setattr(exporting, "made_functional", watched)
    once = made(net, **arguments)
    monkeypatch.setattr(exporting, "made_functional", lambda program: False)
    return once, made(net, **arguments), all(found)


@pytest.mark.sample(every=2)
@pytest.mark.parametrize("name", CASES)
def test_operations_alone_are_taken_apart(name, monkeypatch):
    model, one_trace = CASES[name]
    once, twice, enough = made_both_ways(monkeypatch, model.model(), example=model.inputs[0].make(36))
    assert once == twice
    assert enough == one_trace


@pytest.mark.sample(
    "wavenet",
    "hifigan",
    "tcn",
    "demucs",
    rest=3,
    long=(
        "conv_tasnet_global",
        "demucs_normalized",
        "unet_linear",
        "deepspeech2_lookahead",
        "resnet1d",
        "quartznet",
    ),
)
@pytest.mark.parametrize("entry", ZOO if THOROUGH else [*SMALLEST, *REFUSED[:2]], ids=lambda entry: entry.name)
def test_published_models(entry, monkeypatch):
    arguments = {"example": entry.example(), "time_dim": entry.time_dim, "length_multiple": entry.length_multiple}
    once, twice, _ = made_both_ways(monkeypatch, entry.make(), **arguments)
    assert once == twice
