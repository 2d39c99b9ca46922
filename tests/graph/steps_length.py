"""Steps of random models: edges, rates, frames, and what runs over time."""

import math
from typing import Any

from steps_layout import as_bct


def pad(g: Any) -> None:
    value = g.pick()
    left, right = g.int(-3, 4), g.int(-3, 4)
    mode = g.of(["constant", "constant", "reflect", "replicate"])
    if value.layout == "btc":
        mode = "constant"
    if mode != "constant":
        left, right = max(left, 0), max(right, 0)
    amounts = {"bct": f"({left}, {right})", "btc": f"(0, 0, {left}, {right})", "bcft": f"({left}, {right}, 0, 0)"}
    arguments = f"{amounts[value.layout]}"
    if mode != "constant":
        arguments += f", mode={mode!r}"
    elif g.rarely():
        arguments += ", value=0.7"
    g.emit(f"F.pad({value.name}, {arguments})", value)


def pad_to_multiple(g: Any) -> None:
    """Zeros on the right up to the next multiple; half of the time put into frames then."""
    value = g.pick("bct")
    if not value:
        return
    size = g.int(2, 4)
    if not g.fits(value, 1, size):
        return
    new = g.emit(f"F.pad({value.name}, (0, -{value.length} % {size}))", value)
    if not new:
        return
    new.hop = _lcm_hop(value, size)
    if g.flag():
        v, c = new.name, new.channels
        g.emit(f"{v}.reshape({v}.shape[0], {c}, -1, {size}).mean(-1)", new, 1, size)


def _lcm_hop(value: Any, size: int) -> int:
    return value.hop * size // math.gcd(int(value.hop * value.rate), size)


def cut(g: Any) -> None:
    value = g.pick()
    a, b = g.int(1, 4), g.int(1, 4)
    forms = [value.cut(f"{a}:"), value.cut(f":-{b}"), value.cut(f"{a}:-{b}")]
    axis = 1 if value.layout == "btc" else -1
    forms += [f"{value.name}.narrow({axis}, {a}, {value.length} - {a})", value.cut(f": {value.length} - {b}")]
    g.emit(g.of(forms), value)


def every(g: Any) -> None:
    value = g.pick()
    step = g.stride(value)
    if step > 1:
        start = g.of(["", *map(str, range(1, step + 1))])
        g.emit(value.cut(f"{start}::{step}"), value, 1, step)


def cat_constants(g: Any) -> None:
    value = g.pick("bct", "btc")
    if not value:
        return
    frames = g.int(1, 3)
    v, c = value.name, value.channels
    shape = (c, frames) if value.layout == "bct" else (frames, c)
    axis = g.of([2, -1]) if value.layout == "bct" else 1
    made = [
        f"{g.parameter(1, *shape)}.expand({v}.shape[0], -1, -1)",
        f"{v}.new_zeros({v}.shape[0], {shape[0]}, {shape[1]})",
        f"torch.zeros({v}.shape[0], {shape[0]}, {shape[1]}, dtype={v}.dtype)",
    ]
    parts = g.of([[g.of(made), v], [v, g.of(made)], [g.of(made), v, g.of(made)]])
    g.emit(f"torch.cat([{', '.join(parts)}], dim={axis})", value)


def interpolate(g: Any) -> None:
    value = g.pick("bct", "btc")
    if not value:
        return
    scale, up, down = g.of([("2", 2, 1), ("2", 2, 1), ("3.0", 3, 1), ("1.5", 3, 2), ("0.5", 1, 2), ("4", 4, 1)])
    source, channels = as_bct(g, value)
    mode = g.of(["nearest", "linear", "nearest"])
    extra = ", align_corners=False" if mode == "linear" and g.flag() else ""
    call = f"F.interpolate({source}, scale_factor={scale}, mode={mode!r}{extra})"
    if g.rarely() and down == 1:
        call = f"{source}.repeat_interleave({up}, dim=-1)"
    g.emit(call, value, up, down, layout="bct", channels=channels, bands=1)


def subpixel_up(g: Any) -> None:
    value = g.pick("bct")
    if not value:
        return
    factors = [r for r in (2, 3, 4) if value.channels % r == 0 and g.fits(value, r, 1)]
    if not factors:
        return
    r, v = g.of(factors), value.name
    c, batch = value.channels // r, f"{v}.shape[0]"
    forms = [
        f"{v}.view({batch}, {c}, {r}, {value.length}).transpose(2, 3).reshape({batch}, {c}, {value.length} * {r})",
        f"{v}.reshape({batch}, {c}, {r}, -1).permute(0, 1, 3, 2).reshape({batch}, {c}, -1)",
        f"{v}.reshape({batch}, {r}, {c}, -1).permute(0, 2, 3, 1).flatten(2)",
        f"torch.stack({v}.chunk({r}, dim=1), dim=-1).flatten(-2)",
    ]
    g.emit(g.of(forms), value, r, 1, channels=c)


