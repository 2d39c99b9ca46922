"""Signals cut into blocks that become entries of the batch, padded to whole blocks by a branch; and look-alikes."""

import math
from typing import Any, Callable, Dict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.testing.live_rows import LiveRows

N = 4


class Blocked(nn.Module):
    """[B, T, 8] to the same, by a function."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self.conv = nn.Conv1d(8, 8, 3, stride=2, padding=1)
        self.bias = nn.Parameter(torch.randn(2, N, N))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def padded(x: Tensor) -> Tensor:
    rest = x.shape[1] % N
    return F.pad(x, (0, 0, 0, N - rest)) if rest > 0 else x


def within(m: Any, x: Tensor) -> Tensor:
    """Attention within blocks that are counted by a ceiling."""
    rows, length, _ = x.shape
    y, count = padded(x), math.ceil(length / N)
    q, k, v = (layer(y).reshape(rows * count, N, 2, -1).transpose(1, 2) for layer in (m.q, m.k, m.v))
    out = F.scaled_dot_product_attention(q, k, v)
    return m.o(out.transpose(1, 2).reshape(rows, y.shape[1], -1)[:, :length])


def masked(m: Any, x: Tensor) -> Tensor:
    """As Granite Speech 5: what is padded is masked, at two rates."""
    for turn in range(2):
        rows, length, _ = x.shape
        more, mask, y = -length % N, None, x
        if more > 0:
            y = F.pad(x, (0, 0, 0, more))
            mask = F.pad(torch.ones(rows, length, dtype=torch.bool), (0, more), value=False)
        count = rows * (y.shape[1] // N)
        q, k, v = (layer(y).reshape(count, N, 2, -1).transpose(1, 2) for layer in (m.q, m.k, m.v))
        scores = q @ k.transpose(-1, -2) + m.bias
        if mask is not None:
            scores = scores.masked_fill(~mask.reshape(count, N)[:, None, None, :], torch.finfo(scores.dtype).min)
        x = (scores.softmax(-1) @ v).transpose(1, 2).reshape(rows, -1, 8)[:, :length]
        x = m.conv(x.transpose(1, 2)).transpose(1, 2) if turn == 0 else x
    return x


def looking_back(m: Any, x: Tensor) -> Tensor:
    """As local-attention: blocks that see the one before, rows and heads on one axis, a mask by positions."""
    rows, length, _ = x.shape
    y = padded(x)
    count = y.shape[1] // N
    y = y.view(rows, -1, 2, 4).transpose(1, 2).reshape(rows * 2, -1, 4)

    def around(t: Tensor, value: float = -1.0) -> Tensor:
        pads = (0, 0) * (t.dim() - 2) + (1, 0)
        return F.pad(t, pads, value=value).unfold(1, 2, 1).movedim(-1, 2).flatten(2, 3)

    q = y.view(rows * 2, count, N, 4)
    places = torch.arange(count * N).view(1, count, N)
    seen = around(places)[:, :, None, :]
    scores = torch.einsum("bhie,bhje->bhij", q, around(q))
    scores = scores.masked_fill((places[..., None] < seen) | (seen == -1), -torch.finfo(scores.dtype).max)
    out = torch.einsum("bhij,bhje->bhie", scores.softmax(-1), around(q))
    return out.reshape(rows, 2, -1, 4).transpose(1, 2).reshape(rows, -1, 8)[:, :length]


def convolved(m: Any, x: Tensor) -> Tensor:
    """As SpeechBrain's Conformer convolves in chunks with their past."""
    rows, length, _ = x.shape
    more = N - length % N if length % N != 0 else 0
    y = F.pad(x.transpose(1, 2), (1, more)).unfold(2, N + 1, N)
    y = F.pad(y, (0, 1)).transpose(1, 2).flatten(0, 1)
    y = F.conv1d(y, m.conv.weight, m.conv.bias).transpose(1, 2)
    y = torch.unflatten(y, 0, (rows, -1)).flatten(1, 2)
    return y[:, :-more] if more > 0 else y


def time_first(m: Any, x: Tensor) -> Tensor:
    x = x.transpose(0, 1)
    length, rows, _ = x.shape
    y = F.pad(x, (0, 0, 0, 0, 0, -length % N)).reshape(-1, N, rows * 2, 4)
    y = y - y.mean(1, keepdim=True)
    return y.reshape(-1, rows, 8)[:length].transpose(0, 1)


