"""Steps of random models: sample by sample, and over channels."""

import ast
import math
from typing import Any

from steps_layout import as_bct, as_btc

UNARY = (
    "torch.relu({v}) F.relu({v}) torch.tanh({v}) torch.sigmoid({v}) F.gelu({v}) F.gelu({v},approximate='tanh') "
    "F.silu({v}) F.elu({v}) F.leaky_relu({v},0.1) F.softplus({v}) F.hardswish({v}) F.mish({v}) {v}.abs() "
    "torch.exp(-{v}.abs()) torch.sin({v}) {v}.cos() torch.log1p({v}.abs()) torch.sqrt({v}*{v}+1) "
    "torch.rsqrt({v}.square()+1) {v}.clamp(-0.5,0.8) torch.clamp({v},min=0.1) F.hardtanh({v}) -{v} {v}**2 "
    "torch.erf({v}) torch.atan({v}) 1/(1+{v}.abs()) F.relu6({v}) F.logsigmoid({v}) F.dropout({v},0.5,self.training) "
    "{v}.clone() {v}.contiguous() {v}.detach() torch.nan_to_num({v}) {v}.to(torch.float64) {v}.type_as(x) "
    "{v}.masked_fill({v}<-0.7,0.0) torch.where({v}>0.31,{v},0.2*{v}) ({v}>0.25).to({v}.dtype) F.tanhshrink({v}) "
    "torch.zeros_like({v})+{v} {v}*torch.full_like({v},0.5) F.softsign({v}) torch.logical_not({v}>0.1).double() "
    "torch.ones_like({v}).add({v},alpha=0.5) {v}.view_as({v})"
).split()

IN_PLACE = (
    "{v}.relu_() {v}.tanh_() {v}.sigmoid_() {v}.add_(0.3) {v}.mul_(0.9) {v}.clamp_(-1,1) {v}+=0.5 {v}*=0.8 {v}/=2 "
    "{v}-=0.1 F.relu({v},inplace=True) F.leaky_relu_({v},0.2) F.silu({v},inplace=True) {v}.neg_() {v}.abs_()"
).split()


def _spaced(source: str) -> str:
    return ast.unparse(ast.parse(source))


def unary(g: Any) -> None:
    value = g.pick()
    g.emit(_spaced(g.of(UNARY).format(v=value.name)), value)


def module(g: Any) -> None:
    value = g.pick("bct")
    if not value:
        return
    c = value.channels
    kinds = ["nn.ReLU()", "nn.GELU()", "nn.PReLU()", f"nn.PReLU({c})", f"nn.BatchNorm1d({c})", "nn.Identity()"]
    kinds += ["nn.Dropout(0.2)", "nn.Softmax(dim=1)", "nn.LeakyReLU(0.2)", "nn.Hardtanh()", "nn.ELU()", "nn.SELU()"]
    kinds += [
        "nn.ZeroPad1d((2, 1))",
        "nn.ReplicationPad1d((1, 2))",
        "nn.ReflectionPad1d(2)",
        "nn.ConstantPad1d(1, 0.5)",
    ]
    g.emit(f"{g.member(g.of(kinds))}({value.name})", value)


def in_place(g: Any) -> None:
    value = g.pick()
    if not g.may_write(value):
        return
    kind = g.int(0, 9)
    v = value.name
    if kind < 6:
        g.run(_spaced(g.of(IN_PLACE).format(v=v)), steady=True)
    elif kind == 6:
        new = g.emit(f"{g.member(g.of(['nn.ReLU(inplace=True)', 'nn.SiLU(inplace=True)']))}({v})", value)
        if new:
            g.pool.remove(value)
    elif kind == 7:
        g.run(f"{v} += {g.scale(value)}", steady=True)
    elif kind == 8 and value.channels > 1:
        part = g.of([":1", "1:", "::2", "0", "-1"])
        g.run(f"{v}[:, :, {part}] *= 0.5" if value.layout == "btc" else f"{v}[:, {part}] *= 0.5", steady=True)
    elif kind == 9:
        other = next((o for o in g.pool if o is not value and _same(g, o, value)), None)
        if other:
            forms = [
                "{v} += {o}",
                "{v}.mul_(torch.sigmoid({o}))",
                "{v}.sub_({o}, alpha=0.5)",
                "{v}.add_({o}).mul_(0.5)",
            ]
            g.run(g.of(forms).format(v=v, o=other.name), steady=True)
            value.hop = math.lcm(value.hop, other.hop)


