"""The exponential moving average. TorchScript compiles this file."""

from typing import List, Optional, Tuple, Union

import torch
from torch import Tensor

from ..core.registry import require_plain
from .accumulating import accumulator, working
from .channelwise import ChannelwiseRecurrence, ChannelwiseRecurrenceStream
from .linear_recurrence import channels_of, hold
from .scan import recurred

__all__ = ["ExponentialMovingAverage1d", "ExponentialMovingAverage1dStream"]


class ExponentialMovingAverage1d(ChannelwiseRecurrence):
    """The exponential moving average ``y[t] = (1 - alpha) · y[t-1] + alpha · x[t]`` over time, channel by channel.

    Args:
        alpha: the share of the new sample, a number above 0 and up to 1, or ``[C]``; a parameter is trained
        initial: what stands for the output before the first one. ``"first"``: the first sample, so that the average
            begins with it, as in PCEN and in ``ewm(adjust=False)`` of pandas. ``"zero"``: 0, as a filter at rest.
            Or a tensor ``[C]``; a parameter is trained

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: the same, in the dtype of the input

    Example:
        >>> import torch, torchstreamer as pts
        >>> x = torch.tensor([[4.0, 8.0, 8.0]])
        >>> pts.ExponentialMovingAverage1d(0.5)(x), pts.ExponentialMovingAverage1d(0.5, initial="zero")(x)
        (tensor([[4., 6., 7.]]), tensor([[2.0000, 5.0000, 6.5000]]))
    """

    alpha: Optional[Tensor]
    start: Optional[Tensor]

    def __init__(self, alpha: Union[float, Tensor], initial: Union[str, Tensor] = "first") -> None:
        super().__init__()
        if isinstance(initial, str) and initial not in ("first", "zero"):
            raise ValueError(
                f"invalid_initial: initial={initial!r} came; 'first', 'zero' or a tensor was expected; choose one"
            )
        values = torch.as_tensor(alpha).detach()
        if not bool(((values > 0) & (values <= 1)).all()):
            raise ValueError(
                f"invalid_alpha: alpha={alpha} came; a share above 0 and up to 1 was expected; 1 passes the signal on"
            )
        self.share = float(alpha) if isinstance(alpha, (int, float)) else 1.0
        self.first = isinstance(initial, str) and initial == "first"
        hold(self, "alpha", alpha if isinstance(alpha, Tensor) else None)
        hold(self, "start", initial if isinstance(initial, Tensor) else None)
        self.channels = channels_of(alpha, initial)

    def initial(self, x: Tensor) -> List[Tensor]:
        """What stands for the output before the first one, ``[B, C, 1]``."""
        if self.first:
            return [x.narrow(2, 0, 1).to(accumulator(x))]
        size = [x.size(0), x.size(1), 1]
        start = self.start
        if start is None:
            return [torch.zeros(size, dtype=accumulator(x), device=x.device)]
        return [start.to(accumulator(x)).view([1, -1, 1]).expand(size)]

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        """The averages of a chunk, and the last of them."""
        exact, alpha = working(x), self.alpha
        if alpha is None:
            keep = torch.full([1, 1, 1], 1 - self.share, dtype=accumulator(x), device=x.device)
            y, h = recurred(keep, x.to(exact) * self.share, state[0])
        else:
            share = alpha.view([1, -1, 1])
            y, h = recurred(1 - share.to(accumulator(x)), x.to(exact) * share.to(exact), state[0])
        return y.to(x.dtype), [h]

    def extra_repr(self) -> str:
        alpha = f"{self.share}" if self.alpha is None else f"{list(self.alpha.shape)}"
        return alpha if self.first else f"{alpha}, initial={'zero' if self.start is None else list(self.start.shape)}"


class ExponentialMovingAverage1dStream(ChannelwiseRecurrenceStream):
    """Stream of an `ExponentialMovingAverage1d`.

    Args:
        net: the average

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: the same

    Example:
        >>> import torch, torchstreamer as pts
        >>> stream = pts.ExponentialMovingAverage1dStream(pts.ExponentialMovingAverage1d(0.5))
        >>> stream(torch.tensor([[4.0]])), stream(torch.tensor([[8.0]]))
        (tensor([[4.]]), tensor([[6.]]))
    """

    def __init__(self, net: ExponentialMovingAverage1d) -> None:
        require_plain(net, ExponentialMovingAverage1d)
        super().__init__(net, ["average"])

    def anchor(self) -> Optional[Tensor]:
        """The shares or the initial values say dtype and device, where there are any."""
        return self.net.alpha if self.net.alpha is not None else self.net.start
