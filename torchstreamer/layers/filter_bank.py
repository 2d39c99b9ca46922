"""Filters that take turns, one for each output of a period. TorchScript compiles this file.

Where input and output rate are as ``q`` to ``p``, output ``i`` is a weighted sum of the inputs that its `Reach` names,
and the weights are those of ``i`` modulo ``p``. Three forms compute that:

- *Rows.* Where a period is short, its outputs are the product of its inputs with one matrix, mostly of zeros: a
  convolution whose stride is the period. Where it is very short, several periods are taken as one.
- *Blocks.* Where a period is long, that matrix would be huge. But neighbouring outputs share most of their inputs, so
  blocks of them are small products.
- *Taps.* Each output reads its own inputs and no others. That is slower, and what counts: in the other forms zeros meet
  inputs that an output does not use, and make ``nan`` of ``nan`` and infinity. So what they give that is not finite is
  computed anew.
"""

import math
from typing import Any, Dict, List

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.reach import Reach
from ..core.tracing import recording

__all__ = ["FilterBank"]

# A period of so many inputs is taken as rows, if the matrix has no more values than that. Measured on rates as 147 to
# 160, 441 to 160, 441 to 320 and 1000 to 999.
_ROW = 512
_ROW_VALUES = 1 << 20

# Up to so many inputs, or outputs, periods are taken together: rows that overlap by less are copied less.
_JOINED_INPUTS = 128
_JOINED_OUTPUTS = 512

# Outputs of a block. Measured on rates as 44100 to 48001: 4 and 32 take half as long again.
_BLOCK = 16

# So many values of taps are laid out at once.
_TAP_VALUES = 1 << 20


