"""Masks of exported models: proved, with the pattern that they are, or refused."""

import math
from functools import cache
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from torchstreamer.core.context import Pattern
from torchstreamer.graph.answers import Answer
from torchstreamer.graph.capture import capture
from torchstreamer.graph.masks import Board, Hidden, MaskError, Masks
from torchstreamer.graph.values import Static
from torchstreamer.graph.weights import Weights

Make = Callable[[Any, Tensor], Tensor]


class Masked(nn.Module):
    """Attention with masks that functions make, [B, T, C]."""

    def __init__(self, makes: Sequence[Make]) -> None:
        super().__init__()
        self.makes = makes
        tril = torch.ones(64, 64, dtype=torch.bool).tril()
        self.register_buffer("tril", tril)
        self.register_buffer("upper", torch.full((1, 1, 64, 64), -math.inf).triu(1))
        self.register_buffer("banded", tril.triu(-3))
        self.register_buffer("odd", torch.rand(64, 64) > 0.5)
        self.register_buffer("ids", torch.arange(512)[None])
        self.register_buffer("five", torch.tensor(5))
        self.bias = nn.Embedding(32, 2)

    def forward(self, x: Tensor) -> List[Tensor]:
        q = x.unflatten(-1, (2, -1)).transpose(1, 2)
        return [F.scaled_dot_product_attention(q, q, q, attn_mask=make(self, x)) for make in self.makes]


class Boards:
    """The masks of a captured model, by name."""

    def __init__(self, makes: Dict[str, Make]) -> None:
        net = Masked(list(makes.values())).eval()
        found = capture(net, [torch.randn(2, 24, 8)], [1], 1, True, Answer(net))
        nodes = found.graph.nodes
        calls = [node for node in nodes if "scaled_dot" in str(node.target)]
        self.boards = {name: Board(call.args[3], None) for name, call in zip(makes, calls, strict=True)}
        given = {node: node.name not in found.tensors for node in nodes if node.op == "placeholder"}
        places = {node: Static(node, None, not each, each, False) for node, each in given.items()}
        self.masks = Masks(Weights(found), places)

    def pattern(self, name: str, sense: str = "") -> Tuple[Pattern, Optional[int]]:
        board = self.boards[name]
        value = board.node.meta["val"]
        sense = sense or ("seen" if value.dtype == torch.bool else "add")
        return self.masks.pattern([Hidden(board, sense)], value.shape[-1])


def arange(x: Tensor, **options: Any) -> Tensor:
    return torch.arange(x.shape[1], **options)


def of_places(make: Callable[[Tensor, Tensor], Tensor], **options: Any) -> Make:
    return lambda net, x: make(arange(x, **options)[:, None], arange(x, **options)[None])


def square(x: Tensor, value: Any = True, dtype: Optional[torch.dtype] = None) -> Tensor:
    return torch.full((x.shape[1], x.shape[1]), value, dtype=dtype)


