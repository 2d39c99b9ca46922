"""Steps of random models that change the layout. Each takes a builder and appends a few statements, or none."""

from typing import Any, Tuple


def as_bct(g: Any, value: Any) -> Tuple[str, int]:
    """Source that has the value as ``[B, C, T]``, and its channels."""
    if value.layout == "btc":
        forms = ["{}.transpose(1, 2)", "{}.permute(0, 2, 1)", "{}.mT", "{}.movedim(-1, 1)"]
        return g.of(forms).format(value.name), value.channels
    if value.layout == "bcft":
        return f"{value.name}.flatten(1, 2)", value.channels * value.bands
    return value.name, value.channels


def as_btc(g: Any, value: Any) -> Tuple[str, int]:
    if value.layout == "btc":
        return value.name, value.channels
    source, channels = as_bct(g, value)
    return g.of(["{}.transpose(1, 2)", "{}.permute(0, 2, 1)", "{}.swapaxes(-1, -2)"]).format(source), channels


def to_btc(g: Any) -> None:
    value = g.pick("bct", "bcft")
    if value:
        source, channels = as_btc(g, value)
        g.emit(source + g.of(["", ".contiguous()"]), value, layout="btc", channels=channels, bands=1)


def to_bct(g: Any) -> None:
    value = g.pick("btc", "bcft")
    if value:
        source, channels = as_bct(g, value)
        g.emit(source, value, layout="bct", channels=channels, bands=1)


def to_bcft(g: Any) -> None:
    value = g.pick("bct")
    if not value or value.channels > 6:
        return
    v, c, kind = value.name, value.channels, g.int(0, 4)
    if kind == 0:
        g.emit(f"{v}.unsqueeze({g.of([2, -2])})", value, layout="bcft", bands=1)
    elif kind == 1:
        g.emit(f"{v}.unsqueeze(1)", value, layout="bcft", channels=1, bands=c)
    elif kind == 2:
        bands = g.of([f for f in (1, 2, 3, 4, 6) if c % f == 0])
        forms = [
            f"{v}.view({v}.shape[0], {c // bands}, {bands}, {value.length})",
            f"{v}.reshape(-1, {c // bands}, {bands}, {value.length})",
            f"{v}.unflatten(1, ({c // bands}, {bands}))",
        ]
        g.emit(g.of(forms), value, layout="bcft", channels=c // bands, bands=bands)
    elif kind == 3:
        g.emit(f"{v}.unsqueeze(2).expand(-1, -1, 2, -1)", value, layout="bcft", bands=2)
    else:
        g.emit(f"{v}[:, None] * {g.parameter(2, 1, 1)}", value, layout="bcft", channels=2, bands=c)


def from_bcft(g: Any) -> None:
    value = g.pick("bcft")
    if not value:
        return
    v, c, f = value.name, value.channels, value.bands
    forms = [
        (f"{v}.flatten(1, 2)", c * f),
        (f"{v}.reshape({v}.shape[0], {c * f}, -1)", c * f),
        (f"{v}.permute(0, 2, 1, 3).flatten(1, 2)", c * f),
        (f"{v}.mean(2)", c),
        (f"{v}.sum(dim=-2)", c),
        (f"{v}.amax(2)", c),
        (f"{v}.select(2, {g.int(0, f - 1)})", c),
        (f"{v}[:, :, {g.int(-f, f - 1)}]", c),
        (f"torch.einsum('bcft,f->bct', {v}, {g.parameter(f)})", c),
    ]
    if f == 1:
        forms += [(f"{v}.squeeze(2)", c)]
    if c == 1:
        forms += [(f"{v}.squeeze(1)", f)]
    source, channels = g.of(forms)
    g.emit(source, value, layout="bct", channels=channels, bands=1)
