"""The receptive field: which inputs an output is computed from, relative to its own place."""

import math
from dataclasses import dataclass
from typing import Any, Callable, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor, nn

from ..core.registry import Example, TimeDim, create_stream
from ..core.stream import BaseStream
from ..errors import PointwiseError, UnsupportedModuleError
from .arguments import tensors, whole_number
from .measured import measured_phases
from .phases import Phase, least_period
from .symbolic import symbolic_phases
from .unknown import ensure_pointwise

__all__ = ["ReceptiveField", "field_and_stream", "receptive_field"]


@dataclass(frozen=True)
class ReceptiveField:
    """The inputs that an output depends on, far from both ends of the signal.

    Output ``o`` stands at input ``o * period[0] // period[1]``, and depends on inputs from ``left`` samples before
    that place to ``right`` samples after it. What both are repeats with every period; each output of a period is a
    phase. Negative numbers are on the other side of the place.

    Attributes:
        period: inputs, and outputs that belong to them, as few as possible
        phases: ``(left, right)`` of each output of a period, or ``None`` for one that depends on no input; ``inf``
            where there is no bound
        certain: whether the field is known: derived from the stream's geometry, or measured and found equal by all
            ways of measuring. If not, it is what was shown to matter, and more may, as in a handler without a rule
            that holds more than a thousand samples, or holds them in other places than its memories
    """

    period: Tuple[int, int]
    phases: Tuple[Phase, ...]
    certain: bool = True

    @property
    def left(self) -> float:
        """Samples that any output looks back, at most."""
        return max((phase[0] for phase in self.phases if phase is not None), default=0)

    @property
    def right(self) -> float:
        """Samples that any output looks ahead, at most."""
        return max((phase[1] for phase in self.phases if phase is not None), default=0)

    @property
    def size(self) -> float:
        """Samples from the first to the last that one output depends on, at most."""
        return max((phase[0] + phase[1] + 1 for phase in self.phases if phase is not None), default=0)

    def __str__(self) -> str:
        ins, outs = self.period
        size = f"{_number(self.size)} {'sample' if self.size == 1 else 'samples'}"
        lines = [f"receptive field of {size}: {_number(self.left)} back, "
                 f"{_number(self.right)} ahead; {outs} out for {ins} in"]  # fmt: skip
        if len(self.phases) > 1:
            for i, phase in enumerate(self.phases):
                told = "no input" if phase is None else f"{_number(phase[0])} back, {_number(phase[1])} ahead"
                lines.append(f"  phase {i}: {told}")
        if not self.certain:
            lines.append("  not certain: this was shown to matter, and more may")
        return "\n".join(lines)


def _number(value: float) -> str:
    return "unbounded" if math.isinf(value) else f"{value:g}"


def receptive_field(
    net: Union[nn.Module, Callable[..., Any]],
    example: Optional[Example] = None,
    *,
    time_dim: TimeDim = -1,
    output_time_dim: Optional[int] = None,
    length_multiple: int = 1,
    method: str = "auto",
    input: int = 0,
    output: int = 0,
    longest: Optional[int] = None,
) -> ReceptiveField:
    """The receptive field of a stream, a network or any function, exact for every phase of its outputs.

    Of a stream, and of a network that can be streamed, it is derived from the geometry of the handlers
    (``"symbolic"``). Of anything else it is measured by experiment (``"measured"``), which also checks the former.

    Args:
        net: a stream, a network in its eval form, or a function of the example
        example: an input, or a tuple of all inputs, as for `create_stream`; needed to measure, and by networks that
            are captured
        time_dim: the axis of time of the input, or of each; ``None`` for a static one
        output_time_dim: that of the outputs, for measuring; the same by default
        length_multiple: what lengths are multiples of, as for `create_stream`
        method: ``"symbolic"``, ``"measured"``, or ``"auto"``: the first if possible
        input: of which input, counted among those that have a time axis
        output: of which output, where there are several
        longest: length of the signals beyond which a field counts as unbounded. By default 1024 samples (or 4 times
            the example) for measured ones; for symbolic ones only recurrences are unbounded

    Returns:
        left and right for every output phase

    Raises:
        UnsupportedModuleError: ``"symbolic"`` for a network that cannot be streamed
        PointwiseError: a module without a handler, which streams take as pointwise until their first chunk, is not
        ValueError: the arguments do not fit each other, or no period is found

    Example:
        >>> import torch
        >>> from torchstreamer.analysis import receptive_field
        >>> from torch import nn
        >>> net = nn.Sequential(nn.Conv1d(1, 4, 4, stride=2, padding=1), nn.Conv1d(4, 1, 3, dilation=2))
        >>> print(receptive_field(net))
        receptive field of 12 samples: 1 back, 10 ahead; 1 out for 2 in
        >>> net = nn.ConvTranspose1d(1, 1, 4, stride=2, padding=1)
        >>> receptive_field(net).phases
        ((1, 0), (0, 1))
        >>> receptive_field(lambda x: x.roll(3, -1), torch.zeros(1, 1, 40), method="measured").phases
        ((3, -3),)
    """
    arguments = time_dim, output_time_dim, length_multiple, method, input, output, longest
    return field_and_stream(net, example, *arguments)[0]


