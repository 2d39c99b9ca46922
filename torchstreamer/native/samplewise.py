"""What treats every sample alone: expressions over the numbers of a sample, and the loops that compute them."""

from dataclasses import dataclass
from typing import Dict, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from .program import Fault, Operation, Program, Ref, Value

__all__ = ["Apply", "Constant", "Epilogue", "Expression", "Loop", "Number", "Reduction", "Rows", "leaves"]


class Expression:
    """As many numbers for every sample as ``size`` says."""

    size = 1


class Number(Expression):
    """One number, the same for all samples.

    Args:
        value: the number
    """

    def __init__(self, value: float) -> None:
        self.value = value


class Constant(Expression):
    """Weights.

    Args:
        values: as many as a sample has
        offset: where they stand among the weights
    """

    def __init__(self, values: Tensor, offset: int) -> None:
        self.size = values.numel()
        self.offset = offset


class Rows(Expression):
    """The numbers of a value.

    Args:
        ref: the value
    """

    def __init__(self, ref: Ref) -> None:
        self.ref = ref
        self.size = ref.value.width


class Apply(Expression):
    """A function of numbers.

    Args:
        template: in C++, with ``{0}``, ``{1}`` … for the arguments
        arguments: expressions, and which of their numbers each of these is computed from
        size: numbers
    """

    def __init__(self, template: str, arguments: Sequence[Tuple[Expression, Tensor]], size: int) -> None:
        self.template = template
        self.arguments = list(arguments)
        self.size = size


def leaves(expression: Expression) -> List[Expression]:
    """What an expression reads."""
    if isinstance(expression, Apply):
        return [leaf for argument, _ in expression.arguments for leaf in leaves(argument)]
    return [expression]


@dataclass(frozen=True)
class _Place:
    # Where the numbers of a leaf stand, for the numbers of a loop: side by side, all the same, or as a table says.
    kind: str
    first: int
    table: Tuple[int, ...] = ()


def _place(wanted: Tensor) -> _Place:
    first = int(wanted[0])
    if bool((wanted == first).all()):
        return _Place("one", first)
    if torch.equal(wanted, torch.arange(first, first + wanted.numel())):
        return _Place("side", first)
    return _Place("table", 0, tuple(wanted.tolist()))


class _Writer:
    # Writes an expression as statements, each of which computes something once.
    def __init__(self, program: Program, row: str, wide: bool = True) -> None:
        self.program = program
        self.row = row
        self.wide = wide  # whether tables are impossible
        self.statements: List[str] = []
        self.known: Dict[Tuple[int, Tuple[int, ...]], str] = {}
        self.pointers: Optional[List[str]] = None
        self.replaced: Dict[int, str] = {}

    def write(self, expression: Expression, wanted: Tensor) -> str:
        key = (id(expression), tuple(wanted.tolist()))
        if key not in self.known:
            text = self._text(expression, wanted)
            name = f"t{len(self.statements)}"
            self.statements.append(f"const auto {name} = {text};")
            self.known[key] = name
        return self.known[key]

    def _text(self, expression: Expression, wanted: Tensor) -> str:
        if isinstance(expression, Apply):
            parts = [self.write(argument, where[wanted]) for argument, where in expression.arguments]
            return expression.template.format(*parts)
        if isinstance(expression, Number):
            return f"splat<V>({self.program.real(expression.value)})"
        if id(expression) in self.replaced:
            return self.replaced[id(expression)]
        place = _place(wanted)
        if isinstance(expression, Constant):
            base = f"weights + {expression.offset}"
            if self.pointers is not None:
                base = self._pointer(base)
        else:
            assert isinstance(expression, Rows)
            base = expression.ref.rows()
            if self.pointers is not None:
                base = self._pointer(base)
            if not self.row:
                return f"fetch<V>({base} + e)"
            base += f" + {self.row} * {expression.ref.value.stride}"
        if place.kind == "one":
            return f"splat<V>(*({base} + {place.first}))"
        if place.kind == "side":
            return f"fetch<V>({base} + e" + (f" + {place.first})" if place.first else ")")
        assert not self.wide
        table = ", ".join(map(str, place.table))
        return f"fetch<V>({base} + [&] {{ static const int at[] = {{{table}}}; return at[e]; }}())"

    def _pointer(self, base: str) -> str:
        assert self.pointers is not None
        if base not in self.pointers:
            self.pointers.append(base)
        return f"p{self.pointers.index(base)}"


def _wide(expression: Expression, wanted: Tensor) -> bool:
    if isinstance(expression, Apply):
        return all(_wide(argument, where[wanted]) for argument, where in expression.arguments)
    return isinstance(expression, Number) or _place(wanted).kind != "table"


def _flat(expression: Expression, wanted: Tensor, size: int) -> bool:
    # Whether rows follow each other without a gap, and each number needs its own neighbours alone.
    if isinstance(expression, Apply):
        return all(_flat(argument, where[wanted], size) for argument, where in expression.arguments)
    if isinstance(expression, Rows):
        whole = expression.ref.value.stride == expression.size == size
        return whole and torch.equal(wanted, torch.arange(size))
    return isinstance(expression, Number) or _place(wanted).kind == "one"


