"""How queries that meet keys are written in C++: the keys that a hop sees stand side by side, and what is done with
them is recorded as of one sample."""

from dataclasses import dataclass
from typing import Any, List, Optional

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..layers.attention_body import AttentionBody
from ..layers.attention_positions import AlibiBias, Rotary, ShawBias, T5Bias, TransformerXLBias
from ..native.arrays import SAMPLES, Array, Arrays
from ..native.program import Fault, Program, Raw, Ref, Value
from ..native.recording import traced
from ..native.samplewise import Apply, Rows
from .attention import AttentionPart
from .native import Slot
from .native_parts import written
from .relations import Ended, RelationPart

__all__: List[str] = []

# What they add to scores depends on distances alone.
_BIASES = (AlibiBias, ShawBias, T5Bias, TransformerXLBias)


@dataclass
class _Facing:
    # The queries of a step, the keys that they may see, and which of these each of them sees.
    program: Program
    part: Any
    queries: Ref
    keys: Ref
    spoilt: Ref

    def __post_init__(self) -> None:
        part, program = self.part, self.program
        self.m: int = self.keys.value.rate
        self.count: int = self.m + part.slots
        self.note = self.keys.value.note
        back = part.lag_out - part.lag
        self.asking = program.shown(self.queries, -back, self.m, self.m, f"{self.note}, all queries of a hop")
        self.faced = program.shown(self.keys, -part.slots, self.count, self.m, f"{self.note}, all keys of a hop")
        self.spoilt.hold(part.slots)
        self.mask = self._mask()

    def _mask(self) -> Value:
        part, m, count = self.part, self.m, self.count
        mask = self.program.value(1, m * count, f"{self.note}, which are seen")
        band = ", ".join(map(str, part.band.int().flatten().tolist()))
        lines = [
            f"for (int h = 0; h < k; ++h) for (int q = 0; q < {m}; ++q) for (int s = 0; s < {count}; ++s) {{",
            f"  static const unsigned char seen[] = {{{band}}};",
            f"  const int64_t j = (at + h) * {m} + {part.oldest} + s;",
            f"  r{mask.index}[h * {mask.stride} + q * {count} + s] = "
            f"seen[q * {count} + s] && j >= 0 && j < n{part.key} ? real(1) : real(0);",
            "}",
        ]
        self.program.add(Raw(lines, [], mask))
        return mask

    def answered(self, body: nn.Module, y: Tensor, time: int) -> Slot:
        """What a module makes of queries ``[b, m, …]``, keys ``[b, count, …]`` and a mask; gives ``[b, m, …]``."""
        steps = Arrays(self.program, 1, self.note)
        truth = Apply("({0} != V{{}})", [(Rows(Ref(self.mask)), torch.arange(self.mask.width))], self.mask.width)
        index = torch.arange(SAMPLES * self.mask.width).reshape(SAMPLES, self.m, self.count)
        given = [_several(self.asking, self.m), _several(self.faced, self.count), Array(truth, index, True)]
        dtype = self.program.dtype
        with sdpa_kernel(SDPBackend.MATH):
            (found,) = traced(steps, body, given, [dtype, dtype, torch.bool])
        return Slot(self._sound(steps.ref(found)[0]), tuple(y.shape), time, y.dtype)

    def _sound(self, ref: Ref) -> Ref:
        # Each query by itself, and nan where it saw what is not finite.
        part, m, count, program = self.part, self.m, self.count, self.program
        width = ref.value.width // m
        made = program.value(m, width, self.note)
        spoilt = self.spoilt.value
        longest = getattr(part, "longest", -1)
        late = f"(at + h) * {m} + q - {part.lag_out} >= {longest}" if longest >= 0 else "false"
        ref.hold()
        lines = [
            f"for (int h = 0; h < k; ++h) for (int q = 0; q < {m}; ++q) {{",
            f"  bool bad = {late};",
            f"  for (int s = 0; s < {count}; ++s)",
            f"    bad |= r{self.mask.index}[h * {self.mask.stride} + q * {count} + s] != 0 && "
            f"*({self.spoilt.rows(-part.slots)} + (h * {m} + s) * {spoilt.stride}) != 0;",
            f"  real* const to = r{made.index} + (h * {m} + q) * {made.stride};",
            f"  for (int e = 0; e < {width}; ++e) "
            f"to[e] = bad ? real(NAN) : *({ref.rows()} + h * {ref.value.stride} + q * {width} + e);",
            "}",
        ]
        program.add(Raw(lines, [ref, Ref(self.mask), self.spoilt], made))
        return Ref(made)


