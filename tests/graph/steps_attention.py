"""A step of random models: attention with a random context, fused, by hand or a layer, sometimes with a bias."""

import math
from typing import Any


def attention(g: Any) -> None:
    value = g.pick("btc", "bct")
    chunk = g.of([1, 1, 2, 3, 4])
    if not value or not g.fits(value, 1, chunk) or not g.fits(value, 1, 1):
        return
    if g.rarely():
        attention_layer(g, value, chunk)
        return
    x = value.name if value.layout == "btc" else f"{value.name}.mT"
    query = g.member(f"nn.Linear({value.channels}, {value.channels})")
    left, right = g.int(0, 7), g.of([0, 0, 1, 3])
    i, j = f"torch.arange({value.length})[:, None]", f"torch.arange({value.length})[None]"
    begin = f"{i} // {chunk} * {chunk}"
    seen = f"({j} >= {begin} - {left}) & ({j} <= {begin} + {chunk - 1 + right})"
    if g.rarely():
        seen = f"({seen}) | (({j} < 2) & ({j} <= {begin} + {chunk - 1 + right}))"
    elif g.rarely():
        seen = f"torch.zeros({value.length}, {value.length}, dtype={x}.dtype).masked_fill(~({seen}), float('-inf'))"
        seen = f"{seen} - ({i} - {j}).abs() * 0.3"
    added = seen.startswith("torch.zeros")
    if g.flag():
        source = f"F.scaled_dot_product_attention({query}({x}), {x}, {x}, {seen})"
    elif added:
        source = f"({query}({x}) @ {x}.mT / 4 + {seen}).softmax(-1) @ {x}"
    else:
        source = f"({query}({x}) @ {x}.mT / 4).masked_fill(~({seen}), float('-inf')).softmax(-1) @ {x}"
    grid(g.emit(source if value.layout == "btc" else f"({source}).mT", value), value, chunk)


def attention_layer(g: Any, value: Any, chunk: int) -> None:
    """A layer of ours, which stays whole."""
    c = value.channels
    heads = g.of([heads for heads in (1, 2, 3) if c % heads == 0])
    context = f"pts.Context({g.int(0, 7)}, {g.of([0, 0, 1, 3])}, {chunk})"
    inner = f"nn.MultiheadAttention({c}, {heads}, bias={g.flag()}, batch_first={g.flag()})"
    layer = g.member(f"pts.SelfAttention1d({inner}, {context}, sinks={g.of([0, 0, 2])})")
    source = f"{layer}({value.name})" if value.layout == "bct" else f"{layer}({value.name}.mT)"
    grid(g.emit(source, value, layout="bct"), value, chunk)


def grid(new: Any, value: Any, chunk: int) -> None:
    """Lengths go on as before after whole chunks."""
    if new:
        new.hop = value.hop * chunk // math.gcd(int(value.hop * value.rate), chunk)
