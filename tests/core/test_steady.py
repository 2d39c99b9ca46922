"""What a stream remembers of its last chunk, so that one of the same length costs less: it must notice every change."""

import copy
import io
from collections.abc import Callable
from typing import Optional

import pytest
import torch
from torch import Tensor, nn

import torchstreamer as pts

NETS: dict[str, Callable[[], nn.Module]] = {
    "stack": lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU(), nn.Conv1d(4, 2, 3, dilation=2)),
    "strided": lambda: nn.Sequential(nn.Conv1d(3, 4, 5, stride=2), nn.Conv1d(4, 2, 4, stride=2)),
    "depthwise": lambda: nn.Sequential(nn.Conv1d(3, 3, 4, groups=3), nn.Conv1d(3, 2, 1)),
    "transposed": lambda: nn.Sequential(nn.ConvTranspose1d(3, 4, 6, stride=2), nn.Conv1d(4, 2, 3)),
    "padded": lambda: nn.Sequential(
        nn.Conv1d(3, 4, 5, padding=2), nn.Conv1d(4, 2, 4, padding=2, padding_mode="reflect")
    ),
}

everything = pytest.mark.parametrize("script", [False, True], ids=["eager", "script"])
every_net = pytest.mark.parametrize("name", list(NETS))


def new_stream(net: nn.Module, script: bool) -> nn.Module:
    stream = pts.create_stream(net.eval())
    return torch.jit.script(stream) if script else stream


class Signal:
    """Feeds a stream piece by piece, and joins what comes."""

    def __init__(self, stream: nn.Module, x: Tensor):
        self.stream, self.x, self.at, self.pieces = stream, x, 0, []

    def feed(self, *lengths: int) -> None:
        for n in lengths:
            y = self.stream(self.x[..., self.at : self.at + n])
            self.at += n
            if y is not None:
                self.pieces.append(y)

    def end(self) -> Tensor:
        y = self.stream(self.x[..., self.at :], True)
        return torch.cat(self.pieces if y is None else [*self.pieces, y], -1).clone()


@everything
@every_net
@pytest.mark.parametrize("length", [1, 2, 4])
def test_chunks_of_another_length_between_equal_ones(name, script, length):
    net = NETS[name]().double()
    signal = Signal(new_stream(net, script), torch.randn(2, 3, 300, dtype=torch.float64))
    with torch.no_grad():
        for odd in (1, 3, 2, 0, 7, 1):
            signal.feed(*[length] * 12, odd)
        torch.testing.assert_close(signal.end(), net(signal.x))


@everything
@every_net
@pytest.mark.parametrize(
    "modes",
    [
        (torch.inference_mode, torch.no_grad),
        (torch.no_grad, torch.inference_mode, torch.no_grad),
        (torch.inference_mode, torch.enable_grad, torch.no_grad),
        (torch.no_grad, torch.enable_grad, torch.inference_mode, torch.enable_grad),
    ],
    ids=lambda modes: "-".join(mode.__name__ for mode in modes),
)
def test_gradient_modes_that_change_within_a_signal(name, script, modes):
    net = NETS[name]().double()
    x = torch.randn(3, 300, dtype=torch.float64)
    with torch.no_grad():
        expected = net(x[None])[0]
    stream = new_stream(net, script)
    for count in range(20, 28):  # whether the rings have room left when the mode changes, or not
        signal = Signal(stream, x)
        for mode in modes:
            with mode():
                signal.feed(*[2] * count)
        torch.testing.assert_close(signal.end().detach(), expected)


def test_a_script_that_was_optimized_in_inference_mode():
    # Streams of one geometry share what TorchScript optimizes, so this one has its own.
    net = nn.Sequential(nn.Conv1d(11, 11, 3), nn.Conv1d(11, 11, 3))
    signal = Signal(new_stream(net, True), torch.randn(11, 200))
    with torch.inference_mode():
        signal.feed(*[1] * 50)
    with torch.no_grad():
        signal.feed(*[1] * 50)
        torch.testing.assert_close(signal.end(), net(signal.x[None])[0])


