"""Attention inside captured models: the stream against the model, in pieces of any size and in static rows."""

import copy
import math
import pickle
import sys
from pathlib import Path
from typing import Any, Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.analysis import receptive_field
from torchstreamer.graph.relations import RelationNode
from torchstreamer.layers.attention_memory import AttentionMemory
from torchstreamer.testing.live_rows import LiveRows

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from gemma_audio import GemmaAudioAttention
from moshi_transformer import MoshiTransformer
from realtime_encoders import MoonshineEncoder, VoxtralEncoder
from streaming_conformers import ChunkConformer, FastConformer
from wenet_conformer import WeNetConformer
from zipformer import Zipformer

Places = Callable[[Tensor, Tensor], Tensor]


def band(i: Tensor, j: Tensor) -> Tensor:
    return (i - j <= 5) & (j - i <= 2)


def causal(i: Tensor, j: Tensor) -> Tensor:
    return (i - j <= 4) & (j <= i)


def chunk(i: Tensor, j: Tensor) -> Tensor:
    return (j // 4 <= i // 4) & (j // 4 >= i // 4 - 2)


def sinks(i: Tensor, j: Tensor) -> Tensor:
    return ((j < 3) | (i - j <= 5)) & (j <= i)


class Attention(nn.Module):
    """Two heads over [B, 4, T], computed by a function."""

    def __init__(self, attend: Callable[..., Tensor], seen: Places = band) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(4, 24), nn.Linear(8, 4)
        self.attend, self.seen = attend, seen
        self.bias = nn.Embedding(16, 2)
        self.register_buffer("table", torch.ones(60, 60, dtype=torch.bool).tril().triu(-7))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.unflatten(-1, (2, -1)).transpose(1, 2) for part in self.qkv(x.mT).chunk(3, -1))
        i = torch.arange(x.shape[-1], device=x.device)
        y = self.attend(self, q, k, v, i[:, None], i[None], self.seen(i[:, None], i[None]))
        return self.out(y.transpose(1, 2).flatten(2)).mT


def added(seen: Tensor, like: Tensor) -> Tensor:
    return torch.zeros(seen.shape, dtype=like.dtype).masked_fill(~seen, -math.inf)


def by_hand(net: Any, q: Tensor, k: Tensor, v: Tensor, i: Tensor, j: Tensor, seen: Tensor) -> Tensor:
    return (q @ k.mT / 2).masked_fill(~seen, -math.inf).softmax(-1) @ v


def t5(net: Any, q: Tensor, k: Tensor, v: Tensor, i: Tensor, j: Tensor, seen: Tensor) -> Tensor:
    bias = net.bias((j - i).clamp(-7, 7) + 8).permute(2, 0, 1)
    return F.scaled_dot_product_attention(q, k, v, bias.masked_fill(~seen, -math.inf))


def alibi_of(like: Tensor, i: Tensor, j: Tensor) -> Tensor:
    return -(i - j).abs() * torch.tensor([0.5, 0.25], dtype=like.dtype)[:, None, None]


def alibi(net: Any, q: Tensor, k: Tensor, v: Tensor, i: Tensor, j: Tensor, seen: Tensor) -> Tensor:
    return (q @ k.mT + alibi_of(q, i, j) + added(seen, q)).softmax(-1) @ v


def einsum(net: Any, q: Tensor, k: Tensor, v: Tensor, i: Tensor, j: Tensor, seen: Tensor) -> Tensor:
    weights = torch.where(seen, torch.einsum("bhid,bhjd->bhij", q, k), -math.inf).softmax(-1)
    return torch.einsum("bhij,bhjd->bhid", weights.masked_fill(~seen, 0.0), v)


def decayed(net: Any, q: Tensor, k: Tensor, v: Tensor, i: Tensor, j: Tensor, seen: Tensor) -> Tensor:
    # Retention: no softmax, products with a decay that is 0 where nothing is seen.
    decay = torch.where(seen, 0.9 ** (i - j).abs().to(q.dtype), 0.0)
    return (q @ k.mT * decay) @ v


