"""Steps of random models on complex values, memory, positions, patches and three axes, as users write them."""

from typing import Any

from steps_window import with_bands


def complex_pairs(g: Any) -> None:
    value = g.pick("bct")
    if not value or value.channels % 2:
        return
    v, half, before = value.name, value.channels // 2, g.int(0, 3)
    pairs = g.of([f"{v}.unflatten(1, ({half}, 2)).transpose(2, 3)", f"torch.stack({v}.chunk(2, 1), -1)"])
    z = g.let(f"torch.view_as_complex(F.pad({pairs}, (0, 0, {before}, 0)).contiguous())", "z")
    if z:
        forms = [f"{z}.abs()", f"torch.view_as_real({z} * (0.5 + 1j)).sum(-1)", f"{z}.real * {z}.imag", f"{z}.angle()"]
        g.emit(g.of(forms[:3]), value, channels=half)


def cast_memory(g: Any) -> None:
    value = g.pick("bct")
    if not value:
        return
    v, c = value.name, value.channels
    if c % 2 == 0 and g.flag():
        source = f"{v}.transpose(1, 2).contiguous().view(torch.complex128).abs().transpose(1, 2)"
        g.emit(source, value, channels=c // 2)
    else:
        g.emit(f"torch.complex({v}, 0.5 * {v}).view(torch.float64)", value, 2, 1)


def frames_by_hand(g: Any) -> None:
    value = g.pick("bct")
    if not value:
        return
    v, c, size, step, t = value.name, value.channels, g.int(1, 5), g.stride(value), value.length
    count = f"({t} - {size}) // {step} + 1"
    forms = [
        f"{v}.contiguous().as_strided(({v}.shape[0], {c}, {size}, {count}), ({c} * {t}, {t}, 1, {step})).amax(2)",
        f"{v}[:, :, torch.arange({size})[:, None] + {step} * torch.arange({count})].sum(2)",
        f"{v}[..., {step} * torch.arange({count})[:, None] + torch.arange({size})].mean(-1)",
    ]
    g.emit(g.of(forms), value, 1, step)


def overlap_by_positions(g: Any) -> None:
    value = g.pick("bct")
    sizes = [size for size in (2, 3, 4) if value and value.channels % size == 0]
    if not sizes:
        return
    v, t, size, step = value.name, value.length, g.of(sizes), g.factor(value)
    c = value.channels // size
    zeros = f"{v}.new_zeros({v}.shape[0], {c}, {step} * ({t} - 1) + {size})"
    if g.flag():
        places = f"(torch.arange({size})[:, None] + {step} * torch.arange({t})).reshape(-1)"
        source = f"{v}.reshape({v}.shape[0], {c}, -1)"
    else:
        places = f"(torch.arange({size}) + {step} * torch.arange({t})[:, None]).flatten()"
        source = f"{v}.unflatten(1, ({c}, {size})).transpose(2, 3).reshape({v}.shape[0], {c}, -1)"
    g.emit(f"{zeros}.index_add(2, {places}, {source})", value, step, 1, channels=c)


LAYOUTS = [complex_pairs, cast_memory, frames_by_hand, overlap_by_positions]


def patches(g: Any) -> None:
    value = with_bands(g)
    if not value:
        return
    v, c, f, t = value.name, value.channels, value.bands, value.length
    high, wide = g.int(1, 3), g.int(1, 2)
    if c * high * wide > 12:
        return
    rows = f"{v}.shape[0]"
    kind = g.int(0, 2)
    if kind == 0:  # time last, several rows of patches
        source = f"F.unfold({v}, ({high}, 1), padding=({high // 2}, 0)).reshape({rows}, {c * high}, -1, {t})"
        g.emit(source, value, channels=c * high, bands=f + 2 * (high // 2) - high + 1)
    elif kind == 1:  # time first, as GTCRN has it
        call = f"F.unfold({v}.transpose(2, 3), ({wide}, {high}), padding=(0, {high // 2}))"
        bands = f + 2 * (high // 2) - high + 1
        source = f"{call}.reshape({rows}, {c * high * wide}, -1, {bands}).transpose(2, 3)"
        g.emit(source, value, channels=c * high * wide, bands=bands)
    else:  # neighbours of each band, as FullSubNet has them
        call = f"F.unfold(F.pad({v}, (0, 0, {high // 2}, {high // 2})), ({high}, {t}))"
        bands = f + 2 * (high // 2) - high + 1
        source = f"{call}.reshape({rows}, {c * high}, {t}, {bands}).transpose(2, 3)"
        g.emit(source, value, channels=c * high, bands=bands)


def attention_over_bands(g: Any) -> None:
    value = with_bands(g)
    if not value:
        return
    v, c, f, t = value.name, value.channels, value.bands, value.length
    module = g.member(f"nn.MultiheadAttention({c}, {2 if c % 2 == 0 else 1}, batch_first=True)")
    y = g.let(f"{v}.permute(0, 3, 2, 1).reshape({v}.shape[0] * {t}, {f}, {c})", "y")
    if y:
        source = f"{module}({y}, {y}, {y}, need_weights=False)[0]"
        g.emit(f"{source}.reshape({v}.shape[0], {t}, {f}, {c}).permute(0, 3, 2, 1)", value)


def video(g: Any) -> None:
    value = with_bands(g)
    if not value:
        return
    c, f = value.channels, value.bands
    x = g.let(f"{value.name}.transpose(2, 3).unsqueeze(-1).expand(-1, -1, -1, -1, 2)", "x")  # [B, C, T, F, 2]
    if not x:
        return
    kernel, kind, out = g.int(1, 3), g.int(0, 3), g.of([1, 2, 3])
    after = ".mean(-1).transpose(2, 3)"
    if kind == 0:
        stride = g.stride(value)
        module = g.member(f"nn.Conv3d({c}, {out}, ({kernel}, 1, 2), stride=({stride}, 1, 1), padding=(0, 0, 1))")
        g.emit(f"{module}(F.pad({x}, (0, 0, 0, 0, {kernel - 1}, 0))){after}", value, 1, stride, channels=out)
    elif kind == 1:
        stride = g.factor(value)
        module = g.member(f"nn.ConvTranspose3d({c}, {out}, ({kernel}, 1, 1), stride=({stride}, 1, 1))")
        g.emit(f"{module}({x}){after}", value, stride, 1, channels=out)
    elif kind == 2:
        stride = g.stride(value)
        pool = g.of(["F.avg_pool3d", "F.max_pool3d"])
        g.emit(f"{pool}({x}, ({kernel}, 1, 2), stride=({stride}, 1, 1)){after}", value, 1, stride, bands=f)
    else:
        stride = g.factor(value)
        g.emit(f"F.interpolate({x}, scale_factor=({stride}, 1, 1), mode='nearest'){after}", value, stride, 1)


def cubic(g: Any) -> None:
    value = with_bands(g)
    if value and g.rarely():  # which the exporter takes long for
        factor = g.factor(value)
        g.emit(f"F.interpolate({value.name}, scale_factor=(1, {factor}), mode='bicubic')", value, factor, 1)


AXES = [patches, patches, attention_over_bands, video, video, cubic]
