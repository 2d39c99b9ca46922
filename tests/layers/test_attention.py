"""Attention with a context: streams against torch's own modules under a mask, and against formulas written out."""

import math
from typing import Any, Callable, Optional

import pytest
import torch
import torch.nn.functional as F
from attention_nets import CONTEXTS, biases, check, every_context, layer, mha, pieces
from torch import Tensor, nn

import torchstreamer as pts

# ---------------------------------------------------------------------- torch's modules


@every_context
def test_attention_of_torch(name):
    context = CONTEXTS[name]
    attention = mha()

    def whole(x: Tensor) -> Tensor:
        rows = x.transpose(1, 2)
        mask = context.mask(x.size(2), masked=True)
        return attention(rows, rows, rows, attn_mask=mask)[0].transpose(1, 2)  # the slow path, with weights

    check(pts.SelfAttention1d(attention, context), whole=whole)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"norm_first": True},
        {"activation": "gelu", "norm_first": True},
        {"activation": nn.SiLU()},
        {"bias": False},
        {"batch_first": False},
    ],
    ids=str,
)
def test_encoder_layers(options):
    check(pts.TransformerEncoderLayer1d(layer(**options), pts.Context(4, 2, 3)), lengths=(1, 7, 61))


def test_encoders_of_unequal_contexts():
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(layer(), 3, nn.LayerNorm(8), enable_nested_tensor=False).double().eval()
    context = pts.Context.chunks(4, 2)

    def whole(x: Tensor) -> Tensor:
        return encoder(x.transpose(1, 2), mask=context.mask(x.size(2), masked=True), is_causal=False).transpose(1, 2)

    net = pts.TransformerEncoder1d(encoder, context)
    check(net, lengths=(1, 7, 61), whole=whole)
    assert pts.create_stream(net).output_length(30, False) == 28  # chunks of one grid add no look-ahead
    net = pts.TransformerEncoder1d(encoder, [pts.Context(3, 2), pts.Context.chunks(4, 1), pts.Context(5, 1)])
    check(net, lengths=(1, 7, 61))


@pytest.mark.parametrize("name", ["band", "chunks"])
def test_constant_keys(name):
    options = {"add_bias_kv": True, "add_zero_attn": True}
    check(pts.SelfAttention1d(mha(**options), CONTEXTS[name]), lengths=(1, 40))
    check(pts.SelfAttention1d(mha(add_zero_attn=True, batch_first=False), CONTEXTS[name]), lengths=(1, 40))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_other_dtypes(dtype):
    for context in (pts.Context(5, 3), pts.Context(6, 0, 3)):
        check(pts.SelfAttention1d(mha(dtype), context), lengths=(40,), dtype=dtype)


def test_autocast():
    net = pts.SelfAttention1d(mha(torch.float32), pts.Context(5, 1))
    stream, x = pts.create_stream(net), torch.randn(2, 8, 40)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        y = torch.cat(pieces(stream, x, [1, 3, 11]), -1)
        expected = net(x)
    assert y.dtype == expected.dtype == torch.bfloat16
    torch.testing.assert_close(y, expected, rtol=2e-2, atol=2e-2)


# ---------------------------------------------------------------------- positions and options, against formulas


def formula(net: Any, score: Callable[..., Tensor], turn: Optional[Callable[[Tensor], Tensor]] = None) -> Any:
    """Attention query by query, with the scores ``score(q [H, D], k [H, n, D], i, j)`` of those keys that it sees."""
    attention = net.attention

    def whole(x: Tensor) -> Tensor:
        out = []
        for row in x:
            h, d = attention.num_heads, attention.head_dim
            q, k, v = (p.unflatten(1, (h, d)) for p in (row.t() @ attention.in_proj_weight.t()
                       + attention.in_proj_bias).chunk(3, 1))  # fmt: skip
            if turn is not None:
                q, k = turn(q), turn(k)
            mask = net.mask(x.size(2), x.device)
            ys = []
            for i in range(x.size(2)):
                j = mask[i].nonzero().squeeze(1)
                weights = score(q[i], k[j].transpose(0, 1), i, j).softmax(-1)
                ys.append(torch.einsum("hn,nhd->hd", weights, v[j]).flatten())
            y = F.linear(torch.stack(ys), attention.out_proj.weight, attention.out_proj.bias)
            out.append(y.t())
        return torch.stack(out)

    return whole