def _same(g: Any, one: Any, other: Any) -> bool:
    return (one.layout, one.channels, one.bands, one.rate) == (
        other.layout,
        other.channels,
        other.bands,
        other.rate,
    ) and g.lengths(one) == g.lengths(other)


def constant(g: Any) -> None:
    value = g.pick()
    v, p = value.name, g.scale(value)
    forms = [
        f"{v} * 0.7 + 0.1",
        f"0.5 - {v}",
        f"{v} / 2",
        f"{v} + {p}",
        f"{p} * {v}",
        f"{v} * torch.exp({p})",
        f"{v} - {p}.tanh()",
        f"torch.maximum({v}, {p})",
        f"torch.minimum({p}, {v})",
        f"torch.where({v} > {p}, {v}, {p})",
        f"torch.lerp({v}, {p}, 0.3)",
        f"torch.addcmul({v}, {v}, {p}, value=0.5)",
        f"torch.addcdiv({v}, {p}, 1 + {v}.abs(), value=0.5)",
        f"torch.add({v}, {p}, alpha=0.5)",
        f"{v} + torch.sin({p} * {v}) ** 2 / (1.1 + {p}.abs())",
        f"F.threshold({v}, 0.1, -0.3)",
        f"torch.clamp({v}, max={p} + 1)",
        f"{v} * {p} + {p}",
        f"torch.rsub({v}, 1.0)",
    ]
    g.emit(g.of(forms), value)


