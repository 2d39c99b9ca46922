"""How each part of a static plan is written in C++: a rule for each kind of part, and each kind of window."""

from functools import singledispatch
from typing import Any, List, Optional, Tuple

import torch
from torch import Tensor, nn

from ..layers.pooling import Pooling
from ..native.arrays import SAMPLES, Array, Arrays
from ..native.products import Product, convolve
from ..native.program import Fault, Program, Raw, Ref, Value
from ..native.recording import traced
from .bodies import TransposedBody
from .ends import Fit
from .native import Slot
from .parts import Call, Delay, Pick, Sum
from .rows import Part
from .windows import ConvolveTaps, TransposedPart, WindowPart

__all__ = ["look", "windows", "written"]


@singledispatch
def written(part: Part, at: Any) -> Any:
    """Add a part to a program.

    Args:
        part: the part
        at: what is known of the plan and of the program

    Returns:
        what it gives, a `Slot`, or a list of them
    """
    raise Fault(f"no rule writes what it does ({type(part).__name__})")


# ---------------------------------------------------------------------- samplewise


@written.register
def _(part: Delay, at: Any) -> Slot:
    (source,) = at.sources(part)
    return at.slot(part, Ref(source.ref.value, source.ref.back + part.held))


@written.register
def _(part: Fit, at: Any) -> Slot:
    return at.slot(part, at.masked(part.sources[0], (part.lag, part.key, part.value)))


@written.register
def _(part: Pick, at: Any) -> Any:
    return at.slots[part.sources[0]][part.index]


@written.register
def _(part: Call, at: Any) -> Any:
    slots = at.sources(part)
    arrays, inputs = _arrays(part, at, slots)
    body = part.body.to("cpu")
    found = traced(arrays, body, inputs, [slot.dtype for slot in slots])
    y: Any = at.made(part)
    if isinstance(y, Tensor):
        time = at.slot(part, None).time
        if y.size(time) > arrays.rate:
            return _several(arrays, found[0], y, time)
        return _slot(arrays, found[0], y)
    times = {each.index: at.plan.times[each.target] for each in at.static.parts if each.sources == [part.target]}
    # Those that nobody picks are not needed.
    return [
        _slot(arrays, array, each, times[i]) if i in times else None
        for i, (array, each) in enumerate(zip(found, y, strict=True))
    ]


@written.register
def _(part: Sum, at: Any) -> Slot:
    arrays, found = _arrays(part, at, at.sources(part))
    if {slot.dtype for slot in at.sources(part)} != {at.program.dtype}:
        raise Fault("a sum of whole numbers")
    if part.kind == "cat":
        return _slot(arrays, arrays.joined(found, 1), at.made(part))
    total = found[0]
    for each in found[1:]:
        total = arrays.applied("({0} * {1})" if part.kind == "mul" else "({0} + {1})", total, each)
    return _slot(arrays, total, at.made(part))


def _arrays(part: Part, at: Any, slots: List[Slot]) -> Tuple[Arrays, List[Array]]:
    rates = {slot.ref.value.rate for slot in slots}
    if len(rates) != 1:
        raise Fault("values of unlike rates meet in it")
    arrays = Arrays(at.program, rates.pop(), at.note(part))
    return arrays, [arrays.of(slot.ref, slot.shape, slot.time) for slot in slots]


def _slot(arrays: Arrays, array: Any, y: Tensor, time: Optional[int] = None) -> Slot:
    if isinstance(array, Tensor) and time is not None and y.dtype == arrays.program.dtype:
        # The same for all samples.
        if not torch.equal(array, array.narrow(time, 0, 1).expand_as(array)):
            raise Fault("constants that change from sample to sample")
        return Slot(arrays.constant(array.select(time, 0).reshape(-1)), tuple(y.shape), time, y.dtype)
    ref, time = arrays.ref(array)
    return Slot(ref, tuple(y.shape), time, y.dtype)


