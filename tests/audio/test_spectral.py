"""Short-time spectra against torch.stft and torch.istft, and everything that their streams do."""

import warnings
from typing import Any, List, Optional

import pytest
import torch
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.audio import ISTFT, STFT, Spectral1d
from torchstreamer.testing import verify_stream
from torchstreamer.testing.live_rows import LiveRows

# n_fft, hop and window; a hop above n_fft / 2 among them.
GEOMETRIES = [(64, 16, 64), (64, 48, 64), (60, 20, 60), (512, 160, 400), (15, 4, 10)]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fed(stream: Any, x: Tensor, size: int) -> Optional[Tensor]:
    with torch.no_grad():
        pieces = [stream(chunk) for chunk in x.split(size, -1)] + [stream.flush()]
    pieces = [piece for piece in pieces if piece is not None]
    return torch.cat(pieces, -1) if pieces else None


def parts(x: Tensor) -> Tensor:
    return torch.cat([x.real, x.imag], 1)


def bins(x: Tensor) -> Tensor:
    return torch.complex(*x.chunk(2, 1))


def inverse(x: Tensor, *lengths: int, **options: Any) -> Optional[Tensor]:
    """That of torch, ``[B, 1, T]``; where it tells nothing, none."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The length of signal is shorter")
        try:
            return torch.istft(x, *lengths, **options)[:, None]
        except RuntimeError as error:
            assert "window overlap add" in str(error) or "empty" in str(error) or "min()" in str(error)
            return None


def chunk_sizes(length: int, n_fft: int) -> List[int]:
    return [size for size in (1, 7, 160, 1000) if size > 1 or length <= n_fft]


@pytest.mark.parametrize("mode", ["reflect", "constant"])
@pytest.mark.parametrize("geometry", GEOMETRIES, ids=str)
def test_against_torch(geometry, mode):
    n_fft, hop, width = geometry
    window = torch.hann_window(width, dtype=torch.float64)
    layer = nn.Conv1d(2 * (n_fft // 2 + 1), 2 * (n_fft // 2 + 1), 1).double()
    stft, istft = STFT(n_fft, hop, width, pad_mode=mode).double(), ISTFT(n_fft, hop, width).double()
    kept = Spectral1d(layer, n_fft, hop, width, pad_mode=mode).double()
    streams = [pts.create_stream(net) for net in (stft, istft, kept)]
    for length in (n_fft // 2 + 1, n_fft, 1000, 1777):
        x = noise(2, 1, length)
        spectra = torch.stft(x[:, 0], n_fft, hop, width, window, pad_mode=mode, return_complex=True)
        with torch.no_grad():
            changed = bins(layer(parts(spectra)))
        natural = inverse(changed, n_fft, hop, width, window)
        whole = inverse(changed, n_fft, hop, width, window, length=length)
        assert whole is not None
        pairs = [(streams[0], x, parts(spectra)), (streams[1], parts(changed), natural), (streams[2], x, whole)]
        with torch.no_grad():
            torch.testing.assert_close(stft(x), parts(spectra), rtol=0, atol=1e-10)
            torch.testing.assert_close(istft(parts(changed), length=length), whole, rtol=0, atol=1e-9)
            torch.testing.assert_close(kept(x), whole, rtol=0, atol=1e-9)
        for size in chunk_sizes(length, n_fft):
            for (stream, given, expected), tolerance in zip(pairs, (1e-10, 1e-9, 1e-9), strict=True):
                y = fed(stream, given, size)
                if expected is None or expected.numel() == 0:
                    assert y is None
                else:
                    torch.testing.assert_close(y, expected, rtol=0, atol=tolerance)


def test_other_forms():
    x = noise(2, 3, 200)
    window = torch.hann_window(32, dtype=torch.float64)
    for options in ({"center": False}, {"normalized": True}, {"onesided": False}, {"pad_mode": "replicate"}):
        expected = torch.stft(x.flatten(0, 1), 32, 8, window=window, return_complex=True, **options)
        expected = expected.reshape(2, -1, expected.shape[-1])
        net = STFT(32, 8, return_complex=True, **options).double()
        torch.testing.assert_close(net(x), expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(fed(pts.create_stream(net), x, 7), expected, rtol=0, atol=1e-12)
        if "center" in options:
            continue
        options.pop("pad_mode", None)
        back = ISTFT(32, 8, complex_input=True, **options).double()
        torch.testing.assert_close(fed(pts.create_stream(back), expected, 3), x, rtol=0, atol=1e-12)
    causal = STFT(32, 8, padding="causal", pad_mode="constant").double()
    padded = STFT(32, 8, center=False).double()(nn.functional.pad(x, [24, 0]))
    torch.testing.assert_close(fed(pts.create_stream(causal), x, 8), padded, rtol=0, atol=1e-12)
    assert pts.create_stream(causal).output_length(80, False) == 10  # no frame waits for what comes after its hop


@pytest.mark.parametrize("causal", [False, True])
def test_what_is_no_number_stays_where_it_is_used(causal):
    stft, net = STFT(16, 4).double(), Spectral1d(nn.Identity(), 16, 4, causal=causal).double()
    x = noise(1, 1, 120)
    for place in (0, 50, 119):
        bad = x.clone()
        bad[..., place] = float("nan")
        spoilt = fed(pts.create_stream(stft), bad, 5).isnan().any(1)[0]
        assert torch.equal(spoilt, stft(bad).isnan().any(1)[0])
        if place == 50:  # frame k sees the 16 samples around 4 · k
            assert spoilt.nonzero().flatten().tolist() == [k for k in range(31) if 4 * k - 8 <= 50 < 4 * k + 8]
        spoilt = fed(pts.create_stream(net), bad, 5).isnan()[0, 0]
        assert torch.equal(spoilt, net(bad).isnan()[0, 0])
        assert spoilt.sum() <= 31


def test_steps_of_rows_and_scripts():
    net = Spectral1d(nn.Conv1d(18, 18, 2), 16, 6, causal=True).double()
    x = noise(3, 1, 97)
    with torch.no_grad():
        expected = net(x)
    script = torch.jit.script(pts.create_stream(net))
    torch.testing.assert_close(fed(script, x, 13), expected, rtol=0, atol=1e-12)
    LiveRows(pts.create_stream(net), net, 12, (4,), nan=0.3).run(40).compare(5)


class Gains(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv1d(9, 9, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        real, imaginary = x.chunk(2, 1)
        gains = torch.sigmoid(self.layer(torch.sqrt(real * real + imaginary * imaginary + 1e-9)))
        return torch.cat([real * gains, imaginary * gains], 1)


def test_a_network_of_ones_own_is_captured():
    net = Spectral1d(Gains(), 16, 4).double()
    x = noise(1, 1, 90)
    with torch.no_grad():
        torch.testing.assert_close(fed(pts.create_stream(net), x, 11), net(x), rtol=0, atol=1e-12)
        inside = nn.Sequential(nn.Conv1d(1, 1, 3, padding=1).double(), net)
        torch.testing.assert_close(fed(pts.create_stream(inside, example=x), x, 11), inside(x), rtol=0, atol=1e-12)


def test_windows_are_as_exact_as_their_dtype():
    net = Spectral1d(nn.Identity(), 16, 4).double()
    window = torch.hann_window(16, dtype=torch.float64)
    assert torch.equal(net.stft.window, window) and torch.equal(net.overlap.window(), window)
    stream = pts.create_stream(Spectral1d(nn.Identity(), 16, 4)).double()
    x = noise(1, 1, 60)
    torch.testing.assert_close(fed(stream, x, 7), net(x), rtol=0, atol=1e-14)
    given = torch.rand(16)
    assert torch.equal(STFT(16, 4, window=given).double().window, given.double())


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: STFT(16, 4, window="triangle"), "invalid_window"),
        (lambda: STFT(16, 4, window=torch.ones(8)), "invalid_window"),
        (lambda: STFT(16, 4, win_length=17), "invalid_win_length"),
        (lambda: STFT(16, 4, pad_mode="circular"), "invalid_pad_mode"),
        (lambda: STFT(16, 4, padding="same"), "invalid_padding"),
        (lambda: STFT(16, 0), "invalid_hop_length"),
        (lambda: ISTFT(16, 4, center=False), "zero_envelope"),
        (lambda: ISTFT(16, 17, window="ones"), "zero_envelope"),
        (lambda: ISTFT(16, 9, win_length=8), "zero_envelope"),
        (lambda: pts.create_stream(Spectral1d(nn.Conv1d(18, 18, 2, stride=2), 16, 4)), "changed_rate"),
    ],
)
def test_refused_when_made(make, code):
    with pytest.raises(ValueError, match=f"^{code}: "):
        make()


def test_refused_chunks():
    with pytest.raises(pts.StreamInputError, match="invalid_chunk: a signal of 8 samples"):
        STFT(16, 4)(torch.zeros(1, 8))
    with pytest.raises(pts.StreamInputError, match="invalid_chunk: 17 channels came; a multiple of 18"):
        pts.create_stream(ISTFT(16, 4))(torch.zeros(17, 3))


CASES = {
    "stft": (STFT(4, 2), (2, 1, 14)),
    "stft, window": (STFT(6, 2, 3, center=False), (2, 2, 14)),
    "stft, causal": (STFT(5, 2, padding="causal", pad_mode="constant"), (2, 1, 14)),
    "istft": (ISTFT(4, 2), (2, 6, 12)),
    "istft, far": (ISTFT(5, 3), (2, 6, 12)),
    "istft, window": (ISTFT(5, 2, 4), (2, 12, 12)),
    "spectral": (Spectral1d(nn.Conv1d(6, 6, 2), 4, 2), (2, 1, 16)),
    "spectral, far": (Spectral1d(nn.Conv1d(6, 6, 3, padding=1), 4, 3, pad_mode="reflect"), (2, 1, 16)),
    "spectral, causal": (Spectral1d(nn.Conv1d(6, 6, 1), 4, 1, causal=True), (2, 1, 16)),
}


IN_CI = ("stft, causal", "istft, far", "spectral, causal")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in IN_CI else pytest.mark.long) for name in CASES]
)
def test_every_rule(name):
    net, shape = CASES[name]
    verify_stream(net, shape, static=True)
