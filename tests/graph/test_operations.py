"""Operations on single samples, in tiny models as users write them: streamed as on the whole."""

import math

import pytest
import torch
import torch.nn.functional as F
from feeding import T, normal, real, tokens
from small_models import case, check, param
from torch import nn


def unary(m, x):
    small, positive = torch.tanh(x), x.abs() + 0.1
    return [
        *(f(x) for f in (torch.abs, torch.exp, torch.sigmoid, torch.sin, torch.cos, torch.atan, torch.erf, torch.neg)),
        *(f(x) for f in (torch.round, torch.floor, torch.ceil, torch.trunc, torch.frac, torch.sign, torch.square)),
        *(f(positive) for f in (torch.sqrt, torch.rsqrt, torch.log, torch.log2, torch.log10, torch.lgamma)),
        *(f(small) for f in (torch.asin, torch.acos, torch.atanh, torch.expm1, torch.erfinv, torch.tan)),
        *(f(x) for f in (torch.reciprocal, torch.sinc, torch.isnan, torch.isfinite, torch.signbit, torch.logical_not)),
        *(f(x) for f in (F.relu, F.relu6, F.gelu, F.silu, F.mish, F.elu, F.selu, F.celu, F.leaky_relu, F.softplus)),
        *(f(x) for f in (F.softsign, F.tanhshrink, F.hardtanh, F.hardswish, F.hardsigmoid, F.logsigmoid, F.hardshrink)),
        F.softshrink(x, 0.3), F.threshold(x, 0.1, -1.0), F.gelu(x, approximate="tanh"), torch.special.expit(x),
        torch.log1p(positive), torch.nan_to_num(x), torch.deg2rad(x), +x, -x, abs(x), x.sigmoid(), x.pow(2), x**3,
        2**x, 1 - x, 1 / positive,
    ]  # fmt: skip


def binary(m, x):
    a, b = x[:, :2], x[:, 2:] + 0.05
    i, j = (4 * a).long(), (3 * b).long().abs() + 1
    return [
        a + b, torch.sub(a, b, alpha=2), a * b, a / b, a // b, a % b, torch.div(a, b, rounding_mode="trunc"),
        torch.pow(a.abs(), b), torch.atan2(a, b), torch.maximum(a, b), torch.minimum(a, b), torch.fmod(a, b),
        torch.hypot(a, b), torch.copysign(a, b), torch.xlogy(a, b.abs()), torch.logaddexp(a, b), torch.heaviside(a, b),
        a > b, a <= b, a == a, a != b, torch.logical_and(a > 0, b > 0), (a > 0) | (b > 0), ~(a > 0), a.gt(0) ^ b.gt(0),
        torch.isclose(a, b), i & j, i | j, i ^ j, i << 1, i % j, i // j, torch.gcd(i, j), F.prelu(a, m.slope),
    ]  # fmt: skip


def ternary(m, x):
    a, b = x[:, :2], x[:, 2:]
    return {
        "where": torch.where(a > 0, a, b),
        "where_scalar": torch.where(a > 0, a, 0.5),
        "where_constant": torch.where(m.mask, a, b),
        "clamp": a.clamp(-0.5, 0.5),
        "clamp_tensors": torch.clamp(a, min=-m.slope[:, None].abs(), max=b.abs()),
        "lerp": torch.lerp(a, b, 0.3),
        "lerp_tensor": torch.lerp(a, b, torch.sigmoid(b)),
        "addcmul": torch.addcmul(a, a, b, value=0.5),
        "addcdiv": torch.addcdiv(a, a, b.abs() + 1, value=-2),
        "masked_fill": a.masked_fill(b > 0, -1.0),
    }


def broadcasting(m, x):
    y = x * m.scale + m.shift[:, None]  # a parameter [4, 1] and a buffer [4]
    y = y + torch.tensor([[1.0], [2.0], [3.0], [4.0]], dtype=torch.float64)
    y = y - m.shift.view(1, -1, 1) * math.pi
    return y * y.new_ones(1, 4, 1) + torch.zeros_like(x) + torch.ones(4, 1, dtype=x.dtype)