def _several(arrays: Arrays, array: Any, y: Tensor, time: int) -> Slot:
    # Each sample becomes several, which stand side by side before they are samples.
    program, count = arrays.program, y.size(time) // arrays.rate
    if not isinstance(array, Array) or array.shape[time] != SAMPLES * count:
        raise Fault("a value of another rate than its samples come at")
    apart = [*y.shape[:time], SAMPLES, count, *y.shape[time + 1 :]]
    ref, _ = arrays.ref(array.laid_out(lambda index: index.reshape(apart).movedim(time + 1, 0)))
    ref.hold()
    width = ref.value.width // count
    made = program.value(arrays.rate * count, width, arrays.note)
    row = f"{ref.rows()} + i * {ref.value.stride} + j * {width}"
    to = f"r{made.index} + (i * {count} + j) * {made.stride}"
    loops = f"for (int i = 0; i < {ref.value.count}; ++i) for (int j = 0; j < {count}; ++j) "
    program.add(Raw([f"{loops}std::memcpy({to}, {row}, {width} * sizeof(real));"], [ref], made))
    return Slot(Ref(made), tuple(y.shape), time, y.dtype)


# ---------------------------------------------------------------------- windows


@written.register
def _(part: WindowPart, at: Any) -> Slot:
    mask = None if part.mask is None else (*part.mask, part.value)
    ref = at.masked(part.sources[0], mask)
    return at.slot(part, look(part.body, ref, part.begin - part.held, part, at))


def look(body: nn.Module, ref: Ref, first: int, part: Any, at: Any) -> Ref:
    """Add what looks through windows.

    Args:
        body: the operation
        ref: the rows
        first: the first row of the first window, counted from the first of a step
        part: that it belongs to
        at: what is known of the plan and of the program
    """
    made = at.made(part)
    if made.dtype != at.program.dtype:
        raise Fault("windows of whole numbers")
    if made.size(0) != 1 and windows.dispatch(type(body)) is windows.dispatch(nn.Module):
        raise Fault("windows of rows that another axis is merged into")
    return windows(body, ref, first, made.size(2), at.note(part), part, at.program)


@singledispatch
def windows(body: Any, ref: Ref, first: int, rate: int, note: str, part: Any, program: Program) -> Ref:
    """Add an operation on windows; see `look`."""
    raise Fault("no rule writes its windows")


@windows.register
def _(body: nn.Identity, ref: Ref, first: int, rate: int, note: str, part: Any, program: Program) -> Ref:
    ref.hold(-first)
    return Ref(ref.value, ref.back - first)


@windows.register
def _(body: ConvolveTaps, ref: Ref, first: int, rate: int, note: str, part: Any, program: Program) -> Ref:
    o, i, k = body.weight.shape
    note = f"{note}, convolution {i * body.groups} to {o}, {k} taps"
    # Where another axis is merged into the rows of the batch, each of its entries is a group of channels.
    fold = ref.value.width // (i * body.groups)
    bias = None if body.bias is None else body.bias.repeat(fold)
    numbers = body.stride, body.dilation, body.groups * fold
    return convolve(program, ref, first, body.weight.repeat(fold, 1, 1), bias, *numbers, rate, note)


@windows.register
def _(body: Pooling, ref: Ref, first: int, rate: int, note: str, part: Any, program: Program) -> Ref:
    value = ref.value
    ref.hold(-first)
    made = program.value(rate, value.width, note)
    taps, stride, dilation = body.kernel_size, body.stride, body.dilation
    if body.kind == "Max":
        sizes = f"{value.width}, {value.stride}, {stride}, {made.stride}, {taps}, {dilation}"
        call = f"kernels::largest<{sizes}>({ref.rows(first)}, r{made.index}, {made.count});"
        program.add(Raw([call], [ref], made))
        return Ref(made)
    if body.kind == "LP":
        arrays = Arrays(program, value.rate, note)
        powers = arrays.applied(_power(body.power), arrays.of(ref, [value.width, SAMPLES], 1))
        ref = arrays.ref(powers)[0]
        ref.hold(-first)
        value = ref.value
    weight = torch.full([value.width, 1, taps], 1 / taps, dtype=torch.float64)
    program.add(Product(program, ref, first, weight, None, stride, dilation, value.width, made))
    if part.places is not None:
        program.add(Raw(_corrected(body, part, made, program), [Ref(made)], made))
    if body.kind == "LP":
        # The mean becomes a sum again before the root, as in torch.
        arrays = Arrays(program, rate, note)
        mean = arrays.of(Ref(made), [value.width, SAMPLES], 1)
        total = arrays.applied(f"(sign({{0}}) * relu(absolute({{0}})) * real({taps}))", mean)
        return arrays.ref(arrays.applied(_power(1 / body.power), total))[0]
    return Ref(made)


