"""All steps of random models, and how two values are joined."""

import math
from typing import Any, List, Optional, Tuple

from steps_attention import attention
from steps_axes import AXES, LAYOUTS
from steps_layout import as_bct, as_btc, from_bcft, to_bcft, to_bct, to_btc
from steps_length import (
    cat_constants,
    cut,
    difference,
    every,
    frames,
    interpolate,
    overlap_add,
    pad,
    pad_to_multiple,
    running,
    running_module,
    single_samples,
    subpixel_down,
    subpixel_up,
    unfold2d,
)
from steps_numbers import CHECKS, NUMBERS
from steps_pointwise import (
    constant,
    embedding,
    halves,
    in_place,
    linear,
    module,
    norm,
    over_channels,
    pick_channels,
    unary,
)
from steps_recurrent import dual_path, recurrence
from steps_values import VALUES
from steps_window import causal_conv, conv, conv2d, pool, pool2d, transposed, transposed2d
from steps_writes import WRITES


def joinable(g: Any, one: Any, other: Any) -> bool:
    return other is not one and other.rate == one.rate and math.lcm(one.hop, other.hop) <= 48


def fitted(g: Any, one: Any, other: Any) -> Optional[Tuple[str, str]]:
    """Names of both values at a common length; the longer is cropped, or the shorter padded on the right."""
    lengths = [(a, b) for a, b in zip(g.lengths(one), g.lengths(other), strict=True)]
    gaps = {a - b for a, b in lengths}
    if gaps == {0}:
        return one.name, other.name
    if max(gaps) <= 0:
        turned = fitted(g, other, one)
        return None if turned is None else (turned[1], turned[0])
    if min(gaps) < 0:
        return None
    forms = [one.cut(f": {other.length}"), one.cut(f": {other.length}"), ""]
    if len(gaps) == 1:
        gap = max(gaps)
        left = g.int(0, gap)
        centre = f"({one.length} - {other.length}) // 2"
        forms += [
            one.cut(f"{centre} : {centre} + {other.length}"),
            one.cut(f"{left} : {left} + {other.length}"),
            one.cut(f"{one.length} - {other.length} :"),
            one.cut(f"{left}:-{gap - left}" if left < gap else f"{left}:"),
        ]
    form = g.of(forms)
    if form:
        name = g.let(form)
        return None if name is None else (name, other.name)
    lead = {"bct": "", "btc": "0, 0, ", "bcft": ""}[one.layout]
    name = g.let(f"F.pad({other.name}, ({lead}0, {one.length} - {other.length}))")
    return None if name is None else (one.name, name)


def _in_layout(g: Any, value: Any, layout: str) -> Optional[Any]:
    """The value, or a new one, in the layout "bct" or "btc"."""
    if value.layout == layout:
        return value
    source, channels = (as_bct if layout == "bct" else as_btc)(g, value)
    return g.emit(source, value, layout=layout, channels=channels, bands=1)


def join(g: Any) -> None:
    one = g.pick()
    others = [other for other in g.pool if joinable(g, one, other)]
    if others:
        join_two(g, one, g.of(others[-4:]))


def join_two(g: Any, one: Any, other: Any) -> Optional[Any]:
    if one.layout != other.layout or one.bands != other.bands:
        layout = g.of(["bct", "bct", "btc"])
        one, other = _in_layout(g, one, layout), _in_layout(g, other, layout)
        if one is None or other is None:
            return None
    pair = fitted(g, one, other)
    if pair is None:
        return None
    a, b = pair
    axis = 2 if one.layout == "btc" else 1
    forms = [
        (
            f"torch.cat([{a}, {b}], {g.of([axis, axis if one.layout == 'bcft' else axis - 3])})",
            one.channels + other.channels,
        )
    ]
    if one.channels == other.channels or 1 in (one.channels, other.channels):
        c = max(one.channels, other.channels)
        forms += [
            (f"{a} + {b}", c),
            (f"{a} + {b}", c),
            (f"{a} * {b}", c),
            (f"{a} - 0.5 * {b}", c),
            (f"torch.maximum({a}, {b})", c),
            (f"torch.where({a} > 0.13, {a}, {b})", c),
            (f"torch.where({b} > -0.21, {a}, torch.zeros_like({a}))", one.channels if other.channels == 1 else c),
            (f"torch.lerp({a}, {b}, 0.3)", c),
            (f"{a} * torch.sigmoid({b})", c),
            (f"{a} / (1 + {b}.abs())", c),
            (f"torch.addcmul({a}, {a}, {b}, value=0.5)", c),
        ]
        if one.channels == other.channels:
            forms += [
                (f"torch.stack([{a}, {b}], {axis}).mean({axis})", c),
                (f"torch.stack([{a}, {b}]).sum(0)", c),
                (f"torch.stack(({a}, {b}), 1).amax(1)", c),
            ]
            if one.layout == "bct":
                forms += [
                    (f"torch.einsum('bct,bct->bt', {a}, {b}).unsqueeze(1)", 1),
                    (f"torch.stack([{a}, {b}], 2).flatten(1, 2)", 2 * c),
                ]
    if one.layout == "bct" and one.channels * other.channels <= 12:
        outer = f"torch.einsum('bct,bdt->bcdt', {a}, {b}).flatten(1, 2)"
        forms += [(outer, one.channels * other.channels)]
        forms += [(f"({a}.unsqueeze(2) * {b}.unsqueeze(1)).flatten(1, 2)", one.channels * other.channels)]
    source, channels = g.of([form for form in forms if form[1] <= 12] or [(None, 0)])
    if source is None:
        return None
    both = type(one)(
        **{
            **vars(one),
            "up": max(one.up, other.up),
            "down": max(one.down, other.down),
            "hop": math.lcm(one.hop, other.hop),
        }
    )
    return g.emit(source, both, channels=channels)


def joined_ends(g: Any) -> Any:
    """The output as ``[B, C, T]``: the newest value, joined with those that nothing uses yet."""
    used = {word for line in g.lines for word in _words(line.split("=", 1)[-1])}
    ends = [value for value in g.pool if value.name not in used]
    out = g.pool[-1]
    for other in reversed(ends):
        if joinable(g, out, other):
            out = join_two(g, out, other) or out
    out = _in_layout(g, out, "bct") or out
    assert out.layout == "bct"
    return out


def _words(text: str) -> List[str]:
    return "".join(ch if ch.isalnum() or ch == "_" else " " for ch in text).split()


STEPS = [
    *[conv] * 9,
    *[join] * 7,
    *[unary] * 3,
    *[transposed, pool] * 3,
    *[pad, cut, constant, over_channels, linear] * 2,
    *[to_btc, to_bct, to_bcft, to_bcft, from_bcft, conv2d, conv2d, conv2d, transposed2d, pool2d],
    *[causal_conv, every, cat_constants, interpolate, subpixel_up, subpixel_down, frames, unfold2d, overlap_add],
    *[module, in_place, pick_channels, halves, norm, embedding, difference, running, pad_to_multiple],
    running_module,
    single_samples,
    *[recurrence, recurrence, dual_path],
    *[attention] * 2,
    *NUMBERS[1:],
    *CHECKS[2:],
    *VALUES,
    *WRITES,
]

# Every graph of a kind holds one of its steps.
KINDS = {
    "numbers": NUMBERS,
    "checks": CHECKS,
    "values": VALUES,
    "writes": WRITES,
    "layouts": LAYOUTS,
    "axes": AXES,
}
