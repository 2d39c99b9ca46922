"""Recurrences: operations on a single row, sample after sample."""

from typing import List, Sequence

from .fusing import fused
from .products import Product
from .program import Operation, Program, Ref, Value

__all__ = ["Recurrence"]


class Recurrence(Operation):
    """A loop over samples from position 0 on.

    Args:
        program: all of the net
        source: what it reads
        lag: of the source
        makes: the value
        row: the sample at hand, a single row
        out: what becomes of it, a single row
        begins: operations that make the first states
        advances: operations that make the output and the next states
        starts: the first states
        states: single rows that hold them
        following: the next ones
        names: of the states of the program
    """

    def __init__(
        self,
        program: Program,
        source: Ref,
        lag: int,
        makes: Value,
        row: Value,
        out: Ref,
        begins: Sequence[Operation],
        advances: Sequence[Operation],
        starts: Sequence[Ref],
        states: Sequence[Value],
        following: Sequence[Ref],
        names: Sequence[str],
    ) -> None:
        super().__init__([source], makes)
        source.hold()
        self.program, self.source, self.lag = program, source, lag
        self.row, self.out = row, out
        self.before: List[Product] = []
        self.begins, self.advances = list(begins), fused(list(advances), [out.value, *(f.value for f in following)])
        self._take_out()
        self.starts, self.states, self.following, self.names = starts, list(states), list(following), list(names)

    def _take_out(self) -> None:
        # Products of the sample alone are made of all samples at once.
        self.singles: List[Value] = []
        for operation in list(self.advances):
            alone = isinstance(operation, Product) and operation.source.value is self.row
            if not isinstance(operation, Product) or not alone or len(operation.reads) > 1:
                continue
            single = operation.makes
            assert single is not None and operation.epilogue is None
            many = self.program.value(self.source.value.rate, single.width, single.note)
            operation.source, operation.reads, operation.makes = self.source, [self.source], many
            self.advances.remove(operation)
            self.before.append(operation)
            self.singles.append(single)

    @property
    def inside(self) -> List[Value]:
        """All single rows that have a place of their own, and what is made in front of the loop."""
        found = [self.out.value, *(ref.value for ref in [*self.starts, *self.following])]
        for operation in [*self.begins, *self.advances]:
            found += [ref.value for ref in operation.reads]
            found += [] if operation.makes is None else [operation.makes]
        found += [each.makes for each in self.before if each.makes is not None]
        elsewhere = {id(value) for value in [self.row, *self.states, *self.singles]}
        return list({id(value): value for value in found if id(value) not in elsewhere}.values())

    def text(self) -> List[str]:
        assert self.makes is not None
        source, makes, row, out = self.source.value, self.makes, self.row, self.out.value
        lines = [line for operation in self.before for line in operation.text()]
        lines += [
            f"for (int64_t begin = {self.program.begin(source, self.lag)}, t = begin < 0 ? -begin : 0; "
            f"t < {source.count}; ++t) {{",
            f"  real* const r{row.index} = {self.source.rows()} + t * {source.stride}; (void)r{row.index};",
            *(
                f"  real* const r{single.index} = r{many.index} + t * {many.stride};"
                for single, many in zip(self.singles, [each.makes for each in self.before], strict=True)
                if many is not None
            ),
            *(
                f"  real* const r{state.index} = state.{name}; (void)r{state.index};"
                for name, state in zip(self.names, self.states, strict=True)
            ),
            "  if (begin + t == 0) {",
            *(f"    {line}" for operation in self.begins for line in operation.text()),
            *(f"    {_copy(name, ref)}" for name, ref in zip(self.names, self.starts, strict=True)),
            "  }",
            *(f"  {line}" for operation in self.advances for line in operation.text()),
            f"  std::memcpy(r{makes.index} + t * {makes.stride}, r{out.index}, {out.width} * sizeof(real));",
            *(f"  {_copy(name, ref)}" for name, ref in zip(self.names, self.following, strict=True)),
            "}",
        ]
        return lines


def _copy(name: str, ref: Ref) -> str:
    return f"std::memmove(state.{name}, {ref.rows()}, {ref.value.width} * sizeof(real));"
