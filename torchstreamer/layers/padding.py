"""Padding at the true start and end of a signal, and networks without it.

TorchScript compiles the streams of this file.
"""

from typing import Iterator, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.counter import Counter
from ..core.reach import Reach
from ..core.registry import require_plain
from ..core.ring import RingBuffer
from ..core.stream import BaseStream
from ..errors import UnsupportedModuleError
from .weights import copy_network

__all__ = ["Pad1dStream", "edge_source", "without_padding"]


class Pad1dStream(BaseStream):
    """Padding, or with negative amounts cropping, along time.

    With ``u`` the padded signal, the stream gives ``u`` from its first sample on, less what the crops take. The left
    part needs the first samples; the right part is made at the end, from the last ones.

    Args:
        left: samples before the first; negative amounts crop
        right: samples after the last; negative amounts crop
        mode: ``"constant"``, ``"reflect"`` or ``"replicate"``, as in `torch.nn.functional.pad`; or ``"symmetric"``, as
            in `numpy.pad`, which mirrors with the first and last sample
        value: the padding value of mode ``"constant"``
        shortest: the shortest signal of which anything comes; by default the shortest that the module takes. What is
            mirrored beyond a shorter one is 0
    """

    # What a script takes as constant: it leaves out the branches that these decide.
    __constants__ = ["left", "right", "mode", "value", "wait", "tail"]

    reach: Reach

    def __init__(
        self, left: int, right: int, mode: str = "constant", value: float = 0.0, shortest: Optional[int] = None
    ) -> None:
        # Before so many samples have come nothing is sure to exist.
        total = 1 - left - right
        if mode == "reflect":
            wait = shortest or max(1, left + 1, right + 1, total if left > 0 else 1)
            shortest = shortest or max(wait, total)
        elif mode == "symmetric":
            wait = shortest or max(1, left, right, total if left > 0 else 1)
            shortest = shortest or max(wait, total)
        elif mode == "replicate":
            shortest = shortest or max(1, total)
            # What is dropped from the left need not be held, unless it is mirrored.
            wait = shortest if left > 0 else 1
        else:
            shortest = shortest or max(1, -min(left, 0) - min(right, 0), total)
            wait = shortest if left > 0 else 1
        super().__init__(Reach.shift(left, right, shortest))
        self.keeps_dtype = True
        self.left = left
        self.right = right
        self.mode = mode
        self.value = value
        self.wait = wait
        # Samples remembered for the end: those to be cropped, or those that the right part is made of.
        if right < 0:
            self.tail = -right
        elif right > 0 and mode == "reflect":
            self.tail = right + 1
        elif right > 0 and mode == "symmetric":
            self.tail = right
        elif right > 0 and mode == "replicate":
            self.tail = 1
        else:
            self.tail = 0
        self.ring = RingBuffer()
        self.open = Counter()
        self.lead = Counter(max(-left, 0))  # outputs still to be cropped

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if self.open.value == 0:
            if x is None:
                return None
            if self.ring.held + x.size(2) < self.wait:
                self.ring.push(x)
                return None
            x = self._open(x)
        held: Optional[Tensor] = None
        if self.tail > 0:
            if x is not None:
                x = self._remember(x)
            if final:
                held = self.ring.rows().transpose(1, 2)
        if final and self.right > 0:
            x = self._close(x, held)
        if x is not None and self.lead.value > 0:
            n = min(self.lead.value, x.size(2))
            self.lead.value -= n
            x = x.narrow(2, n, x.size(2) - n)
        if x is not None and x.size(2) == 0:
            return None
        return x

    def _open(self, x: Tensor) -> Tensor:
        # The first samples, padded on the left. From here on the ring remembers the tail only.
        x = self.ring.join(x)
        self.ring.skip = 0
        self.ring.fill(x, 0, 0.0)
        self.open.value = 1
        if self.left > 0:
            if self.mode == "constant":
                x = F.pad(x, [self.left, 0], "constant", self.value)
            elif self.mode == "replicate":
                x = torch.cat([x.narrow(2, 0, 1).expand(-1, -1, self.left), x], 2)
            else:
                x = torch.cat([x.narrow(2, 1 if self.mode == "reflect" else 0, self.left).flip([2]), x], 2)
        return x

    def _remember(self, x: Tensor) -> Optional[Tensor]:
        # Keeps the tail in the ring. A crop holds it back, a padding lets it pass.
        if self.right > 0 and x.size(2) >= self.tail:
            self.ring.borrowed = True
            self.ring.keep(x, x.size(2) - self.tail)
            return x
        window = self.ring.join(x)
        n = window.size(2)
        self.ring.keep(window, max(n - self.tail, 0))
        if self.right > 0:
            return x
        return window.narrow(2, 0, n - self.tail) if n > self.tail else None

    def _close(self, x: Optional[Tensor], tail: Optional[Tensor]) -> Optional[Tensor]:
        end: Optional[Tensor] = None
        if tail is not None:
            if self.mode == "replicate":
                end = tail.expand(-1, -1, self.right)
            else:
                n = min(tail.size(2) - (1 if self.mode == "reflect" else 0), self.right)
                end = tail.narrow(2, 0, n).flip([2])
                if n < self.right:  # what is made of too few samples is cropped again
                    end = F.pad(end, [0, self.right - n])
        elif self.mode == "constant" and self.lead.value <= (x.size(2) if x is not None else 0):
            data = self.ring.data
            end = data.new_full([data.size(0), data.size(2), self.right], self.value)
        if end is None:
            return x
        return end if x is None else torch.cat([x, end], 2)

    def opens_at_once(self) -> bool:
        """Whether a signal may begin in one step, with the left part held by who looks at it; then it is said here."""
        alike = self.mode == "constant" and self.left >= 0 and self.wait == 1 and self.tail == 0
        if alike:
            self.open.opening, self.ring.opening = (1, 0.0), (0, 0.0)
        return alike

    def taps(self, n: int, m: int) -> Iterator[Tensor]:
        """Which inputs the outputs are computed from; see `BaseStream.taps`."""
        for tap in super().taps(n, m):
            yield self.source(tap, n)

    def source(self, place: Tensor, n: int) -> Tensor:
        """The samples that stand at places of the padded signal, counted from its first own one; see `taps`."""
        return place if self.mode == "constant" else edge_source(place, torch.tensor(n - 1), self.mode)

    def output_channels(self, channels: int) -> int:
        return channels

    def extra_repr(self) -> str:
        return f"left={self.left}, right={self.right}, mode={self.mode!r}"