def _several(value: Value, count: int) -> Array:
    # The numbers of all rows that a value shows side by side, without what stands between them.
    assert value.shows is not None
    row, step = value.shows.value.width, value.shows.value.stride
    numbers = torch.arange(count).unsqueeze(1) * step + torch.arange(row)
    return Array(Rows(Ref(value)), torch.arange(SAMPLES).reshape(-1, 1, 1) * value.width + numbers)


def _finite(program: Program, ref: Ref, part: Any, note: str) -> List[Ref]:
    # Rows with zeros in the place of what is not finite, or of no signal; and whether something is not finite.
    value = ref.value
    ref.hold()
    sound, spoilt = program.value(value.rate, value.width, note), program.value(value.rate, 1, f"{note}, not finite")
    lines = [
        f"for (int i = 0; i < {value.count}; ++i) {{",
        f"  const real* const from = {ref.rows()} + i * {value.stride};",
        f"  const int64_t place = {program.begin(value, part.lag)} + i;",
        f"  const bool there = place >= 0 && place < n{part.key};",
        "  bool bad = false;",
        f"  for (int e = 0; e < {value.width}; ++e) bad |= !(from[e] - from[e] == 0);",
        f"  for (int e = 0; e < {value.width}; ++e) "
        f"r{sound.index}[i * {sound.stride} + e] = there && !bad ? from[e] : real(0);",
        f"  r{spoilt.index}[i * {spoilt.stride}] = there && bad ? real(1) : real(0);",
        "}",
    ]
    program.add(Raw(lines, [ref], sound))
    program.add(Raw([], [ref], spoilt))
    return [Ref(sound), Ref(spoilt)]


def _plain(part: Any, at: Any) -> None:
    if part.prefix > 0:
        raise Fault("first keys that are seen for ever")
    if at.made(part).size(0) != 1:
        raise Fault("queries of rows that another axis is merged into")


# ---------------------------------------------------------------------- layers


@written.register
def _(part: AttentionPart, at: Any) -> Slot:
    _plain(part, at)
    (source,) = at.sources(part)
    program, note, x = at.program, at.note(part), source.ref
    turns = False
    for body in part.body.modules():
        if isinstance(body, AttentionBody):
            if body.bias is not None and type(body.bias) not in _BIASES:
                raise Fault(f"a bias of scores that may know more than distances ({type(body.bias).__name__})")
            if body.rope is not None and type(body.rope) is not Rotary:
                raise Fault(f"queries and keys that {type(body.rope).__name__} turns")
            turns = turns or body.rope is not None
    sound, spoilt = _finite(program, x, part, f"{note}, without what is not finite")
    keys = _projected(_Keys(part.body), sound, part.lag if turns else None, note, program)
    back = part.lag_out - part.lag
    x.hold(back)
    waiting = Ref(x.value, x.back + back)
    queries = _projected(_Asks(part.body), waiting, part.lag_out if turns else None, note, program)
    # What asks goes along, for what follows attention in a layer.
    both = _beside(program, queries, waiting)
    facing = _Facing(program, _Late(part), both, keys, spoilt)
    m = facing.m
    i = torch.arange(-part.lag_out, m - part.lag_out).unsqueeze(0)
    j = torch.arange(part.oldest, m - part.lag).unsqueeze(0)
    return facing.answered(_Answer(part.body, queries.value.width, i, j), at.made(part), 2)


class _Late:
    # Of a part whose queries wait already.
    def __init__(self, part: Any) -> None:
        self.part = part
        self.lag = part.lag_out

    def __getattr__(self, name: str) -> Any:
        return getattr(self.part, name)


def _projected(body: nn.Module, ref: Ref, lag: Optional[int], note: str, program: Program) -> Ref:
    value = ref.value
    arrays = Arrays(program, value.rate, note)
    given = [arrays.of(ref, [1, SAMPLES, value.width], 1)]
    if lag is not None:
        place = program.value(value.rate, 1, f"{note}, positions")
        line = f"for (int i = 0; i < {place.count}; ++i) r{place.index}[i * {place.stride}] = "
        program.add(Raw([f"{line}real({program.begin(value, lag)} + i);"], [], place))
        given.append(arrays.of(Ref(place), [1, SAMPLES], 1))
    (found,) = traced(arrays, body, given, [program.dtype] * len(given))
    return arrays.ref(found)[0]


