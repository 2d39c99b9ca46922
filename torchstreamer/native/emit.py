"""The file: kernels, weights, the class with its step, and functions for other languages."""

import re
import zlib
from importlib import resources
from typing import Any, Dict, List, Sequence, Tuple

import torch

from ..core.lengths import LengthTable
from .fusing import fuse
from .program import Program, Value
from .weights import literal

__all__ = ["written"]

_KERNELS = ("vector", "functions", "product", "pairs", "rows", "checksum")

# Samples and numbers of the longest stretch that goes through all operations at once, so that it stays in the cache.
_SAMPLES = 48
_NUMBERS = 1 << 14

# Bytes of a saved state in front of the numbers.
_HEAD = 16

_INCLUDES = """\
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the weights are little-endian"
#endif

// Vectors wider than the machine's go from function to function inside of this file alone.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpsabi"
#endif"""

_END = """\

#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
"""


def written(program: Program, name: str, header: bool, about: str, weights: str = "inside", rows: bool = False) -> str:
    """A program as a C++ file.

    Args:
        program: all of the net; its loops are fused
        name: of the class
        header: whether the file is to be included
        about: lines of a comment at its top
        weights: ``"inside"`` of the file, ``"given"`` to each net by a pointer, or the name of the file that holds them
        rows: whether functions for the rows of a batch stand at its end
    """
    fuse(program)
    return _File(program, name, header, about, weights, rows).text()


