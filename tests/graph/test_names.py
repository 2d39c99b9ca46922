"""Captured streams speak of the model in its own names."""

import pytest
import torch
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.analysis import summary
from torchstreamer.errors import path_of


class Block(nn.Module):
    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 4, 3, padding=dilation, dilation=dilation, padding_mode="reflect")
        self.act = nn.PReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x)) + x


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(1), Block(2))
        self.out = nn.Conv1d(4, 4, 5, padding=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.out(self.blocks(x)).cumsum(-1))


NAMES = [
    "blocks.0.conv.pad", "blocks.0.conv.conv1d", "blocks.0.act", "blocks.0.add",
    "blocks.1.conv.pad", "blocks.1.conv.conv1d", "blocks.1.act", "blocks.1.add",
    "out", "cumsum", "out (2)",
]  # fmt: skip


def captured() -> pts.GraphStream:
    return pts.create_stream(Net().eval(), example=torch.randn(1, 4, 40))


def test_print_tells_the_models_names():
    text = str(captured())
    assert [line.strip().split("):")[0] + ")" for line in text.splitlines() if line.startswith("  (")] == [
        f"({name})" for name in NAMES
    ]
    assert "nodes" not in text


def test_print_tells_them_in_a_container_too():
    text = str(pts.create_stream(nn.Sequential(nn.Conv1d(4, 4, 1), Net()).eval()))
    assert "(blocks.1.conv.conv1d): Conv1dStream(4, 4, kernel_size=3, stride=1, dilation=2)" in text
    assert "nodes" not in text


def test_repr_and_states_do_not_depend_on_names():
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.last = nn.Sequential(Block(1), Block(2)), nn.Conv1d(4, 4, 5, padding=2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.last(self.layers(x)).cumsum(-1))

    one, other = captured(), pts.create_stream(Other().eval(), example=torch.randn(1, 4, 40))
    assert repr(one) == repr(other) and str(one) != str(other)
    one(torch.randn(1, 4, 9))
    other.set_state(one.get_state())


def test_analysis_tells_the_models_names():
    stream = captured()
    assert [layer.path for layer in summary(stream, chunk=4, calls=2).layers] == NAMES


class Own(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class OwnStream(pts.BaseStream):
    def __init__(self, net: Own) -> None:
        super().__init__(pts.Reach())

    def forward(self, x: Tensor, final: bool = False) -> Tensor:
        return 2 * x


class WithOwn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.front = nn.Conv1d(4, 4, 3)
        self.tail = nn.ModuleDict({"own": Own()})

    def forward(self, x: Tensor) -> Tensor:
        return self.tail["own"](torch.tanh(self.front(x)))


def test_errors_tell_the_models_names():
    pts.register_streamer(Own, OwnStream)
    stream = pts.create_stream(WithOwn(), example=torch.randn(1, 4, 40))
    with pytest.raises(pts.UnsupportedModuleError, match="OwnStream at 'tail.own' cannot be streamed"):
        pts.StaticStream(stream, chunk=4)
    inner = [module for module in stream.modules() if isinstance(module, OwnStream)]
    assert path_of(inner[0], stream) == "tail.own"
    assert path_of(inner[0], nn.ModuleDict({"net": stream})) == "net.tail.own"


def test_scripts_and_copies_keep_working():
    import copy

    stream = captured()
    twin, scripted = copy.deepcopy(stream), torch.jit.script(stream)
    assert str(twin) == str(stream)
    x = torch.randn(1, 4, 30)
    torch.testing.assert_close(scripted(x, True), stream(x, True))