def in_place(m, x):
    x += 1
    x.mul_(2).clamp_(-3, 3)
    y = x.clone()
    y[:, 0] = 0
    y[:, 1:3] *= 2
    y[:, 3] += y[:, 1]
    y[y < -1] = -1
    y.masked_fill_(y > 2, 2)
    F.relu(y, inplace=True)
    y.sub_(x).add_(m.shift[:, None], alpha=0.5)
    return m.activation(y)


def sums_in_place(m, x):
    y = None
    for i in range(3):
        h = m.convs[i](x)
        y = h if y is None else y.add_(h)
    y /= 3
    return y


def casts(m, x):
    levels = (x * 8).round().to(torch.int16)
    y = levels.double() / 8 + x.float().double() + (x > 0).to(x.dtype) + x.to(torch.float32).type_as(x)
    return y, levels, x.half(), x > 0, torch.complex(x, -x).abs(), torch.complex(x, -x)


def embedded(m, ids):
    y = m.embedding(ids).transpose(1, 2)
    return y + F.one_hot(ids, 10).transpose(1, 2)[:, :4].double() + F.embedding(ids, m.table).mT


def looked_up(m, ids):
    return m.table[ids].permute(0, 2, 1).contiguous()


def linear_layers(m, x):  # [B, T, C]
    y = m.linear(x) + x @ m.weight + torch.matmul(m.weight, x.transpose(1, 2)).transpose(1, 2)
    y = y + F.linear(x, m.weight * 2, m.shift) + torch.einsum("btc,cd->btd", x, m.weight)
    return F.layer_norm(y, (4,), m.shift, None) + m.norm(y) + F.rms_norm(y, (4,))


def products(m, x):
    y = torch.einsum("bct,dc->bdt", x, m.weight) + torch.matmul(m.weight, x) + m.weight @ x
    y = y + torch.bmm(m.weight.expand(x.shape[0], -1, -1), x) + torch.einsum("dc,bct->bdt", m.weight, x)
    y = y + torch.tensordot(m.weight, x, dims=([1], [1])).transpose(0, 1)
    gram = torch.einsum("bct,bdt->bcdt", x, y)
    return (
        y,
        gram.flatten(1, 2),
        (gram * m.weight[..., None]).sum((1, 2)).unsqueeze(1),
        F.bilinear(x.mT.contiguous(), y.mT.contiguous(), m.third).mT,
    )


def frame_attention(m, x):  # over the channels of every sample
    q = x.transpose(1, 2).unsqueeze(-1)  # [B, T, C, 1]
    y = F.scaled_dot_product_attention(q, q * 2, q + 1)
    return y.squeeze(-1).transpose(1, 2)


def norms(m, x):
    frames = x.transpose(1, 2)
    y = m.channel_norm(frames).transpose(1, 2)
    # Group norm of every sample alone: rows are the samples.
    mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, unbiased=False)
    y = y + (x - mean) / torch.sqrt(var + 1e-5)
    y = y + F.normalize(x, dim=1) + x / x.norm(dim=1, keepdim=True) + m.batch_norm(x) + F.local_response_norm(x, 2)
    return y + F.batch_norm(x, m.mean, m.variance, eps=1e-3) + F.cosine_similarity(x, y, dim=1).unsqueeze(1)


def group_norm_of_frames(m, x):
    batch, channels, time = x.shape
    y = x.transpose(1, 2).reshape(batch * time, channels)
    return m.norm(y).reshape(batch, time, channels).transpose(1, 2)


def reductions(m, x):
    return (
        x.mean(1), x.sum(dim=1), x.var(1), x.std(1, keepdim=True), x.amax(1), x.max(1).values, x.max(dim=1)[1],
        x.min(1)[0], x.argmax(1), x.argmin(dim=1, keepdim=True), x.prod(1), (x > 0).all(1), (x > 0).any(1),
        x.logsumexp(1), x.norm(dim=1), torch.softmax(x, 1), F.log_softmax(x, dim=-2), x.median(1).values,
        x.aminmax(dim=1).min, torch.cumsum(x, 1), x.count_nonzero(1), torch.std_mean(x, 1)[0], F.softmin(x, 1),
    )  # fmt: skip


