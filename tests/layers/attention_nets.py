"""Attention with a context in modules of torch, and how they are checked against the whole signal."""

import random
from typing import Any, Dict, List

import pytest
import torch
from torch import Tensor, nn

import torchstreamer as pts

__all__ = ["CONTEXTS", "biases", "check", "every_context", "layer", "mha", "pieces"]

CONTEXTS = {
    "window": pts.Context.window(6),
    "band": pts.Context(5, 3),
    "own key": pts.Context(0),
    "right beyond left": pts.Context(2, 7),
    "chunks": pts.Context.chunks(3, 2),
    "chunks alone": pts.Context(0, 0, 3),
    "right context": pts.Context.nemo([6, 4, 3], "chunked_limited_with_rc"),
    "longest": pts.Context(None, max_length=150),
}
every_context = pytest.mark.parametrize("name", list(CONTEXTS))


def mha(dtype: torch.dtype = torch.float64, **options: Any) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, **{"batch_first": True, **options})
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.5)
    return attention.to(dtype).eval()


def layer(dtype: torch.dtype = torch.float64, **options: Any) -> nn.TransformerEncoderLayer:
    torch.manual_seed(0)
    return nn.TransformerEncoderLayer(8, 2, 16, **{"batch_first": True, **options}).to(dtype).eval()


def pieces(stream: Any, x: Tensor, sizes: List[int], seed: int = 0) -> List[Tensor]:
    draw, given, n = random.Random(seed), [], 0
    while n < x.size(-1):
        t = min(draw.choice(sizes), x.size(-1) - n)
        y = stream(x[..., n : n + t])
        n += t
        given += [] if y is None else [y]
        assert sum(each.size(-1) for each in given) == stream.output_length(n, False)
    y = stream.flush()
    return given if y is None else [*given, y]


def check(
    net: nn.Module, lengths: Any = (1, 7, 40, 131), dtype: torch.dtype = torch.float64, whole: Any = None
) -> None:
    """Streams in chunks of 1, primes, and beyond the left context against the module on the whole."""
    tolerance = {torch.float64: 1e-10, torch.float32: 1e-5}.get(dtype, 2e-2)
    stream = pts.create_stream(net)
    with torch.no_grad():
        for length in lengths:
            x = torch.randn(2, 8, length, generator=torch.Generator().manual_seed(length)).to(dtype)
            expected = (whole or net)(x)
            for sizes in ([1], [7], [50], [0, 1, 2, 3, 11, 29]):
                y = torch.cat(pieces(stream, x, sizes), -1)
                assert y.shape == expected.shape and y.dtype == expected.dtype
                assert float((y - expected).abs().max() / expected.abs().max()) < tolerance


def biases() -> Dict[str, Any]:
    torch.manual_seed(1)
    alibi, t5, shaw, xl = pts.AlibiBias(2), pts.T5Bias(2, 8, 16), pts.ShawBias(4, 3), pts.TransformerXLBias(8, 2, 4)
    for bias in (t5, xl):
        for parameter in bias.parameters():
            nn.init.normal_(parameter, std=0.5 if bias is t5 else 0.2)
    return {name: bias.double() for name, bias in [("alibi", alibi), ("t5", t5), ("shaw", shaw), ("xl", xl)]}