def phases(m: Any, x: Tensor) -> Tensor:
    rows, length, width = x.shape
    y = F.pad(x, (0, 0, 0, -length % N)).reshape(rows * N, -1, width)
    y = m.q(y) * torch.arange(N).repeat(rows).view(-1, 1, 1)
    return y.reshape(rows, -1, width)[:, :length]


def rolled(m: Any, x: Tensor) -> Tensor:
    rows, length, width = x.shape
    y = F.pad(x, (0, 0, 0, -length % N)).reshape(-1, N, width)
    return y.roll(1, 0).reshape(rows, -1, width)[:, :length]


def against_all(m: Any, x: Tensor) -> Tensor:
    rows, length, width = x.shape
    y = F.pad(x, (0, 0, 0, -length % N)).reshape(-1, N, width)
    return (y - y.mean(0)).reshape(rows, -1, width)[:, :length]


def other_branch(m: Any, x: Tensor) -> Tensor:
    rows, length, width = x.shape
    x = F.pad(x, (0, 0, 0, -length % N)) if length % N else x * 2
    y = x.reshape(-1, N, width)
    return (y - y.mean(1, keepdim=True)).reshape(rows, -1, width)[:, :length]


def later_branch(m: Any, x: Tensor) -> Tensor:
    rows, length, width = x.shape
    if length % N:
        x = F.pad(x, (0, 0, 0, -length % N))
    elif length > 300:
        x = x * 2
    y = x.reshape(-1, N, width)
    return (y - y.mean(1, keepdim=True)).reshape(rows, -1, width)[:, :length]


def last_block(m: Any, x: Tensor) -> Tensor:
    rows, length, width = x.shape
    y = F.pad(x, (0, 0, 0, -length % N)).reshape(-1, N, width).clone()
    count = y.shape[0] // rows
    y[count - 1 :: count] *= 2
    return y.reshape(rows, -1, width)[:, :length]


STREAMED = {each.__name__: each for each in (within, masked, looking_back, convolved, time_first)}
REFUSED: Dict[str, Any] = {
    each.__name__: each for each in (phases, rolled, against_all, other_branch, later_branch, last_block)
}


def made(function: Callable[[Any, Tensor], Tensor], length: int) -> Any:
    torch.manual_seed(0)
    net = Blocked(function).double().eval()
    return net, pts.create_stream(net, example=torch.randn(1, length, 8, dtype=torch.float64), time_dim=1)


@pytest.mark.parametrize("name", list(STREAMED))
def test_blocks_are_streamed(name: str) -> None:
    for length in (40, 42):  # of whole blocks, and not
        net, stream = made(STREAMED[name], length)
        for n in (1, 4, 43, 240):
            x = torch.randn(2, n, 8, dtype=torch.float64)
            for size in (3, 50):
                with torch.no_grad():
                    pieces = [*(stream(chunk) for chunk in x.split(size, 1)), stream.flush()]
                    whole = net(x)
                y = torch.cat([piece for piece in pieces if piece is not None], 1)
                torch.testing.assert_close(y, whole, rtol=1e-10, atol=1e-10)
    script = torch.jit.script(stream)
    with torch.no_grad(), torch.jit.optimized_execution(False):
        torch.testing.assert_close(script(x, True), whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_looks_like_blocks_is_refused(name: str) -> None:
    for length in (40, 42):
        with pytest.raises(pts.UnsupportedModuleError, match="time_mixing|single_sample|branch_on_length"):
            made(REFUSED[name], length)


def test_rows_of_any_age_have_their_own_blocks() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Blocked(within)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x.transpose(1, 2)).transpose(1, 2)

    net = Turned().double().eval()
    stream = pts.create_stream(net, example=torch.randn(1, 8, 42, dtype=torch.float64))
    LiveRows(stream, net, 8, (3, 8)).run(25).compare(3)


def test_a_model_that_takes_multiples_alone_says_which() -> None:
    class Strided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[-1] % 6:
                raise ValueError("whole steps of 6")
            return F.avg_pool1d(x, 6)

    with pytest.raises(pts.UnsupportedModuleError, match="branch_on_length.*it raises for") as caught:
        pts.create_stream(Strided(), example=torch.randn(1, 2, 48))
    assert "length_multiple=6" in caught.value.remedy
    x = torch.randn(1, 2, 54)
    stream = pts.create_stream(Strided(), example=x[..., :48], length_multiple=6)
    pieces = [*(stream(chunk) for chunk in x.split(5, -1)), stream.flush()]
    torch.testing.assert_close(torch.cat([p for p in pieces if p is not None], -1), Strided()(x))