@everything
def test_a_stream_moved_in_inference_mode(script):
    net = NETS["stack"]()
    twin = copy.deepcopy(net).double()
    x = torch.randn(3, 100, dtype=torch.float64)
    stream = new_stream(net, script)
    with torch.no_grad():
        before = Signal(stream, x.float())
        before.feed(*[1] * 30)
    with torch.inference_mode():
        stream.double()
    after = Signal(stream, x)
    after.at = 30
    with torch.no_grad():
        after.feed(*[1] * 30)
        y = torch.cat([torch.cat(before.pieces, -1).double(), after.end()], -1)
        torch.testing.assert_close(y, twin(x[None])[0], rtol=1e-5, atol=1e-5)


@everything
@every_net
@pytest.mark.parametrize("hop", [1, 2, 4])
def test_a_part_of_a_stream_moved_in_inference_mode(name, script, hop):
    net = NETS[name]()
    signal = Signal(new_stream(net, script), torch.randn(3, 300))
    with torch.no_grad():
        signal.feed(*[hop] * 20)
    with torch.inference_mode():
        signal.stream.streams.double().float()
    with torch.no_grad():
        signal.feed(*[hop] * 20)
        torch.testing.assert_close(signal.end(), net(signal.x[None])[0])


@everything
@pytest.mark.parametrize("layer", [nn.Conv1d, nn.ConvTranspose1d])
def test_a_network_converted_within_a_signal(script, layer):
    net = layer(3, 2, 4, bias=False)
    signal = Signal(new_stream(net, script), torch.randn(3, 100))
    with torch.no_grad():
        signal.feed(*[2] * 20)
        net.half()
        with pytest.raises(RuntimeError, match="dtype"):
            signal.feed(2)


@everything
@pytest.mark.parametrize("layer", [nn.Conv1d, nn.ConvTranspose1d])
def test_weights_of_other_memory_within_a_signal(script, layer):
    net = layer(3, 2, 4).double()
    signal = Signal(new_stream(net, script), torch.randn(3, 100, dtype=torch.float64))
    with torch.no_grad():
        signal.feed(*[2] * 20)
        count = sum(piece.shape[-1] for piece in signal.pieces)
        signal.pieces.clear()
        net.half().double()
        signal.feed(*[2] * 20)
        expected = net(signal.x[None])[0]
        ours = torch.cat(signal.pieces, -1)
        torch.testing.assert_close(ours, expected[:, count : count + ours.shape[-1]])


@everything
@pytest.mark.parametrize("layer", [nn.Conv1d, nn.ConvTranspose1d])
def test_weights_of_other_memory_between_chunks_of_all_lengths(script, layer):
    net = layer(3, 2, 4).double()
    signal = Signal(new_stream(net, script), torch.randn(3, 100, dtype=torch.float64))
    with torch.no_grad():
        signal.feed(*[1, 2, 3] * 5)
        count = sum(piece.shape[-1] for piece in signal.pieces)
        signal.pieces.clear()
        net.weight.data = torch.randn_like(net.weight)
        signal.feed(*[2, 3, 1] * 5)
        expected = net(signal.x[None])[0]
        ours = torch.cat(signal.pieces, -1)
        torch.testing.assert_close(ours, expected[:, count : count + ours.shape[-1]])


@everything
@pytest.mark.parametrize("layer", [nn.Conv1d, nn.ConvTranspose1d])
def test_a_network_made_in_inference_mode_and_converted_outside(script, layer):
    with torch.inference_mode():
        net = layer(3, 2, 4)
    net.double()  # such parameters neither are inference tensors nor count their changes
    signal = Signal(new_stream(net, script), torch.randn(3, 60, dtype=torch.float64))
    with torch.no_grad():
        signal.feed(*[2] * 20)
        torch.testing.assert_close(signal.end(), net(signal.x[None])[0])


def test_a_computed_weight_is_not_computed_for_chunks_that_give_nothing():
    class Counted(nn.Module):
        calls = 0

        def forward(self, weight):
            self.calls += 1
            return 2 * weight

    net = nn.Conv1d(3, 2, 8)
    counted = Counted()
    nn.utils.parametrize.register_parametrization(net, "weight", counted)
    stream = new_stream(net, False)
    with torch.no_grad():
        counted.calls = 0
        for _ in range(7):
            assert stream(torch.randn(3, 1)) is None
    assert counted.calls == 0