def _power(exponent: float) -> str:
    return f"raised({{0}}, splat<V>(real({exponent!r})))"


def _corrected(body: Pooling, part: Any, made: Value, program: Program) -> List[str]:
    # Windows at the edges are divided by the samples that the module counts.
    lag, reach = part.places
    begin = program.begin(made, lag)
    length = f"n{part.mask[1]}"
    if body.count_include_pad:
        samples = f"(end < {length} + {body.padding} ? end : {length} + {body.padding}) - begin"
    else:
        samples = f"(end < {length} ? end : {length}) - (begin < 0 ? 0 : begin)"
    return [
        f"for (int i = 0; i < {made.count}; ++i) {{",
        f"  const int64_t begin = ({begin} + i) * {reach.q} + {reach.first}, end = begin + {body.kernel_size};",
        f"  const int64_t samples = {samples};",
        f"  if (samples != {body.kernel_size}) for (int e = 0; e < {made.width}; ++e)",
        f"    r{made.index}[i * {made.stride} + e] *= real({body.kernel_size}) / real(samples < 1 ? 1 : samples);",
        "}",
    ]


# ---------------------------------------------------------------------- frames that overlap


@written.register
def _(part: TransposedPart, at: Any) -> Slot:
    mask: Optional[Tuple[int, int, float]] = None if part.mask is None else (*part.mask, part.value)
    ref = at.masked(part.sources[0], mask)
    body = part.body
    if not isinstance(body, TransposedBody):
        raise Fault("no rule writes its frames")
    made = at.made(part)
    inner, outer, taps = body.weight.shape
    fold = made.size(0)  # entries of an axis that is merged into the rows of the batch
    stride, dilation, groups = body.stride, body.dilation, body.groups * fold
    inner, out = inner * fold, outer * groups
    bias = None if body.bias is None else body.bias.repeat(fold)
    note = f"{at.note(part)}, transposed convolution {inner} to {out}, {taps} taps, stride {stride}"
    value = at.program.value(made.size(2), out, note)
    # Weights as of a convolution: [outputs, inputs / groups, taps].
    grouped = body.weight.repeat(fold, 1, 1).reshape(groups, inner // groups, outer, taps)
    weight = grouped.transpose(1, 2).reshape(out, inner // groups, taps)
    for phase in range(stride):
        # Input i adds tap k to output i·stride + k·dilation.
        own = [k for k in range(taps) if (k * dilation - phase) % stride == 0]
        back = [(k * dilation - phase) // stride for k in own]
        if not own:
            at.program.add(_bias_alone(bias, stride, value, phase, at.program))
            continue
        some = weight[:, :, own].flip(2)
        spacing = back[1] - back[0] if len(back) > 1 else 1
        numbers = 1, spacing, groups
        at.program.add(Product(at.program, ref, -back[-1], some, bias, *numbers, value, stride, phase))
    return at.slot(part, Ref(value))


def _bias_alone(bias: Optional[Tensor], stride: int, value: Value, phase: int, program: Program) -> Raw:
    # Between frames that lie apart stands the bias.
    weights = program.weights.add(torch.zeros(value.width) if bias is None else bias)
    rate = value.rate // stride
    count = "k" if rate == 1 else f"k * {rate}"
    place = f"r{value.index} + (i * {stride} + {phase}) * {value.stride}"
    line = f"std::memcpy({place}, weights + {weights}, {value.width} * sizeof(real));"
    return Raw([f"for (int i = 0; i < {count}; ++i) {line}"], [], value)