def dots(q: Tensor, k: Tensor) -> Tensor:
    return torch.einsum("hd,hnd->hn", q, k) / math.sqrt(q.size(1))


@pytest.mark.parametrize("interleaved", [False, True])
def test_rotary(interleaved):
    net = pts.SelfAttention1d(
        mha(), pts.Context(5, 3), rope=pts.Rotary(4, interleaved=interleaved, dtype=torch.float64)
    )

    def turn(x: Tensor) -> Tensor:  # complex numbers
        angle = torch.arange(x.size(0)).view(-1, 1, 1) * 10000.0 ** -torch.tensor([0.0, 0.5], dtype=torch.float64)
        pairs = (x[..., 0::2], x[..., 1::2]) if interleaved else x.chunk(2, -1)
        z = torch.complex(*pairs) * torch.polar(torch.ones_like(angle), angle)
        return torch.stack([z.real, z.imag], -1).flatten(-2) if interleaved else torch.cat([z.real, z.imag], -1)

    check(net, lengths=(1, 40), whole=formula(net, lambda q, k, i, j: dots(q, k), turn))


def bucket(ahead: int) -> int:
    # T5's definition with 8 buckets up to 16: 4 for each side, of which 2 are exact.
    n = abs(ahead)
    far = n if n < 2 else min(2 + int(math.log(n / 2) / math.log(16 / 2) * 2 + 1e-7), 3)
    return far + (4 if ahead > 0 else 0)


@pytest.mark.parametrize("sinks", [0, 3])
@pytest.mark.parametrize("name", ["alibi", "t5", "shaw", "xl"])
def test_biases_by_position(name, sinks):
    bias = biases()[name]
    net = pts.SelfAttention1d(mha(), pts.Context(6, 2), bias=bias, sinks=sinks)

    def score(q: Tensor, k: Tensor, i: int, j: Tensor) -> Tensor:
        if name == "alibi":
            return dots(q, k) - torch.tensor([[2.0**-4], [2.0**-8]]) * (i - j).abs()
        if name == "t5":
            return dots(q, k) + bias.weight[[bucket(int(each) - i) for each in j]].t()
        if name == "shaw":
            return dots(q, k + bias.weight[(j - i).clamp(-3, 3) + 3])
        wave = (i - j).unsqueeze(1) * 10000.0 ** -(torch.arange(0, 8, 2) / 8.0).double()
        waves = torch.stack([wave.sin(), wave.cos()], 2).flatten(1)
        r = bias.project(waves).unflatten(1, (2, 4)).transpose(0, 1)
        return dots(q + bias.u, k) + dots(q + bias.v, r)

    with torch.no_grad():
        whole = formula(net, score)
        tolerable = torch.float32 if name == "xl" else torch.float64  # its wave lengths are float32 until .double()
        x = torch.randn(1, 8, 30, dtype=torch.float64)
        torch.testing.assert_close(net(x), whole(x), **({"rtol": 1e-5, "atol": 1e-5} if tolerable != x.dtype else {}))
        check(net, lengths=(1, 40))


@pytest.mark.parametrize("sinks", [0, 2])
def test_values_by_position(sinks):
    torch.manual_seed(1)
    bias = pts.ShawBias(4, 3, values=True).double()
    attention = mha(add_zero_attn=True)
    net = pts.SelfAttention1d(attention, pts.Context(6, 2), bias=bias, sinks=sinks)

    def whole(x: Tensor) -> Tensor:
        rows = x.transpose(1, 2) @ attention.in_proj_weight.t() + attention.in_proj_bias
        q, k, v = (part.unflatten(2, (2, 4)).transpose(1, 2) for part in rows.chunk(3, 2))
        i = torch.arange(x.size(2))
        place = (i - i[:, None]).clamp(-3, 3) + 3
        scores = torch.einsum("bhid,bhijd->bhij", q, k.unsqueeze(2) + bias.weight[place]) / 2
        scores = scores.masked_fill(~net.mask(x.size(2), x.device), -math.inf)
        weights = F.pad(scores, (0, 1)).softmax(-1)[..., :-1]  # a key of zeros besides
        y = torch.einsum("bhij,bhijd->bhid", weights, v.unsqueeze(2) + bias.values.weight[place])
        return attention.out_proj(y.transpose(1, 2).flatten(2)).transpose(1, 2)

    with torch.no_grad():
        x = torch.randn(2, 8, 30, dtype=torch.float64)
        torch.testing.assert_close(net(x), whole(x))
    check(net, lengths=(1, 40))


