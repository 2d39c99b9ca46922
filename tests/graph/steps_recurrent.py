"""Steps of random models with recurrent layers: over time, and over the bands of every frame."""

from typing import Any

from steps_layout import as_btc


def recurrence(g: Any) -> None:
    """A layer over time, in the layout ``[B, T, C]`` or ``[T, B, C]``."""
    value = g.pick()
    out, layers = g.of([2, 3]), g.of([1, 1, 2])
    kind = g.of(["nn.GRU", "nn.LSTM", "nn.RNN"])
    source, c = as_btc(g, value)
    options = f"{c}, {out}, {layers}, bias={g.flag()}"
    if kind == "nn.LSTM" and g.rarely():
        out = 1
        options += ", proj_size=1"
    form = g.int(0, 2)
    if form == 0:
        layer = g.member(f"{kind}({options}, batch_first=True)")
        g.emit(f"{layer}({source})[0]", value, layout="btc", channels=out, bands=1)
    elif form == 1:
        layer = g.member(f"{kind}({options})")
        text = f"{layer}({source}.transpose(0, 1))[0].transpose(0, 1)"
        g.emit(text, value, layout="btc", channels=out, bands=1)
    elif kind == "nn.GRU":
        layer, start = g.member(f"{kind}({options}, batch_first=True)"), g.parameter(layers, 1, out)
        text = f"{layer}({source}, {start}.repeat(1, {value.name}.shape[0], 1))[0]"
        g.emit(text, value, layout="btc", channels=out, bands=1)


def dual_path(g: Any) -> None:
    """A layer over the bands of every frame, in both directions, or over the frames of every band."""
    value = g.pick("bcft")
    if not value:
        return
    v, c, bands, out = value.name, value.channels, value.bands, g.of([1, 2])
    if g.flag():
        both = g.flag()
        layer = g.member(f"{g.of(['nn.GRU', 'nn.LSTM'])}({c}, {out}, batch_first=True, bidirectional={both})")
        out = 2 * out if both else out
        text = f"{layer}({v}.permute(0, 3, 2, 1).reshape(-1, {bands}, {c}))[0]"
        g.emit(f"{text}.reshape({v}.shape[0], -1, {bands}, {out}).permute(0, 3, 2, 1)", value, channels=out)
    else:
        layer = g.member(f"{g.of(['nn.GRU', 'nn.RNN'])}({c}, {out}, batch_first=True)")
        text = f"{layer}({v}.permute(0, 2, 3, 1).reshape(-1, {value.length}, {c}))[0]"
        g.emit(f"{text}.reshape({v}.shape[0], {bands}, -1, {out}).permute(0, 3, 1, 2)", value, channels=out)
