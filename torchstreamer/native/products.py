"""Products of rows with weights, with what follows them in the same loop."""

from typing import List, Optional

import torch
from torch import Tensor

from .program import Operation, Program, Ref, Value
from .samplewise import Epilogue
from .weights import by_outputs

__all__ = ["Product", "convolve"]


class Product(Operation):
    """A convolution of rows.

    Args:
        program: all of the net
        source: what it reads
        first: the first row that it reads, counted from the first of a step
        weight: ``[outputs, inputs / groups, taps]``
        bias: ``[outputs]``
        stride, dilation, groups: of the convolution
        makes: the value it is, or of which it is every ``step``-th row, from ``phase`` on
        column: the first number of a row that it reads
    """

    def __init__(
        self,
        program: Program,
        source: Ref,
        first: int,
        weight: Tensor,
        bias: Optional[Tensor],
        stride: int,
        dilation: int,
        groups: int,
        makes: Value,
        step: int = 1,
        phase: int = 0,
        column: int = 0,
    ) -> None:
        super().__init__([source], makes)
        source.hold(-first)
        self.program = program
        self.source, self.first = source, first
        self.stride, self.dilation, self.groups = stride, dilation, groups
        self.out, self.inner, self.taps = weight.shape
        self.step, self.phase, self.column = step, phase, column
        self.epilogue: Optional[Epilogue] = None
        weight = weight.detach().to("cpu", torch.float64)
        self.weight = program.weights.add(self._packed(weight))
        if bias is None:
            bias = torch.zeros(self.out)
        self.bias = program.weights.add(bias)

    def _packed(self, weight: Tensor) -> Tensor:
        if self.groups == 1:
            return by_outputs(weight.permute(2, 1, 0).reshape(-1, self.out))
        if self.inner == 1 and self.out == self.groups:
            return weight[:, 0].t().contiguous()
        return weight.transpose(1, 2).contiguous()

    def text(self) -> List[str]:
        assert self.makes is not None
        source, makes = self.source.value, self.makes
        rate = makes.rate // self.step
        count = makes.count if self.step == 1 else "k" if rate == 1 else f"k * {rate}"
        sizes = [source.stride, self.stride, self.out, makes.stride * self.step, self.taps, self.dilation]
        if self.groups == 1:
            kernel, sizes = "product", [self.inner, *sizes]
        elif self.inner == 1 and self.out == self.groups:
            kernel, sizes = "depthwise", [self.out, sizes[0], sizes[1], *sizes[3:]]
        else:
            kernel, sizes = "grouped", [self.inner * self.groups, *sizes, self.groups]
        to = f"r{makes.index}" + (f" + {self.phase * makes.stride}" if self.phase else "")
        at = f" + {self.column}" if self.column else ""
        after = "kernels::Same{}" if self.epilogue is None else self.epilogue.text(self.program)
        numbers = ", ".join(map(str, sizes))
        call = f"kernels::{kernel}<{numbers}>({self.source.rows(self.first)}{at}, weights + {self.weight}, "
        return [f"{call}weights + {self.bias}, {to}, {count}, {after});"]


def convolve(
    program: Program,
    source: Ref,
    first: int,
    weight: Tensor,
    bias: Optional[Tensor],
    stride: int,
    dilation: int,
    groups: int,
    rate: int,
    note: str,
    column: int = 0,
) -> Ref:
    """Add a convolution; gives its value."""
    makes = program.value(rate, weight.size(0), note)
    program.add(Product(program, source, first, weight, bias, stride, dilation, groups, makes, column=column))
    return Ref(makes)
