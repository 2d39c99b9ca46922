"""The denoiser that comes with the package: exact as a stream, small as a file, and of use."""

from importlib.resources import files

import pytest
import torch
import torch.nn.functional as F

import torchstreamer as pts
from torchstreamer.models import Denoiser, pretrained_denoiser, si_sdr
from torchstreamer.models.demo import DemoReport, demo, recording
from torchstreamer.models.denoiser import LogMagnitude, Twice
from torchstreamer.testing import verify_stream

HOP = 160


@pytest.fixture(scope="module")
def net():
    return pretrained_denoiser()


def by_torch(net, x):
    """The definition, by operations of torch alone, of which only the network between the spectra is ours."""
    window = torch.hann_window(512, dtype=torch.float64).sqrt().to(x.dtype)
    t, left = x.shape[-1], 512 - HOP
    frames = (t - 1 + left) // HOP + 1
    padded = F.pad(x[:, 0], (left, (frames - 1) * HOP + 512 - left - t))
    spectra = torch.stft(padded, 512, HOP, window=window, center=False, return_complex=True)
    magnitude = torch.log10(spectra.abs() + 1e-4) / 2 + 1
    _, first, *blocks, last, _, _ = net.net.branches[1]
    y = first(magnitude)
    for block in blocks:
        _, convolution, slope = block.net
        past = 2 * convolution.dilation[0]
        y = y + F.prelu(
            F.conv1d(F.pad(y, (past, 0)), convolution.weight, convolution.bias, dilation=past // 2), slope.weight
        )
    pieces = torch.fft.irfft(spectra * torch.sigmoid(last(y)), 512, dim=1) * window[:, None]
    ones = (window**2)[None, :, None].expand(1, -1, frames + 8)  # frames on both sides, so that the edges have all
    total = F.fold(pieces, (1, padded.shape[-1]), (1, 512), stride=(1, HOP))[:, :, 0]
    envelope = F.fold(ones, (1, padded.shape[-1] + 8 * HOP), (1, 512), stride=(1, HOP))[:, :, 0, 4 * HOP :]
    return (total / envelope[..., : padded.shape[-1]])[..., left : left + t]


@pytest.mark.parametrize("length", [1, 159, 160, 161, 1777])
def test_is_what_its_definition_says(net, length):
    x = 0.1 * torch.randn(2, 1, length, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(net(x), by_torch(net, x), rtol=1e-4, atol=1e-6)


def test_is_small():
    assert files("torchstreamer.models").joinpath("denoiser.pt").stat().st_size < 300_000
    assert sum(p.numel() for p in pretrained_denoiser().parameters()) < 140_000


def test_weights_are_those_of_a_network_that_may_change():
    with torch.inference_mode():
        net = pretrained_denoiser()
    assert not any(value.is_inference() for value in (*net.parameters(), *net.buffers()))


def test_gives_a_chunk_22_ms_later(net):
    stream = pts.create_stream(net)
    assert [stream.output_length(n, final=False) for n in (479, 480, 639, 640)] == [0, 128, 128, 288]
    assert stream.output_length(1234, final=True) == 1234


def test_streamed_in_chunks_of_10_ms_it_is_the_same_and_has_no_clicks(net):
    _, noisy = recording(0.0)
    noisy = noisy[:, :32_000]
    stream = pts.create_stream(net)
    with torch.inference_mode():
        pieces = [stream(chunk) for chunk in torch.split(noisy, HOP, -1)] + [stream.flush()]
        streamed, whole = torch.cat([y for y in pieces if y is not None], -1), net(noisy)
    torch.testing.assert_close(streamed, whole, rtol=1e-4, atol=1e-5 * float(whole.abs().max()))
    bend, same = (float(y.diff(n=2).abs().max()) for y in (streamed, whole))
    assert bend == pytest.approx(same, rel=1e-3)
    at_edges = whole.diff(n=2).abs()[..., 126::HOP]  # where a chunk of the output ends and the next begins
    assert float(at_edges.max()) < same


def test_takes_noise_out(net):
    clean, noisy = recording(0.0)
    with torch.inference_mode():
        gain = si_sdr(net(noisy), clean) - si_sdr(noisy, clean)
        silence = net(torch.zeros(1, HOP * 10))
    assert float(si_sdr(noisy, clean)) == pytest.approx(0, abs=0.3)
    assert float(gain) > 7
    assert float(silence.abs().max()) == 0


@pytest.mark.slow
def test_its_own_layers_keep_the_whole_contract():
    verify_stream(torch.nn.Sequential(LogMagnitude(), Twice()), (2, 4, 20), static=True)


@pytest.mark.long
def test_keeps_the_whole_contract():
    torch.manual_seed(0)
    verify_stream(Denoiser(channels=4, dilations=(1, 2)).eval(), (2, 1, 1500), static=True)


def test_si_sdr_by_hand():
    t = torch.arange(8000, dtype=torch.float64) / 8000 * 2 * torch.pi
    meant, other = torch.sin(100 * t), torch.cos(300 * t)
    for weight in (1.0, 0.1, 0.001):
        estimate = 0.3 * (meant + weight * other) + 5.0
        assert float(si_sdr(estimate, meant)) == pytest.approx(-20 * torch.log10(torch.tensor(weight)).item(), abs=1e-6)


@pytest.mark.slow
def test_the_demo(tmp_path):
    pytest.importorskip("matplotlib", reason="the picture is drawn with it")
    report = demo(tmp_path / "new" / "folder")
    assert isinstance(report, DemoReport)
    assert report.exact and report.difference < 1e-5
    assert report.si_sdr_after_db - report.si_sdr_before_db > 7
    assert 0 < report.latency_p50_ms <= report.latency_p99_ms
    assert report.real_time_factor > 0
    assert [path.name for path in report.files] == ["noisy.wav", "denoised.wav", "demo.png"]
    import wave

    for path in report.files[:2]:
        with wave.open(str(path)) as file:
            assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16000)
            assert file.getnframes() == round(report.duration_s * 16000)
    assert report.files[2].read_bytes().startswith(b"\x89PNG")
    assert "same as offline" in str(report)


def test_the_demo_refuses_chunks_of_nothing(tmp_path):
    with pytest.raises(pts.StreamInputError, match="invalid_chunk: chunk=0 came"):
        demo(tmp_path, chunk=0)
