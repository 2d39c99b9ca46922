"""Recursive filters: rational transfer functions and cascades of second-order sections.

TorchScript compiles this file.
"""

from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.registry import register_streamer, require_plain
from ..core.tracing import compiling
from ..layers.accumulating import accumulator, working
from ..layers.channelwise import ChannelwiseRecurrence, ChannelwiseRecurrenceStream
from ..layers.samples import require_real
from ..layers.weights import version_of
from .configuring import configured
from .state_space import block_tables, filtered

__all__ = ["LFilter", "RecursiveFilter", "RecursiveFilterStream", "SOSFilter"]

Coefficients = Union[Tensor, Sequence[Any]]


class RecursiveFilter(ChannelwiseRecurrence):
    """What `LFilter` and `SOSFilter` have in common: a cascade of filters, each in direct form II transposed.

    Args:
        sections: ``[G, S, 2, n + 1]``, numerators and denominators, for each of ``G`` channels or, with one, for all
        b: the numerator, if it is trained
        a: the denominator, if it is trained
        sos: the sections, if they are trained
    """

    b: Optional[Tensor]
    a: Optional[Tensor]
    sos: Optional[Tensor]
    numbers: Tensor
    kept: List[Tensor]
    seen: List[Tensor]
    versions: List[int]

    def __init__(
        self,
        sections: Tensor,
        b: Optional[nn.Parameter] = None,
        a: Optional[nn.Parameter] = None,
        sos: Optional[nn.Parameter] = None,
    ) -> None:
        super().__init__()
        _refuse_unstable(sections)
        for name, value in (("b", b), ("a", a), ("sos", sos)):
            self.register_parameter(name, value)
        self.groups, self.count, _, length = sections.shape
        self.order = length - 1
        self.channels = -1 if self.groups == 1 else self.groups
        # No buffer, which would go with the module to single precision: poles near the unit circle need double.
        self.numbers = sections.clone()
        self.trained = [name for name, value in (("b", b), ("a", a), ("sos", sos)) if value is not None]
        # Tables, and the weights that they were made of; what does not fit any more is made anew.
        self.kept = []
        self.seen = []
        self.versions = []
        with torch.no_grad():
            self.tables(torch.empty(0))

    def initial(self, x: Tensor) -> List[Tensor]:
        """The state at rest, ``[B, C, S · n]``, as SciPy's ``zi`` section by section."""
        require_real(x)
        size = [x.size(0), x.size(1), self.count * self.order]
        return [torch.zeros(size, dtype=accumulator(x), device=x.device)]

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        """A chunk, filtered, and the state after it."""
        y, s = filtered(x, state[0], self.tables(x))
        return y, [s]

    def sections(self, x: Tensor) -> Tensor:
        """The coefficients, ``[G, S, 2, n + 1]`` in double precision, normalised."""
        wide = accumulator(x)
        both = self.numbers.to(x.device, wide)
        sos, b, a = self.sos, self.b, self.a
        if sos is not None:
            both = sos.to(wide).view([self.groups, self.count, 2, 3])
        elif b is not None or a is not None:
            upper, lower = both.select(2, 0), both.select(2, 1)
            if b is not None:
                upper = self._fitted(b.to(wide))
            if a is not None:
                lower = self._fitted(a.to(wide))
            both = torch.stack([upper, lower], 2)
        return both / both.narrow(2, 1, 1).narrow(3, 0, 1)

    def _fitted(self, values: Tensor) -> Tensor:
        values = F.pad(values, [0, self.order + 1 - values.size(-1)])
        return values.expand([self.groups, self.order + 1]).unsqueeze(1)

    def tables(self, x: Tensor) -> List[Tensor]:
        """What blocks of a signal are multiplied by."""
        weights = self.weights()
        if torch.is_grad_enabled():
            for weight in weights:
                if weight.requires_grad:
                    return block_tables(self.sections(x), x)
        kept = self.kept
        stale = len(kept) == 0 or len(self.seen) != len(weights)
        if not stale:
            stale = kept[0].dtype != working(x) or kept[0].device != x.device
            for i, weight in enumerate(weights):
                # `parameter.data = …` leaves the version alone, but not the memory.
                stale = stale or version_of(weight) != self.versions[i] or not self.seen[i].is_set_to(weight)
        if stale:
            kept = block_tables(self.sections(x).detach(), x)
            if compiling():
                return kept
            seen: List[Tensor] = []
            versions: List[int] = []
            for weight in weights:
                seen.append(weight.detach())
                versions.append(version_of(weight) if version_of(weight) >= 0 else -2)
            self.kept, self.seen, self.versions = kept, seen, versions
        return kept

    def weights(self) -> List[Tensor]:
        """What is trained."""
        found: List[Tensor] = []
        for weight in [self.b, self.a, self.sos]:
            if weight is not None:
                found.append(weight)
        return found

    def __getstate__(self) -> Dict[str, Any]:
        # A copied weight counts its changes anew.
        return {**self.__dict__, "kept": [], "seen": [], "versions": []}

    def extra_repr(self) -> str:
        text = f"order={self.order}" if self.count == 1 else f"sections={self.count}"
        text += f", channels={self.channels}" if self.channels > 0 else ""
        return text + (f", trained={'+'.join(self.trained)}" if self.trained else "")