def shared(net: Any, q: Tensor, k: Tensor, v: Tensor, i: Tensor, j: Tensor, seen: Tensor) -> Tensor:
    weights = (q @ k.mT + added(seen, q)).softmax(-1)
    return weights @ torch.tanh(weights @ v)


def ruled(net: Any, q: Tensor, k: Tensor, v: Tensor, i: Tensor, j: Tensor, seen: Tensor) -> Tensor:
    # A bias that repeats itself after 6 samples, the mask after 1 or 4.
    return (q @ k.mT + (i % 6).to(q.dtype) * (j % 3).to(q.dtype) / 4 + added(seen, q)).softmax(-1) @ v


def folded(net: Any, q: Tensor, k: Tensor, v: Tensor, i: Tensor, j: Tensor, seen: Tensor) -> Tensor:
    one, two, three = (x.reshape(-1, x.shape[2], x.shape[3]) for x in (q, k, v))
    weights = torch.baddbmm(added(seen, q)[None], one, two.mT).softmax(-1)
    return torch.bmm(weights, three).view(q.shape)


def biased(net: Any, q: Tensor, k: Tensor, v: Tensor, i: Tensor, j: Tensor, seen: Tensor) -> Tensor:
    # Biases that go on changing with the distance, by operations of many kinds, one of them before the mask.
    scores = alibi_of(q, i, j) + net.bias.weight[((i - j) // 6).clamp(0, 15)].permute(2, 0, 1) + q @ k.mT
    scores = (scores + 0.3 * torch.ones(q.shape[2], q.shape[2], dtype=q.dtype).tril(-9)) * (1 / (1 + (i - j).abs()))
    return (scores + (i - j - 5).clamp(min=0) / 9 + added(seen, q)).softmax(-1) @ v


ATTENDS: dict[str, tuple[Callable[..., Tensor], Places]] = {
    "fused": (lambda net, q, k, v, i, j, seen: F.scaled_dot_product_attention(q, k, v, seen), band),
    "fused, chunks": (lambda net, q, k, v, i, j, seen: F.scaled_dot_product_attention(q, k, v, seen), chunk),
    "fused, added": (lambda net, q, k, v, i, j, seen: F.scaled_dot_product_attention(q, k, v, added(seen, q)), causal),
    "fused, scaled": (lambda net, q, k, v, i, j, seen: F.scaled_dot_product_attention(q, k, v, seen, scale=1.0), band),
    "grouped": (
        lambda net, q, k, v, i, j, seen: F.scaled_dot_product_attention(q, k[:, :1], v[:, :1], seen, enable_gqa=True),
        causal,
    ),
    "table": (
        lambda net, q, k, v, i, j, seen: F.scaled_dot_product_attention(q, k, v, net.table[: q.shape[2], : q.shape[2]]),
        band,
    ),
    "by hand": (by_hand, sinks),
    "by hand, chunks": (by_hand, chunk),
    "by a large number": (
        lambda net, q, k, v, i, j, seen: (q @ k.mT).masked_fill(~seen, -1e9).softmax(-1) @ v,
        band,
    ),
    "soft cap": (
        lambda net, q, k, v, i, j, seen: (5 * torch.tanh(q @ k.mT / 5) + added(seen, q)).softmax(-1) @ v,
        causal,
    ),
    "T5": (t5, chunk),
    "ALiBi": (alibi, band),
    "einsum": (einsum, band),
    "retention": (decayed, causal),
    "shared": (shared, band),
    "a longer period": (ruled, band),
    "a longer period, every other": (ruled, lambda i, j: band(i, j) & ((i - j) % 2 == 0)),
    "folded": (folded, chunk),
    "T5, the first keys": (t5, sinks),
    "biases of the first keys": (biased, sinks),
}


def joined(stream: pts.BaseStream, x: Tensor, size: int) -> Tensor:
    pieces = [stream(part) for part in x.split(size, -1)] + [stream.flush()]
    return torch.cat([piece for piece in pieces if piece is not None], -1)


def check(net: nn.Module, x: Tensor, stream: pts.BaseStream, sizes: tuple[int, ...] = (1, 7, 40)) -> None:
    with torch.no_grad():
        y = net(x)
        for size in sizes:
            torch.testing.assert_close(joined(stream, x, size), y, rtol=0, atol=1e-10)


@pytest.mark.sample(every=2, rest=2)
@pytest.mark.parametrize("name", ATTENDS)
def test_attention(name: str) -> None:
    torch.manual_seed(0)
    attend, seen = ATTENDS[name]
    net = Attention(attend, seen).double().eval()
    x = torch.randn(2, 4, 53, dtype=torch.float64)
    stream = pts.create_stream(net, example=x[:1, :, :30])
    check(net, x, stream)
    with torch.no_grad():
        first = joined(stream, x[:1], 9)
    for twin in (copy.deepcopy(stream), pickle.loads(pickle.dumps(stream)), torch.jit.script(stream)):
        with torch.no_grad():
            torch.testing.assert_close(joined(twin, x[:1], 11), first, rtol=0, atol=1e-12)


def test_prompt() -> None:
    net = Attention(by_hand, chunk).double().eval()
    stream = pts.create_stream(net, example=torch.randn(1, 4, 30, dtype=torch.float64))
    assert stream.hop == 4
    assert [stream.output_length(n, False) for n in (3, 4, 7, 8)] == [0, 4, 4, 8]
    assert [stream.output_length(n, True) for n in (3, 4, 7, 8)] == [3, 4, 7, 8]
    assert (
        pts.create_stream(
            Attention(by_hand, band).double().eval(), example=torch.randn(1, 4, 30, dtype=torch.float64)
        ).output_length(30, False)
        == 28
    )


def test_the_memory_does_not_grow() -> None:
    net = Attention(alibi, band).double().eval()
    stream = pts.create_stream(net, example=torch.randn(1, 4, 30, dtype=torch.float64))
    sizes = []
    with torch.no_grad():
        for turn in range(400):
            stream(torch.randn(1, 4, 3, dtype=torch.float64))
            if turn in (20, 399):
                sizes.append(stream.state_nbytes())
    assert sizes[0] == sizes[1]


def test_a_bias_follows_its_weights() -> None:
    net = Attention(t5, causal).double().eval()
    x = torch.randn(1, 4, 30, dtype=torch.float64)
    stream = pts.create_stream(net, example=x)
    check(net, x, stream)
    with torch.no_grad():
        net.bias.weight.mul_(-2)
    check(net, x, stream)


# ---------------------------------------------------------------------- torch's own layers


class Torch(nn.Module):
    """torch's attention and encoder layers, [B, 8, T]."""

    def __init__(self, inner: nn.Module, first: bool, **options: Any) -> None:
        super().__init__()
        self.inner, self.first, self.options = inner, first, options

    def forward(self, x: Tensor) -> Tensor:
        x = x.mT if self.first else x.permute(2, 0, 1)
        i = torch.arange(x.shape[1 if self.first else 0])
        masked = ~causal(i[:, None], i[None])
        if isinstance(self.inner, nn.MultiheadAttention):
            y = self.inner(x, x, x, attn_mask=masked, **self.options)[0]
        else:
            y = self.inner(x, masked, **self.options)
        return y.mT if self.first else y.permute(1, 2, 0)


@pytest.mark.sample(every=2, rest=2)
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", ["attention", "attention with weights", "layer", "encoder"])
def test_layers_of_torch(kind: str, first: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=first, norm_first=True)
    attention = nn.MultiheadAttention(8, 2, batch_first=first)
    net = {
        "attention": Torch(attention, first, need_weights=False),
        "attention with weights": Torch(attention, first),
        "layer": Torch(layer, first),
        "encoder": Torch(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), first),
    }[kind]
    net = net.double().eval()
    x = torch.randn(2, 8, 41, dtype=torch.float64)
    check(net, x, pts.create_stream(net, example=x[:1, :, :30]), (3,))


class Hinted(nn.Module):
    """An attention whose mask comes with a hint."""

    def __init__(self, seen: Places) -> None:
        super().__init__()
        self.inner, self.seen = nn.MultiheadAttention(8, 2, batch_first=True), seen

    def forward(self, x: Tensor) -> Tensor:
        x = x.mT
        i = torch.arange(x.shape[1])
        masked = ~self.seen(i[:, None], i[None])
        return self.inner(x, x, x, attn_mask=masked, is_causal=True, need_weights=False)[0].mT


@pytest.mark.parametrize(
    ("seen", "code"), [(causal, "mask_and_hint"), (band, "mask_and_hint"), (lambda i, j: j <= i, "unbounded_context")]
)
def test_a_hint_that_is_not_true(seen: Places, code: str) -> None:
    with pytest.raises(pts.UnsupportedModuleError) as caught:
        pts.create_stream(Hinted(seen).eval(), example=torch.randn(1, 8, 30))
    assert caught.value.code == code, str(caught.value)


class Returned(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mha = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: Tensor, padding: Any = None) -> Any:
        i = torch.arange(x.shape[-1])
        found = self.mha(x.mT, x.mT, x.mT, attn_mask=~causal(i[:, None], i[None]), key_padding_mask=padding)
        return found if padding is None else found[0].mT


def test_what_is_refused() -> None:
    x = torch.randn(1, 8, 30)
    for inputs, code in (((x,), "attention_weights"), ((x, torch.zeros(1, 30, dtype=torch.bool)), "mask_data")):
        with pytest.raises(pts.UnsupportedModuleError) as caught:
            pts.create_stream(Returned().eval(), example=inputs)
        assert caught.value.code == code
    refused = {
        "mask_length": lambda net, q, k, v, i, j, seen: F.scaled_dot_product_attention(
            q, k, v, seen & (j < q.shape[2] // 2 + 9)
        ),
        "mask_data": lambda net, q, k, v, i, j, seen: F.scaled_dot_product_attention(q, k, v, seen & (q[..., :1] > 0)),
        "unbounded_context": lambda net, q, k, v, i, j, seen: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        "mask_finite": lambda net, q, k, v, i, j, seen: (q @ k.mT).masked_fill(~(seen & (i > j)), -1e4).softmax(-1) @ v,
        "attention_layout": lambda net, q, k, v, i, j, seen: (q @ k.mT).masked_fill(~seen, 0.0).cumsum(-1) @ v,
    }
    for code, attend in refused.items():
        with pytest.raises(pts.UnsupportedModuleError) as caught:
            pts.create_stream(Attention(attend, causal).eval(), example=torch.randn(1, 4, 30))
        assert caught.value.code == code, str(caught.value)

    def stepped(net: Any, q: Tensor, k: Tensor, v: Tensor, i: Tensor, j: Tensor, seen: Tensor) -> Tensor:
        place = torch.arange(q.shape[2] // 4 + 1).repeat_interleave(4)[: q.shape[2]]
        return (q @ k.mT + (place - place[:, None]) + added(seen, q)).softmax(-1) @ v

    with pytest.raises(pts.UnsupportedModuleError, match="^attention_layout: .* 'repeat_interleave' needs the whole"):
        pts.create_stream(Attention(stepped, sinks).eval(), example=x[:, :4])


# ---------------------------------------------------------------------- contexts and tables that end


@pytest.mark.parametrize("context", [pts.Context(5, 2), pts.Context.chunks(4, 1), pts.Context(6, 3, 4)])
def test_a_context_for_what_sees_everything(context: pts.Context) -> None:
    torch.manual_seed(0)

    def whole(net: Any, q: Tensor, k: Tensor, v: Tensor, i: Tensor, j: Tensor, seen: Tensor) -> Tensor:
        return (q @ k.mT).softmax(-1) @ v

    def bounded(net: Any, q: Tensor, k: Tensor, v: Tensor, i: Tensor, j: Tensor, seen: Tensor) -> Tensor:
        return (q @ k.mT).masked_fill(~context.mask(q.shape[2]), -math.inf).softmax(-1) @ v

    net = Attention(whole).double().eval()
    x = torch.randn(2, 4, 47, dtype=torch.float64)
    stream = pts.create_stream(net, example=x[:1, :, :30], context=context)
    net.attend = bounded
    check(net, x, stream)


def test_a_signal_longer_than_the_table() -> None:
    net = Attention(ATTENDS["table"][0], band).double().eval()
    x = torch.randn(1, 4, 60, dtype=torch.float64)
    stream = pts.create_stream(net, example=x[..., :30])
    check(net, x, stream, (7,))
    with torch.no_grad():
        y = [stream(x[..., :57])]
        with pytest.raises(pts.StreamInputError, match="signal_too_long: a chunk of 4 samples came after 57"):
            stream(torch.randn(1, 4, 4, dtype=torch.float64))
        y += [stream(x[..., 57:], final=True)]
        torch.testing.assert_close(torch.cat([piece for piece in y if piece is not None], -1), net(x))


class Placed(nn.Module):
    """Positions of many kinds in front of an attention, [B, 8, T]."""

    def __init__(self, kind: str, seen: Places = causal) -> None:
        super().__init__()
        self.kind, self.seen = kind, seen
        self.inner = nn.MultiheadAttention(8, 2, batch_first=True)
        self.learned = nn.Embedding(60, 8)
        self.given = nn.Parameter(torch.randn(1, 60, 8))
        self.register_buffer("sines", torch.randn(60, 1, 8))
        self.register_buffer("ids", torch.arange(60)[None])

    def forward(self, x: Tensor) -> Tensor:
        x, t = x.mT, x.shape[-1]
        if self.kind == "embedding":
            x = x + self.learned(torch.arange(t))
        elif self.kind == "ids":
            x = x + self.learned(self.ids[:, :t])
        elif self.kind == "parameter":
            x = x + self.given[:, :t]
        elif self.kind == "time first":
            x = (x.transpose(0, 1) + self.sines[:t]).transpose(0, 1)
        i = torch.arange(t)
        return self.inner(x, x, x, attn_mask=~self.seen(i[:, None], i[None]), need_weights=False)[0].mT


@pytest.mark.parametrize("kind", ["embedding", "ids", "parameter", "time first"])
def test_positions_that_end(kind: str) -> None:
    torch.manual_seed(0)
    net = Placed(kind).double().eval()
    x = torch.randn(2, 8, 60, dtype=torch.float64)
    stream = pts.create_stream(net, example=x[:1, :, :30])
    check(net, x, stream, (7,))
    with pytest.raises(pts.StreamInputError, match="signal_too_long"):
        stream(torch.cat([x, x], -1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["embedding", "none"])
def test_all_that_came_up_to_the_longest_signal(kind: str) -> None:
    """A causal mask without an end keeps what came, no longer than the table or the context says."""
    torch.manual_seed(0)
    net = Placed(kind, lambda i, j: j <= i).double().eval()
    example = torch.randn(1, 8, 30, dtype=torch.float64)
    with pytest.raises(pts.UnsupportedModuleError, match=r"unbounded_context.*max_length=n"):
        pts.create_stream(net, example=example)
    end = 60 if kind == "embedding" else 90
    stream = pts.create_stream(net, example=example, context=pts.Context(None, max_length=90))
    x = torch.randn(2, 8, end, dtype=torch.float64)
    check(net, x, stream, (7,))
    memory = next(module for module in stream.modules() if isinstance(module, AttentionMemory))
    assert max(memory.back) in (end - 1, end)
    with pytest.raises(pts.StreamInputError, match="signal_too_long"):
        stream(torch.cat([x, x], -1))
    rows = LiveRows(stream, net, 4, (3, 2), lengths=[1, 30, end], longest=end, nan=0.0)
    rows.run(40).compare()


# ---------------------------------------------------------------------- blocks

BLOCKS: dict[str, tuple[Callable[[], nn.Module], int, int]] = {
    "moshi": (MoshiTransformer, 8, 40),
    "Moonshine": (MoonshineEncoder, 1, 400),
    "Voxtral": (VoxtralEncoder, 5, 60),
    "SpeechBrain": (lambda: ChunkConformer(layers=1), 8, 40),
    "FastConformer": (lambda: FastConformer(layers=1), 5, 120),
    "FastConformer, regular": (lambda: FastConformer(layers=1, att_context_size=(4, 2), style="regular"), 5, 120),
    "Zipformer": (Zipformer, 8, 40),
    "Gemma 3n": (GemmaAudioAttention, 8, 41),
    "Gemma 3n, ahead": (lambda: GemmaAudioAttention(left=4, right=2), 8, 39),
    "FastConformer, absolute": (lambda: FastConformer(layers=1, rel_pos=False), 5, 120),
}


@pytest.mark.sample(every=3, rest=2)
@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(name: str) -> None:
    torch.manual_seed(0)
    make, channels, length = BLOCKS[name]
    net = make().double().eval()
    x = torch.randn(2, channels, length + 37, dtype=torch.float64)
    stream = pts.create_stream(net, example=x[:1, :, :length])
    check(net, x, stream, (7, length))


@pytest.mark.slow
def test_weights_for_several_values_are_computed_once() -> None:
    torch.manual_seed(0)
    net = Zipformer().double().eval()
    x = torch.randn(1, 8, 48, dtype=torch.float64)
    stream = pts.create_stream(net, example=x[..., :40])
    nodes: list[Any] = [node for node in stream.modules() if isinstance(node, RelationNode)]
    assert [node.given == nodes[0].shared for node in nodes] == [False, True, True]
    apart = copy.deepcopy(stream)
    for node in apart.modules():
        if isinstance(node, RelationNode):
            node.given = -1  # computes them again
    calls: list[str] = []

    def watch(body: nn.Module, name: str) -> None:
        forward = body.forward  # steps call it past the hooks

        def told(*args: Any) -> Any:
            calls.append(name)
            return forward(*args)

        body.forward = told

    for node in nodes[1:]:
        for body, name in ((node.body, "whole"), (node.plain, "whole"), (node.short, "short")):
            watch(body, name)
    with torch.no_grad():
        torch.testing.assert_close(joined(stream, x, 4), net(x), rtol=0, atol=1e-10)
        assert set(calls) == {"short"}
        x[0, 3, 9] = math.nan  # hidden from what does not see it, however they are computed
        torch.testing.assert_close(joined(stream, x, 5), joined(apart, x, 5), rtol=0, atol=1e-10, equal_nan=True)
        assert not joined(stream, x, 5)[..., 44:].isnan().any()


def test_wenet_with_the_context_of_its_loop() -> None:
    torch.manual_seed(0)
    net = WeNetConformer(max_len=70).double().eval()
    x = torch.randn(2, 61, 8, dtype=torch.float64)
    with pytest.raises(pts.UnsupportedModuleError, match=r"context=pts\.Context"):
        pts.create_stream(net, example=x[:1, :40], time_dim=1)
    stream = pts.create_stream(net, example=x[:1, :40], time_dim=1, context=pts.Context.chunks(4, 2))
    assert stream._limit == 70
    net.decoding_chunk_size, net.num_left_chunks = 4, 2
    with torch.no_grad():
        y = net(x)
        for size in (1, 7, 61):
            pieces = [stream(part) for part in x.split(size, 1)] + [stream.flush()]
            torch.testing.assert_close(torch.cat([p for p in pieces if p is not None], 1), y, rtol=0, atol=1e-10)


def test_compiled_and_in_rows_beyond_the_table() -> None:
    torch.manual_seed(0)
    net = Attention(ATTENDS["table"][0], band).eval()
    x = torch.randn(1, 4, 72)
    stream = pts.create_stream(net, example=x[..., :30])
    compiled = pts.compile(stream, chunk=4, backend="eager")
    with torch.no_grad():
        pieces = [compiled(part) for part in x.split(4, -1)]
        torch.testing.assert_close(torch.cat(pieces[:15], -1), net(x[..., :60]), rtol=0, atol=1e-5)
        assert all(bool(piece.isnan().all()) for piece in pieces[15:])
    LiveRows(stream, net, 4, (3, 2), dtype=torch.float32, lengths=[50, 59, 60], longest=60, nan=0.0).run(40).compare()


@pytest.mark.sample(every=2, rest=2)
@pytest.mark.parametrize("name", ["ALiBi", "by hand", "T5", "retention", "biases of the first keys"])
def test_static_rows(name: str) -> None:
    torch.manual_seed(0)
    attend, seen = ATTENDS[name]
    net = Attention(attend, seen).double().eval()
    stream = pts.create_stream(net, example=torch.randn(1, 4, 30, dtype=torch.float64))
    LiveRows(stream, net, stream.hop, (4, 2), lengths=[1, 2, 3, 30], nan=0.0).run(60).compare()


EARLIER: dict[str, Callable[[], nn.Module]] = {
    "captured": lambda: Attention(alibi, band),
    "captured, chunks": lambda: Attention(by_hand, chunk),
    "captured, the first keys": lambda: Attention(by_hand, sinks),
    "attention": lambda: pts.SelfAttention1d(nn.MultiheadAttention(4, 2, batch_first=True), pts.Context(4, 2)),
    "recurrence": lambda: pts.Recurrent1d(nn.GRU(4, 4)),
    "convolution": lambda: nn.Conv1d(4, 4, 5, padding=2, padding_mode="replicate"),
    "transposed": lambda: nn.ConvTranspose1d(4, 4, 5),
    "mean": lambda: pts.CumulativeLayerNorm1d(4),
}


@pytest.mark.parametrize("name", EARLIER)
def test_nan_of_an_earlier_signal_stays_behind(name: str) -> None:
    net = EARLIER[name]().double().eval()
    example = torch.randn(1, 4, 32, dtype=torch.float64)
    stream = pts.create_stream(net, example=example) if name.startswith("captured") else pts.create_stream(net)
    static = pts.StaticStream(stream, 4, 1, channels=4, dtype=torch.float64)
    x = torch.randn(1, 4, 32, dtype=torch.float64)
    none, four, yes, no = torch.tensor([0]), torch.tensor([4]), torch.tensor([True]), torch.tensor([False])
    with torch.no_grad():
        expected = net(x)
        # The next signal begins with samples, or in a step that has none.
        for rests in (0, 1, 2):
            for _ in range(3):
                static(torch.full_like(x[..., :4], math.nan), four, yes, no)
            for i in range(rests):
                static(torch.full_like(x[..., :4], math.nan), none, yes if i == 0 else no, no)
            begin = [yes if i == 0 and rests == 0 else no for i in range(8)]
            y = torch.cat(
                [static(part, four, first, no)[0] for part, first in zip(x.split(4, -1), begin, strict=True)], -1
            )
            y = y[..., static.lag :]
            torch.testing.assert_close(y, expected[..., : y.shape[-1]], rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "bad"), [("by hand", math.nan), ("fused, added", math.inf), ("folded", -math.inf)])
def test_what_is_not_finite_reaches_those_that_see_it(name: str, bad: float) -> None:
    torch.manual_seed(0)
    attend, seen = ATTENDS[name]
    net = Attention(attend, seen).double().eval()
    x = torch.randn(2, 4, 40, dtype=torch.float64)
    stream = pts.create_stream(net, example=x[:1, :, :30])
    place = torch.arange(40)
    sees = torch.zeros(2, 40, dtype=torch.bool)
    sees[0] = seen(place[:, None], place[None])[:, 20]
    with torch.no_grad():
        x[0, :, 20] = 0.0
        y = net(x)
        x[0, 1, 20] = bad
        static = pts.StaticStream(stream, 4, 2, dtype=torch.float64)
        yes, no = torch.tensor([True] * 2), torch.tensor([False] * 2)
        steps = [
            static(part, torch.tensor([4, 4]), yes if k == 0 else no, no)[0] for k, part in enumerate(x.split(4, -1))
        ]
        found = {size: joined(stream, x, size) for size in (1, 7, 40)}
        found[0] = torch.cat(steps, -1)[..., static.lag :]
    for z in found.values():
        n = z.shape[-1]
        assert torch.equal(z.isfinite().all(1), ~sees[:, :n])
        good = ~sees[:, None, :n].expand_as(z)
        torch.testing.assert_close(z[good], y[..., :n][good], rtol=0, atol=1e-10)


def test_field() -> None:
    x = torch.randn(1, 4, 30)
    field = receptive_field(pts.create_stream(Attention(by_hand, chunk).eval(), example=x))
    assert (field.left, field.right) == (11, 3)
    assert math.isinf(receptive_field(pts.create_stream(Attention(by_hand, sinks).eval(), example=x)).left)