class FilterBank(nn.Module):
    """Filters that take turns: the weighted sums of inputs that a reach names.

    Args:
        reach: which inputs an output reads; between those of an output and of the next one none is left out
        weights: ``[p, taps]`` in float64, where ``taps`` is the depth of the reach: for each output of a period those
            of the inputs from its oldest on; what stands beyond its newest does not count

    Raises:
        AssertionError: the filters have gaps, or ``weights`` is not of the reach
    """

    __constants__ = [
        "p",
        "q",
        "first",
        "last",
        "taps",
        "rows",
        "joined",
        "outputs",
        "inputs",
        "width",
        "block",
        "blocks",
        "tap_values",
    ]

    __jit_ignored_attributes__ = ["_tables"]

    fixed: Tensor
    starts: Tensor

    def __init__(self, reach: Reach, weights: Tensor) -> None:
        super().__init__()
        assert reach.last - reach.first >= reach.q - reach.p and weights.shape == (reach.p, reach.depth)
        self.p = reach.p
        self.q = reach.q
        self.first = reach.first
        self.last = reach.last
        self.taps = reach.depth
        # As whole numbers of a small unit, for which a change of the module's dtype is none.
        weights = _each_counted(reach, weights)
        self.unit = 2.0 ** (math.frexp(float(weights.abs().max()))[1] - 62)
        self.register_buffer("fixed", torch.round(weights / self.unit).to(torch.int64), persistent=False)
        self.block = _BLOCK
        self.tap_values = _TAP_VALUES
        joined = max(min(_JOINED_INPUTS // self.q, _JOINED_OUTPUTS // self.p), 1)
        height = self.newest((joined + 1) * self.p - 2) - self.oldest(0) + 1
        self.rows = self.q + self.taps <= _ROW and height * (joined + 1) * self.p <= _ROW_VALUES
        self.joined = joined if self.rows else 1  # periods taken as one
        self.outputs = self.joined * self.p
        self.inputs = self.joined * self.q
        self.blocks = (self.p + _BLOCK - 1) // _BLOCK
        self.width = max(self._span(begin, _BLOCK) for begin in range(0, self.p, _BLOCK))  # inputs of a block
        begins = torch.tensor([self.oldest(begin) for begin in range(0, self.p, _BLOCK)])
        # Inputs of each block, counted from the oldest of the period.
        starts = (begins - self.oldest(0)).unsqueeze(1) + torch.arange(self.width)
        starts = starts[: 0 if self.rows else self.blocks].to(torch.int32)  # of which sums and copies are quicker
        self.register_buffer("starts", starts, persistent=False)
        self._tables = {"fixed": self.fixed, "starts": self.starts}
        # The matrix of the form that pays, made for the first signal and kept for its dtype; a plain attribute.
        self.matrix = torch.empty(0)

    # ------------------------------------------------------------------ what outputs read

    def oldest(self, output: int) -> int:
        """The oldest input that an output reads."""
        return (self.q * output + self.first) // self.p

    def newest(self, output: int) -> int:
        """The newest input that an output reads."""
        return (self.q * output + self.last) // self.p

    def _span(self, output: int, count: int) -> int:
        return self.newest(output + count - 1) - self.oldest(output) + 1

    def places(self, i: Tensor) -> Tensor:
        """The inputs that outputs ``[n]`` read, ``[n, taps]``; one with fewer taps reads its newest input twice."""
        oldest = torch.div(i * self.q + self.first, self.p, rounding_mode="floor")
        newest = torch.div(i * self.q + self.last, self.p, rounding_mode="floor")
        taps = oldest.unsqueeze(1) + torch.arange(self.taps, device=i.device)
        return torch.minimum(taps, newest.unsqueeze(1))

    def weights(self, i: Tensor) -> Tensor:
        """The weights of `places`, in float64."""
        fixed = self.fixed.to(i.device).index_select(0, torch.remainder(i, self.p))
        return fixed.to(torch.float64) * self.unit

    # ------------------------------------------------------------------ the sums

    def forward(self, x: Tensor, i: int, count: int) -> Tensor:
        """The outputs from ``i`` on.

        Args:
            x: inputs ``[B, C, m]`` from the oldest that output ``i`` reads to the newest of the last output, or further
            i: of the first output
            count: outputs

        Returns:
            ``[B, C, count]``, in the dtype of the input
        """
        if x.numel() == 0:
            return x.new_empty([x.size(0), x.size(1), count])
        exact = x.contiguous()
        if x.dtype != torch.float64 and x.dtype != torch.float32:
            exact = exact.to(torch.float32)
        if not x.is_cpu or recording() or self.taps == 1:
            y = self._own_taps(exact, i, count)
        else:
            y = self._in_rows(exact, i % self.p, count) if self.rows else self._in_blocks(exact, i % self.p, count)
            # Autocast gives another dtype.
            if y.dtype != exact.dtype or not _finite(y):
                y = self._mended(y.view(x.size(0), x.size(1), count), exact, i)
        y = y.view(x.size(0), x.size(1), count)
        return y if exact.dtype == x.dtype else y.to(x.dtype)

    def _in_rows(self, x: Tensor, i: int, count: int) -> Tensor:
        matrix = self._matrix(x)
        # What the matrix begins with where output i is the first.
        span = self._span(i, self.outputs)
        columns = matrix.size(1)
        place = (self.oldest(i) - self.oldest(0)) * columns + i
        turned = matrix.as_strided([span, self.outputs], [columns, 1], place)
        m = x.size(2)
        r = x.size(0) * x.size(1)
        whole = count // self.outputs
        rest = count - whole * self.outputs
        parts: List[Tensor] = []
        if whole > 0:
            if r == 1:
                y = torch.mm(x.as_strided([whole, span], [self.inputs, 1], x.storage_offset()), turned)
            else:
                window = x.as_strided([r, whole, span], [m, self.inputs, 1], x.storage_offset())
                y = torch.mm(window.reshape(r * whole, span), turned)
            if rest == 0:
                return y
            parts.append(y.view(r, count - rest))
        span = self._span(i, rest)
        last = x.as_strided([r, span], [m, 1], x.storage_offset() + whole * self.inputs)
        parts.append(torch.mm(last, turned.narrow(0, 0, span).narrow(1, 0, rest)))
        return parts[0] if whole == 0 else torch.cat(parts, 1)

    def _in_blocks(self, x: Tensor, i: int, count: int) -> Tensor:
        matrix = self._matrix(x)
        r = x.size(0) * x.size(1)
        stop = i + count
        # Blocks begin where they do, so the first and the last may reach further than the outputs.
        end = (stop - 1) // self.p * self.q + self.oldest((stop - 1) % self.p // self.block * self.block) + self.width
        ahead = self.oldest(i) - self.oldest(i // self.block * self.block)
        behind = max(end - self.oldest(i) - x.size(2), 0)
        x = F.pad(x, [ahead, behind]).view(r, -1)
        origin = self.oldest(i // self.block * self.block)  # of the first sample there
        parts: List[Tensor] = []
        while i < stop:
            period = i // self.p
            phase = i - period * self.p
            n = min(stop - i, self.p - phase)
            block = phase // self.block
            blocks = (phase + n - 1) // self.block - block + 1
            places = self.starts.narrow(0, block, blocks) + (period * self.q + self.oldest(0) - origin)
            window = x.index_select(1, places.view(-1)).view(r, blocks, self.width).transpose(0, 1)
            y = torch.bmm(window, matrix.narrow(0, block, blocks)).transpose(0, 1).reshape(r, blocks * self.block)
            parts.append(y.narrow(1, phase - block * self.block, n))
            i += n
        return parts[0].contiguous() if len(parts) == 1 else torch.cat(parts, 1)

    def _own_taps(self, x: Tensor, i: int, count: int) -> Tensor:
        outputs = torch.arange(i, i + count, device=x.device)
        places = self.places(outputs) - self.oldest(i)
        taps = x.index_select(2, places.view(-1)).view(x.size(0), x.size(1), -1, self.taps)
        return (taps * self.weights(outputs).to(x.dtype)).sum(3)

    def _mended(self, y: Tensor, x: Tensor, i: int) -> Tensor:
        # What is not finite, or not of the dtype, by the taps alone; some outputs at a time.
        size = max(self.tap_values // (self.taps * x.size(0) * x.size(1)), 1)
        parts: List[Tensor] = []
        for begin in range(0, y.size(2), size):
            part = y.narrow(2, begin, min(size, y.size(2) - begin))
            if part.dtype != x.dtype or not _finite(part):
                skipped = self.oldest(i + begin) - self.oldest(i)
                part = self._own_taps(x.narrow(2, skipped, x.size(2) - skipped), i + begin, part.size(2))
            parts.append(part)
        return torch.cat(parts, 2)

    # ------------------------------------------------------------------ the matrices

    def _matrix(self, x: Tensor) -> Tensor:
        matrix = self.matrix
        # Autograd keeps no inference tensor.
        if matrix.dtype != x.dtype or matrix.dim() == 1 or (torch.is_grad_enabled() and matrix.is_inference()):
            matrix = (self._matrix_of_rows() if self.rows else self._matrices_of_blocks()).to(x.dtype).clone()
            self.matrix = matrix
        return matrix

    def _matrix_of_rows(self) -> Tensor:
        # A column for each output of the joined periods, and of one more: any output may be the first.
        columns = (self.joined + 1) * self.p - 1
        outputs = torch.arange(columns)
        places = self.places(outputs) - self.oldest(0)
        matrix = torch.zeros([columns, self._span(0, columns)], dtype=torch.float64)
        return matrix.scatter_add_(1, places, self.weights(outputs)).t().contiguous()

    def _matrices_of_blocks(self) -> Tensor:
        outputs = torch.arange(self.blocks * self.block)
        begins = self.starts.cpu().select(1, 0).to(torch.int64).repeat_interleave(self.block) + self.oldest(0)
        matrix = torch.zeros([self.blocks * self.block, self.width], dtype=torch.float64)
        matrix.scatter_add_(1, self.places(outputs) - begins.unsqueeze(1), self.weights(outputs))
        return matrix.view(self.blocks, self.block, self.width).transpose(1, 2).contiguous()

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        bank = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if not self.fixed.is_meta:  # who comes back from there finds the tables as they were
            for name, table in self._tables.items():
                self._buffers[name] = table.to(self.fixed.device)
        return bank

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "matrix": torch.empty(0)}

    def __prepare_scriptable__(self) -> "FilterBank":
        self.matrix = self.matrix.new_empty([0])  # so that the script makes its own
        return self

    def extra_repr(self) -> str:
        return f"p={self.p}, q={self.q}, taps={self.taps}"


def _finite(y: Tensor) -> bool:
    # A sum is quick, and is not finite where a value is not; where it alone is not, nothing is lost but time.
    total = float((y.detach() if torch.is_grad_enabled() else y).sum())
    return total - total == 0.0


def _each_counted(reach: Reach, weights: Tensor) -> Tensor:
    # An output with one tap less than others reads its newest input twice, with half of the weight each time.
    outputs = torch.arange(reach.p)
    oldest = torch.div(reach.q * outputs + reach.first, reach.p, rounding_mode="floor")
    newest = torch.div(reach.q * outputs + reach.last, reach.p, rounding_mode="floor")
    fewer = newest - oldest + 1 < reach.depth
    weights = weights.to(torch.float64).clone()
    if reach.depth > 1:
        half = weights[:, -2] / 2
        weights[:, -2] = torch.where(fewer, half, weights[:, -2])
        weights[:, -1] = torch.where(fewer, half, weights[:, -1])
    return weights