@configured
class LFilter(RecursiveFilter):
    r"""A rational filter, as `scipy.signal.lfilter` and ``torchaudio.functional.lfilter`` compute it.

    .. code-block:: text

        a[0]·y[t] = b[0]·x[t] + … + b[n]·x[t-n] - a[1]·y[t-1] - … - a[n]·y[t-n]

    It is computed in blocks, without a loop over samples, and starts at rest. The state is carried in float64, so long
    signals stay right in float32, and the outcome does not depend on how a signal is cut. Nothing is clamped;
    torchaudio clamps outputs to -1 … 1 unless it is told not to. States smaller than any normal number count as 0, so
    that silence costs no more than sound.

    From the first sample on that is no finite number, all outputs of its row and channel are ``nan``: they depend on it
    for ever. A filter without a denominator is an `FIR`.

    High orders are better computed in sections, by `SOSFilter`.

    Args:
        b: the numerator, ``[n]``, or ``[C, n]`` with one for each channel; a parameter is trained
        a: the denominator, likewise

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: the same, in the dtype of the input

    Raises:
        ValueError: ``a[0]`` is 0, the filter is not stable, or the coefficients have another shape

    Example:
        >>> import torch, torchstreamer as pts
        >>> from torchstreamer.audio import LFilter
        >>> smooth = LFilter([0.5], [1.0, -0.5])
        >>> smooth(torch.tensor([[1.0, 0.0, 0.0]]))
        tensor([[0.5000, 0.2500, 0.1250]])
        >>> stream = pts.create_stream(smooth)
        >>> stream(torch.tensor([[1.0]])), stream(torch.tensor([[0.0, 0.0]]))
        (tensor([[0.5000]]), tensor([[0.2500, 0.1250]]))
    """

    def __init__(self, b: Coefficients, a: Coefficients) -> None:
        upper, lower = (_numbers(name, values, (1, 2)) for name, values in (("b", b), ("a", a)))
        order = max(upper.shape[-1], lower.shape[-1], 2) - 1
        rows = [F.pad(each, [0, order + 1 - each.shape[-1]]).view(-1, order + 1) for each in (upper, lower)]
        groups = {row.shape[0] for row in rows} - {1}
        if len(groups) > 1:
            raise ValueError(
                f"invalid_coefficients: b for {rows[0].shape[0]} channels and a for {rows[1].shape[0]} came; as many "
                "of each were expected; give one for each channel, or one for all"
            )
        shape = (max([1, *groups]), order + 1)
        sections = torch.stack([row.expand(shape) for row in rows], 1).unsqueeze(1)
        super().__init__(sections, *(each if isinstance(each, nn.Parameter) else None for each in (b, a)))


