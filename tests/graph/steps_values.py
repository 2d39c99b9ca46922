"""Steps of random models: values that are made of the length alone, as counts, windows, ramps and masks."""

from typing import Any


def _with_counts(g: Any) -> None:
    value = g.pick("bct")
    if not value:
        return
    v, n = value.name, value.length
    count = g.of(
        [
            f"torch.ones({n}, dtype={v}.dtype).cumsum(0)",
            f"torch.arange(3, 3 * ({n} + 1), 3, dtype={v}.dtype).view(1, -1)",
            f"torch.arange(1, {n} + 1, dtype={v}.dtype).view(1, -1).expand_as({v}[:, 0]).unsqueeze(1)",
        ]
    )
    g.emit(f"{v}.cumsum(-1) / {count}", value)


def _with_coverage(g: Any) -> None:
    """Sums over windows divided by what the windows cover of the signal."""
    value = g.pick("bct")
    if not value:
        return
    v, n, k = value.name, value.length, g.int(2, 4)
    ones = f"torch.ones(1, 1, {n}, dtype={v}.dtype)"
    kernel = f"torch.ones(1, 1, {k}, dtype={v}.dtype)"
    over = g.of(
        [
            f"F.conv1d(F.pad({ones}, ({k - 1}, 0)), {kernel})",
            f"F.conv1d({ones}, {kernel}, padding={k - 1})[..., : {n}]",
            f"F.avg_pool1d({ones}, 3, 1, 1)",
            f"(1 + F.max_pool1d(torch.arange({n}, dtype={v}.dtype)[None, None] % {k}, 3, 1, 1))",
        ]
    )
    g.emit(f"{v} / {over}", value)


def _with_overlap(g: Any) -> None:
    value = g.pick("bct")
    if not value:
        return
    v, n, c = value.name, value.length, value.channels
    step = g.factor(value)
    kernel = step * g.int(1, 3)
    window = f"torch.hann_window({kernel + 2}, dtype={v}.dtype)[1:-1]"
    if g.flag():
        ones = f"torch.ones(1, 1, {n}, dtype={v}.dtype)"
        top = f"F.conv_transpose1d({v}, {window}.expand({c}, 1, -1), stride={step}, groups={c})"
        g.emit(f"{top} / F.conv_transpose1d({ones}, {window}.square()[None, None], stride={step})", value, step)
        return
    size = f"(1, ({n} - 1) * {step} + {kernel}), (1, {kernel}), stride=(1, {step})"
    envelope = g.of(
        [
            f"{window}.square().expand(1, {n}, -1).transpose(1, 2)",
            f"{window}.square()[None, :, None].repeat(1, 1, {n})",
        ]
    )
    top = f"F.fold({v}[:, :1] * {window}[None, :, None], {size})[:, 0]"
    g.emit(f"{top} / F.fold({envelope}, {size})[:, 0]", value, step, channels=1)


def _with_ramp(g: Any) -> None:
    value = g.pick("bct")
    if not value:
        return
    v, n, c = value.name, value.length, value.channels
    ramp = f"torch.arange({n}, dtype={v}.dtype)"
    form = g.int(0, 5)
    if form == 0 and g.fits(value, 2, 1):
        top = f"F.interpolate({v}, scale_factor=2)"
        g.emit(f"{top} * F.interpolate(torch.sin({ramp})[None, None], scale_factor=2)", value, 2)
    elif form == 1 and c < 8:
        line = f"({ramp} % 7).view(1, 1, -1).expand({v}.shape[0], 1, -1)"
        g.emit(f"torch.cat([{v}, {line}], 1)", value, channels=c + 1)
    elif form == 2:
        g.emit(f"{v} + F.pad(torch.cos({ramp}), (2, -2))", value)
    elif form == 3:
        g.emit(f"{v} + torch.zeros({n}).add(0.5)", value)
    elif form == 4:
        g.emit(f"{v} * (torch.arange({n}) % {g.int(2, 4)} >= 1)", value)
    else:
        g.emit(f"{v} + torch.sin(torch.arange(3000.0, dtype={v}.dtype)).view(1, 1, -1)[..., : {n}]", value)


VALUES = [_with_counts, _with_coverage, _with_overlap, _with_ramp]
