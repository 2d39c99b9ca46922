"""Receptive fields and dependency matrices from the geometry of handlers, without running anything."""

from typing import Dict, List, Optional, Tuple

import torch
from torch import Tensor

from ..core.stream import BaseStream
from ..graph.ported import PortedGraphStream
from ..graph.stream import GraphStream
from ..graph.streams import CumulativeStream
from ..layers.recurrent import RecurrentStream
from .geometry import has_rule, needed
from .graph_geometry import graph_needs, output_samples, port_samples
from .grouping import hulls
from .phases import Period, Phase, relative

__all__ = ["needed_inputs", "stream_period", "symbolic_phases"]

_LARGEST = 1 << 26  # entries of a mask
_UNKNOWN = 1024  # the longest signal that a handler without a rule is probed with


def needed_inputs(stream: BaseStream, outputs: Tensor, n: int, input: int = 0, output: int = 0) -> Tensor:
    """The inputs that chosen outputs depend on, from the geometry of the handlers.

    Args:
        stream: the stream
        outputs: numbers of the outputs, ``[columns]``
        n: length of the whole signal, in samples of the first streamed input
        input: which input, counted among the streamed ones
        output: which output

    Returns:
        a mask ``[samples of the input, columns]``
    """
    length = output_samples(stream, output, n, True)
    need = torch.zeros(length, len(outputs), dtype=torch.bool)
    need[outputs, torch.arange(len(outputs))] = True
    if not isinstance(stream, GraphStream):
        return needed(stream, need, n)
    slot = stream.outputs[output] if isinstance(stream, PortedGraphStream) else stream.result
    found: Dict[int, Tensor] = graph_needs(stream, need, n, slot)
    return found[sorted(found)[input]]


def stream_period(stream: BaseStream, input: int = 0, output: int = 0) -> Tuple[int, Period]:
    """The hop in samples of the first streamed input, and inputs and outputs of it.

    Raises:
        ValueError: the stream has no such input or output
    """
    hop, start = stream.hop, 1 << 20
    start -= start % hop
    inputs = len(port_samples(stream, 0))
    outputs = len(stream.outputs) if isinstance(stream, PortedGraphStream) else 1
    if not 0 <= input < inputs or not 0 <= output < outputs:
        raise ValueError(
            f"invalid_input: input {input} and output {output} came; the stream has {inputs} inputs with time and "
            f"{outputs} outputs; a number below these was expected"
        )
    ends = [sorted(port_samples(stream, n).items())[input][1] for n in (start, start + hop)]
    outs = [output_samples(stream, output, n, False) for n in (start, start + hop)]
    if outs[1] == outs[0]:
        raise ValueError(f"no_output: output {output} never comes; one that does was expected; choose another")
    return hop, (ends[1] - ends[0], outs[1] - outs[0])


def symbolic_phases(
    stream: BaseStream, input: int, output: int, longest: Optional[int]
) -> Tuple[Period, Tuple[Phase, ...]]:
    """Period and phases of a stream's receptive field."""
    hop, period = stream_period(stream, input, output)
    parts = [part for part in stream.modules() if isinstance(part, BaseStream)]
    recurrent = any(isinstance(part, (CumulativeStream, RecurrentStream)) for part in parts)
    unknown = any(not has_rule(part) for part in parts)
    if longest is None and unknown:
        longest = _UNKNOWN
    n = max(-(-32 // hop), 4) * hop
    open_before = False
    while True:
        rows, open_now = _middle(stream, n, period, input, output)
        if rows is not None:
            if not open_now:
                return period, tuple(rows)
            if (recurrent and open_before and longest is None) or (longest is not None and n >= longest):
                return period, tuple(None if row is None else (float("inf"), row[1]) for row in rows)
        open_before = rows is not None and open_now
        n *= 2
        if n * 2 * period[1] > _LARGEST:
            raise ValueError(
                f"no_field: no receptive field was found in signals of {n // 2} samples; a bounded one was expected; "
                "pass longest=, from which on a field counts as unbounded"
            )


def _middle(stream: BaseStream, n: int, period: Period, input: int, output: int) -> Tuple[Optional[List[Phase]], bool]:
    """The phases of a period in the middle of a signal, or ``None`` where the ends still show; and whether all begin
    with the signal."""
    ins, outs = period
    length = output_samples(stream, output, n, True)
    begin = length // outs // 2 * outs
    if begin < outs or begin + 2 * outs > length:
        return None, False
    mask = needed_inputs(stream, torch.arange(begin, begin + 2 * outs), n, input, output)
    first, last = hulls(mask.T)
    seen = last >= first
    if bool((last[seen] >= mask.shape[0] - 1).any()):
        return None, False
    open_now = bool((first[seen] <= 0).any())
    phases = relative(first.tolist(), last.tolist(), begin, period)
    one, two = phases[:outs], phases[outs:]
    if open_now:
        same = [(a and a[1]) == (b and b[1]) for a, b in zip(one, two, strict=True)]
        return (one if all(same) else None), True
    return (one if one == two else None), False