@everything
@every_net
def test_weights_that_change_within_a_signal(name, script):
    net = NETS[name]().double()
    x = torch.randn(3, 200, dtype=torch.float64)
    stream, offline = new_stream(net, script), copy.deepcopy(net)
    hop = 4
    with torch.no_grad():
        signal = Signal(stream, x)
        signal.feed(*[hop] * 25)
        count = sum(piece.shape[-1] for piece in signal.pieces)
        for parameters in zip(net.parameters(), offline.parameters(), strict=True):
            for parameter in parameters:
                parameter.mul_(-2)
        signal.pieces.clear()
        signal.feed(*[hop] * 10)
        ours = torch.cat(signal.pieces, -1)
        # Behind the samples that inner layers still remember as the old weights gave them.
        late = ours.shape[-1] // 2
        torch.testing.assert_close(ours[:, late:], offline(x[None])[0, :, count + late : count + ours.shape[-1]])


@pytest.mark.parametrize("way", ["deepcopy", "save"])
@pytest.mark.parametrize("changes", [1, 2, 3])
def test_weights_of_a_copied_script_that_change_within_a_signal(way, changes):
    net = nn.Conv1d(3, 2, 3).double().eval()
    with torch.no_grad():
        for _ in range(changes):
            net.weight.mul_(1.5)
        x = torch.randn(3, 60, dtype=torch.float64)
        script = torch.jit.script(pts.create_stream(net))
        signal = Signal(script, x)
        signal.feed(*[1] * 20)
        if way == "deepcopy":
            twin = copy.deepcopy(script)
        else:
            file = io.BytesIO()
            torch.jit.save(script, file)
            file.seek(0)
            twin = torch.jit.load(file)
        for parameter in twin.parameters():
            for _ in range(changes):
                parameter.mul_(-0.5)
        other = Signal(twin, x)
        other.at = 20
        signal.feed(*[1] * 20)
        other.feed(*[1] * 20)
        expected = net(x[None])[0]
        torch.testing.assert_close(torch.cat(signal.pieces, -1), expected[:, :38])
        torch.testing.assert_close(torch.cat(other.pieces, -1), (-0.5) ** changes * expected[:, 18:38])


class Fickle(pts.BaseStream):
    """Passes on its chunks, those of one value with a single channel."""

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None or not bool((x == x.flatten()[0]).all()):
            return x
        return x.narrow(1, 0, 1)

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        return n


@everything
def test_channels_that_change_within_a_signal_are_refused(script):
    stream = pts.create_stream(nn.Sequential(nn.Identity(), nn.Conv1d(3, 2, 3)).eval())
    stream.streams[0] = Fickle()
    if script:
        stream = torch.jit.script(stream)
    with torch.no_grad():
        for _ in range(20):
            stream(torch.randn(3, 1))
        with pytest.raises(torch.jit.Error if script else pts.StreamInputError, match="invalid_chunk: 1 channels came"):
            stream(torch.ones(3, 1))


@everything
@pytest.mark.parametrize("name", ["stack", "transposed"])
@pytest.mark.parametrize("rough", [(0, 40), (40, 80)], ids=["first", "later"])
def test_autocast_that_comes_and_goes_within_a_signal(name, script, rough):
    net = NETS[name]()
    signal = Signal(new_stream(net, script), torch.randn(3, 200))
    with torch.no_grad():
        expected = net(signal.x[None])[0]
        done = 0
        for i in range(140):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=rough[0] <= i < rough[1]):
                signal.feed(1)
            for piece in signal.pieces:
                # Inner layers remember a few samples that autocast rounded.
                error = 0.05 if rough[0] <= i < rough[1] + 10 else 1e-5
                there = expected[:, done : done + piece.shape[-1]]
                torch.testing.assert_close(piece.float(), there, rtol=error, atol=error)
                done += piece.shape[-1]
            signal.pieces.clear()
    assert done > 100