def _beside(program: Program, one: Ref, other: Ref) -> Ref:
    arrays = Arrays(program, one.value.rate, one.value.note)
    both = [arrays.of(ref, [SAMPLES, ref.value.width], 0) for ref in (one, other)]
    return arrays.ref(arrays.joined(both, 1))[0]


class _Keys(nn.Module):
    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor, at: Optional[Tensor] = None) -> Tensor:
        found: Tensor = self.body.keys(x, at)
        return found


class _Asks(_Keys):
    def forward(self, x: Tensor, at: Optional[Tensor] = None) -> Tensor:
        found: Tensor = self.body.asks(x, at)
        return found


class _Answer(nn.Module):
    def __init__(self, body: Any, width: int, i: Tensor, j: Tensor) -> None:
        super().__init__()
        self.body, self.width = body, width
        self.register_buffer("i", i, persistent=False)
        self.register_buffer("j", j, persistent=False)

    def forward(self, asking: Tensor, keys: Tensor, mask: Tensor) -> Tensor:
        q, x = asking.narrow(2, 0, self.width), asking.narrow(2, self.width, asking.size(2) - self.width)
        found: Tensor = self.body.answer(x, q, keys, self.i, self.j, mask)
        return found


# ---------------------------------------------------------------------- captured models


@written.register
def _(part: Ended, at: Any) -> Slot:
    (source,) = at.sources(part)
    program, ref = at.program, source.ref
    value = ref.value
    ref.hold()
    made = program.value(value.rate, value.width, value.note)
    lines = [
        "for (int h = 0; h < k; ++h) {",
        f"  const int64_t came = (at + h + 1) * {program.hop};",
        f"  const bool late = (came < state.total ? came : state.total) > {part.longest};",
        f"  for (int e = 0; e < {value.rate * value.stride}; ++e)",
        f"    r{made.index}[h * {value.rate * value.stride} + e] = late ? real(NAN) : "
        f"*({ref.rows()} + h * {value.rate * value.stride} + e);",
        "}",
    ]
    program.add(Raw(lines, [ref], made))
    return at.slot(part, Ref(made))


@written.register
def _(part: RelationPart, at: Any) -> Slot:
    _plain(part, at)
    slots = at.sources(part)
    program, note = at.program, at.note(part)
    rates = {slot.ref.value.rate for slot in slots}
    if len(rates) != 1 or {slot.dtype for slot in slots} != {program.dtype}:
        raise Fault("values of unlike rates or dtypes meet in it")
    arrays = Arrays(program, rates.pop(), note)
    given = [arrays.of(slot.ref, slot.shape, slot.time) for slot in slots]
    found = traced(arrays, _Packed(part), given, [slot.dtype for slot in slots])
    queries, keys = (arrays.ref(each)[0] for each in found)
    sound, spoilt = _finite(program, keys, part, f"{note}, keys")
    facing = _Facing(program, part, queries, sound, spoilt)
    order = part.layout_out.order
    return facing.answered(_Related(part, facing.m), at.made(part), order[-1])


class _Packed(nn.Module):
    def __init__(self, part: Any) -> None:
        super().__init__()
        self.layouts, self.queries = part.layouts, part.queries

    def forward(self, *xs: Tensor) -> List[Tensor]:
        packed = [layout.pack(x) for layout, x in zip(self.layouts, xs, strict=True)]
        return [torch.cat(packed[: self.queries], 1), torch.cat(packed[self.queries :], 1)]


class _Related(nn.Module):
    def __init__(self, part: Any, m: int) -> None:
        super().__init__()
        self.body, self.layouts, self.channels, self.queries = part.body, part.layouts, part.channels, part.queries
        order = part.layout_out.order
        self.time, self.rows = order[-1], order[0]
        self.register_buffer("i", torch.arange(-part.lag_out, m - part.lag_out).unsqueeze(0), persistent=False)
        self.register_buffer("j", torch.arange(part.oldest, m - part.lag).unsqueeze(0), persistent=False)

    def forward(self, asking: Tensor, faced: Tensor, mask: Tensor) -> Tensor:
        parts = list(torch.split(asking.transpose(1, 2), self.channels[: self.queries], 1))
        parts += torch.split(faced.transpose(1, 2), self.channels[self.queries :], 1)
        given = [layout.unpack(part) for layout, part in zip(self.layouts, parts, strict=True)]
        y = self.body([*given, mask, self.i, self.j])[0]
        y = y.movedim((self.rows, self.time), (0, 1))
        return y.reshape(y.size(0), y.size(1), -1)