def subpixel_down(g: Any) -> None:
    value = g.pick("bct")
    if not value or value.channels > 4:
        return
    factors = [r for r in (2, 3, 4) if g.fits(value, 1, r)]
    if not factors:
        return
    r = g.of(factors)
    v, c = value.name, value.channels
    if any(n % r for n in g.lengths(value)):
        kind = g.int(0, 2)
        # A crop to a multiple settles what is left over at the end.
        source = [f"{v}[..., : {value.length} // {r} * {r}]", f"{v}[..., : {value.length} - {value.length} % {r}]"]
        cropped = g.emit(g.of(source) if kind < 2 else f"F.pad({v}, (0, -{value.length} % {r}))", value)
        if not cropped:
            return
        cropped.hop = _lcm_hop(value, r)
        v, value = cropped.name, cropped
    batch = f"{v}.shape[0]"
    forms = [
        (f"{v}.view({batch}, {c}, {value.length} // {r}, {r}).transpose(2, 3).reshape({batch}, {c * r}, -1)", c * r),
        (f"{v}.reshape({batch}, {c}, -1, {r}).permute(0, 3, 1, 2).flatten(1, 2)", c * r),
        (f"{v}.reshape({batch}, {c}, {value.length} // {r}, {r}).amax(-1)", c),
        (f"{v}.unflatten(-1, (-1, {r})).sum(-1)", c),
    ]
    source, channels = g.of(forms)
    if channels <= 12:
        g.emit(source, value, 1, r, channels=channels)


def frames(g: Any) -> None:
    value = g.pick("bct")
    if not value or value.channels > 4:
        return
    size, step = g.int(1, 5), g.stride(value)
    c = value.channels
    rows = g.let(f"{value.name}.unfold({g.of([-1, 2])}, {size}, {step})")  # [B, C, N, size]
    if rows is None:
        return
    window = g.parameter(size)
    forms = [
        (f"{rows}.mean(-1)", c),
        (f"({rows} * {window}).sum(-1)", c),
        (f"{rows} @ {window}", c),
        (f"{rows}.amax(dim=-1)", c),
        (f"torch.einsum('bcnk,ck->bcn', {rows}, {g.parameter(c, size)})", c),
        (f"F.linear({rows}, {g.parameter(2, size)}).permute(0, 1, 3, 2).reshape({rows}.shape[0], {2 * c}, -1)", 2 * c),
        (f"{rows}.permute(0, 1, 3, 2).flatten(1, 2)", c * size),
        (f"({rows} * torch.softmax({rows}, -1)).sum(-1)", c),
        (f"{rows}.var(-1, unbiased=False)", c),
        (f"{rows}.sort(dim=-1).values[..., {size // 2}]", c),
    ]
    source, channels = g.of(forms)
    if channels <= 12:
        g.emit(source, value, 1, step, channels=channels)


def unfold2d(g: Any) -> None:
    value = g.pick("bct")
    if not value:
        return
    size, step, pad = g.int(1, 3), g.stride(value), g.int(0, 2)
    if value.channels * size <= 12:
        call = f"F.unfold({value.name}.unsqueeze(2), (1, {size}), stride=(1, {step}), padding=(0, {pad}))"
        g.emit(call, value, 1, step, channels=value.channels * size)


def overlap_add(g: Any) -> None:
    value = g.pick("bct")
    if not value:
        return
    sizes = [size for size in (2, 3, 4, 6) if value.channels % size == 0]
    step = g.factor(value)
    if not sizes:
        return
    size = g.of(sizes)
    length = f"({value.length} - 1) * {step} + {size}"
    call = f"F.fold({value.name}, ({length}, 1), ({size}, 1), stride=({step}, 1)).squeeze(3)"
    if g.flag():
        call = f"F.fold({value.name}, (1, {length}), (1, {size}), stride=(1, {step})).squeeze(2)"
    g.emit(call, value, step, 1, channels=value.channels // size)


def difference(g: Any) -> None:
    value = g.pick()
    axis = 1 if value.layout == "btc" else -1
    forms = [
        f"{value.cut('1:')} - {value.cut(':-1')}",
        f"torch.diff({value.name}, dim={axis})",
        f"torch.diff({value.name}, n=2, dim={axis})",
        f"{value.cut('2:')} * {value.cut(':-2')}",
    ]
    g.emit(g.of(forms), value)


def running(g: Any) -> None:
    value = g.pick()
    axis = 1 if value.layout == "btc" else -1
    forms = [
        f"torch.cumsum(0.05 * {value.name}, {axis})",
        f"(0.05 * {value.name}).cumsum(dim={axis})",
        f"torch.cumprod(1 + 0.005 * torch.tanh({value.name}), {axis})",
    ]
    g.emit(g.of(forms), value)


def running_module(g: Any) -> None:
    """A module that stays whole."""
    value = g.pick()
    source, c = as_bct(g, value)
    if c > 12:
        return
    kinds = [f"pts.CumulativeLayerNorm1d({c}, eps=0.01)", f"pts.CumulativeGroupNorm1d({c}, {c}, eps=0.01)"]
    kinds += [f"pts.ExponentialMovingAverage1d({g.of([0.1, 0.6])}, {g.of(['first', 'zero'])!r})"]
    sources = [f"{g.member(g.of(kinds))}({source})"]
    scan = g.member("pts.LinearRecurrence()")
    sources += [f"{scan}(torch.sigmoid({source}), 0.3 * {source})"]
    g.emit(g.of(sources), value, layout="bct", channels=c, bands=1)


def single_samples(g: Any) -> None:
    """The first sample taken by its position, or constants of its shape."""
    value = g.pick("bct")
    if value:
        v, first = value.name, value.cut(":1")
        forms = [
            f"torch.cat([{first}, {v}[..., 1:] - 0.9 * {v}[..., :-1]], dim=-1)",
            f"torch.diff({v}, dim=-1, prepend={first})",
            f"torch.diff({v}, dim=-1, prepend=torch.zeros_like({first}))",
            f"torch.cat([torch.full_like({first}, 0.3), {v}], dim=-1)",
        ]
        g.emit(g.of(forms), value)