def test_soft_caps_scales_and_sinks():
    net = pts.SelfAttention1d(mha(), pts.Context(4, 1), softcap=2.0, scale=1.5, sinks=3)
    whole = formula(net, lambda q, k, i, j: 2 * torch.tanh(torch.einsum("hd,hnd->hn", q, k) * 1.5 / 2))
    check(net, lengths=(1, 2, 40), whole=whole)
    mask = net.mask(9, torch.device("cpu"))
    assert mask[8].int().tolist() == [1, 1, 1, 0, 1, 1, 1, 1, 1] and mask[0].int().tolist() == [
        1,
        1,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ]
    check(pts.SelfAttention1d(mha(), pts.Context(3, 0, 4), sinks=2, rope=pts.Rotary(4)), lengths=(1, 40))


def test_grouped_queries():
    torch.manual_seed(0)
    attention = pts.GroupedQueryAttention(8, 4, 2, head_dim=6).double()
    for context in (pts.Context(5, 3), pts.Context(6, 0, 3)):
        check(pts.SelfAttention1d(attention, context).eval(), lengths=(1, 40))
        check(pts.SelfAttention1d(attention, context, bias=pts.AlibiBias(4)).eval(), lengths=(1, 40))
    x = torch.randn(1, 9, 8, dtype=torch.float64)
    q, k, v = attention.in_proj(x).split([24, 12, 12], 2)
    k, v = (each.unflatten(2, (2, 6)).repeat_interleave(2, 2).transpose(1, 2) for each in (k, v))
    y = F.scaled_dot_product_attention(q.unflatten(2, (4, 6)).transpose(1, 2), k, v)
    torch.testing.assert_close(attention(x), attention.out_proj(y.transpose(1, 2).flatten(2)))


def test_cross_attention_looks_at_a_fixed_memory():
    attention = mha(kdim=5, vdim=5)
    for memory in (torch.randn(7, 5, dtype=torch.float64), torch.randn(2, 7, 5, dtype=torch.float64)):
        check(pts.CrossAttention1d(attention, memory), lengths=(1, 40))


# ---------------------------------------------------------------------- in networks


def test_create_stream_takes_a_context():
    torch.manual_seed(0)
    context = pts.Context(4, 2)
    net = nn.Sequential(nn.Conv1d(8, 8, 3, padding=1), pts.Residual1d(nn.Sequential(layer())), mha()).double().eval()
    stream, x = pts.create_stream(net, context=context), torch.randn(1, 8, 50, dtype=torch.float64)
    h = net[0](x)
    h = h + pts.TransformerEncoderLayer1d(net[1].net[0], context)(h)
    expected = pts.SelfAttention1d(net[2], context)(h)
    with torch.no_grad():
        torch.testing.assert_close(torch.cat(pieces(stream, x, [1, 5]), -1), expected)
    with pytest.raises(pts.UnsupportedModuleError, match="no_attention"):
        pts.create_stream(nn.Conv1d(1, 1, 3), context=context)


@pytest.mark.parametrize(
    ("net", "code", "path"),
    [
        (lambda: nn.Sequential(mha()), "time_mixing", "0"),
        (lambda: nn.TransformerEncoder(layer(), 1), "time_mixing", ""),
        (lambda: pts.SelfAttention1d(mha(), pts.Context(None)), "unbounded_context", ""),
        (lambda: pts.SelfAttention1d(mha(kdim=4, vdim=4), pts.Context(3)), "cross_attention", "attention"),
        (lambda: pts.SelfAttention1d(mha(dropout=0.1).train(), pts.Context(3)), "training_mode", "attention"),
        (lambda: pts.TransformerEncoderLayer1d(layer().train(), pts.Context(3)), "training_mode", "layer.dropout"),
    ],
)
def test_refusals(net, code, path):
    with pytest.raises(pts.UnsupportedModuleError) as refused:
        pts.create_stream(net())
    assert (refused.value.code, refused.value.path) == (code, path)
    assert "pts.Context" in str(refused.value) or code not in ("time_mixing", "unbounded_context")