def field_and_stream(
    net: Union[nn.Module, Callable[..., Any]],
    example: Optional[Example] = None,
    time_dim: TimeDim = -1,
    output_time_dim: Optional[int] = None,
    length_multiple: int = 1,
    method: str = "auto",
    input: int = 0,
    output: int = 0,
    longest: Optional[int] = None,
) -> Tuple[ReceptiveField, Optional[BaseStream]]:
    """What `receptive_field` gives, and the stream that it was derived from, ``None`` for a measured one."""
    if method not in ("auto", "symbolic", "measured"):
        raise ValueError(
            f"invalid_method: {method!r} came; 'auto', 'symbolic' or 'measured' was expected; 'auto' is both"
        )
    if not callable(net):
        raise TypeError(
            f"invalid_model: a {type(net).__name__} came; a stream, a network or a function was expected; pass one"
        )
    length_multiple = whole_number(length_multiple, "length_multiple")
    if method != "measured":
        stream = _stream_of(net, example, time_dim, length_multiple, method)
        if stream is not None:
            period, phases, certain = symbolic_phases(stream, input, output, longest)
            return ReceptiveField(*least_period(period, phases), certain), stream
    if example is None:
        raise ValueError(
            "no_example: there is no stream to derive the field from, and no example to measure it with; an input of "
            "the model was expected; pass example="
        )
    examples = tensors(example)
    times = _times(examples, time_dim)
    if output_time_dim is None:
        streamed = [dim for dim in ([time_dim] if isinstance(time_dim, int) else time_dim) if dim is not None]
        output_time_dim = streamed[input] if 0 <= input < len(streamed) else -1
    period, phases, certain = measured_phases(
        net, examples, times, output_time_dim, length_multiple, input, output, longest
    )
    return ReceptiveField(*least_period(period, phases), certain), None


def _stream_of(
    net: Any, example: Optional[Example], time_dim: TimeDim, length_multiple: int, method: str
) -> Optional[BaseStream]:
    if isinstance(net, BaseStream):
        ensure_pointwise(net)
        return net
    if isinstance(net, nn.Module) and not isinstance(net, torch.jit.ScriptModule):
        try:
            if example is not None:
                return create_stream(net, example, time_dim, length_multiple)
            stream = create_stream(net)
            ensure_pointwise(stream)
            return stream
        except (UnsupportedModuleError, PointwiseError):
            if method == "symbolic":
                raise
            return None
    if method == "symbolic":
        raise ValueError(
            f"method_not_possible: method='symbolic' came with a {type(net).__name__}; a stream or a network was "
            "expected; use method='measured'"
        )
    return None


def _times(examples: Sequence[Tensor], time_dim: TimeDim) -> List[Optional[int]]:
    dims = [time_dim] * len(examples) if isinstance(time_dim, int) else list(time_dim)
    if len(dims) != len(examples):
        raise ValueError(
            f"invalid_time_dim: {len(dims)} axes came for {len(examples)} inputs; one for each was expected; pass None "
            "for a static one"
        )
    for x, dim in zip(examples, dims, strict=True):
        if dim is not None and not -x.dim() <= dim < x.dim():
            raise ValueError(
                f"invalid_time_dim: {dim} came for an example of shape {tuple(x.shape)}; an axis of it was expected; "
                "pass time_dim="
            )
    return [None if dim is None else dim % x.dim() for x, dim in zip(examples, dims, strict=True)]
