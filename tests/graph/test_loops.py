"""Loops over time in Python, as users write recurrences: streamed as they are, or refused by name."""

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_numbers import joined
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.testing import verify_stream


class Using(nn.Module):
    """What a function makes of its parts and a signal ``[B, 2, T]``."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.conv, self.linear = nn.Conv1d(2, 2, 3, padding=1), nn.Linear(2, 2)
        self.gru, self.lstm = nn.GRUCell(2, 3), nn.LSTMCell(2, 2)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def average(m: Any, x: Tensor) -> Tensor:
    level, levels = torch.zeros(x.shape[0], 2, dtype=x.dtype), []
    for t in range(x.shape[-1]):
        level = 0.9 * level + 0.1 * x[..., t]
        levels.append(level)
    return torch.stack(levels, -1)


def gru_cells(m: Any, x: Tensor) -> Tensor:
    x = torch.relu(m.conv(x)).mT
    h, ys = x.new_zeros(x.size(0), 3), []
    for t in range(x.size(1)):
        h = m.gru(x[:, t], h)
        ys.append(h)
    return torch.stack(ys, dim=1).mT


def lstm_cells(m: Any, x: Tensor) -> Tensor:
    h = m.linear.bias.expand(x.size(0), -1)
    c, ys = torch.zeros_like(h), []
    for t in range(0, x.size(2)):
        h, c = m.lstm(x[:, :, t], (h, c))
        ys.append(h.unsqueeze(-1))
    return torch.cat(ys, -1)


def time_first(m: Any, x: Tensor) -> Tensor:
    x = x.permute(2, 0, 1)
    h, ys = x.new_zeros(x.size(1), 2), []
    for t in range(x.size(0)):
        ys.append(2 * h)  # what the turn before has made
        h = torch.tanh(m.linear(x[t])) + 0.5 * h
    return torch.stack(ys).permute(1, 2, 0)


def two_lists(m: Any, x: Tensor) -> Tensor:
    h, hs, sums = x.new_zeros(x.size(0), 2), [], []
    for t in range(x.size(2)):
        h = torch.tanh(m.linear(x[:, :, t]) + h)
        hs.append(h)
        sums += [h.sum(1, keepdim=True)]
    return torch.stack(hs, -1) * torch.stack(sums, -1)


def alone(m: Any, x: Tensor) -> Tensor:
    return torch.stack([m.linear(x[..., t]) for t in range(x.shape[-1])], -1)


def written(m: Any, x: Tensor) -> Tensor:
    y, h = torch.zeros_like(x), x.new_zeros(x.size(0), 2)
    for t in range(x.shape[-1]):
        h = 0.5 * h + x[:, :, t]
        h += 1
        y[:, :, t] = h.tanh()
    return y + 1


def windows(m: Any, x: Tensor) -> Tensor:
    h, ys = x.new_zeros(x.size(0), 2, 1), []
    for t in range(x.shape[-1]):
        h = 0.5 * h + x[:, :, t : t + 1]
        ys.append(h)
    return torch.cat(ys, -1)


def two_layers(m: Any, x: Tensor) -> Tensor:
    for cell in (m.linear, m.linear):
        h, ys = x.new_zeros(x.size(0), 2), []
        for t in range(x.size(2)):
            h = torch.tanh(cell(x[:, :, t]) + h)
            ys.append(h)
        x = torch.stack(ys, -1)
    return m.conv(x[..., ::2])


def state_space(m: Any, x: Tensor) -> Tensor:
    """As the plain form of Mamba."""
    step, a, c = F.softplus(m.conv(x)), -torch.exp(m.linear.weight), x.tanh().mT
    decay = torch.exp(a[None, :, None, :] * step[..., None])
    given = step[..., None] * (2 * x).mT[:, None]
    state, ys = torch.zeros(x.shape[0], 2, 2, dtype=x.dtype), []
    for index in range(x.shape[-1]):
        state = decay[:, :, index] * state + given[:, :, index]
        ys.append(torch.matmul(state, c[:, index, :].unsqueeze(-1))[:, :, 0])
    return torch.stack(ys, dim=-1) + x


LOOPS = [
    average, gru_cells, lstm_cells, time_first, two_lists, alone, written, windows, two_layers, state_space,
]  # fmt: skip


@pytest.mark.parametrize("function", LOOPS, ids=lambda each: each.__name__)
@torch.no_grad()
def test_loops(function: Any) -> None:
    torch.manual_seed(3)
    net = Using(function).double().eval()
    stream = pts.create_stream(net, example=torch.randn(2, 2, 24, dtype=torch.float64))
    for n in (1, 2, 3, 37):
        x = torch.randn(3, 2, n, dtype=torch.float64)
        for size in (1, 5, 40):
            torch.testing.assert_close(joined(stream, x, size), net(x), rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("function", [lstm_cells, time_first, alone, state_space], ids=lambda each: each.__name__)
def test_loops_keep_the_contract(function: Any) -> None:
    verify_stream(Using(function).eval(), (2, 2, 30), graph=True, static=True)


def test_weights_are_followed() -> None:
    net = Using(gru_cells).eval()
    stream = pts.create_stream(net, example=torch.randn(1, 2, 24))
    x = torch.randn(1, 2, 30)
    with torch.no_grad():
        for weight in net.parameters():
            weight.mul_(1.5)
        torch.testing.assert_close(joined(stream, x, 7), net(x))
    whole, piece = net(x).sum(), joined(stream, x, 7).sum()
    for name in ("gru.weight_hh", "conv.weight"):
        weight = net.get_parameter(name)
        (one,), (two,) = (torch.autograd.grad(y, weight, retain_graph=True) for y in (whole, piece))
        torch.testing.assert_close(one, two)


# ---------------------------------------------------------------------- what is no such loop


def last_state(m: Any, x: Tensor) -> Tensor:
    h, ys = x.new_zeros(x.size(0), 2), []
    for t in range(x.size(2)):
        h = 0.5 * h + x[:, :, t]
        ys.append(h)
    return torch.stack(ys, -1) + h[:, :, None]


def by_number(m: Any, x: Tensor) -> Tensor:
    h, ys = x.new_zeros(x.size(0), 2), []
    for t in range(x.size(2)):
        h = h * 0 if t > 5 else 0.5 * h + x[:, :, t]
        ys.append(h)
    return torch.stack(ys, -1)


def counted(m: Any, x: Tensor) -> Tensor:
    count, ys = 0, []
    for t in range(x.size(2)):
        count += 1
        ys.append(x[:, :, t] * count)
    return torch.stack(ys, -1)


def one_before(m: Any, x: Tensor) -> Tensor:
    return torch.stack([x[:, :, t] - x[:, :, t - 1] for t in range(x.size(2))], -1)


def one_after(m: Any, x: Tensor) -> Tensor:
    return torch.stack([x[:, :, t] - x[:, :, t + 1] for t in range(x.size(2) - 1)], -1)


def left_early(m: Any, x: Tensor) -> Tensor:
    ys = []
    for t in range(x.size(2)):
        ys.append(x[:, :, t])
        if len(ys) == 2:
            break
    return torch.stack(ys, -1)


def all_of_time(m: Any, x: Tensor) -> Tensor:
    return torch.stack([x[:, :, t] - x.mean(-1) for t in range(x.size(2))], -1)


def delayed(m: Any, x: Tensor) -> Tensor:
    one, two, ys = x.new_zeros(x.size(0), 2), x.new_ones(x.size(0), 2), []
    for t in range(x.size(2)):
        one, two = two, 0.5 * one + x[:, :, t]
        ys.append(two)
    return torch.stack(ys, -1)


def drawn(m: Any, x: Tensor) -> Tensor:
    return torch.stack([x[:, :, t] + torch.rand(2, dtype=x.dtype) for t in range(x.size(2))], -1)


def nested(m: Any, x: Tensor) -> Tensor:
    return torch.stack([sum(x[:, :, u] for u in range(x.size(2))) for t in range(x.size(2))], -1)


def overwritten(m: Any, x: Tensor) -> Tensor:
    h, ys = x.new_zeros(x.size(0), 2), []
    for t in range(x.size(2)):
        h += x[:, :, t]
        ys.append(h.clone())
    return torch.stack(ys, -1)


def turned(m: Any, x: Tensor) -> Tensor:
    return torch.stack([x[:, :, t] for t in range(x.size(2))][::-1], -1)


OTHERS = [
    last_state, by_number, counted, one_before, one_after, left_early, all_of_time, delayed, drawn, nested, overwritten,
    turned,
]  # fmt: skip


@pytest.mark.parametrize("function", OTHERS, ids=lambda each: each.__name__)
def test_what_is_refused(function: Any) -> None:
    with pytest.raises(pts.UnsupportedModuleError) as caught:
        pts.create_stream(Using(function).double().eval(), example=torch.randn(1, 2, 24, dtype=torch.float64))
    assert caught.value.code in ("fixed_length", "random"), str(caught.value)
    assert re.search(r"test_loops\.py, line \d+", str(caught.value)), str(caught.value)
    assert not re.search(r"\bs\d\d\b|looped", str(caught.value))


def test_a_loop_over_rows_is_none_over_time() -> None:
    net = Using(lambda m, x: torch.stack([m.linear(x[b].T).T for b in range(x.shape[0])])).double()
    stream = pts.create_stream(net, example=torch.randn(1, 2, 24, dtype=torch.float64))
    x = torch.randn(1, 2, 31, dtype=torch.float64)
    torch.testing.assert_close(joined(stream, x, 4), net(x))
