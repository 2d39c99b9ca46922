"""Models with torch.istft, against the models themselves, and refused where they must be."""

import warnings
from typing import Any, Callable, Optional

import pytest
import torch
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.testing import verify_stream
from torchstreamer.testing.live_rows import LiveRows


class Model(nn.Module):
    def __init__(self, function: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.register_buffer("w", torch.hann_window(16, dtype=torch.float64))
        self.layer = nn.Conv1d(9, 9, 3, padding=1).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def stft(s: Any, x: Tensor, hop: int = 4, **options: Any) -> Tensor:
    return torch.stft(x.flatten(0, 1), 16, hop, **{"window": s.w, "return_complex": True, **options})


def istft(x: Tensor, length: Any, hop: int = 4, **options: Any) -> Tensor:
    return torch.istft(x, 16, hop, length=length, **options)[:, None]


def masked(s: Any, x: Tensor) -> Tensor:
    spectra = stft(s, x)
    return istft(spectra * torch.sigmoid(s.layer(spectra.abs())), x.shape[-1], window=s.w)


def two_channels(s: Any, x: Tensor) -> Tensor:
    y = istft(stft(s, torch.cat([x, 2 * x], 1)), x.shape[-1], window=s.w)
    return y.reshape(x.shape[0], 2, y.shape[-1])


def computed(s: Any, x: Tensor) -> Tensor:
    window = (s.w + 0.1).sqrt()
    return istft(stft(s, x, window=window), x.shape[-1], window=window)


def short_window(s: Any, x: Tensor) -> Tensor:
    options = {"win_length": 11, "window": s.w[:11] + 0.1}
    return istft(stft(s, x, **options), x.shape[-1], **options)


MODELS = {
    "masked": masked,
    "no length": lambda s, x: istft(stft(s, x), None, window=s.w),
    "shorter": lambda s, x: istft(stft(s, x), x.shape[-1] - 3, window=s.w),
    "method": lambda s, x: stft(s, x).istft(16, 4, window=s.w, length=x.shape[-1])[:, None],
    "far": lambda s, x: istft(stft(s, x, 12), x.shape[-1], 12, window=s.w),
    "far, no length": lambda s, x: istft(stft(s, x, 12), None, 12, window=s.w),
    "not centred": lambda s, x: istft(stft(s, x, center=False, window=s.w + 0.1), None, center=False, window=s.w + 0.1),
    "all bins": lambda s, x: istft(
        stft(s, x, onesided=False, normalized=True), x.shape[-1], window=s.w, onesided=False, normalized=True
    ),
    "channels": two_channels,
    "computed window": computed,
    "short window": short_window,
    "real parts": lambda s, x: istft(torch.view_as_complex(2 * torch.view_as_real(stft(s, x))), None, window=s.w),
}


def offline(model: nn.Module, x: Tensor) -> Optional[Tensor]:
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The length of signal is shorter")
        try:
            y: Tensor = model(x)
        except RuntimeError:  # too short
            return None
    return y if y.shape[-1] > 0 else None


@pytest.mark.parametrize("name", MODELS)
def test_inverse(name):
    torch.manual_seed(0)
    model = Model(MODELS[name]).eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The length of signal is shorter")
        stream = pts.create_stream(model, example=torch.randn(1, 1, 100, dtype=torch.float64))
    for length in (9, 16, 77, 100, 131):
        x = torch.randn(2, 1, length, dtype=torch.float64)
        expected = offline(model, x)
        for size in (1, 5, 200):
            with torch.no_grad():
                y = [stream(chunk) for chunk in x.split(size, -1)] + [stream.flush()]
            y = [each for each in y if each is not None]
            if expected is None:
                assert not y
            else:
                torch.testing.assert_close(torch.cat(y, -1), expected, rtol=0, atol=1e-9)


def test_steps_of_rows():
    model = Model(masked).eval()
    stream = pts.create_stream(model, example=torch.randn(1, 1, 100, dtype=torch.float64))
    LiveRows(stream, model, 8, (4,), nan=0.3).run(40).compare(5)


def test_windows_are_live():
    model = Model(MODELS["no length"]).eval()
    x = torch.randn(1, 1, 100, dtype=torch.float64)
    stream = pts.create_stream(model, example=x)
    with torch.no_grad():
        model.w.add_(0.5)
        torch.testing.assert_close(stream(x, final=True), model(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("function", "code"),
    [
        (lambda s, x: istft(stft(s, x), 80, window=s.w), "fixed_piece"),
        (lambda s, x: istft(stft(s, x), x.shape[-1], window=s.w * x.abs().amax((0, 1, 2))), "time_mixing"),
        (lambda s, x: istft(stft(s, x, 8), x.shape[-1], 8, window=s.w * (s.w > 0.2)), "zero_envelope"),
    ],
    ids=["fixed_piece", "time_mixing", "zero_envelope"],
)
def test_refused(function, code):
    with pytest.raises(pts.UnsupportedModuleError, match=f"^{code}: "):
        pts.create_stream(Model(function).eval(), example=torch.randn(1, 1, 100, dtype=torch.float64))


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("masked", marks=pytest.mark.long),
        pytest.param("far", marks=pytest.mark.slow),
        pytest.param("far, no length", marks=pytest.mark.long),
    ],
)
def test_every_rule(name):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The length of signal is shorter")
        verify_stream(Model(MODELS[name]).eval(), (2, 1, 60), graph=True, static=True)
