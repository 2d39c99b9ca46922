"""Loops over time that models write in Python: one turn stands for all, or the loop is refused."""

from typing import Any, Callable, Dict

import pytest
import torch
from test_published_forms import joined
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.testing.live_rows import LiveRows


class Looping(nn.Module):
    """[B, T, 4] to [B, T, …], by a function that loops."""

    def __init__(self, function: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.gate = nn.Linear(4, 4)
        if function is of_cells:
            self.cells = nn.ModuleList([nn.GRUCell(4, 4), nn.LSTMCell(4, 4)])
        self.first = nn.Parameter(torch.randn(4))
        self.count = 0

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def written(m: Any, x: Tensor) -> Tensor:
    """As RecurrentGemma scans."""
    gate, state, y = torch.sigmoid(m.gate(x)), torch.zeros_like(x[:, 0]), torch.zeros_like(x)
    for t in range(x.shape[1]):
        state = gate[:, t] * state + x[:, t]
        y[:, t] = state
    return y


def selective(m: Any, x: Tensor) -> Tensor:
    """As Mamba scans: several samples of several axes, a list, a state of two axes."""
    step = nn.functional.softplus(m.gate(x)).transpose(1, 2)
    decay = torch.exp(-torch.arange(1.0, 4.0, dtype=x.dtype) * step[..., None])
    put = step[..., None] * x[:, None, :, :3]
    state, ys = torch.zeros(x.shape[0], 4, 3, dtype=x.dtype), []
    for i in range(x.shape[1]):
        state = decay[:, :, i, :] * state + put[:, :, i]
        ys.append(torch.matmul(state, x[:, i, :3].unsqueeze(-1))[:, :, 0])
    return torch.stack(ys, dim=-1).transpose(1, 2)


def of_cells(m: Any, x: Tensor) -> Tensor:
    """States in a list and in a tuple, one of which a parameter begins; pieces laid one after the other."""
    h, pair, ys = [m.first.expand(x.shape[0], -1)], (x.new_zeros(x.shape[0], 4), x.new_zeros(x.shape[0], 4)), []
    for t in range(0, x.size(1)):
        h[0] = m.cells[0](x[:, t], h[0])
        pair = m.cells[1](h[0], pair)
        ys.append(pair[0][:, None] + x[:, t : t + 1])
    return torch.cat(ys, 1)


def averaged(m: Any, x: Tensor) -> Tensor:
    """As PCEN of SpeechBrain averages: from the first sample on; rows on the second axis."""
    x, results = x.permute(1, 0, 2), []
    acc = x[0]
    for ix in range(x.shape[0]):
        acc = m.first * x[ix] + (1 - m.first) * acc
        results.append(acc.unsqueeze(0))
    return torch.cat(results, dim=0).permute(1, 0, 2)


def without_state(m: Any, x: Tensor) -> Tensor:
    ys = []
    for t in range(x.shape[1]):
        ys.append(m.gate(x[:, t]))
    return torch.stack(ys, 1)


def of_neighbours(m: Any, x: Tensor) -> Tensor:
    ys = [x[:, 0]]
    for t in range(1, x.shape[1]):
        ys.append(x[:, t] - x[:, t - 1])
    return torch.stack(ys, 1)


def by_the_number(m: Any, x: Tensor) -> Tensor:
    ys = []
    for t in range(x.shape[1]):
        ys.append(x[:, t] if t % 2 else -x[:, t])
    return torch.stack(ys, 1)


def counting(m: Any, x: Tensor) -> Tensor:
    ys, count = [], 0
    for t in range(x.shape[1]):
        count += 1
        ys.append(x[:, t] * count)
    return torch.stack(ys, 1)


def remembering(m: Any, x: Tensor) -> Tensor:
    ys = []
    for t in range(x.shape[1]):
        m.__dict__["count"] = m.count + 1
        ys.append(x[:, t] * m.count)
    return torch.stack(ys, 1)


def growing(m: Any, x: Tensor) -> Tensor:
    state, ys = x[:, :1] * 0, []
    for t in range(x.shape[1]):
        state = torch.cat([state, x[:, t : t + 1]], 1)
        ys.append(state.sum(1))
    return torch.stack(ys, 1)


def last_of_all(m: Any, x: Tensor) -> Tensor:
    ys = []
    for t in range(x.shape[1]):
        ys.append(x[:, t])
    return torch.stack(ys, 1) + ys[-1][:, None]


def last_state(m: Any, x: Tensor) -> Tensor:
    state, ys = x.new_zeros(x.shape[0], 4), []
    for t in range(x.shape[1]):
        state = state * 0.5 + x[:, t]
        ys.append(state)
    return torch.stack(ys, 1) + state[:, None]


def until(m: Any, x: Tensor) -> Tensor:
    ys = []
    for t in range(x.shape[1]):
        ys.append(x[:, t])
        if len(ys) > 30:
            break
    return torch.stack(ys, 1)


def over_rows(m: Any, x: Tensor) -> Tensor:
    ys = []
    for b in range(x.shape[0]):
        ys.append(m.gate(x[b]))
    return torch.stack(ys, 0)


STREAMED = {each.__name__: each for each in (written, selective, of_cells, averaged, without_state)}
REFUSED: Dict[str, Any] = {
    each.__name__: each for each in (of_neighbours, by_the_number, counting, remembering, growing, last_of_all, until)
}


def made(function: Callable[[Any, Tensor], Tensor]) -> Any:
    net = Looping(function).double().eval()
    return net, pts.create_stream(net, example=torch.randn(1, 20, 4, dtype=torch.float64), time_dim=1)


@pytest.mark.parametrize("name", list(STREAMED))
def test_streamed(name: str) -> None:
    net, stream = made(STREAMED[name])
    x = torch.randn(2, 23, 4, dtype=torch.float64)
    for n in (1, 2, 23):
        pieces = [*(stream(chunk) for chunk in x[:, :n].split(3, 1)), stream.flush()]
        whole = net(x[:, :n])
        torch.testing.assert_close(torch.cat([p for p in pieces if p is not None], 1), whole, rtol=1e-9, atol=1e-9)
    script = torch.jit.script(stream)
    with torch.jit.optimized_execution(False):
        torch.testing.assert_close(script(x, True), net(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused(name: str) -> None:
    with pytest.raises(pts.UnsupportedModuleError, match=r"fixed_length: .*test_loops_over_time\.py, line"):
        made(REFUSED[name])


def test_the_last_state_is_refused() -> None:
    with pytest.raises(pts.UnsupportedModuleError, match="final_state"):
        made(last_state)


def test_static_rows_of_a_loop() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = Looping(selective)

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x.transpose(1, 2)).transpose(1, 2)

    net = Turned().double().eval()
    stream = pts.create_stream(net, example=torch.randn(1, 4, 20, dtype=torch.float64))
    x = torch.randn(1, 4, 23, dtype=torch.float64)
    torch.testing.assert_close(joined(stream, x, 4), net(x), rtol=1e-9, atol=1e-9)
    LiveRows(stream, net, 4, (3, 4)).run(25).compare(3)


def test_a_loop_over_rows_is_none_over_time() -> None:
    net = Looping(over_rows).double().eval()
    x = torch.randn(1, 20, 4, dtype=torch.float64)
    stream = pts.create_stream(net, example=x, time_dim=1)
    torch.testing.assert_close(stream(x, final=True), net(x))