def nemo_chunked(left: int, right: int) -> Make:
    def make(net: Any, x: Tensor) -> Tensor:
        t, size = x.shape[1], right + 1
        mask = torch.ones(1, t, t, dtype=torch.bool)
        chunk = torch.div(torch.arange(0, t, dtype=torch.int), size, rounding_mode="trunc")
        apart = chunk.unsqueeze(1) - chunk.unsqueeze(0)
        seen = torch.logical_and(torch.le(apart, left // size), torch.ge(apart, 0))
        return torch.logical_and(mask, seen.unsqueeze(0)).unsqueeze(1)

    return make


def nemo_rc(left: int, chunk: int, right: int, bound: int = 1) -> Make:
    def make(net: Any, x: Tensor) -> Tensor:
        t = x.shape[1]
        i = torch.arange(0, t, dtype=torch.int)
        begin = torch.div(i, chunk, rounding_mode="trunc") * chunk
        first = begin - left
        first = torch.maximum(first, torch.zeros_like(first))
        last = begin + chunk - 1 + right
        last = torch.minimum(last, torch.full_like(last, t - bound))
        return torch.logical_and(i.unsqueeze(0) >= first.unsqueeze(1), i.unsqueeze(0) <= last.unsqueeze(1))

    return make


def speechbrain(chunk: int, left: int) -> Make:
    def make(net: Any, x: Tensor) -> Tensor:
        t = x.shape[1]
        timesteps = torch.arange(t)
        last = torch.arange(chunk, chunk * (t // chunk + 2), chunk).repeat_interleave(chunk)[:t]
        masked = timesteps[None] >= last[:, None]
        first = last - chunk * (left + 1)
        return ~(masked + (timesteps[None] < first[:, None]))

    return make


def zipformer(chunk: int, left: int) -> Make:
    def make(net: Any, x: Tensor) -> Tensor:
        c = arange(x, dtype=torch.int32) // chunk
        return ~torch.logical_or(c > c.unsqueeze(-1), c < c.unsqueeze(-1) - left)

    return make


def of_bias(make: Callable[[Tensor, Tensor], Tensor]) -> Make:
    """Of a mask that is added."""

    def masked(net: Any, x: Tensor) -> Tensor:
        seen = make(arange(x)[:, None], arange(x)[None])
        return torch.zeros(x.shape[1], x.shape[1]).masked_fill(~seen, -math.inf)

    return masked


def t5(net: Any, x: Tensor) -> Tensor:
    i, j = arange(x)[:, None], arange(x)[None]
    back = -torch.min(j - i, torch.zeros_like(j - i))
    large = 8 + (torch.log(back.float() / 8) / math.log(16) * 8).to(torch.long)
    large = torch.min(large, torch.full_like(large, 15))
    bias = net.bias(torch.where(back < 8, back, large)).permute(2, 0, 1).unsqueeze(0)
    return bias + torch.full((x.shape[1], x.shape[1]), -math.inf).triu(1) + of_bias(lambda i, j: i - j < 20)(net, x)


def band(i: Tensor, j: Tensor) -> Tensor:
    return (i - j <= 5) & (j - i <= 2)


def chunk(i: Tensor, j: Tensor) -> Tensor:
    return (j // 4 <= i // 4) & (j // 4 >= i // 4 - 2)


def packed(net: Any, x: Tensor) -> Tensor:
    """As transformers finds sequences that are packed into one, where there are none."""
    ids = arange(x)[None]
    part = (torch.diff(ids, prepend=ids[:, :1] - 1, dim=-1) != 1).cumsum(-1)
    i, j, row = arange(x)[:, None], arange(x)[None], torch.zeros(1, 1, dtype=torch.int64)
    ids = ids.expand(3, -1)
    return band(ids[row, i], ids[row, j]) & (part[row, i] == part[row, j])


def counted(net: Any, x: Tensor) -> Tensor:
    """With positions that are counted in a mask of ones."""
    ids = torch.ones(1, x.shape[1], dtype=torch.int64).cumsum(-1) - 1
    return band(ids.mT, ids)


def sequences(net: Any, x: Tensor) -> Tensor:
    """Packed sequences of eight."""
    part = (torch.diff(arange(x) % 8, prepend=arange(x)[:1] - 1) != 1).cumsum(-1)
    return band(arange(x)[:, None], arange(x)[None]) & (part[:, None] == part[None])


Expected = Callable[[Tensor, Tensor], Tensor]
PROVED: Dict[str, Tuple[Make, Expected]] = {
    "triu and tril of ones": (lambda net, x: square(x).triu(-5).tril(2), band),
    "triu of ones, both, over heads": (lambda net, x: square(x)[None].triu(-5).tril(2)[None], band),
    "-inf above and below": (lambda net, x: square(x, -math.inf).triu(3) + square(x, -math.inf).tril(-6), band),
    "band": (of_places(band), band),
    "band of int32": (of_places(band, dtype=torch.int32), band),
    "band of float32": (of_places(band, dtype=torch.float32), band),
    "band, added": (of_bias(band), band),
    "band by abs": (of_places(lambda i, j: ((i - j).abs() <= 5) & (j - i <= 2)), band),
    "band by where": (of_places(lambda i, j: torch.where(i - j <= 5, j - i <= 2, False)), band),
    "band, not masked": (of_places(lambda i, j: ~((i - j > 5) | (j - i > 2))), band),
    "band, transposed": (of_places(lambda i, j: (j - i <= 5).T & (i - j <= 2).T if j.dim() == 1 else band(i, j)), band),
    "band, really transposed": (lambda net, x: of_places(band)(net, x).transpose(0, 1), lambda i, j: band(j, i)),
    "band from ids": (lambda net, x: band(net.ids[:, : x.shape[1]].T, net.ids[:, : x.shape[1]]), band),
    "band times a constant": (of_places(lambda i, j: (2 * i - 2 * j <= 11) & (3 * j - i * 3 < 9)), band),
    "band counted from the end": (
        lambda net, x: (
            ((x.shape[1] - 1 - arange(x)[None]) - (x.shape[1] - 1 - arange(x)[:, None]) <= 5)
            & of_places(lambda i, j: j <= i)(net, x)
        ),
        lambda i, j: (i - j <= 5) & (j <= i),
    ),
    "moshi": (of_places(lambda i, j: (i - j >= 0) & (i - j < 6)), lambda i, j: (j <= i) & (i - j < 6)),
    "Mistral": (
        of_places(lambda i, j: (j <= i) & (j > i - 6)),
        lambda i, j: (j <= i) & (i - j < 6),
    ),
    "Moonshine": (
        of_places(lambda i, j: ((i - j >= 0) & (i - j < 6)) | ((i - j < 0) & (j - i < 3))),
        lambda i, j: (i - j < 6) & (j - i < 3),
    ),
    "every other": (
        of_places(lambda i, j: ((i - j) % 2 == 0) & (j <= i) & (i - j < 9)),
        lambda i, j: ((i - j) % 2 == 0) & (j <= i) & (i - j < 9),
    ),
    "chunks": (of_places(chunk), chunk),
    "chunks by div": (
        of_places(
            lambda i, j: (torch.div(i, 4, rounding_mode="floor") - torch.div(j, 4, rounding_mode="floor")).abs() <= 1
        ),
        lambda i, j: (i // 4 - j // 4).abs() <= 1,
    ),
    "chunks by a rounded quotient": (
        of_places(lambda i, j: ((j / 3).floor() <= (i / 3).floor()) & ((j / 3).floor() >= (i / 3).floor() - 2)),
        lambda i, j: (j // 3 <= i // 3) & (j // 3 >= i // 3 - 2),
    ),
    "chunks by a remainder": (
        of_places(lambda i, j: (j >= i - i % 4 - 8) & (j < i - i % 4 + 4)),
        chunk,
    ),
    "chunks of two sizes": (
        of_places(lambda i, j: (j // 4 <= i // 4) & (j // 6 <= i // 6) & (j // 4 >= i // 4 - 1)),
        lambda i, j: (j // 4 <= i // 4) & (j // 6 <= i // 6) & (j // 4 >= i // 4 - 1),
    ),
    "chunks, whole ones on one side": (
        of_places(lambda i, j: (j // 4 <= i // 4) & (j >= i - 6)),
        lambda i, j: (j // 4 <= i // 4) & (j >= i - 6),
    ),
    "NeMo regular": (
        lambda net, x: torch.ones(1, x.shape[1], x.shape[1], dtype=torch.bool).triu(diagonal=-5).tril(diagonal=2),
        band,
    ),
    "NeMo chunked_limited": (nemo_chunked(8, 3), chunk),
    "NeMo chunked_limited_with_rc": (
        nemo_rc(6, 4, 3),
        lambda i, j: (j >= i // 4 * 4 - 6) & (j <= i // 4 * 4 + 3 + 3),
    ),
    "NeMo, clamped": (
        of_places(lambda i, j: (j >= (i // 4 * 4 - 8).clamp(min=0)) & (j <= i // 4 * 4 + 3)),
        chunk,
    ),
    "SpeechBrain": (speechbrain(4, 2), chunk),
    "Zipformer": (zipformer(4, 2), chunk),
    "sinks": (
        of_places(lambda i, j: ((j < 4) | (i - j <= 5)) & (j <= i)),
        lambda i, j: ((j < 4) | (i - j <= 5)) & (j <= i),
    ),
    "sinks of chunks": (
        of_places(lambda i, j: ((j <= 1) | (j // 4 >= i // 4 - 1)) & (j // 4 <= i // 4)),
        lambda i, j: ((j <= 1) | (j // 4 >= i // 4 - 1)) & (j // 4 <= i // 4),
    ),
    "ALiBi": (
        of_places(lambda i, j: torch.where((j <= i) & (j > i - 9), (j - i).float() * 0.5, -math.inf)),
        lambda i, j: (j <= i) & (i - j < 9),
    ),
    "T5": (t5, lambda i, j: (j <= i) & (i - j < 20)),
    "by a large number": (
        lambda net, x: (1 - of_places(band)(net, x).float()) * -1e4,
        band,
    ),
    "by the least number": (
        lambda net, x: torch.zeros(x.shape[1], x.shape[1]).masked_fill(
            ~of_places(band)(net, x), torch.finfo(x.dtype).min
        ),
        band,
    ),
    "inside the signal": (of_places(lambda i, j: (i - j <= 5) & (j - i <= 2) & (j >= 0)), band),
    "before its end": (
        lambda net, x: of_places(band)(net, x) & (arange(x) < x.shape[1])[None],
        band,
    ),
    "by a constant of the model": (
        lambda net, x: of_places(lambda i, j: (i - j <= net.five) & (j - i <= 2))(net, x),
        band,
    ),
    "a buffer": (lambda net, x: net.banded[: x.shape[1], : x.shape[1]], lambda i, j: (j <= i) & (i - j <= 3)),
    "a long buffer": (lambda net, x: net.tril[: x.shape[1], : x.shape[1]], lambda i, j: (j <= i) & (i - j < 64)),
    "a buffer, added": (
        lambda net, x: net.upper[..., : x.shape[1], : x.shape[1]],
        lambda i, j: (j <= i) & (i - j < 64),
    ),
    "for every row": (
        lambda net, x: of_places(band)(net, x)[None, None].expand(x.shape[0], 1, -1, -1),
        band,
    ),
    "of one sequence": (packed, band),
    "counted in ones": (counted, band),
    "its own key at least": (of_places(lambda i, j: i == j), lambda i, j: i == j),
}

REFUSED: Dict[str, Tuple[Make, str]] = {
    "half of the signal": (lambda net, x: arange(x)[None] < x.shape[1] // 2 + 0 * arange(x)[:, None], "mask_length"),
    "the last keys": (
        lambda net, x: (arange(x)[None] >= x.shape[1] - 4) | (arange(x)[None] <= arange(x)[:, None]),
        "mask_length",
    ),
    "the first queries": (of_places(lambda i, j: (i < 100) & (j <= i) & (i - j < 9)), "mask_length"),
    "clamped before the end": (nemo_rc(6, 4, 3, 5), "mask_length"),
    "clamped after the start": (
        of_places(lambda i, j: (j >= (i - 6).clamp(min=2)) & (j <= i)),
        "mask_length",
    ),
    "a rounded quotient": (of_places(lambda i, j: (i / 3 - j / 3 <= 1) & (j <= i)), "mask_length"),
    "truncated below zero": (
        of_places(lambda i, j: (torch.div(i - 5, 4, rounding_mode="trunc") <= j // 4) & (j <= i)),
        "mask_length",
    ),
    "a triangle as wide as the signal": (lambda net, x: square(x).triu(-(x.shape[1] // 2)).tril(), "mask_length"),
    "the length in chunks": (of_places(lambda i, j: (j // 4 <= i // 4) & (j >= i - j)), "mask_length"),
    "sinks for queries": (
        of_places(lambda i, j: ((i < 4) | (i - j <= 5)) & (j <= i) & (i - j <= 20)),
        "mask_length",
    ),
    "two kinds of sinks": (
        of_places(lambda i, j: ((j < 4) | (j < 7) & (i - j < 9) | (i - j <= 5)) & (j <= i)),
        "mask_length",
    ),
    "the middle": (lambda net, x: (arange(x)[None] - x.shape[1] // 2).abs() <= arange(x)[:, None], "mask_length"),
    "values": (lambda net, x: of_places(band)(net, x) & (x.sum(-1)[:, None, None] > 0), "mask_data"),
    "causal": (lambda net, x: square(x).tril(), "unbounded_context"),
    "causal, added": (lambda net, x: square(x, -math.inf).triu(1), "unbounded_context"),
    "everything": (lambda net, x: square(x), "unbounded_context"),
    "look-ahead without end": (of_places(lambda i, j: i - j <= 5), "unbounded_context"),
    "nothing": (of_places(lambda i, j: i - j > j - i + 2000000 + i - i + j - j), "unbounded_context"),
    "a large number, own key hidden": (
        lambda net, x: (1 - of_places(lambda i, j: (j < i) & (i - j < 5))(net, x).float()) * -1e4,
        "mask_finite",
    ),
    "a buffer of chance": (lambda net, x: net.odd[: x.shape[1], : x.shape[1]], "mask_length"),
    "bfloat16 places": (of_places(lambda i, j: (i - j >= 0) & (i - j < 6), dtype=torch.bfloat16), "mask_length"),
    "sequences of eight": (sequences, "mask_length"),
    "places looked up from the end": (
        lambda net, x: band(arange(x)[arange(x) - 3][:, None], arange(x)[None]),
        "mask_length",
    ),
    "a product of places": (of_places(lambda i, j: i * j >= 0), "mask_length"),
}


@cache
def boards() -> Boards:
    """All of them, exported once."""
    turned = of_places(lambda i, j: ~band(i, j))
    return Boards({**{name: make for name, (make, _) in {**PROVED, **REFUSED}.items()}, "turned": turned})


@pytest.mark.parametrize("name", PROVED)
def test_proved(name: str) -> None:
    _, expected = PROVED[name]
    pattern, limit = boards().pattern(name)
    assert limit == {"a buffer": 64, "a long buffer": 64, "a buffer, added": 64, "band from ids": 512}.get(name)
    place = torch.arange(64 if limit == 64 else 97)
    assert torch.equal(pattern.mask(len(place)), expected(place[:, None], place[None]))


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    _, code = REFUSED[name]
    with pytest.raises(MaskError) as caught:
        boards().pattern(name)
    assert caught.value.code == code, caught.value.reason


def test_the_other_polarity() -> None:
    pattern, _ = boards().pattern("turned", "masked")
    place = torch.arange(50)
    assert torch.equal(pattern.mask(50), band(place[:, None], place[None]))