class Loop(Operation):
    """Computes numbers of a value.

    Args:
        program: all of the net
        expression: what it computes
        makes: the value
        wanted: which numbers of the expression it is, all in order without it
        at: the number of the value that is the first of them
    """

    def __init__(
        self, program: Program, expression: Expression, makes: Value, wanted: Optional[Tensor] = None, at: int = 0
    ) -> None:
        refs = [leaf.ref for leaf in leaves(expression) if isinstance(leaf, Rows)]
        super().__init__(refs, makes)
        for ref in refs:
            ref.hold()
        self.program = program
        self.expression = expression
        self.wanted = torch.arange(expression.size) if wanted is None else wanted
        self.at = at

    @property
    def whole(self) -> bool:
        """Whether it makes all numbers of its value."""
        assert self.makes is not None
        return self.at == 0 and self.wanted.numel() == self.makes.width

    def text(self) -> List[str]:
        assert self.makes is not None
        to, size = self.makes, self.wanted.numel()
        flat = self.whole and to.stride == size and _flat(self.expression, self.wanted, size)
        wide = _wide(self.expression, self.wanted)
        writer = _Writer(self.program, "" if flat else "i", wide)
        result = writer.write(self.expression, self.wanted)
        using = "using namespace kernels; typedef decltype(z) V; (void)z;"
        row = "" if flat else f" + i * {to.stride}"
        at = f" + {self.at}" if self.at else ""
        ending = f"put<V>(r{to.index}{row}{at} + e, {result});"
        body = [f"  {using}", *(f"  {line}" for line in writer.statements), f"  {ending}"]
        if flat:
            return [f"kernels::every(long({to.count}) * {size}, [&](auto z, long e) {{", *body, "});"]
        head = f"for (int i = 0; i < {to.count}; ++i) "
        call = f"kernels::each<{size}" + ("" if wide else ", 1") + ">([&](auto z, int e) {"
        return [head + call, *body, "});"]


class Reduction(Operation):
    """Sums, or extremes, of the numbers of a sample.

    Args:
        program: all of the net
        kind: ``"sum"``, ``"prod"``, ``"amax"`` or ``"amin"``
        expression: of what
        wanted: which of its numbers, ``[numbers of the value, how many]``
        makes: the value
    """

    def __init__(self, program: Program, kind: str, expression: Expression, wanted: Tensor, makes: Value) -> None:
        if not isinstance(expression, Rows):
            raise Fault("a reduction of what is no value")
        super().__init__([expression.ref], makes)
        expression.ref.hold()
        self.program, self.kind, self.expression, self.wanted = program, kind, expression, wanted

    def text(self) -> List[str]:
        assert self.makes is not None and isinstance(self.expression, Rows)
        to = self.makes
        outs, many = self.wanted.shape
        first = int(self.wanted[0, 0])
        step = int(self.wanted[0, 1]) - first if many > 1 else 0
        leap = int(self.wanted[1, 0]) - first if outs > 1 else 0
        regular = first + leap * torch.arange(outs).unsqueeze(1) + step * torch.arange(many)
        if torch.equal(regular, self.wanted):
            place = f"{first} + e * {leap} + j * {step}"
        else:
            table = ", ".join(map(str, self.wanted.flatten().tolist()))
            place = f"[&] {{ static const int at[] = {{{table}}}; return at[e * {many} + j]; }}()"
        kind = "double" if self.kind in ("sum", "prod") else "real"
        start, then = {
            "sum": ("0", "a += x"),
            "prod": ("1", "a *= x"),
            "amax": ("-real(INFINITY)", "a = kernels::larger(x, a)"),
            "amin": ("real(INFINITY)", "a = kernels::smaller(x, a)"),
        }[self.kind]
        rows = f"{self.expression.ref.rows()} + i * {self.expression.ref.value.stride}"
        return [
            f"for (int i = 0; i < {to.count}; ++i) for (int e = 0; e < {outs}; ++e) {{",
            f"  {kind} a = {start};",
            f"  for (int j = 0; j < {many}; ++j) {{ const real x = *({rows} + {place}); {then}; }}",
            f"  r{to.index}[i * {to.stride} + e] = real(a);",
            "}",
        ]


class Epilogue:
    """What a product does to each of its numbers before it writes them.

    Args:
        expression: the function, which has the product's own numbers among its leaves
        own: the product's value
    """

    def __init__(self, expression: Expression, own: Value) -> None:
        self.expression = expression
        self.own = own

    @staticmethod
    def fits(expression: Expression, own: Value) -> bool:
        """Whether each number is computed from the one at its place."""
        wanted = torch.arange(expression.size)
        return expression.size == own.width and _same_place(expression, wanted, own)

    def text(self, program: Program) -> str:
        """An object that computes it, in C++; its class goes to the program."""
        writer = _Writer(program, "i")
        writer.pointers = []
        for leaf in leaves(self.expression):
            if isinstance(leaf, Rows) and leaf.ref.value is self.own:
                writer.replaced[id(leaf)] = "a"
        result = writer.write(self.expression, torch.arange(self.expression.size))
        pointers = writer.pointers
        body = " ".join(writer.statements)
        members = "".join(f"const real* p{i}; " for i in range(len(pointers)))
        text = (
            f"{members}template <class V> TS_INLINE V operator()(V a, int i, int e) const "
            f"{{ using namespace kernels; (void)i; (void)e; {body} return {result}; }}"
        )
        name = program.functors.setdefault(text, f"After{len(program.functors)}")
        return f"{name}{{{', '.join(pointers)}}}"


def _same_place(expression: Expression, wanted: Tensor, own: Value) -> bool:
    if isinstance(expression, Apply):
        return all(_same_place(argument, where[wanted], own) for argument, where in expression.arguments)
    if isinstance(expression, Number):
        return True
    if isinstance(expression, Rows) and expression.ref.value is own and expression.ref.back != 0:
        return False
    if own.width == 1:
        return expression.size == 1
    place = _place(wanted)
    # One number of many is read as a row is, so weights must have as many numbers as the row.
    if isinstance(expression, Rows) and expression.ref.value is not own and expression.ref.value.rate != own.rate:
        return False
    if place.kind == "side":
        return place.first == 0 and expression.size == own.width
    return place.kind == "one" and (not isinstance(expression, Rows) or expression.ref.value is not own)


Argument = Union[Expression, float]
