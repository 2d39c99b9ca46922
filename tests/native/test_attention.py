"""Attention as C++, beside the modules on whole signals: layers with a context, captured functions, whole models."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torchstreamer as pts

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "models")]

from compiled import agree, chunkings, compiled  # noqa: E402
from moshi_transformer import MoshiTransformer  # noqa: E402
from realtime_encoders import MoonshineEncoder, VoxtralEncoder  # noqa: E402
from streaming_conformers import ChunkConformer, FastConformer  # noqa: E402


def heads(**options):
    return nn.MultiheadAttention(8, 2, batch_first=True, **options)


def layer(**options):
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **options)


def seen(i, j):
    return (i - j <= 5) & (j - i <= 2)


def chunks(i, j):
    return (j // 4 <= i // 4) & (j // 4 >= i // 4 - 2)


class Captured(nn.Module):
    """Two heads over [B, 8, T], computed by a function."""

    def __init__(self, attend, places=seen):
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.bias = nn.Embedding(16, 2)
        self.attend, self.places = attend, places

    def forward(self, x):
        q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in self.qkv(x.mT).chunk(3, -1))
        i = torch.arange(x.shape[-1], device=x.device)
        y = self.attend(self, q, k, v, i[:, None] - i[None], self.places(i[:, None], i[None]))
        return self.out(y.transpose(1, 2).flatten(2)).mT


def biased(net, q, k, v, distance, mask):
    scores = q @ k.mT / 2 + net.bias((distance + 7).clamp(0, 15)).permute(2, 0, 1)
    return scores.masked_fill(~mask, float("-inf")).softmax(-1) @ v


LAYERS = {
    "band": lambda: pts.SelfAttention1d(heads(), pts.Context(5, 2)),
    "chunks": lambda: pts.SelfAttention1d(heads(add_bias_kv=True), pts.Context(6, 0, 3)),
    "layer": lambda: pts.TransformerEncoderLayer1d(layer(norm_first=True), pts.Context(5, 4, 3)),
    "turned": lambda: pts.SelfAttention1d(heads(), pts.Context(6, 1), rope=pts.Rotary(4)),
    "grouped": lambda: pts.SelfAttention1d(pts.GroupedQueryAttention(8, 4, 2, head_dim=6), pts.Context(6, 1)),
    "alibi": lambda: pts.SelfAttention1d(heads(), pts.Context(4, 0, 2), bias=pts.AlibiBias(2)),
    "shaw": lambda: pts.SelfAttention1d(heads(), pts.Context(4, 0, 2), bias=pts.ShawBias(4, 3)),
    "t5": lambda: pts.SelfAttention1d(heads(), pts.Context(7, 1), bias=pts.T5Bias(2, 8, 20)),
    "itself": lambda: pts.SelfAttention1d(heads(), pts.Context(0, 0)),
    "branches": lambda: nn.Sequential(
        nn.Conv1d(8, 8, 4, stride=2, padding=1),
        pts.Residual1d(nn.Sequential(pts.SelfAttention1d(heads(), pts.Context(4, 3)), nn.Conv1d(8, 8, 3, padding=1))),
        pts.SelfAttention1d(heads(), pts.Context(6, 0, 3)),
    ),
}
FUNCTIONS = {
    "fused": lambda: Captured(lambda net, q, k, v, d, mask: F.scaled_dot_product_attention(q, k, v, mask)),
    "fused, chunks": lambda: Captured(
        lambda net, q, k, v, d, mask: F.scaled_dot_product_attention(q, k, v, mask), chunks
    ),
    "biased": lambda: Captured(biased),
    "retention": lambda: Captured(
        lambda net, q, k, v, d, mask: (q @ k.mT * torch.where(mask, 0.9 ** d.abs().to(q.dtype), 0.0)) @ v
    ),
}
MODELS = {
    "moshi": (MoshiTransformer, 8, 40),
    "Moonshine": (MoonshineEncoder, 1, 400),
    "Voxtral": (VoxtralEncoder, 5, 60),
    "SpeechBrain": (lambda: ChunkConformer(layers=1), 8, 40),
    "FastConformer": (lambda: FastConformer(layers=1), 5, 120),
    "FastConformer, absolute": (lambda: FastConformer(layers=1, rel_pos=False), 5, 120),
}


def made(name, dtype):
    torch.manual_seed(0)
    make = {**LAYERS, **FUNCTIONS}[name]
    net = make().to(dtype).eval()
    for bias in net.modules():
        if isinstance(bias, pts.T5Bias | pts.ShawBias):  # which begin with zeros
            for weight in bias.parameters():
                nn.init.normal_(weight)
    return net


def compare(names, dtype, folder, tolerance):
    nets = {name: made(name, dtype) for name in names}
    example = torch.randn(1, 8, 50, dtype=dtype)
    streams = {
        name: pts.create_stream(net, example) if name in FUNCTIONS else pts.create_stream(net)
        for name, net in nets.items()
    }
    found = compiled(streams, folder)
    generator = np.random.default_rng(0)
    for name, net in nets.items():
        for n in (1, 2, 7, 40, 90):
            x = torch.from_numpy(generator.standard_normal([1, 8, n])).to(dtype)
            for cuts in chunkings(n, generator):
                agree(net, found[name], x, cuts, tolerance)
        for bad in (float("inf"), float("nan")):
            # A model of its own makes nan of all that nan is multiplied by; a stream of what sees it.
            x = torch.from_numpy(generator.standard_normal([1, 8, 60])).to(dtype)
            x[0, 0, 30] = bad
            stream = streams[name]
            agree(lambda x, stream=stream: stream(x, final=True), found[name], x, [20, 20, 20], tolerance)


def test_some_in_float32(tmp_path):
    compare(["band", "layer", "turned", "branches", "fused", "biased"], torch.float32, tmp_path, 1e-5)


@pytest.mark.slow
def test_all_in_float64(tmp_path):
    compare([*LAYERS, *FUNCTIONS], torch.float64, tmp_path, 1e-9)


@pytest.mark.slow
def test_all_in_float32(tmp_path):
    compare([*LAYERS, *FUNCTIONS], torch.float32, tmp_path, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_models(name, tmp_path):
    torch.manual_seed(0)
    make, channels, length = MODELS[name]
    net = make().double().eval()
    x = torch.randn(1, channels, length + 37, dtype=torch.float64)
    found = compiled({name: pts.create_stream(net, example=x[..., :length])}, tmp_path)[name]
    for n in (length, length + 37):
        for cuts in chunkings(n, np.random.default_rng(0)):
            agree(net, found, x[..., :n], cuts, 1e-9)


class Unknown(nn.Module):
    """A bias that knows positions themselves."""

    def forward(self, q, k, i, j, scale):
        return (i.unsqueeze(2) * j.unsqueeze(1)).unsqueeze(1).to(q.dtype) / 1e3


def test_what_may_know_more_is_refused(tmp_path):
    def refused(net, match):
        with pytest.raises(pts.UnsupportedModuleError, match=f"^not_native: .*{match}"):
            pts.export(pts.create_stream(net.eval()), tmp_path / "net.cpp")

    refused(pts.SelfAttention1d(heads(), pts.Context(5, 2), bias=Unknown()), "may know more than distances .Unknown")
    shaw = pts.ShawBias(4, 3, values=True)
    refused(pts.SelfAttention1d(heads(), pts.Context(5, 2), bias=shaw), "scatter_add")
    refused(pts.SelfAttention1d(heads(), pts.Context(5, 2), sinks=2), "first keys that are seen for ever")
