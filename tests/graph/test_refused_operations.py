"""Operations that need the whole signal are refused, with the operation, its place, the reason and a remedy."""

import re

import pytest
import torch
import torch.nn.functional as F
from feeding import create_arguments, normal, real
from small_models import SIGNAL, case, param
from torch import nn

import torchstreamer as pts


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(4, 12)

    def forward(self, x):
        q, k, v = self.qkv(x.transpose(1, 2)).chunk(3, dim=-1)
        weights = torch.softmax(q @ k.transpose(1, 2) / 2, dim=-1)
        return (weights @ v).transpose(1, 2)


class BothWays(nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = nn.GRU(4, 4, batch_first=True, bidirectional=True)

    def forward(self, x):
        return self.gru(x.mT)[0].mT


class Inner(nn.Module):
    def forward(self, x):
        return torch.flip(x, [-1])


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv1d(4, 4, 3)
        self.blocks = nn.ModuleList([nn.Identity(), nn.Sequential(nn.ReLU(), Inner())])

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return x


def odd(m, x):
    return F.pad(x, (0, 1)) if x.shape[-1] % 2 else x * 2


def long(m, x):
    return x * 2 if x.shape[-1] > 500 else x


def mask_of_the_end(m, x):
    return x * (torch.arange(x.shape[-1]) < x.shape[-1] - 3)


def centre_crop(m, x):
    y = F.interpolate(F.avg_pool1d(x, 4), scale_factor=4)
    d = x.shape[-1] - y.shape[-1]
    return x[..., d // 2 : d // 2 + y.shape[-1]] + y


def value_branch(m, x):
    return x * 2 if x.sum() > 0 else x


def value_size(m, x):
    return x[..., : int(x.abs().max()) + 1]


def by_places(m, x):
    return torch.nonzero(x)


REFUSED = {
    # name: model, operation in the message, reason, remedy
    "flip": (case(lambda m, x: x.flip(-1)), "'flip'", "reverses time", "outside the stream"),
    "mean": (case(lambda m, x: x - x.mean(-1, keepdim=True)), "'mean'", "averages over time", "cumulative mean"),
    "mean, all": (case(lambda m, x: x / x.mean()), "'mean'", "averages over time", "AvgPool1d"),
    "sum": (case(lambda m, x: x.sum(2)), "'sum'", "sums over time", "cumsum"),
    "var": (case(lambda m, x: x / x.var(-1, keepdim=True)), "'var'", "statistics of the whole signal", "BatchNorm1d"),
    "std": (case(lambda m, x: x / x.std(-1, keepdim=True)), "'std'", "statistics of the whole signal", "BatchNorm1d"),
    "norm": (case(lambda m, x: x / x.norm(dim=-1, keepdim=True)), "norm'", "whole signal", "cumulative"),
    "maximum": (case(lambda m, x: x / x.abs().amax(-1, keepdim=True)), "'amax'", "searches along time", "MaxPool1d"),
    "max": (case(lambda m, x: x.max(dim=-1)[0]), "'max'", "searches along time", "MaxPool1d"),
    "softmax": (case(lambda m, x: torch.softmax(x, -1)), "softmax'", "normalises over time", "another axis"),
    "log_softmax": (case(lambda m, x: F.log_softmax(x, 2)), "log_softmax'", "normalises over time", "another axis"),
    "logsumexp": (case(lambda m, x: x - x.logsumexp(-1, keepdim=True)), "'logsumexp'", "along time", "other axes"),
    "sort": (case(lambda m, x: x.sort(dim=-1)[0]), "'sort'", "sorts or searches along time", "MaxPool1d"),
    "argsort": (case(lambda m, x: x.argsort(-1)), "sort'", "sorts or searches along time", "MaxPool1d"),
    "topk": (case(lambda m, x: x.topk(3, dim=-1)[0]), "'topk'", "sorts or searches along time", "MaxPool1d"),
    "argmax": (case(lambda m, x: x.argmax(-1)), "'argmax'", "searches along time", "MaxPool1d"),
    "median": (case(lambda m, x: x - x.median(-1, keepdim=True)[0]), "'median'", "along time", "MaxPool1d"),
    "group_norm": (case(lambda m, x: m.norm(x), norm=nn.GroupNorm(2, 4)), "group_norm'", "whole signal", "BatchNorm1d"),
    "instance_norm": (case(lambda m, x: F.instance_norm(x)), "_norm'", "statistics of the whole signal", "BatchNorm1d"),
    "layer_norm over both": (
        case(lambda m, x: F.layer_norm(x, x.shape[1:])),
        "layer_norm'",
        "statistics of the whole signal",
        "LayerNorm over",
    ),
    "attention": (Attention(), "'softmax'", "every query sees all keys", "context=pts.Context"),
    "scaled_dot_product_attention": (
        case(lambda m, x: F.scaled_dot_product_attention(x.mT, x.mT, x.mT)),
        "'scaled_dot_product_attention'",
        "every query sees all keys",
        "context=pts.Context",
    ),
    "gram over time": (case(lambda m, x: x @ x.mT), "'matmul'|'bmm'", "every sample to every other|over time", "bound"),
    "outer product of times": (
        case(lambda m, x: torch.einsum("bct,bcs->bts", x, x)),
        "'einsum'",
        "every sample has to do with every other",
        "return the outputs alone",
    ),
    "rnn": (BothWays(), "at 'gru'", "backward half begins at the end", "bidirectional=False"),
    "last sample": (case(lambda m, x: x[..., -1]), "'select'", "single samples", "outside the stream"),
    "first sample": (case(lambda m, x: x - x[..., 0:1]), "'sub'|'slice'", "single samples", "outside the stream"),
    "last samples": (
        case(lambda m, x: x[..., -5:]),
        "'slice'",
        "does not grow with it|single samples|left",
        "outside|constant",
    ),
    "first samples": (
        case(lambda m, x: x[..., :5]),
        "'slice'",
        "does not grow with it|single samples",
        "outside the stream",
    ),
    "first half": (
        case(lambda m, x: x[..., x.shape[-1] // 2 :]),
        "'slice'",
        "depends on the length",
        "constant amount",
    ),
    "length as a value": (case(lambda m, x: x * x.shape[-1]), "'mul'", "length of the whole signal", "constant"),
    "relative positions": (
        case(lambda m, x: x * torch.arange(x.shape[-1]) / x.shape[-1]),
        "'div'",
        "length of the whole signal",
        "constant",
    ),
    "linspace": (
        case(lambda m, x: x * torch.linspace(0, 1, x.shape[-1], dtype=x.dtype)),
        "",
        "length of the whole|exactly 36",
        "shape|size|samples",
    ),
    "mask of the end": (case(mask_of_the_end), "'lt'", "length of the whole signal", "constant"),
    "one after the other": (
        case(lambda m, x, y: torch.cat([x, y], -1), SIGNAL, SIGNAL),
        "",
        "after the other|do not follow",
        "another axis|ties",
    ),
    "twice": (case(lambda m, x: torch.cat([x, x], -1)), "'cat'", "after the other", "another axis"),
    "doubled": (case(lambda m, x: x.repeat(1, 1, 2)), "'repeat'", "after the other|parts", ""),
    "roll": (case(lambda m, x: x.roll(1, -1)), "'roll'", "end of the signal to its start", "F.pad"),
    "randn_like": (case(lambda m, x: x + torch.randn_like(x)), "'randn_like'", "random numbers", "another input"),
    "randn": (case(lambda m, x: x + torch.randn(x.shape, dtype=x.dtype)), "'randn'", "random numbers", "another input"),
    "rand of frames": (
        case(lambda m, x: x + torch.rand(1, dtype=x.dtype)),
        "'rand'",
        "random numbers",
        "another input",
    ),
    "functional dropout": (case(lambda m, x: F.dropout(x)), "dropout'", "random numbers", "eval"),
    "branch on the length": (case(odd), "", "for other lengths", "length_multiple="),
    "branch on long lengths": (case(long), "", "for other lengths", "without a branch"),
    "branch on values": (case(value_branch), "", "a branch by values", "torch.where"),
    "size from values": (case(value_size), "", "", "sizes independent|register a handler|MaxPool1d"),
    "nonzero": (case(by_places), "'nonzero'", "values|data", ""),
    "circular padding": (
        case(lambda m, x: F.pad(x, (1, 1), mode="circular")),
        "",
        "end of the signal before its start|circular",
        "",
    ),
    "circular convolution": (
        case(lambda m, x: m.conv(x) + x, conv=nn.Conv1d(4, 4, 3, padding=1, padding_mode="circular")),
        "",
        "circular|end of the signal",
        "",
    ),
    "adaptive pooling": (
        case(lambda m, x: F.adaptive_avg_pool1d(x, 1)),
        "'adaptive_avg_pool1d'|'mean'",
        "averages over time",
        "AvgPool1d",
    ),
    "adaptive pooling to 4": (
        case(lambda m, x: F.adaptive_avg_pool1d(x, 4)),
        "'adaptive_avg_pool1d'",
        "averages over time",
        "AvgPool1d",
    ),
    "adaptive maximum": (
        case(lambda m, x: F.adaptive_max_pool1d(x, 1)),
        "'adaptive_max_pool1d'",
        "along time",
        "MaxPool1d",
    ),
    "linear over time": (
        case(lambda m, x: F.linear(x, m.weight), weight=param(36, 36)),
        "",
        "one length|exactly 36",
        "",
    ),
    "constant as long as the example": (
        case(lambda m, x: x + m.long, long=normal(36)),
        "",
        "as long as the signal|exactly 36",
        "",
    ),
    "reversed slices": (
        case(lambda m, x: x[..., torch.arange(x.shape[-1] - 1, -1, -1)]),
        "'index'|'arange'",
        "positions|along time|length of the whole",
        "",
    ),
    "fft": (case(lambda m, x: torch.fft.rfft(x).abs()), "fft", "along time|whole signal", ""),
    "centre crop": (case(centre_crop), "'slice'", "depends on the length", "length_multiple="),
    "whole signal in parts": (
        case(lambda m, x: x.view(2, 4, 2, -1).transpose(1, 2).flatten(1, 2)),
        "view'|'reshape'",
        "parts",
        "next to time",
    ),
    "scatter in time": (
        case(lambda m, x: torch.zeros_like(x).scatter(2, x.argsort(1), x)),
        "'scatter'",
        "along time",
        "",
    ),
    "write to one sample": (
        case(lambda m, x: torch.cat([x]).index_fill_(2, torch.tensor([0]), 0.0)),
        "'index_fill'",
        "along time|single",
        "",
    ),
    "align_corners": (
        case(lambda m, x: F.interpolate(x, scale_factor=1.5, mode="linear", align_corners=True)),
        "'upsample_linear1d'",
        "total length",
        "align_corners=False",
    ),
    "size= fixed": (case(lambda m, x: F.interpolate(x, size=72)), "'upsample_nearest1d'|", "", ""),
    "area": (case(lambda m, x: F.interpolate(x, scale_factor=0.5, mode="area")), "'adaptive_avg_pool1d'", "", ""),
    "signal as weight": (
        case(lambda m, x, w: F.conv1d(x, w), SIGNAL, real(2, 4, 3)),
        "'conv1d'",
        "its weight depends on the input",
        "register a handler",
    ),
    "constant output": (
        case(lambda m, x: (x, m.weight * 2), weight=param(3)),
        "",
        "does not depend on time",
        "choose the other outputs with select=",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    found, operation, reason, remedy = REFUSED[name]
    if isinstance(found, nn.Module):
        model, inputs = found, (SIGNAL,)
    else:
        model, inputs = found.model(), found.inputs
    with pytest.raises(pts.UnsupportedModuleError) as caught:
        pts.create_stream(model.double(), **create_arguments(inputs, 36))
    message = str(caught.value)
    assert re.search(operation, message), message
    assert re.search(reason, caught.value.reason), message
    assert re.search(remedy, caught.value.remedy), message
    assert caught.value.remedy
    if operation.startswith("'"):
        assert re.search(r"\(at \w+\.py, line \d+: .+\)", message), message


def test_a_model_that_never_works_is_told_so():
    with pytest.raises(pts.StreamInputError, match="^example_fails: .*ValueError: step must be greater than zero"):
        pts.create_stream(case(lambda m, x: x[..., ::-1]).model(), example=torch.randn(1, 4, 36))


def test_a_refusal_names_the_place():
    with pytest.raises(pts.UnsupportedModuleError) as caught:
        pts.create_stream(Outer(), example=torch.randn(1, 4, 20))
    error = caught.value
    assert error.path == "blocks.1.1" and isinstance(error.module, Inner)
    assert "Inner at 'blocks.1.1' cannot be streamed: 'flip' (at test_refused_operations.py, line " in str(error)
    assert "return torch.flip(x, [-1])" in str(error)
