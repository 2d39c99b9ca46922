"""The linear recurrence h[t] = a[t]·h[t-1] + b[t], element by element. TorchScript compiles this file."""

from typing import List, Optional, Tuple, Union

import torch
from torch import Tensor, nn

from ..core.fast_attributes import entry
from ..core.registry import require_plain
from ..errors import StreamInputError
from .accumulating import accumulator
from .recurrent import RecurrentStream
from .scan import recurred

__all__ = ["LinearRecurrence", "LinearRecurrenceStream", "channels_of", "hold"]


class LinearRecurrence(nn.Module):
    """The recurrence ``h[t] = a[t] · h[t-1] + b[t]`` over time, element by element.

    It is what SRU, QRNN, minGRU, RG-LRU and diagonal state spaces such as Mamba's come down to. ``a`` and ``b`` are
    computed from the input by the layers before. Long chunks are computed by a scan, short ones sample by sample. The
    state is carried in float64, nothing is divided by a product of many ``a``, and nothing is computed in logarithms,
    so the outcome does not depend on how a signal is cut.

    States smaller than any normal number of the dtype count as 0, so that silence costs no more than speech. Once a
    state is no finite number, all after it are ``nan``. Over 64 samples the product of the ``a`` must be finite.

    They may be complex: as tensors of complex numbers, or with ``paired=True`` as real ones, which every export takes.

    Args:
        initial: the state before the first sample, ``[C]``; a parameter is trained. By default 0
        decay: ``a``, if it is the same at all times, a number or ``[C]``; a parameter is trained. Then the input is
            ``b`` alone
        paired: whether the channels of ``a``, ``b`` and ``h`` are complex numbers, first all real parts, then all
            imaginary parts; ``C`` counts both

    Shape:
        - input: ``[B, 2·C, T]``, first all of ``a``, then all of ``b``, as its stream takes them; with a decay ``b``
          alone. Inside a model, or alone with ``create_stream(net, example=(a, b))``, also the two apart,
          ``forward(a, b)``, where ``a`` may be broadcast. The batch axis may be left out
        - output: ``[B, C, T]``, in the dtype of the input

    Example:
        >>> import torch, torchstreamer as pts
        >>> scan = pts.LinearRecurrence()
        >>> a, b = torch.full((1, 1, 3), 0.5), torch.ones(1, 1, 3)
        >>> scan(a, b)
        tensor([[[1.0000, 1.5000, 1.7500]]])
        >>> stream = pts.create_stream(scan)
        >>> stream(torch.cat([a, b], 1)), stream(torch.cat([a, b], 1))[..., 0]
        (tensor([[[1.0000, 1.5000, 1.7500]]]), tensor([[1.8750]]))
    """

    decay: Optional[Tensor]
    start: Optional[Tensor]

    def __init__(
        self, initial: Optional[Tensor] = None, decay: Union[None, float, Tensor] = None, paired: bool = False
    ) -> None:
        super().__init__()
        self.paired = paired
        self.constant = decay is not None
        self.rate = float(decay) if isinstance(decay, (int, float)) else 1.0
        hold(self, "decay", decay if isinstance(decay, Tensor) else None)
        hold(self, "start", initial)
        self.channels = channels_of(decay, initial)

    def forward(self, x: Tensor, b: Optional[Tensor] = None) -> Tensor:
        """The states of the whole signal."""
        if b is not None:
            return self._apart(x, b)
        rows = x.unsqueeze(0) if x.dim() == 2 else x
        y = rows.narrow(1, 0, self.output_channels(rows.size(1)))
        if rows.size(2) > 0:
            y, _ = self.advance(rows, self.initial(rows))
        return y.squeeze(0) if x.dim() == 2 else y

    @torch.jit.unused
    def _apart(self, a: Tensor, b: Tensor) -> Tensor:
        if self.constant:
            raise ValueError(
                "invalid_input: a LinearRecurrence with a decay got two inputs; b alone was expected; leave decay out "
                "if a comes with the signal"
            )
        # In a captured model, where this module stays whole, `forward` is another one.
        return self.forward(torch.cat([a.expand_as(b), b], -2))

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        factor = (1 if self.constant else 2) * (2 if self.paired else 1)
        if channels != -1 and channels % factor != 0:
            raise StreamInputError(
                f"invalid_chunk: {channels} channels came; a multiple of {factor} was expected by a LinearRecurrence, "
                "first those of a, then those of b; concatenate the two along the channels"
            )
        out = channels if self.constant or channels == -1 else channels // 2
        if channels != -1 and self.channels != -1 and out != self.channels:
            raise StreamInputError(
                f"invalid_chunk: {out} states came; {self.channels} were expected, as many as a recurrence's decay or "
                "its initial state has; check the axes, a chunk is [B, C, T] or [C, T]"
            )
        return self.channels if channels == -1 else out

    def initial(self, x: Tensor) -> List[Tensor]:
        """The state before the first sample, ``[B, C, 1]``; of complex numbers their parts, ``[B, 2·C, 1]``."""
        channels, start = self.output_channels(x.size(1)), self.start
        if start is None:
            size = [x.size(0), channels * (2 if x.is_complex() else 1), 1]
            return [torch.zeros(size, dtype=accumulator(x), device=x.device)]
        start = start.view([1, -1, 1]).expand([x.size(0), channels, 1])
        return [(parts(start.to(x.dtype)) if x.is_complex() else start).to(accumulator(x))]

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        """The states of a chunk ``[B, …, t]``, and the last of them."""
        decay = self.decay
        if not self.constant:
            a, b = x.chunk(2, 1)
        elif decay is not None:
            a, b = decay.view([1, -1, 1]), x
        else:
            a, b = torch.full([1, 1, 1], self.rate, dtype=accumulator(x), device=x.device), x
            if self.paired:
                a = torch.cat([a, torch.zeros_like(a)], 1)
        if x.is_complex():
            y, h = recurred(parts(a.to(x.dtype)), parts(b), state[0], True)
            real, imaginary = y.chunk(2, 1)
            y = torch.complex(real, imaginary)
        else:
            y, h = recurred(a, b, state[0], self.paired)
        return y, [h]

    def extra_repr(self) -> str:
        return f"decay={self.rate}" if self.constant and self.decay is None else ""