def edge_source(place: Tensor, last: Tensor, mode: str, filled: Optional[Tensor] = None) -> Tensor:
    """The samples of a signal that stand at places before and beyond its ends; beyond the last one for a 0.

    Args:
        place: counted from the first sample
        last: the place of the last sample
        mode: ``"reflect"``, ``"symmetric"`` or ``"replicate"``
        filled: to how many samples zeros fill a shorter signal before it is mirrored, if they do
    """
    if filled is not None:
        end = torch.maximum(last, filled - 1)
        place = place.abs()
        return torch.where(place > end, 2 * end - place, place)
    if mode == "reflect":
        place = place.abs()
        return torch.where(place > last, 2 * last - place, place)
    if mode == "symmetric":
        place = torch.where(place < 0, -1 - place, place)
        return torch.where(place > last, 2 * last + 1 - place, place)
    return torch.minimum(place.clamp(min=0), last)


def without_padding(net: nn.Module) -> nn.Module:
    """A copy of a network with all padding taken out, for those who want the valid convolution.

    Convolutions, transposed convolutions and pools pad by 0 (and transposed convolutions have no output padding);
    padding modules become identities, or keep what they crop. Everything else is copied as it is.

    Args:
        net: a network; it is left alone

    Returns:
        the copy, with weights of its own

    Example:
        >>> import torch, torchstreamer as pts
        >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 1, 5, padding=2), torch.nn.ZeroPad1d(3))
        >>> pts.without_padding(net)(torch.zeros(1, 1, 20)).shape
        torch.Size([1, 1, 16])
    """
    net = copy_network(net)
    if _is_padding(net):
        return _without(net)
    for module in list(net.modules()):
        for name, child in module._modules.items():
            if child is not None and _is_padding(child):
                module._modules[name] = _without(child)
        padding = getattr(module, "padding", None)
        if padding is None or _is_padding(module):
            continue
        if isinstance(module, nn.modules.conv._ConvNd):
            zeros = (0,) * len(module.kernel_size)
            module.padding = zeros
            module.output_padding = zeros
            module.padding_mode = "zeros"
            module._reversed_padding_repeated_twice = [0, 0] * len(zeros)
        elif isinstance(module, _POOLS):
            module.padding = 0 if isinstance(padding, int) else (0,) * len(padding)  # type: ignore[assignment]
    return net


_POOLS = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)


def _is_padding(module: nn.Module) -> bool:
    return any(base.__module__ == "torch.nn.modules.padding" for base in type(module).__mro__)


def _without(module: nn.Module) -> nn.Module:
    crops = tuple(min(amount, 0) for amount in module.padding)  # type: ignore[union-attr]
    if not any(crops):
        return nn.Identity()
    module.padding = crops  # type: ignore[assignment]
    return module


def pad_stream(net: nn.Module) -> Pad1dStream:
    """The stream of a padding module of torch.nn."""
    require_plain(net, nn.ReflectionPad1d, nn.ReplicationPad1d, nn.ConstantPad1d, nn.ZeroPad1d)
    modes = {nn.ReflectionPad1d: "reflect", nn.ReplicationPad1d: "replicate", nn.ConstantPad1d: "constant"}
    mode = next(mode for net_type, mode in modes.items() if isinstance(net, net_type))
    left, right = net.padding  # type: ignore[misc]
    value = float(net.value) if mode == "constant" else 0.0  # type: ignore[arg-type]
    return Pad1dStream(int(left), int(right), mode, value)


def same_padding(kernel: int, dilation: int) -> Tuple[int, int]:
    """What ``padding='same'`` puts on the left and on the right."""
    total = dilation * (kernel - 1)
    return total // 2, total - total // 2


def conv_padding(net: nn.Module, kernel: int, dilation: int) -> Optional[Pad1dStream]:
    """What a convolution puts around the signal, if anything.

    Raises:
        UnsupportedModuleError: circular padding
    """
    if net.padding == "same":
        left, right = same_padding(kernel, dilation)
    elif net.padding == "valid":
        left = right = 0
    else:
        left = right = net.padding[0]  # type: ignore[index, assignment]
    mode = str(net.padding_mode)
    if mode != "zeros" and not isinstance(net.padding, str):
        # What the module pads by in these modes; some networks change it to pad on one side only.
        left, right = net._reversed_padding_repeated_twice  # type: ignore[misc]
    if left == right == 0:
        return None
    if mode == "circular":
        raise UnsupportedModuleError(
            "circular_padding",
            net,
            "circular padding puts the end of the signal before its start",
            "use padding_mode 'zeros', 'reflect' or 'replicate', or pts.without_padding(net)",
        )
    return Pad1dStream(left, right, "constant" if mode == "zeros" else mode)