class _File:
    def __init__(self, program: Program, name: str, header: bool, about: str, weights: str, rows: bool) -> None:
        self.program = program
        self.weights = weights
        self.rows = rows
        self.name = name
        self.header = header
        self.about = about
        self.real = "double" if program.dtype == torch.float64 else "float"
        self.inputs = {id(each.value) for each in program.inputs}
        used = {id(each.ref.value) for each in program.outputs} | self.inputs
        for operation in program.operations:
            used |= {id(operation.makes), *(id(ref.value) for ref in operation.reads)}
            used |= {id(value) for value in operation.inside}
        found = [value for value in program.values if id(value) in used]
        self.shown = [value for value in found if value.shows is not None]
        self.values = [value for value in found if value.shows is None]
        largest = max(value.rate * value.stride for value in self.values)  # of a hop
        self.block = max(min(_SAMPLES // program.hop, _NUMBERS // largest), 1)

    def text(self) -> str:
        net = self._net()  # first, as it finds the functors
        program, space = self.program, self._space
        lines = [
            *(f"// {line}".rstrip() for line in self.about.splitlines()),
            *(["#pragma once"] if self.header else []),
            _INCLUDES,
            *(["#include <atomic>", "#include <cstdio>", "#include <cstdlib>"] if self._beside else []),
            _kernels(self.real),
            "",
            f"namespace {space} {{",
            f"namespace kernels = torchstreamer_{self.real};",
            f"typedef {self.real} real;",
            *(self._data() if self.weights == "inside" else []),
            "constexpr int64_t OPEN = int64_t(1) << 61;  // the length of a signal that goes on",
        ]
        for key in self._keys():
            lines.append(f"static inline int64_t length{key}(int64_t n) {{ {_length(program.tables[key])} }}")
        lines += [f"struct {name} {{ {text} }};" for text, name in program.functors.items()]
        return "\n".join([*lines, f"}}  // namespace {space}", "", net + _END])

    @property
    def _beside(self) -> bool:
        return self.weights not in ("inside", "given")

    def _data(self) -> List[str]:
        return [
            "alignas(64) static const char data[] =",
            f"{literal(self.program.weights.data())};",
            "static const real* const weights = reinterpret_cast<const real*>(data);",
        ]

    @property
    def _space(self) -> str:
        return _snake(self.name) + "_code"

    # ------------------------------------------------------------------ the class

    def _net(self) -> str:
        program = self.program
        ins, outs = program.inputs, program.outputs
        receive, silence = self._receive()
        words: Dict[str, Any] = {
            "STEP": self._step(),
            "STATE": self._state(),
            "SCRATCH": self._scratch(),
            "STARTS": self._starts(),
            "SAVES": self._moved_states("place + {0}, {1}"),
            "LOADS": self._moved_states("{1}, place + {0}"),
            "STATE_BYTES": self._state_bytes,
            "RECEIVE": receive,
            "SILENCE": silence,
            "ENDS": self._ends(),
            "NAME": self.name,
            "SMALL": _snake(self.name),
            "SPACE": self._space,
            "REAL": self.real,
            "INLINE": "inline " if self.header else "",
            "HOP": program.hop,
            "RATIO": _listed(program.ratio),
            "LAG": outs[0].lag,
            "RATE": program.rate_hz,
            "MULTIPLE": program.multiple,
            "INPUTS": len(ins),
            "OUTPUTS": len(outs),
            "CHANNELS_IN": _listed(each.value.width for each in ins),
            "CHANNELS_OUT": _listed(each.ref.value.width for each in outs),
            "NAMES_IN": _listed(_quoted(each.name) for each in ins),
            "RATES": _listed(each.ref.value.rate for each in outs),
            "MOST_AT_END": _listed(each.most_at_end for each in outs),
            "BLOCK": self.block,
            "MARK": f"{self._mark()}u",
            "ID": f"{self._mark():08x}",
            "TAKEN": sum(each.value.width for each in ins),
            "MADE": sum(each.ref.value.width for each in outs),
        }
        text = _kernel("net") + (_kernel("library") if self.rows else "")
        return "\n".join(_filled(text, {**words, **self._weights(words)})) + "\n"

    def _weights(self, words: Dict[str, Any]) -> Dict[str, Any]:
        # What the class has to do with weights that stand elsewhere.
        here: Dict[str, Any] = {"WEIGHTS": [], "GIVES": [], "FINDS": [], "NEEDS": [], "LACKS": "", "ASKS": []}
        if self.weights == "given":
            here["WEIGHTS"] = ["const real* weights = nullptr;", ""]
            here["GIVES"] = [f"net->weights = static_cast<const {self.real}*>(weights);"]
        elif self.weights != "inside":
            data = self.program.weights.data()
            numbers = {"FILE": _quoted(self.weights), "BYTES": len(data), "CHECKSUM": zlib.crc32(data)}
            here["WEIGHTS"] = _filled(_kernel("weights_file"), {**words, **numbers})
            here["FINDS"] = ["if (weights == nullptr && weights_from()) weights = common.load();"]
            here["NEEDS"] = ["if (!ready()) return 0;"]
            here["LACKS"] = "!ready() || "
            asked = "@INLINE@int @SMALL@_ready(void* net) { return static_cast<@NAME@*>(net)->ready(); }\n"
            asked += "@INLINE@int @SMALL@_weights_from(const char* path) { return @NAME@::weights_from(path); }"
            here["ASKS"] = _filled(asked, words)
        return here

    def _mark(self) -> int:
        shapes = [*((value.rate, value.width, value.held) for value in self.values), *self.program.states]
        known = self.program.weights.data() if self.weights != "given" else b""
        return zlib.crc32(known + repr(shapes).encode())

    def _keeps(self, value: Value) -> bool:
        return value.held > 0 or id(value) in self.inputs

    def _capacity(self, value: Value) -> int:
        rows = self.block * value.rate + value.extra if value.rate else 1
        if not self._keeps(value):
            return rows
        return value.held + rows * max(-(-value.held // rows), 1)

    def _state(self) -> List[str]:
        lines = []
        for value in filter(self._keeps, self.values):
            i, count = value.index, self._capacity(value) * value.stride
            note = f"{value.note}: {value.width} numbers, the last {value.held} rows and new ones, from row p{i} on"
            lines.append(f"alignas(64) real v{i}[{count}]; int p{i};  // {note}")
        return lines + [f"alignas(64) real {name}[{count}];  // {note}" for name, count, note in self.program.states]

    def _moved_states(self, way: str) -> List[str]:
        # Copies between the state and a saved one: the rows that are held, and those that wait.
        lines, at, number = [], _HEAD, self.program.dtype.itemsize
        waits = {id(each.value): each.rate for each in self.program.inputs}
        for value in filter(self._keeps, self.values):
            i, rows = value.index, str(value.held)
            if id(value) in waits:
                rows = f"({rows} + int({_came(waits[id(value)])} - state.hops * {value.rate}))"
            if value.held or id(value) in waits:
                places = way.format(at, f"state.v{i} + (state.p{i} - {value.held}) * {value.stride}")
                lines.append(f"std::memcpy({places}, {rows} * {value.stride} * sizeof(real));")
            at += (value.held + (value.rate - 1 if id(value) in waits else 0)) * value.stride * number
        for name, count, _ in self.program.states:
            lines.append(f"std::memcpy({way.format(at, f'state.{name}')}, sizeof state.{name});")
            at += count * number
        self._state_bytes = at
        return lines

    def _scratch(self) -> List[str]:
        lines = []
        for value in self.values:
            if not self._keeps(value):
                count = self._capacity(value) * value.stride
                lines.append(f"alignas(64) real v{value.index}[{count}];  // {value.note}: {value.width} numbers")
        return lines

    def _starts(self) -> List[str]:
        lines = []
        for value in self.values:
            i = value.index
            if not self._keeps(value):
                lines.append(f"std::memset(v{i}, 0, sizeof v{i});")
                continue
            lines.append(f"state.p{i} = {value.held};")
            if value.fill != 0:
                fill = self.program.real(value.fill)
                lines.append(f"for (int i = 0; i < {value.held * value.stride}; ++i) state.v{i}[i] = {fill};")
        return lines

    def _receive(self) -> "tuple[List[str], List[str]]":
        # Room for a whole stretch behind what waits, then the samples, or zeros.
        receive: List[str] = []
        silence: List[str] = []
        channel = 0
        for each in self.program.inputs:
            value, (p, q) = each.value, each.rate
            i, s = value.index, value.stride
            came, later = ("state.came", "state.came + m") if p == q else _shared(p, q)
            begin = "from" if p == q else f"{came} - (state.came - from) * {p} / {q}"
            room = [
                "{",
                f"  const int waiting = int({came} - state.hops * {value.rate});",
                f"  if (state.p{i} + {self.block * value.rate} > {self._capacity(value)}) {{",
                f"    std::memmove(state.v{i}, state.v{i} + (state.p{i} - {value.held}) * {s}, "
                f"({value.held} + waiting) * {s} * sizeof(real));",
                f"    state.p{i} = {value.held};",
                "  }",
                f"  real* const to = state.v{i} + (state.p{i} + waiting) * {s};",
            ]
            gather = f"torchstreamer_{self.real}::gather<{value.width}, {s}>"
            receive += [*room, f"  {gather}(in + {channel}, {begin}, to, int({later} - {_inner(came)}));", "}"]
            silence += [
                *room,
                f"  const int rows = k * {value.rate} - waiting;",
                f"  if (rows > 0) std::memset(to, 0, rows * {s} * sizeof(real));",
                "}",
            ]
            channel += value.width
        return receive, silence

    def _ends(self) -> List[str]:
        lines = []
        for each in self.program.outputs:
            rate = each.ref.value.rate
            whole = f"({each.lag + rate - 1} + n) / {rate}" if rate > 1 else f"{each.lag} + n"
            lines += [
                f"if (const int64_t n = {self._space}::length{each.key}(state.total); n > 0 && {whole} > last)",
                f"  last = {whole};",
            ]
        return lines

    # ------------------------------------------------------------------ the step

    def _step(self) -> List[str]:
        program = self.program
        lines: List[str] = []
        if self.weights != "inside":
            lines.append("const real* const weights = this->weights; (void)weights;")
        for value in self.values:
            i, s = value.index, value.stride
            if not self._keeps(value):
                lines.append(f"real* const r{i} = v{i};")
                continue
            if id(value) not in self.inputs:
                lines += [
                    f"if (state.p{i} + {value.count} > {self._capacity(value)}) {{",
                    f"  std::memmove(state.v{i}, state.v{i} + (state.p{i} - {value.held}) * {s}, "
                    f"{value.held * s} * sizeof(real));",
                    f"  state.p{i} = {value.held};",
                    "}",
                ]
            lines.append(f"real* const r{i} = state.v{i} + state.p{i} * {s};")
        for value in self.shown:
            assert value.shows is not None
            lines.append(f"real* const r{value.index} = {value.shows.rows(value.first)};  // {value.note}")
        lines += [f"const int64_t n{key} = length{key}(state.total);" for key in self._keys()]
        for operation in program.operations:
            lines += ["", *([f"// {operation.makes.note}"] if operation.makes is not None else []), *operation.text()]
        channel = 0
        for number, each in enumerate(program.outputs):
            value = each.ref.value
            lines += [
                "",
                f"// output {number}",
                "{",
                f"  const int64_t begin = {program.begin(value, each.lag)};",
                f"  const int64_t m = {value.count}, end = n{each.key} - begin;",
                "  const int64_t low = begin < 0 ? (-begin < m ? -begin : m) : 0;",
                "  const int64_t high = end < m ? (end < low ? low : end) : m;",
                f"  const real* const rows = {each.ref.rows()} + low * {value.stride};",
                "  const int count = int(high - low);",
                f"  kernels::scatter<{value.width}, {value.stride}>(rows, out + {channel}, given[{number}], count);",
                f"  given[{number}] += count;",
                "}",
            ]
            channel += value.width
        return [*lines, "", *(f"state.p{v.index} += {v.count};" for v in self.values if self._keeps(v))]

    def _keys(self) -> List[int]:
        text = "\n".join(line for operation in self.program.operations for line in operation.text())
        found = {int(key) for key in re.findall(r"\bn(\d+)\b", text)}
        return sorted(found | {each.key for each in self.program.outputs})


def _came(rate: Tuple[int, int]) -> str:
    # How many samples of an input have come.
    return "state.came" if rate[0] == rate[1] else f"state.came * {rate[0]} / {rate[1]}"


def _shared(p: int, q: int) -> "tuple[str, str]":
    # How many samples of a further input have come, now and after m more of the first.
    return f"state.came * {p} / {q}", f"(state.came + m) * {p} / {q}"


def _inner(text: str) -> str:
    return f"({text})" if " " in text else text


def _filled(text: str, words: Dict[str, Any]) -> List[str]:
    # Lines, with words in their places, and with lines where these stand alone.
    lines: List[str] = []
    for line in text.splitlines():
        whole = re.fullmatch(r"( *)@([A-Z]+)@", line)
        if whole and isinstance(words[whole[2]], list):
            lines += [(whole[1] + each).rstrip() for each in words[whole[2]]]
        else:
            lines.append(re.sub(r"@([A-Z_]+)@", lambda found: str(words[found[1]]), line))
    return lines


def _listed(values: Any) -> str:
    return ", ".join(str(value) for value in values)


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()


def _kernel(name: str) -> str:
    return (resources.files(__package__) / "kernels" / f"{name}.hpp").read_text(encoding="utf-8")


def _kernels(real: str) -> str:
    # Once in a program, whatever it includes.
    guard, space = f"TORCHSTREAMER_KERNELS_{real.upper()}", f"torchstreamer_{real}"
    texts: Sequence[str] = [_kernel(name) for name in _KERNELS]
    head = f"\n#ifndef {guard}\n#define {guard}\nnamespace {space} {{\ntypedef {real} real;\n"
    return head + "\n".join(texts) + f"}}  // namespace {space}\n#endif"


def _length(table: LengthTable) -> str:
    line = table.linear()
    known = "if (n >= OPEN) return OPEN; "
    if line is not None:
        rise = "n" if line.rise == 1 else f"n * {line.rise}"
        offset = f" + {line.offset}" if line.offset > 0 else f" - {-line.offset}" if line.offset < 0 else ""
        period = f" / {line.period}" if line.period != 1 else ""
        return f"{known}return n < {line.shortest} ? 0 : ({rise}{offset}){period};"
    values = ", ".join(map(str, table.values))
    turns = f"const int64_t turns = n < {table.start} ? 0 : (n - {table.start}) / {table.period};"
    back = f"return at[n - turns * {table.period}] + turns * {table.rise};"
    return f"{known}if (n < 0) n = 0; static const int64_t at[] = {{{values}}}; {turns} {back}"
