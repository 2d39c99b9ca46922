"""Two right handlers written by hand as users write them; the broken ones differ from them in one place each."""

import copy
from typing import Any, List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer import deploy
from torchstreamer.core.user_forward import _renamed as renamed


def strided() -> nn.Conv1d:
    torch.manual_seed(0)
    return nn.Conv1d(2, 3, 3, stride=2).double().eval()


def padded() -> nn.Conv1d:
    torch.manual_seed(1)
    return nn.Conv1d(2, 3, 3, padding=1).double().eval()


class StridedStream(pts.BaseStream):
    """The stream of ``strided()``: a ring, and no padding."""

    def __init__(self, net: nn.Conv1d) -> None:
        super().__init__()
        self.net = net
        self.hop = 2
        self.ratio = (1, 2)
        self.ring = pts.RingBuffer()

    def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
        window = self.ring.append(x)
        count = (window.size(-1) - 1) // 2
        if count <= 0:
            return None
        self.ring.drop(2 * count)
        return self.net(window[..., : 2 * count + 1])

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        return max((n - 1) // 2, 0)

    def output_channels(self, channels: int) -> int:
        if channels != 2:
            raise pts.StreamInputError(f"invalid_chunk: {channels} channels came; 2 were expected; check the axes")
        return 3

    def anchor(self) -> Optional[Tensor]:
        return self.net.weight


class PaddedStream(pts.BaseStream):
    """The stream of ``padded()``: a zero before the first sample, and one behind the last."""

    def __init__(self, net: nn.Conv1d) -> None:
        super().__init__()
        self.weight = net.weight
        self.bias = net.bias
        self.ring = pts.RingBuffer()
        self.begun = pts.Counter()

    def forward(self, x: Optional[Tensor], final: bool = False) -> Optional[Tensor]:
        if x is None and self.begun.value == 0:
            return None
        if x is not None:
            if self.begun.value == 0:
                x = F.pad(x, (1, 0))
                self.begun.value = 1
            window = self.ring.append(x)
        else:
            window = self.ring.window()
        if final:
            window = F.pad(window, (0, 1))
        count = window.size(-1) - 2
        if count <= 0:
            return None
        self.ring.drop(count)
        return F.conv1d(window, self.weight, self.bias)

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        return n if final else max(n - 1, 0)

    def output_channels(self, channels: int) -> int:
        if channels != 2:
            raise pts.StreamInputError(f"invalid_chunk: {channels} channels came; 2 were expected; check the axes")
        return 3

    def anchor(self) -> Optional[Tensor]:
        return self.weight


# ---------------------------------------------------------------------- in a static step

State = Tuple[Tensor, List[Tensor]]


class PaddedPart(deploy.Part):
    """What ``padded()`` gives of a value: a zero stands where there is no signal, and two samples are held."""

    def __init__(self, stream: PaddedStream, lag: int, key: int) -> None:
        super().__init__(2)
        self.weight, self.bias = stream.weight, stream.bias
        self.lag, self.key = lag, key

    def forward(self, xs: List[Tensor], states: List[Tensor], rows: deploy.Rows) -> State:
        x = self.masked(xs[0], rows)
        state = self.begun(states[0], rows)
        window = torch.cat([state, x], 2)
        # A row may start and rest at once, so what it keeps is not what it was given.
        return self.convolved(window), [self.kept(states[0], state, window[:, :, x.size(2) :], rows)]

    def masked(self, x: Tensor, rows: deploy.Rows) -> Tensor:
        return torch.where(rows.inside(x.size(2), self.lag, self.key).unsqueeze(1), x, torch.zeros_like(x))

    def begun(self, state: Tensor, rows: deploy.Rows) -> Tensor:
        return rows.restart(state, 0.0)

    def kept(self, given: Tensor, begun: Tensor, new: Tensor, rows: deploy.Rows) -> Tensor:
        return rows.keep(begun, new)

    def convolved(self, window: Tensor) -> Tensor:
        return F.conv1d(window, self.weight, self.bias)


def padded_rule(plan: deploy.Planner, stream: Any, edge: deploy.Edge, part: Any = PaddedPart) -> deploy.Edge:
    # An output stands where the middle of its three samples does.
    return plan.add(part(stream, edge.lag, plan.key(edge)), [edge], edge.lag + 1, plan.through(edge, stream))


def strided_rule(plan: deploy.Planner, stream: Any, edge: deploy.Edge) -> deploy.Edge:
    return deploy.add_window(plan, edge, copy.deepcopy(stream.net), 3, 2, plan.through(edge, stream))


deploy.static_rule(PaddedStream)(padded_rule)
deploy.static_rule(StridedStream)(strided_rule)


# ---------------------------------------------------------------------- lengths that are multiples


class Pyramid(nn.Module):
    """A convolution, and what pooling by 2 and upsampling by 2 leave of the signal; odd lengths raise."""

    def __init__(self, channels: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + F.interpolate(F.avg_pool1d(x, 2), scale_factor=2.0)


def pyramid() -> Pyramid:
    torch.manual_seed(2)
    return Pyramid().double().eval()


class PyramidStream(pts.BaseStream):
    """The stream of ``Pyramid``, whose whole signals have even lengths."""

    checked_run = renamed(pts.BaseStream._run, "checked_run")

    def __init__(self, net: Pyramid) -> None:
        super().__init__()
        self.conv = net.conv
        self.hop = 2
        self.length_multiple = 2
        self.ring = pts.RingBuffer()
        self.begun = pts.Counter()
        self.odd = pts.Counter()  # samples that came, modulo 2

    def _run(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        self._ensure_sound()
        if final:
            self.check_end(x)
        return self.checked_run(x, final)

    def check_end(self, x: Optional[Tensor]) -> None:
        if torch.jit.is_scripting() or x is None or isinstance(x, Tensor):
            n = self.odd.value
            if x is not None and x.dim() > 1:
                n += x.size(-1)
            if n % 2 != 0:
                raise pts.StreamInputError("length_multiple: an odd length came; an even one was expected; go on first")

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None and self.begun.value == 0:
            return None
        if x is not None:
            last = (self.odd.value + x.size(-1)) % 2
            if self.begun.value == 0:
                x = F.pad(x, [1, 0])
                self.begun.value = 1
            window = self.ring.append(x)
            self.odd.value = last
        else:
            window = self.ring.window()
        # Of n samples L are held, from the one before output n - L + 1 on.
        first = (self.odd.value + window.size(-1) + 1) % 2
        if final:
            window = F.pad(window, [0, 1])
        count = window.size(-1) - 2
        if count <= 0:
            return None
        self.ring.drop(count)
        here, before, after = window[..., 1:-1], window[..., :-2], window[..., 2:]
        even = (torch.arange(count, device=window.device) + first) % 2 == 0
        pair = torch.where(even, after, before)
        return F.conv1d(window, self.conv.weight, self.conv.bias) + (here + pair) / 2

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        if final and n % 2 != 0:
            raise pts.StreamInputError("length_multiple: an odd length came; an even one was expected; go on first")
        return n if final else max(n - 1, 0)

    def output_channels(self, channels: int) -> int:
        if channels != self.conv.in_channels:
            raise pts.StreamInputError(f"invalid_chunk: {channels} channels came; others were expected; check the axes")
        return channels

    def anchor(self) -> Optional[Tensor]:
        return self.conv.weight


class Unpadded(nn.Module):
    """A convolution of a window that holds its padding."""

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        self.conv = copy.deepcopy(conv)

    def forward(self, window: Tensor) -> Tensor:
        return F.conv1d(window, self.conv.weight, self.conv.bias)


class Pairs(nn.Module):
    """The mean of every pair of samples, twice."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(F.avg_pool1d(x, 2), scale_factor=2.0)


class Added(nn.Module):
    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


@deploy.static_rule(PyramidStream)
def pyramid_rule(plan: deploy.Planner, stream: Any, edge: deploy.Edge) -> deploy.Edge:
    looked = deploy.add_window(plan, edge, Unpadded(stream.conv), 3, 1, edge.length, left=1, right=1)
    even = plan.delayed(edge, edge.lag % 2)  # pairs must not be torn
    paired = plan.add(deploy.Call(Pairs()), [even], even.lag)
    both = plan.aligned([looked, paired])
    return plan.add(deploy.Call(Added()), both, both[0].lag, plan.through(edge, stream))


# ---------------------------------------------------------------------- whole numbers


class Tokens(nn.Module):
    """An embedding of whole numbers ``[B, 1, T]``, and a convolution behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(8, 3)
        self.conv = nn.Conv1d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.emb(x[:, 0]).transpose(1, 2))


def tokens() -> Tokens:
    torch.manual_seed(3)
    return Tokens().double().eval()


class TokensStream(pts.BaseStream):
    """The stream of ``Tokens``."""

    def __init__(self, net: Tokens) -> None:
        super().__init__()
        self.emb = net.emb
        self.conv = net.conv
        self.ring = pts.RingBuffer()

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None:
            return None
        window = self.ring.append(x)
        count = window.size(-1) - 2
        if count <= 0:
            return None
        self.ring.drop(count)
        return self.conv(self.emb(window[:, 0]).transpose(1, 2))

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        return max(n - 2, 0)


class Embedded(nn.Module):
    def __init__(self, emb: nn.Embedding) -> None:
        super().__init__()
        self.emb = copy.deepcopy(emb)

    def forward(self, x: Tensor) -> Tensor:
        return self.emb(x[:, 0]).transpose(1, 2)


@deploy.static_rule(TokensStream)
def tokens_rule(plan: deploy.Planner, stream: Any, edge: deploy.Edge) -> deploy.Edge:
    embedded = plan.add(deploy.Call(Embedded(stream.emb)), [edge], edge.lag)
    return deploy.add_window(plan, embedded, copy.deepcopy(stream.conv), 3, 1, plan.through(edge, stream))