def parts(x: Tensor) -> Tensor:
    """The real parts of complex numbers, then the imaginary ones, along the channels."""
    return torch.cat([torch.real(x), torch.imag(x)], 1)


def hold(module: nn.Module, name: str, value: Optional[Tensor]) -> None:
    """Let a module have a parameter, if it is one, or a tensor that is not trained, or none."""
    if isinstance(value, nn.Parameter):
        module.register_parameter(name, value)
    else:
        module.register_buffer(name, value)


def channels_of(*values: object) -> int:
    """How many channels tensors of one value a channel are for, -1 if that is not said."""
    found = {value.numel() for value in values if isinstance(value, Tensor) and value.dim() > 0}
    if len(found) > 1:
        raise ValueError(
            f"invalid_channels: values for {' and '.join(map(str, sorted(found)))} channels came; as many of each were "
            "expected; give one value for each channel"
        )
    return found.pop() if found else -1


class LinearRecurrenceStream(RecurrentStream):
    """Stream of a `LinearRecurrence`.

    Args:
        net: the recurrence

    Shape:
        - input: ``[B, 2·C, T]`` or ``[2·C, T]``; with a decay, ``[B, C, T]`` or ``[C, T]``
        - output: ``[B, C, T]`` or ``[C, T]``

    Example:
        >>> import torch, torchstreamer as pts
        >>> stream = pts.LinearRecurrenceStream(pts.LinearRecurrence(decay=0.5))
        >>> stream(torch.ones(1, 2)), stream(torch.ones(1, 1))
        (tensor([[1.0000, 1.5000]]), tensor([[1.7500]]))
    """

    fresh = True
    net = entry("_modules")

    def __init__(self, net: LinearRecurrence) -> None:
        require_plain(net, LinearRecurrence)
        super().__init__(names=["state"])
        self.net = net
        self.aliasing = 0
        self.keeps_dtype = True

    def initial(self, x: Tensor) -> List[Tensor]:
        """The state before the first sample."""
        return self.net.initial(x)

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        """The states of a chunk, and the last of them."""
        return self.net.advance(x, state)

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        return self.net.output_channels(channels)

    def anchor(self) -> Optional[Tensor]:
        """The decay or the initial state says dtype and device, where there is one."""
        return self.net.decay if self.net.decay is not None else self.net.start
