"""Static steps of captured models with several inputs and outputs, and of other layouts than [B, C, T]."""

from typing import Any, Tuple

import pytest
import torch
import torch.nn.functional as F
from signal_rows import leaves, play
from torch import Tensor, nn

import torchstreamer as pts


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


class Voice(nn.Module):
    """Two inputs of different rates and a static one; outputs of different rates, layouts and dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 5, padding=2)
        self.upsample = nn.ConvTranspose1d(3, 4, 8, stride=4, padding=2)
        self.speaker = nn.Linear(2, 4)
        self.audio = nn.Conv1d(4, 1, 3, padding=1, padding_mode="reflect")

    def forward(self, features: Tensor, x: Tensor, speaker: Tensor) -> Any:
        h = self.conv(x.unsqueeze(1)) + self.upsample(features.mT)
        h = torch.tanh(h + self.speaker(speaker).unsqueeze(-1))
        pitch = F.avg_pool1d(h, 4).argmax(1)
        return {"audio": self.audio(h)[:, 0], "none": None, "pitch": (pitch.unsqueeze(-1), h.transpose(0, 1))}


class Spectral(nn.Module):
    """[B, T, F] to [B, T / 2, G], with memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, stride=(2, 1), padding=1)
        self.gru = nn.GRU(10, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.gru(self.conv(x.unsqueeze(1)).transpose(1, 2).flatten(2))[0]


def voice(n: int) -> Tuple[Tensor, ...]:
    return normal(1, n, 3), normal(1, 4 * n), normal(1, 2) * n


def check(model: nn.Module, step: pts.StaticStream, signals: Any) -> None:
    for starts in ([0, 0, 0], [2, 0, 1]):
        for signal, found in zip(signals, play(step, signals, starts), strict=True):
            for y, expected in zip(found, leaves(model(*signal)), strict=True):
                torch.testing.assert_close(y, expected, rtol=1e-10, atol=1e-12)


@pytest.fixture(scope="module")
def spoken() -> Tuple[Voice, Any]:
    torch.manual_seed(0)
    model = Voice().double()
    return model, pts.create_stream(model, example=voice(12), time_dim=(1, 1, None))


def test_several_signals(spoken: Tuple[Voice, Any]) -> None:
    model, stream = spoken
    step = pts.StaticStream(stream, chunk=2, batch=3)
    check(model, step, [voice(n) for n in (9, 2, 20)])
    assert step.outputs == {"audio": 8, "none": 0, "pitch": (2, 8)}
    assert step.output_length(5) == {"audio": 20, "none": 0, "pitch": (5, 20)}
    assert step.out_shape["pitch"] == ([3, 2, 1], [4, 3, 8])
    # A state goes over to another batch; the function gives what a call gives.
    other = pts.StaticStream(stream, chunk=2, batch=1)
    other.set_state([0], step.get_state([2]))
    xs, flag = voice(2), torch.tensor([True])
    state = other.get_state()
    following, y, _, _ = other.step(state, xs, torch.tensor([2]), flag, flag)
    again, _, _ = other(xs, torch.tensor([2]), flag, flag)
    assert torch.equal(y["audio"], again["audio"]) and all(
        torch.equal(value, following[name]) for name, value in other.get_state().items()
    )


def test_another_layout() -> None:
    torch.manual_seed(0)
    model = Spectral().double()
    stream = pts.create_stream(model, example=normal(1, 24, 5), time_dim=1)
    step = pts.StaticStream(stream, chunk=4, batch=3)
    assert (step.outputs, step.out_shape) == (2, [3, 2, 3])
    check(model, step, [[normal(1, n, 5)] for n in (13, 1, 30)])


def test_calls_that_do_not_fit(spoken: Tuple[Voice, Any]) -> None:
    step, flag, two = pts.StaticStream(spoken[1], chunk=2), torch.tensor([True]), torch.tensor([2])
    for given, message in (
        (voice(2)[:2], "2 inputs came; a tuple of 3 tensors was expected, features, x, speaker"),
        (3, "a int came"),
        ((voice(2)[0], voice(3)[1], voice(2)[2]), r"for 'x' shape \[1, 12\].*\[1, 8\], torch.float64, on cpu was"),
        ((voice(2)[0], None, voice(2)[2]), "for 'x' a NoneType came"),
    ):
        with pytest.raises(pts.StreamInputError, match=f"^invalid_chunk: {message}"):
            step(given, two, flag, flag)


class Unequal(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.conv(x) + y


class Started(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(2, 3, batch_first=True)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        return self.gru(x, h.transpose(0, 1))[0]


REFUSED = {
    "unequal_steps": (Unequal(), (normal(1, 2, 20), normal(1, 2, 18)), -1),
    "static_input": (Started(), (normal(1, 20, 2), normal(1, 1, 3)), (1, None)),
    "fixed_batch": (nn.Conv1d(1, 1, 3), normal(1, 20), -1),
}


@pytest.mark.parametrize("code", REFUSED)
def test_refused(code: str) -> None:
    model, example, time_dim = REFUSED[code]
    stream = pts.create_stream(model.double(), example=example, time_dim=time_dim)
    with pytest.raises(pts.UnsupportedModuleError, match=f"^{code}: .*in a static step: "):
        pts.StaticStream(stream, 4)


def test_a_compiled_step_takes_one_signal(spoken: Tuple[Voice, Any]) -> None:
    with pytest.raises(pts.UnsupportedModuleError, match="^several_signals: .*the static input 'speaker'; use StaticS"):
        pts.compile(spoken[1], 4)
