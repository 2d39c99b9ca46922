"""Rows of unequal length, padded to one batch, chunk by chunk through one stream."""

from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from ..core.row_state import RowState
from ..errors import StreamInputError
from .whole import Result, Signal

__all__ = ["UnevenRows"]

_Held = Tuple[Any, List[Tensor], Tuple[int, ...]]


class UnevenRows:
    """A batch whose rows end where they do. Each is computed up to there, and leaves the batch.

    Args:
        stream: what computes; new, and left in any state
        step: the stream's call, with pieces of all inputs and whether the signals end
        chunk: samples of the first streamed input at a time
        signals: the inputs, ``None`` for one that is left out
        takes: axis of time of each, ``None`` for a static one
        gives: axis of time of each output
        counts: of each row, samples of the first streamed input
        device: to which pieces go

    Raises:
        StreamInputError: ``invalid_lengths``
    """

    def __init__(
        self,
        stream: Any,
        step: Callable[..., Any],
        chunk: int,
        signals: Sequence[Optional[Signal]],
        takes: Sequence[Optional[int]],
        gives: Sequence[int],
        counts: Sequence[int],
        device: torch.device,
    ) -> None:
        self.stream = stream
        self.step = step
        self.chunk = chunk
        self.signals = signals
        self.takes = takes
        self.gives = gives
        self.counts = counts
        self.device = device
        self.ports = getattr(stream, "ports", None)
        self.first = 0 if self.ports is None else stream.first
        # Axes of rows.
        self.rows_in = [0] if self.ports is None else [port.rows for port in self.ports]
        self.rows_out = [0] if self.ports is None else list(stream.row_axes)
        self._require_rows()

    def run(self, results: Sequence[Result]) -> Any:
        """Compute all of it, into the results.

        Returns:
            the structure of the outputs, or ``None`` if nothing came out of any row
        """
        state = RowState(self.stream)
        widths = self._lengths(self._total())
        at = [0] * len(results)
        spec: Any = None
        going = [row for row, n in enumerate(self.counts) if n]
        for begin in range(0, max(self.counts, default=0), self.chunk):
            end = begin + self.chunk
            ending: Dict[int, List[int]] = {}
            for row in going:
                if self.counts[row] <= end:
                    ending.setdefault(self.counts[row], []).append(row)
            left = [row for row in going if self.counts[row] > end]
            held = (state.phase(), state.rows(), state.known()) if begin and ending else None
            for n, rows in [*ending.items(), *([(end, left)] if left else [])]:
                if ending:
                    self._be_at(state, held, [going.index(row) for row in rows])
                final = rows is not left
                leaves, spec = pytree.tree_flatten(self.step(self.stream, self._pieces(begin, n, rows), final))
                for i, leaf in enumerate(leaves):
                    if leaf is not None:
                        axes = self.rows_out[i], self.gives[i]
                        results[i].add_rows(leaf, rows, at[i], len(self.counts), widths[i], axes)
                        at[i] += 0 if final else leaf.shape[self.gives[i]]
            going = left
        if any(width and not result.begun for width, result in zip(widths, results, strict=True)):
            spec = self._show(results, widths)
        if not any(result.begun for result in results):
            return None
        lengths = [self._lengths(n) for n in self.counts]
        found = [result.get_rows([each[i] for each in lengths]) for i, result in enumerate(results)]
        return pytree.tree_unflatten(found, spec)

    # ------------------------------------------------------------------ inside

    def _total(self) -> int:
        axis = self.takes[self.first]
        lead = self.signals[self.first]
        assert axis is not None and lead is not None
        return int(lead.shape[axis])

    def _lengths(self, n: int) -> List[int]:
        found: List[int] = pytree.tree_flatten(self.stream.output_length(n))[0]
        return found

    def _pieces(self, begin: int, end: int, rows: Optional[Sequence[int]]) -> List[Optional[Tensor]]:
        # Of every input; static ones come with the first samples of their rows.
        pieces: List[Optional[Tensor]] = []
        for i, (signal, axis) in enumerate(zip(self.signals, self.takes, strict=True)):
            if signal is None or (axis is None and begin > 0):
                pieces.append(None)
                continue
            lead = self.rows_in[i]
            if axis is None and lead < 0:
                pieces.append(signal.whole(self.device))
            elif axis is None:
                pieces.append(signal.piece(0, signal.shape[lead], lead, self.device, rows, lead))
            else:
                ends = [n if self.ports is None or not n else self.ports[i].length(n) for n in (begin, end)]
                pieces.append(signal.piece(ends[0], ends[1], axis, self.device, rows, lead))
        return pieces

    def _show(self, results: Sequence[Result], widths: Sequence[int]) -> Any:
        # Every row is too short for an output: what it would look like is seen in one for all of the input.
        self.stream.reset()
        total, spec = self._total(), None
        for begin in range(0, total, self.chunk):
            end = min(begin + self.chunk, total)
            pieces = self._pieces(begin, end, None)
            leaves, spec = pytree.tree_flatten(self.step(self.stream, pieces, end == total))
            for i, leaf in enumerate(leaves):
                if leaf is not None and not results[i].begun:
                    axes = self.rows_out[i], self.gives[i]
                    nothing = leaf.narrow(axes[1], 0, 0)
                    results[i].add_rows(nothing, range(len(self.counts)), 0, len(self.counts), widths[i], axes)
            if all(result.begun or not width for result, width in zip(results, widths, strict=True)):
                break
        return spec

    def _be_at(self, state: RowState, held: Optional[_Held], places: List[int]) -> None:
        # Let the stream stand where some of the rows stood.
        if held is None:
            self.stream.reset()
        else:
            phase, rows, known = held
            state.go_on(phase, [tensor[places] for tensor in rows], known)

    def _require_rows(self) -> None:
        lead, axis, counts = self.signals[self.first], self.takes[self.first], self.counts
        assert lead is not None
        shape = list(lead.shape)
        rank = 3 if self.ports is None else len(self.ports[self.first].shape)
        streamed = [rows for rows, time in zip(self.rows_in, self.takes, strict=True) if time is not None]
        if min([*streamed, *self.rows_out]) < 0:
            raise StreamInputError(
                "invalid_lengths: lengths came for a model of which an input or an output has no axis of rows; one was "
                "expected in each; compute each row by itself"
            )
        count = shape[self.rows_in[self.first]] if len(shape) == rank else -1
        if count != len(counts) or any(not 0 <= n <= shape[axis or 0] for n in counts):
            layout = "[B, C, T]" if self.ports is None else "an axis of rows, as in the example,"
            raise StreamInputError(
                f"invalid_lengths: lengths {list(counts)[:8]} came for an input of shape {shape}; {layout} was "
                "expected, and for each row a whole number from 0 to T; pad rows to the longest"
            )
