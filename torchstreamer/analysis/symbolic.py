"""Receptive fields and dependency matrices from the geometry of handlers, without running anything."""

import math
from typing import Dict, List, Optional, Tuple

import torch
from torch import Tensor

from ..core.stream import BaseStream
from ..graph.graph_stream import GraphStream
from ..graph.several import PortedGraphStream
from .ends import Ends, NoEnds
from .geometry import Need, Watch, has_rule, needed, watched
from .graph_geometry import graph_needs, output_samples, port_samples
from .grouping import hulls
from .phases import Period, Phase, relative

__all__ = ["needed_inputs", "stream_period", "symbolic_phases"]

_LARGEST = 1 << 28  # entries of a mask; of the inputs a quarter of that, which are counted in more bytes
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
    return _needed(stream, need, n, input, output)


def _needed(stream: BaseStream, need: Need, n: int, input: int, output: int) -> Need:
    if not isinstance(stream, GraphStream):
        return needed(stream, need, n)
    slot = stream.outputs[output] if isinstance(stream, PortedGraphStream) else stream.result
    found: Dict[int, Need] = graph_needs(stream, need, n, slot)
    slots = sorted(port_samples(stream, n))
    if slots[input] not in found:
        raise NoEnds
    return found[slots[input]]


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
) -> Tuple[Period, Tuple[Phase, ...], bool]:
    """Period and phases of a stream's receptive field, and whether these are all that there is."""
    hop, period = stream_period(stream, input, output)
    unknown = any(not has_rule(part) for part in stream.modules() if isinstance(part, BaseStream))
    if longest is None and unknown:
        longest = _UNKNOWN
    n = max(-(-32 // hop), 4) * hop
    with watched(stream) as watch:
        while max(4 * n, output_samples(stream, output, n, True)) * 2 * period[1] <= _LARGEST:
            watch.clear()
            phases = _middle(stream, n, period, input, output, watch, longest is not None and n >= longest)
            if phases is not None:
                return period, tuple(phases), not watch.uncertain
            n *= 2
    try:
        return period, tuple(_by_ends(stream, n, period, input, output)), True
    except NoEnds:
        raise ValueError(
            f"no_field: a period of {period[1]} outputs came, and signals of {n} samples would be needed; a field that "
            "shows in shorter ones was expected; pass longest=, from which on a field counts as unbounded, or take "
            "layers with odd rates out"
        ) from None


def _by_ends(stream: BaseStream, n: int, period: Period, input: int, output: int) -> List[Phase]:
    # Far from both ends, wherever these are.
    outputs = torch.arange(period[1])
    low, high = _needed(stream, Ends(outputs, outputs), n, input, output).fields()
    return [
        (left, int(right)) if math.isinf(left) else (int(left), int(right))
        for phase in relative(low.tolist(), high.tolist(), 0, period)
        if phase is not None
        for left, right in [phase]
    ]


def _middle(
    stream: BaseStream, n: int, period: Period, input: int, output: int, watch: Watch, unbounded: bool
) -> Optional[List[Phase]]:
    """The phases of a period in the middle of a signal, or ``None`` where the ends still show.

    Args:
        watch: notes what is asked of recurrences, and of what stands before and beyond the signal
        unbounded: whether all that begins with the signal is taken for such a one
    """
    ins, outs = period
    length = output_samples(stream, output, n, True)
    begin = length // outs // 2 * outs
    if begin < outs or begin + 2 * outs > length:
        return None
    mask = needed_inputs(stream, torch.arange(begin, begin + 2 * outs), n, input, output)
    first, last = hulls(mask.T)
    seen = last >= first
    before, beyond, recurrent = (
        torch.stack([torch.zeros_like(seen), *masks]).any(0) for masks in (watch.before, watch.beyond, watch.recurrent)
    )
    if watch.short:
        return None
    if bool((last[seen] >= mask.shape[0] - 1).any()) or bool(beyond.any()):
        return None
    # What begins with the signal may begin before it; taps that lie far apart step over the beginning.
    opens = seen & ((first <= 0) | before | recurrent)
    if bool((opens & ~recurrent).any()) and not unbounded:
        return None
    phases = [
        (float("inf"), phase[1]) if phase is not None and open_now else phase
        for phase, open_now in zip(relative(first.tolist(), last.tolist(), begin, period), opens.tolist(), strict=True)
    ]
    return phases[:outs] if phases[:outs] == phases[outs:] else None