@configured
class SOSFilter(RecursiveFilter):
    """A cascade of second-order sections, as `scipy.signal.sosfilt` computes it.

    All sections are computed at once, in blocks, so a cascade costs little more than one section. The rest is as for
    `LFilter`.

    Args:
        sos: ``[S, 6]``, for each section ``b0, b1, b2, a0, a1, a2``, as from `biquad`, `butterworth` or SciPy's designs
            with ``output="sos"``; or ``[C, S, 6]`` with sections for each channel; a parameter is trained

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: the same, in the dtype of the input

    Raises:
        ValueError: an ``a0`` is 0, a section is not stable, or the coefficients have another shape

    Example:
        >>> import torch
        >>> from torchstreamer.audio import SOSFilter, biquad
        >>> hum = SOSFilter(torch.cat([biquad("notch", 48_000, 50 * k, q=30) for k in (1, 2, 3)]))
        >>> y = hum(torch.randn(1, 2, 48_000))
    """

    def __init__(self, sos: Coefficients) -> None:
        values = _numbers("sos", sos, (2, 3))
        if values.shape[-1] != 6:
            raise ValueError(
                f"invalid_coefficients: sections of {values.shape[-1]} coefficients came; 6 were expected, b0, b1, b2, "
                'a0, a1, a2; ask a design of SciPy for output="sos"'
            )
        sections = values.reshape(-1, values.shape[-2], 2, 3)
        super().__init__(sections, sos=sos if isinstance(sos, nn.Parameter) else None)


def _numbers(name: str, values: Coefficients, axes: Tuple[int, int]) -> Tensor:
    found = torch.as_tensor(values, dtype=torch.float64).detach().cpu()
    finite = bool(found.isfinite().all())
    if found.dim() not in axes or found.numel() == 0 or not finite:
        raise ValueError(
            f"invalid_coefficients: {name} came with shape {list(found.shape)}{'' if finite else ', not all finite'}; "
            f"finite numbers with {axes[0]} axes, or with {axes[1]}, the first one for channels, were expected; check "
            f"{name}"
        )
    return found


def _refuse_unstable(sections: Tensor) -> None:
    # By the reflection coefficients of the denominators, which are all below 1 if and only if all poles are inside of
    # the unit circle (Schur and Cohn).
    a = sections[:, :, 1].clone()
    if bool((a[..., 0] == 0).any()):
        raise ValueError(
            "zero_leading_coefficient: a filter came whose first coefficient of the denominator, a[0] or a0, is 0; "
            "another number was expected, by which all others are divided; leave out leading zeros, of b as many"
        )
    a = a / a[..., :1]
    for k in range(a.shape[-1] - 1, 0, -1):
        reflected = a[..., k : k + 1]
        if bool((reflected.abs() >= 1).any()):
            raise ValueError(
                "unstable_filter: a filter came with a pole on the unit circle or outside of it; a stable one was "
                "expected, whose response dies out; check the coefficients, and take sections (SOSFilter) for high "
                "orders; a running sum is LinearRecurrence(decay=1.0)"
            )
        a = ((a[..., : k + 1] - reflected * a[..., : k + 1].flip(-1)) / (1 - reflected * reflected))[..., :k]


@register_streamer(LFilter)
@register_streamer(SOSFilter)
class RecursiveFilterStream(ChannelwiseRecurrenceStream):
    """Stream of an `LFilter` or an `SOSFilter`.

    Args:
        net: the filter

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: the same

    Example:
        >>> import torch, torchstreamer as pts
        >>> from torchstreamer.audio import SOSFilter, butterworth
        >>> stream = pts.create_stream(SOSFilter(butterworth("lowpass", 16_000, 1000, order=4)))
        >>> _ = stream(torch.ones(1, 160))
        >>> stream.get_state()["memory.state"].shape  # two numbers for each section
        torch.Size([1, 1, 4])
    """

    def __init__(self, net: RecursiveFilter) -> None:
        require_plain(net, LFilter, SOSFilter)
        super().__init__(net, ["state"])