def over_channels(g: Any) -> None:
    value = g.pick()
    if value.layout == "bcft" and g.flag():
        value = g.pick("bct", "btc") or value
    v, c, d = value.name, value.channels, 2 if value.layout == "btc" else 1
    d = g.of([d, d, d - (3 if value.layout != "bcft" else 4)])
    forms = [
        (f"F.softmax({v}, {d})", c),
        (f"torch.log_softmax({v}, dim={d}).clamp(min=-5)", c),
        (f"{v} - {v}.mean({d}, keepdim=True)", c),
        (f"{v}.mean({d}, keepdim=True)", 1),
        (f"{v}.sum(dim={d}, keepdim=True)", 1),
        (f"{v}.var({d}, unbiased=False, keepdim=True)", 1),
        (f"{v}.amax({d}, keepdim=True)", 1),
        (f"{v}.max({d}, keepdim=True).values", 1),
        (f"{v}.min({d}, keepdim=True)[0]", 1),
        (f"{v}.mean({d}).unsqueeze({d})", 1),
        (f"torch.logsumexp({v}, {d}, keepdim=True)", 1),
        (f"{v} * torch.rsqrt({v}.pow(2).mean({d}, keepdim=True) + 0.01)", c),
        (f"torch.cumsum({v}, {d})", c),
        (f"torch.flip({v}, ({d},))", c),
        (f"torch.roll({v}, 1, {d})", c),
        (f"{v}.sort({d}).values", c),
        (f"{v}.prod({d}, keepdim=True)", 1),
        (f"torch.linalg.vector_norm({v}, 1, {d}, keepdim=True)", 1),
        (f"{v}.narrow({d}, 0, 1)", 1),
        (f"{v}.select({d}, {c - 1}).unsqueeze({d})", 1),
        (f"{v}.index_select({d}, {g.member(f'nn.Buffer(torch.arange({c - 1}, -1, -1))')})", c),
        (f"torch.cat([{v}, -{v}], {d})", 2 * c),
        (f"torch.cat([{v}, {v}.tanh(), {v}], dim={d})", 3 * c),
        (f"{v} + torch.stack([{v}, {v} * 2], 0).mean(0)", c),
        (f"torch.gather({v}, {d}, {v}.argsort({d}))", c),
    ]
    if c % 2 == 0:
        forms += [(f"F.glu({v}, {d})", c // 2)] * 2
        forms += [(f"torch.cat({v}.chunk(2, {d})[::-1], {d})", c)]
        forms += [(f"torch.tanh({v}.chunk(2, {d})[0]) * torch.sigmoid({v}.chunk(2, {d})[1])", c // 2)]
    if c > 2:
        forms += [(f"{v}.topk(2, {d}).values", 2), (f"torch.cat({v}.split([1, {c - 1}], {d})[1:], {d})", c - 1)]
    source, channels = g.of(forms)
    if channels <= 12:
        g.emit(source, value, channels=channels)


def pick_channels(g: Any) -> None:
    value = g.pick("bct", "bcft")
    if not value or value.channels < 2:
        return
    v, c = value.name, value.channels
    part, channels = g.of([(":1", 1), ("1:", c - 1), ("::2", (c + 1) // 2), (f"[{c - 1}, 0]", 2), ("-2:", 2)])
    g.emit(f"{v}[:, {part}]", value, channels=channels)


def halves(g: Any) -> None:
    """Two values at once."""
    value = g.pick("bct")
    if not value or value.channels < 2:
        return
    c, one, other = value.channels, f"v{g.count}", f"v{g.count + 1}"
    g.count += 2
    first = c // 2 if c % 2 == 0 else 1
    parts = f"{value.name}.chunk(2, dim=1)" if c % 2 == 0 else f"{value.name}.split([1, {c - 1}], dim=1)"
    if g.run(f"{one}, {other} = {parts}"):
        for name, channels in ((one, first), (other, c - first)):
            g.pool.append(type(value)(**{**vars(value), "name": name, "channels": channels}))


def norm(g: Any) -> None:
    value = g.pick("bct", "btc")
    if not value:
        return
    source, c = as_btc(g, value)
    forms = [
        f"{g.member(f'nn.LayerNorm({c}, eps=0.01)')}({source})",
        f"F.layer_norm({source}, ({c},), {g.parameter(c)}, {g.parameter(c)}, eps=0.01)",
        f"F.rms_norm({source}, ({c},), {g.parameter(c)}, eps=0.01)",
    ]
    call = g.of(forms)
    if g.flag():
        g.emit(f"{call}.transpose(1, 2)", value, layout="bct", channels=c)
    else:
        g.emit(call, value, layout="btc", channels=c)


def linear(g: Any) -> None:
    value = g.pick()
    out, kind = g.of([2, 3, 4]), g.int(0, 3)
    if kind < 2:
        source, c = as_btc(g, value)
        forms = [
            f"{g.member(f'nn.Linear({c}, {out}, bias={g.flag()})')}({source})",
            f"F.linear({source}, {g.parameter(out, c)}, {g.parameter(out)})",
            f"{source} @ {g.parameter(c, out)}",
            f"torch.einsum('btc,cd->btd', {source}, {g.parameter(c, out)})",
            f"torch.tensordot({source}, {g.parameter(c, out)}, dims=1)",
        ]
        g.emit(g.of(forms), value, layout="btc", channels=out, bands=1)
    elif kind == 2:
        source, c = as_bct(g, value)
        forms = [
            f"torch.matmul({g.parameter(out, c)}, {source})",
            f"torch.einsum('dc,bct->bdt', {g.parameter(out, c)}, {source})",
            f"{g.parameter(out, c)} @ {source} + {g.parameter(out, 1)}",
            f"torch.bmm({g.parameter(1, out, c)}.expand({value.name}.shape[0], -1, -1), {source})",
        ]
        g.emit(g.of(forms), value, layout="bct", channels=out, bands=1)
    elif value.layout == "bcft":
        c, f = value.channels, value.bands
        forms = [
            (f"torch.einsum('bcft,dc->bdft', {value.name}, {g.parameter(out, c)})", out, f),
            (f"torch.einsum('bcft,fg->bcgt', {value.name}, {g.parameter(f, out)})", c, out),
            (f"F.linear({value.name}.transpose(2, 3), {g.parameter(out, f)}).transpose(2, 3)", c, out),
            (f"torch.einsum('bcft,dcf->bdt', {value.name}, {g.parameter(out, c, f)}).unsqueeze(2)", out, 1),
        ]
        source, channels, bands = g.of(forms)
        g.emit(source, value, channels=channels, bands=bands)


def embedding(g: Any) -> None:
    value = g.pick("bct")
    if value:
        index = f"({value.name}[:, 0] > 0.12).long()"
        g.emit(f"{g.member('nn.Embedding(2, 3)')}({index})", value, layout="btc", channels=3)
