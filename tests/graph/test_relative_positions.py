"""Relative positions by products with rows of distances, shifted in the ways that models write it."""

import sys
from pathlib import Path
from typing import Callable

import pytest
import torch
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.testing.live_rows import LiveRows

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from relative_positions import SHIFTS, ComputedPositions, RelativeAttention, RelativeTable, TransformerXL, sinusoids


def causal(x: Tensor) -> Tensor:
    """As many distances as there are keys, none of those after the query: Transformer-XL's own."""
    y = torch.cat([x.new_zeros(*x.shape[:3], 1), x], -1).view(x.shape[0], x.shape[1], x.shape[3] + 1, x.shape[2])
    return y[:, :, 1:].view_as(x)


class Behind(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return sinusoids(torch.arange(x.shape[1] - 1, -1, -1.0, dtype=x.dtype), 8)[None]


class Joined(nn.Module):
    """Both halves of the distances, the one turned round."""

    def forward(self, x: Tensor) -> Tensor:
        half = sinusoids(torch.arange(x.shape[1], dtype=x.dtype), 8)
        return torch.cat([half.flip(0), -half[1:]])[None]


class Learned(nn.Module):
    """An embedding of distances up to a limit."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Embedding(9, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.rows((torch.arange(2 * x.shape[1] - 1) - (x.shape[1] - 1)).clamp(-4, 4) + 4)[None]


class Net(nn.Module):
    def __init__(
        self, shift: str = "pad", positions: type[nn.Module] = ComputedPositions, fused: bool = False, ahead: int = 2
    ) -> None:
        super().__init__()
        sizes = {ComputedPositions: (8,), RelativeTable: (8, 40)}.get(positions, ())
        self.attention = RelativeAttention(2, 8, "pad" if shift == "causal" else shift, fused)
        if shift == "causal":
            self.attention.shift = causal
        self.positions, self.ahead = positions(*sizes), ahead

    def forward(self, x: Tensor) -> Tensor:
        x = x.mT
        i = torch.arange(x.shape[1])
        behind = i[:, None] - i
        hidden = (behind > 5) | (behind < -self.ahead)
        return self.attention(x, hidden[None], self.positions(x)).mT


CASES: dict[str, Callable[[], Net]] = {
    **{name: lambda name=name: Net(name) for name in SHIFTS},  # type: ignore[misc]
    "table": lambda: Net("pad", RelativeTable),
    "table, fused": lambda: Net("pad", RelativeTable, fused=True),
    "joined halves": lambda: Net("cat", Joined),
    "learned": lambda: Net("strided", Learned),
    "causal": lambda: Net("causal", Behind, ahead=0),
}


def check(net: nn.Module, stream: pts.BaseStream, x: Tensor, size: int) -> None:
    with torch.no_grad():
        pieces = [stream(part) for part in x.split(size, -1)] + [stream.flush()]
        y = torch.cat([piece for piece in pieces if piece is not None], -1)
        torch.testing.assert_close(y, net(x), rtol=0, atol=1e-10)


@pytest.mark.sample("strided", rest=2)
@pytest.mark.parametrize("name", CASES)
def test_every_way_to_write_it(name: str) -> None:
    torch.manual_seed(0)
    net = CASES[name]().double().eval()
    x = torch.randn(2, 8, 40, dtype=torch.float64)
    stream = pts.create_stream(net, example=x[:1, :, :13])
    for size in (1, 7, 40):
        check(net, stream, x, size)
    check(net, torch.jit.script(stream), x, 9)
    assert stream._limit == (40 if "table" in name else -1)
    with torch.no_grad():  # the rows follow the weights
        net.attention.pos.weight.mul_(-3)
    check(net, stream, x, 5)


@pytest.mark.slow
def test_in_static_rows_compiled_and_far_from_the_start() -> None:
    torch.manual_seed(0)
    net = Net().double().eval()
    x = torch.randn(1, 8, 2000, dtype=torch.float64)
    stream = pts.create_stream(net, example=x[..., :13])
    LiveRows(stream, net, 1, (4, 2), lengths=[1, 2, 3, 30], nan=0.0).run(60).compare()
    compiled = pts.compile(stream, chunk=4, backend="eager")
    with torch.no_grad():
        y = torch.cat([compiled(part) for part in x.split(4, -1)], -1)
        expected = net(x[..., -40:])[..., 5:-2]  # of keys alone that stand in the window
        torch.testing.assert_close(y[..., -expected.shape[-1] :], expected, rtol=0, atol=1e-10)


@pytest.mark.slow
def test_a_table_that_ends() -> None:
    net = Net("pad", RelativeTable).double().eval()
    x = torch.randn(1, 8, 41, dtype=torch.float64)
    stream = pts.create_stream(net, example=x[..., :13])
    with pytest.raises(pts.StreamInputError, match="signal_too_long"):
        stream(x)


class Sinks(nn.Module):
    """The first keys are seen to the end of a table: of distances, or of a bias."""

    def __init__(self, shifted: bool) -> None:
        super().__init__()
        self.attention = RelativeAttention(2, 8)
        self.positions = RelativeTable(8, 40) if shifted else ComputedPositions(8)
        self.shifted = shifted
        i = torch.arange(40.0)
        self.register_buffer("bias", torch.sin(i - i[:, None]) + 0.1 * (i - i[:, None]))

    def forward(self, x: Tensor) -> Tensor:
        x = x.mT
        i = torch.arange(x.shape[1])
        behind = i[:, None] - i
        hidden = (behind < 0) | ((behind > 5) & (i >= 3))
        if self.shifted:
            return self.attention(x, hidden[None], self.positions(x)).mT
        scores = (self.attention.q(x) @ x.mT + self.bias[: i.shape[0], : i.shape[0]]).masked_fill(hidden, -torch.inf)
        return (scores.softmax(-1) @ x).mT


@pytest.mark.slow
@pytest.mark.parametrize("shifted", [True, False])
def test_the_first_keys_to_the_end_of_a_table(shifted: bool) -> None:
    torch.manual_seed(0)
    net = Sinks(shifted).double().eval()
    x = torch.randn(2, 8, 40, dtype=torch.float64)
    stream = pts.create_stream(net, example=x[:1, :, :20])
    for size in (1, 7):
        check(net, stream, x, size)
    with pytest.raises(pts.StreamInputError, match="signal_too_long"):
        stream(torch.cat([x, x], -1))
    LiveRows(stream, net, 4, (3, 2), lengths=[1, 3, 39], longest=40, nan=0.0).run(30).compare()


class QueriesFirst(nn.Module):
    """Scores in the layout of the first Transformer-XL."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = TransformerXL(2, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x.permute(2, 0, 1)).permute(1, 2, 0)


@pytest.mark.slow
def test_queries_and_keys_in_front() -> None:
    torch.manual_seed(0)
    net = QueriesFirst().double().eval()
    x = torch.randn(2, 8, 40, dtype=torch.float64)
    stream = pts.create_stream(net, example=x[:1, :, :13])
    for size in (1, 7):
        check(net, stream, x, size)
    check(net, torch.jit.script(stream), x, 9)
    LiveRows(stream, net, 2, (4, 2), lengths=[1, 2, 3, 30], nan=0.0).run(40).compare()


class Absolute(nn.Module):
    """Rows counted from the start of the signal, though there are as many as distances."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("pe", torch.randn(1, 80, 8))

    def forward(self, x: Tensor) -> Tensor:
        return self.pe[:, : 2 * x.shape[1] - 1]


WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "not shifted": lambda x: x[..., : x.shape[2]],
    "turned round": lambda x: x.flip(-1)[..., : x.shape[2]],
    "shifted by one too few": lambda x: (
        x[..., 1:]
        .reshape(x.shape[0], x.shape[1], -1)[..., : x.shape[2] ** 2]
        .view(x.shape[0], x.shape[1], x.shape[2], x.shape[2])
    ),
}


@pytest.mark.sample("not shifted", rest=2)
@pytest.mark.parametrize("name", [*WRONG, "absolute"])
def test_what_is_refused(name: str) -> None:
    net = Net("pad", Absolute if name == "absolute" else ComputedPositions).eval()
    net.attention.shift = WRONG.get(name, net.attention.shift)
    with pytest.raises(pts.UnsupportedModuleError, match="j - i|lay scores out") as caught:
        pts.create_stream(net, example=torch.randn(1, 8, 13))
    assert caught.value.code in ("relative_positions", "attention_layout"), str(caught.value)