def sorting(m, x):
    values, places = torch.topk(x, 2, dim=1)
    ordered, order = x.sort(dim=1, descending=True)
    picked = x.gather(1, places)
    kth = x.kthvalue(2, 1).values
    return values, ordered, order, picked, kth, x.argsort(1), F.one_hot(x.argmax(1), 4)


def scattered(m, x):
    values, places = x.topk(2, dim=1)
    kept = torch.zeros_like(x).scatter(1, places, values)
    return kept, torch.zeros_like(x).scatter_add(1, places, values), x.scatter(1, places, 0.0)


def rearranged(m, x):
    a, b = x.chunk(2, dim=1)
    c, d = torch.split(x, [1, 3], dim=1)
    first, *rest = x.unbind(1)
    y = torch.cat([b, a, c, d, x.flip(1), x[:, ::2], x[:, [2, 0]], x[:, -1:], x.narrow(1, 1, 2)], dim=1)
    y = torch.cat((y, x.index_select(1, m.order), x.select(1, 2)[:, None], first.unsqueeze(1), x[:, m.order]), 1)
    y = torch.cat([y, torch.stack([rest[0], rest[1]], dim=1), x.roll(1, 1), torch.stack((a, b), 2).flatten(1, 2)], 1)
    z = torch.stack([x, -x], dim=-1)[..., 0] + torch.hstack([a, b]) + x.tile(1, 2, 1)[:, 2:6] + x.repeat(1, 2, 1)[:, :4]
    return y, z, torch.tensor_split(x, 3, 1)[0], F.pixel_shuffle(x[:, :, None].unsqueeze(2)[:, :, 0], 1).squeeze(2)


def reshaped(m, x):
    batch, channels, time = x.shape
    y = x.view(batch, 2, 2, time).transpose(1, 2).reshape(batch, channels, time)  # channel shuffle
    z = x.permute(2, 0, 1).reshape(time, -1).view(time, batch, channels).permute(1, 2, 0)
    w = x.unsqueeze(1).expand(-1, 3, -1, -1).flatten(1, 2)
    return (
        y + z,
        w,
        x.unsqueeze(-1).squeeze(-1).movedim(1, 2),
        x.unflatten(1, (2, 2)).swapaxes(1, 2).flatten(0, 1),
        x.mT,
    )


STREAMED = {
    "unary": case(unary),
    "binary": case(binary, slope=param(2)),
    "ternary": case(ternary, slope=param(2), mask=torch.tensor([[True], [False]])),
    "broadcasting": case(broadcasting, scale=param(4, 1), shift=normal(4)),
    "in place": case(in_place, shift=normal(4), activation=nn.LeakyReLU(0.1, inplace=True)),
    "sums in place": case(
        sums_in_place,
        convs=nn.ModuleList([nn.Conv1d(4, 4, 3, padding=1), nn.Conv1d(4, 4, 1), nn.Conv1d(4, 4, 7, padding=3)]),
    ),
    "casts": case(casts),
    "tokens": case(embedded, tokens(10, 2, T), embedding=nn.Embedding(10, 4, padding_idx=0), table=param(10, 4)),
    "tokens, one row": case(embedded, tokens(10, 1, T), embedding=nn.Embedding(10, 4), table=param(10, 4)),
    "tokens, indexed": case(looked_up, tokens(10, 2, T), table=param(10, 4)),
    "linear": case(
        linear_layers, real(2, T, 4), linear=nn.Linear(4, 4), norm=nn.LayerNorm(4), weight=param(4, 4), shift=normal(4)
    ),
    "products": case(products, weight=param(4, 4), third=param(3, 4, 4)),
    "attention over channels": case(frame_attention),
    "norms": case(
        norms,
        channel_norm=nn.LayerNorm(4),
        batch_norm=nn.BatchNorm1d(4).double(),
        mean=normal(4),
        variance=normal(4) ** 2,
    ),
    "group norm of frames": case(group_norm_of_frames, real(1, 4, T), norm=nn.GroupNorm(2, 4)),
    "reductions": case(reductions),
    "sorting": case(sorting),
    "scatter": case(scattered),
    "rearranged": case(rearranged, order=torch.tensor([3, 0, 2])),
    "reshaped": case(reshaped),
}


@pytest.mark.parametrize("name", STREAMED)
def test_streamed_as_on_the_whole(name):
    check(STREAMED[name])
