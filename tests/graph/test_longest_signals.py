"""The longest signal of layers that end, in containers and captured models at any rate; more is refused in time."""

from typing import Any, Callable, Dict, Tuple

import pytest
import torch
from test_recurrences import differs, normal
from torch import Tensor, nn

import torchstreamer as pts


def attention(longest: int) -> nn.Module:
    return pts.SelfAttention1d(nn.MultiheadAttention(2, 1, batch_first=True), pts.Context(None, max_length=longest))


def half(padding: int = 1) -> nn.Module:
    return nn.Conv1d(2, 2, 4, stride=2, padding=padding)


class Branches(nn.Module):
    """Attention at half and at twice the rate, and a table of positions."""

    def __init__(self, slow: int, fast: int, table: int) -> None:
        super().__init__()
        self.down, self.slow, self.up = half(), attention(slow), nn.ConvTranspose1d(2, 2, 4, 2, 1)
        self.fast, self.back = attention(fast), nn.AvgPool1d(2)
        self.table = nn.Parameter(torch.randn(table, 2))

    def forward(self, x: Tensor) -> Tensor:
        slow = self.up(self.slow(self.down(x)))
        fast = self.back(self.fast(x.repeat_interleave(2, -1)))[..., : slow.shape[-1]]
        return slow + fast + self.table[: slow.shape[-1]].mT


def nested(*nets: nn.Module) -> nn.Module:
    return nn.Sequential(*nets)


# The net, the longest signal, and how long an example is: 0 for none.
NETS: Dict[str, Callable[[], Tuple[nn.Module, int, int]]] = {
    "after a stride": lambda: (nested(half(), attention(9)), 19, 0),
    "after a stride that drops": lambda: (nested(half(0), attention(9)), 21, 0),
    "after upsampling": lambda: (nested(nn.Upsample(scale_factor=3), attention(25)), 8, 0),
    "the tighter of two": lambda: (nested(attention(12), half(), attention(5)), 11, 0),
    "nested": lambda: (nested(half(), nested(half(), pts.Residual1d(nested(attention(4))))), 19, 0),
    "branches": lambda: (pts.Parallel1d(nested(half(), attention(9)), nested(half(), attention(7))), 15, 0),
    "a branch in a branch": lambda: (
        nested(nn.ConvTranspose1d(2, 2, 2, 2), pts.Parallel1d(attention(40), pts.Residual1d(attention(27)))),
        13,
        0,
    ),
    "captured: slow": lambda: (Branches(9, 90, 90), 19, 17),
    "captured: fast": lambda: (Branches(90, 33, 90), 16, 16),
    "captured: a table": lambda: (Branches(90, 90, 22), 23, 20),  # of an even length
    "captured, in a container": lambda: (nested(half(0), Branches(90, 90, 70)), 93, 0),
}


@pytest.mark.parametrize("name", list(NETS))
def test_longest(name: str) -> None:
    torch.manual_seed(0)
    net, longest, example = NETS[name]()
    net = net.double().eval()
    stream = pts.create_stream(net, example=normal(1, 2, example)) if example else pts.create_stream(net)
    x = normal(2, 2, longest)
    with torch.no_grad():
        with pytest.raises(pts.StreamInputError, match="signal_too_long"):
            stream(normal(3, 2, longest + 1))
        pieces = [stream(x[..., :5]), stream(x[..., 5:])]
        before = stream.get_state()
        with pytest.raises(pts.StreamInputError, match="signal_too_long"):
            stream(x[..., :1])
        after = stream.get_state()
        assert list(before) == list(after) and all(torch.equal(before[key], after[key]) for key in before)
        pieces.append(stream.flush())
        assert differs(torch.cat([piece for piece in pieces if piece is not None], -1), net(x)) < 1e-10
        # Chunks without a batch axis, each like the last one.
        pieces = [stream(piece) for piece in x[0].split(1, -1)]
        with pytest.raises(pts.StreamInputError, match="signal_too_long"):
            stream(x[0, :, :1])
        pieces.append(stream.flush())
        assert differs(torch.cat([piece for piece in pieces if piece is not None], -1), net(x)[0]) < 1e-10


class Two(nn.Module):
    """The second input has positions."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.randn(20, 2))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y * self.table[: y.shape[-1]].mT


def test_an_input_that_runs_ahead() -> None:
    net, x, y = Two().double(), normal(1, 2, 20), normal(1, 2, 20, seed=1)
    stream: Any = pts.create_stream(net, example=(x[..., :15], y[..., :15]))
    for each, error in ((stream, pts.StreamInputError), (torch.jit.script(stream), torch.jit.Error)):
        with torch.no_grad():
            pieces = [each(x[..., :3], y[..., :18])]
            with pytest.raises(error, match="signal_too_long: a chunk of 3 samples came after 18"):
                each(None, y[..., :3])
            pieces += [each(x[..., 3:], y[..., 18:], final=True)]
        assert differs(torch.cat(pieces, -1), net(x, y)) < 1e-10


class Ending(nn.Module):
    """Raises for signals of more than 900 samples, or does something else with them, or as good as the same."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.conv = nn.Conv1d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        if x.shape[-1] > 900:
            if self.way == "raises":
                raise ValueError("too long")
            return y * 2 if self.way == "other" else y / 1.0
        return y


def test_a_model_that_refuses_longer_signals_has_a_longest() -> None:
    net, x = Ending("raises").double().eval(), normal(1, 2, 901)
    stream = pts.create_stream(net, example=x[..., :40])
    pieces = [stream(x[..., :600]), stream(x[..., 600:900]), stream.flush()]
    torch.testing.assert_close(torch.cat([p for p in pieces if p is not None], -1), net(x[..., :900]))
    with pytest.raises(pts.StreamError):
        stream(x)


def test_another_branch_for_longer_signals_is_tried() -> None:
    with pytest.raises(pts.UnsupportedModuleError, match="branch_on_length"):
        pts.create_stream(Ending("other").double().eval(), example=normal(1, 2, 40))
    net, x = Ending("same").double().eval(), normal(1, 2, 1000)
    stream = pts.create_stream(net, example=x[..., :40])
    pieces = [stream(x[..., :600]), stream(x[..., 600:]), stream.flush()]
    torch.testing.assert_close(torch.cat([p for p in pieces if p is not None], -1), net(x))
