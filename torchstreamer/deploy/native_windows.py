"""How parts that read samples at places of their own are written in C++: mirrored padding, rates, any windows."""

from typing import Any, List

import torch
from torch import nn

from ..native.arrays import SAMPLES, Array, Arrays
from ..native.program import Fault, Program, Raw, Ref
from ..native.recording import traced
from ..native.samplewise import Rows
from .ends import Mirrored
from .native import Slot
from .native_parts import look, windows, written
from .parts import Interpolate
from .windows import Taps

__all__: List[str] = []

_MODES = {"reflect": "reflected", "symmetric": "symmetric", "replicate": "replicated"}


@written.register
def _(part: Mirrored, at: Any) -> Slot:
    (source,) = at.sources(part)
    ref, reach, program = source.ref, part.reach, at.program
    outputs = at.made(part).size(2)
    ref.hold(part.held)
    value = ref.value
    padded = program.value(outputs * reach.q, value.width, f"{at.note(part)}, padded")
    padded.extra = reach.last - reach.first + 1 - reach.q
    begin = f"(at * {outputs} - {part.lag_out}) * {reach.q} + {reach.first}"
    last = f"n{part.key} - 1"
    find, clear = f"kernels::{_MODES[part.mode]}(begin + j, last)", ""
    if part.filled is not None:
        table = ", ".join(map(str, part.filled.tolist()))  # type: ignore[operator]
        count = part.filled.numel()  # type: ignore[operator]
        find = f"kernels::reflected(begin + j, last > filled(n{part.key}) - 1 ? last : filled(n{part.key}) - 1)"
        clear = (
            f"const auto filled = [](int64_t n) -> int64_t {{ static const int64_t most[] = {{{table}}}; "
            f"return most[n < {count} ? n : {count - 1}]; }};"
        )
    lines = [
        "{",
        *([f"  {clear}"] if clear else []),
        f"  const int64_t begin = {begin}, last = {last}, here = {program.begin(value, part.lag)};",
        f"  const int64_t count = {padded.count} + {padded.extra};",
        f"  const int64_t low = {-part.held - ref.back}, high = {value.count};",
        "  for (int64_t j = 0; j < count; ++j) {",
        f"    const int64_t from = {find};",
        f"    int64_t place = from - here - {ref.back};",
        "    place = place < low ? low : place >= high ? high - 1 : place;",
        f"    real* const to = r{padded.index} + j * {padded.stride};",
        f"    std::memcpy(to, r{value.index} + place * {value.stride}, {value.stride} * sizeof(real));",
        *([f"    if (from > last) std::memset(to, 0, {value.stride} * sizeof(real));"] if clear else []),
        "  }",
        "}",
    ]
    program.add(Raw(lines, [ref], padded))
    return at.slot(part, look(part.body, Ref(padded), 0, part, at))


@written.register
def _(part: Interpolate, at: Any) -> Slot:
    (source,) = at.sources(part)
    ref, program = source.ref, at.program
    rate = at.made(part).size(2)
    offsets = (part.left - part.held).tolist()
    ref.hold(max(-min(offsets), 0))
    value, made = ref.value, program.value(rate, ref.value.width, at.note(part))
    width, stride = value.width, value.stride
    lines = [
        f"for (int h = 0; h < k; ++h) for (int i = 0; i < {rate}; ++i) {{",
        f"  static const int left[] = {{{', '.join(map(str, offsets))}}};",
        f"  const int place = left[i] + h * {value.rate};",
        f"  const real* const one = {ref.rows()} + place * {stride};",
        f"  real* const to = r{made.index} + (h * {rate} + i) * {made.stride};",
    ]
    if part.weight is None:
        lines += [f"  std::memcpy(to, one, {width} * sizeof(real));", "}"]
        program.add(Raw(lines, [ref], made))
        return at.slot(part, Ref(made))
    weights = program.weights.add(part.weight)
    lines += [
        f"  real w = weights[{weights} + i];",
        f"  int64_t position = place + {program.begin(value, part.lag)};",
        f"  const real *y = one, *right = one + {stride};",
    ]
    if part.starts:
        lines += [
            "  if (position < 0) {",
            "    y = right; w = 0; position = 0;",
            f"    if (place + 2 < {value.count}) right += {stride};",
            "  }",
        ]
    lines += [
        f"  if (position + 1 >= n{part.key}) right = y;",
        f"  for (int e = 0; e < {width}; ++e) to[e] = y[e] * (1 - w) + right[e] * w;",
        "}",
    ]
    program.add(Raw(lines, [ref], made))
    return at.slot(part, Ref(made))


@windows.register
def _(body: Taps, ref: Ref, first: int, rate: int, note: str, part: Any, program: Program) -> Ref:
    ref.hold(-first)
    value, made = ref.value, program.value(rate, ref.value.width, note)
    hop = value.rate
    places = ", ".join(map(str, (body.places + first).tolist()))
    weights = program.weights.add(body.weights)
    lines = [
        f"for (int h = 0; h < k; ++h) for (int i = 0; i < {rate}; ++i) {{",
        f"  static const int at[] = {{{places}}};",
        f"  const int* const own = at + i * {body.taps};",
        f"  const real* const w = weights + {weights} + i * {body.taps};",
        f"  const real* const x = {ref.rows()} + h * {hop * value.stride};",
        f"  for (int e = 0; e < {value.width}; ++e) {{",
        "    real a = 0;",
        f"    for (int j = 0; j < {body.taps}; ++j) a += w[j] * x[own[j] * {value.stride} + e];",
        f"    r{made.index}[(h * {rate} + i) * {made.stride} + e] = a;",
        "  }",
        "}",
    ]
    program.add(Raw(lines, [ref], made))
    return Ref(made)


@windows.register
def _(body: nn.Module, ref: Ref, first: int, rate: int, note: str, part: Any, program: Program) -> Ref:
    # Any operation: each window is laid out by itself, and recorded as a row of a batch.
    if getattr(part, "places", None) is not None:
        raise Fault("it asks where its windows begin")
    value = ref.value
    stride = value.rate // rate
    field = _span(part, rate) - (rate - 1) * stride
    ref.hold(-first)
    unfolded = program.value(rate, value.width * field, f"{note}, windows")
    lines = [
        f"for (int i = 0; i < {unfolded.count}; ++i) for (int j = 0; j < {field}; ++j) "
        f"for (int c = 0; c < {value.width}; ++c)",
        f"  r{unfolded.index}[i * {unfolded.stride} + c * {field} + j] = "
        f"*({ref.rows(first)} + (i * {stride} + j) * {value.stride} + c);",
    ]
    program.add(Raw(lines, [ref], unfolded))
    arrays = Arrays(program, rate, note)
    index = torch.arange(SAMPLES * value.width * field).reshape(SAMPLES, value.width, field)
    (y,) = traced(arrays, body, [Array(Rows(Ref(unfolded)), index)], [program.dtype])
    if y.shape[2:].numel() != 1:
        raise Fault("no rule writes its windows")
    return arrays.ref(y)[0]


def _span(part: Any, rate: int) -> int:
    # Samples that the windows of a step span.
    need: int = part.reach.span(rate) if isinstance(part, Mirrored) else part.need
    return need
