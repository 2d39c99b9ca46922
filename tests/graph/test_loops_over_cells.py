"""Modules that loop over a cell of torch: refused with the advice to give them a handler where turns are not alike, and
with it as any layer."""

from typing import Any, Dict, Iterator, List, Tuple

import pytest
import torch
from test_recurrences import differs, joined, normal
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.testing.live_rows import LiveRows


class Loop(nn.Module):
    """[B, 2, T] to [B, 3, T]; a layer and a loop, as a user writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.cell = nn.Linear(2, 2), self.made()

    def made(self) -> nn.Module:
        raise NotImplementedError

    def one(self, x: Tensor, state: List[Tensor]) -> List[Tensor]:
        return [self.cell(x, state[0])]

    def forward(self, x: Tensor) -> Tensor:
        state, ys = [x.new_zeros(x.shape[0], 3)] * 2, []
        for t in range(x.shape[-1]):
            state = self.one(self.first(x[..., t]), state)
            ys.append(state[0])
        return torch.stack(ys, -1)


class LoopOfGRU(Loop):
    def made(self) -> nn.Module:
        return nn.GRUCell(2, 3)


class LoopOfRNN(Loop):
    def made(self) -> nn.Module:
        return nn.RNNCell(2, 3, nonlinearity="relu")


class LoopOfLSTM(Loop):
    def made(self) -> nn.Module:
        return nn.LSTMCell(2, 3)

    def one(self, x: Tensor, state: List[Tensor]) -> List[Tensor]:
        return list(self.cell(x, (state[0], state[1])))


class LoopStream(pts.RecurrentStream):
    def __init__(self, net: Loop) -> None:
        super().__init__(2, 3, ["h"])
        self.first, self.cell = net.first, net.cell

    def initial(self, x: Tensor) -> List[Tensor]:
        return [x.new_zeros([x.size(0), 3])]

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        h = state[0]
        ys: List[Tensor] = []
        for sample in self.first(x.transpose(1, 2)).unbind(1):
            h = self.cell(sample, h)
            ys.append(h)
        return torch.stack(ys, 2), [h]


class LoopOfLSTMStream(pts.RecurrentStream):
    def __init__(self, net: Loop) -> None:
        super().__init__(2, 3, ["h", "c"])
        self.first, self.cell = net.first, net.cell

    def initial(self, x: Tensor) -> List[Tensor]:
        zeros = x.new_zeros([x.size(0), 3])
        return [zeros, zeros]

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        h, c = state
        ys: List[Tensor] = []
        for sample in self.first(x.transpose(1, 2)).unbind(1):
            h, c = self.cell(sample, (h, c))
            ys.append(h)
        return torch.stack(ys, 2), [h, c]


HANDLERS: Dict[Any, Any] = {LoopOfGRU: LoopStream, LoopOfRNN: LoopStream, LoopOfLSTM: LoopOfLSTMStream}


@pytest.fixture
def registered() -> Iterator[None]:
    for net_type, stream in HANDLERS.items():
        pts.register_streamer(net_type, stream)
    yield
    for net_type in HANDLERS:
        del pts.core.registry._factories[net_type]


class Around(nn.Module):
    """[B, 2, T], at half the rate and back."""

    def __init__(self, loop: nn.Module) -> None:
        super().__init__()
        self.down, self.loop, self.up = nn.Conv1d(2, 2, 4, 2, 1), loop, nn.ConvTranspose1d(3, 2, 4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(torch.tanh(self.loop(self.down(x))))


# Of two states one is left after the first turn, so turns are not alike.
@pytest.mark.parametrize("loop", [LoopOfGRU, LoopOfRNN])
def test_without_a_handler(loop: Any) -> None:
    with pytest.raises(
        pts.UnsupportedModuleError, match="loops over time in Python.*register a handler for LoopOf"
    ) as caught:
        pts.create_stream(Around(loop()), example=normal(1, 2, 30).float())
    assert (caught.value.code, caught.value.path) == ("fixed_length", "loop")


@pytest.mark.parametrize("loop", list(HANDLERS))
def test_with_a_handler(registered: None, loop: Any) -> None:
    torch.manual_seed(0)
    net, x = Around(loop()).double().eval(), normal(2, 2, 46)
    stream = pts.create_stream(net, example=x[:1, :, :30])
    with torch.no_grad():
        for each in (stream, torch.jit.script(stream)):
            assert differs(joined(each, x, 1, 7), net(x)) < 1e-10
        stream(x[..., :21])
        state = pts.stack_states(pts.unstack_state(stream.get_state())[::-1])
        stream.set_state(state)
        y = stream(x.flip(0)[..., 21:], True)
        assert differs(y, net(x.flip(0))[..., -y.shape[-1] :]) < 1e-10
    LiveRows(stream, net, 4, (3, 2)).run(25).compare(3)
