"""The denoiser at work: a noisy recording streamed in small chunks, heard, seen and compared with the whole.

from torchstreamer.models.demo import demo

print(demo("heard"))
"""

import time
import wave
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import List, Tuple, Union

import torch
from torch import Tensor

from ..core.registry import create_stream
from ..core.whole_numbers import whole_number
from ..errors import require_packages
from .denoiser import RATE_HZ, pretrained_denoiser
from .picture import draw
from .scores import si_sdr

__all__ = ["DemoReport", "demo"]


@dataclass(frozen=True)
class DemoReport:
    """What a demo measured. Prints as lines of text.

    Attributes:
        duration_s: length of the recording, in seconds
        chunk_ms: length of a chunk, in milliseconds
        si_sdr_before_db: scale-invariant signal-to-distortion ratio of the noisy recording
        si_sdr_after_db: and of the denoised one
        difference: largest difference of what was streamed from what the network gives on the whole recording, by the
            largest sample
        latency_p50_ms: time that half of the chunks took at most, in milliseconds
        latency_p99_ms: and 99 of 100
        real_time_factor: seconds of sound by seconds of computing
        files: ``noisy.wav``, ``denoised.wav`` and ``demo.png``
    """

    duration_s: float
    chunk_ms: float
    si_sdr_before_db: float
    si_sdr_after_db: float
    difference: float
    latency_p50_ms: float
    latency_p99_ms: float
    real_time_factor: float
    files: Tuple[Path, Path, Path]

    @property
    def exact(self) -> bool:
        """Whether what was streamed is what the network gives on the whole, but for rounding: to 1e-4."""
        return self.difference <= 1e-4

    def __str__(self) -> str:
        same = "same as offline" if self.exact else "NOT the same as offline"
        return "\n".join(
            (
                f"{self.duration_s:.1f} s of noisy speech, streamed in chunks of {self.chunk_ms:g} ms",
                f"SI-SDR {self.si_sdr_before_db:.1f} → {self.si_sdr_after_db:.1f} dB",
                f"{same}: {_short(self.difference)}",
                f"p50 {self.latency_p50_ms:.2f} ms, p99 {self.latency_p99_ms:.2f} ms a chunk, "
                f"{self.real_time_factor:.0f}× real time",
                "wrote " + ", ".join(path.name for path in self.files) + f" in {self.files[0].parent}",
            )
        )


def _short(value: float) -> str:
    return f"{value:.0e}".replace("e-0", "e-")


def demo(folder: Union[str, Path], snr_db: float = 0.0, chunk: int = RATE_HZ // 100) -> DemoReport:
    """Stream a noisy recording through the denoiser, and write what came of it.

    The speech comes with the package: a voice of espeak-ng that the denoiser was not trained on. The noise is made
    here, a machine and its ventilation, the same each time. One thread computes. It takes a few seconds.

    Args:
        folder: where ``noisy.wav``, ``denoised.wav`` and ``demo.png`` are written; made if it is not there
        snr_db: power of the speech by power of the noise
        chunk: samples of a chunk, at 16 kHz

    Raises:
        StreamInputError: ``chunk`` is no whole number from 1 on
        OSError: the files cannot be written
        ModuleNotFoundError: matplotlib is not installed
    """
    whole_number(chunk, "chunk")
    require_packages("the picture of the demo is drawn with it", "matplotlib")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    clean, noisy = recording(snr_db)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        denoised, whole, seconds = _streamed(noisy, chunk)
    finally:
        torch.set_num_threads(threads)
    ordered = sorted(seconds)
    report = DemoReport(
        duration_s=noisy.size(-1) / RATE_HZ,
        chunk_ms=1000 * chunk / RATE_HZ,
        si_sdr_before_db=si_sdr(noisy, clean).item(),
        si_sdr_after_db=si_sdr(denoised, clean).item(),
        difference=((denoised - whole).abs().max() / whole.abs().max()).item(),
        latency_p50_ms=1000 * ordered[len(ordered) // 2],
        latency_p99_ms=1000 * ordered[len(ordered) * 99 // 100],
        real_time_factor=noisy.size(-1) / RATE_HZ / sum(seconds),
        files=(folder / "noisy.wav", folder / "denoised.wav", folder / "demo.png"),
    )
    _write_wav(report.files[0], noisy)
    _write_wav(report.files[1], denoised)
    title = (
        f"A denoiser, streamed {report.chunk_ms:g} ms at a time: SI-SDR {report.si_sdr_before_db:.1f} → "
        f"{report.si_sdr_after_db:.1f} dB, within {_short(report.difference)} of the whole recording at once"
    )
    draw(report.files[2], noisy, denoised, [1000 * s for s in seconds], report.chunk_ms, title, RATE_HZ)
    return report


def _streamed(noisy: Tensor, chunk: int) -> Tuple[Tensor, Tensor, List[float]]:
    # What the stream gives, what the network gives on the whole, and the seconds of each chunk.
    net = pretrained_denoiser()
    with torch.inference_mode():
        stream = create_stream(net)
        for piece in torch.split(noisy[:, : 50 * chunk], chunk, -1):  # so that what is done once is not counted
            stream(piece)
        stream.reset()
        pieces, seconds = [], []
        for piece in torch.split(noisy, chunk, -1):
            begin = time.perf_counter()
            pieces.append(stream(piece))
            seconds.append(time.perf_counter() - begin)
        pieces.append(stream.flush())
        return torch.cat([y for y in pieces if y is not None], -1), net(noisy), seconds


def recording(snr_db: float) -> Tuple[Tensor, Tensor]:
    """Clean speech, and the same in noise that is there half a second before it and after: ``[1, T]`` each."""
    with (files(__package__) / "speech.wav").open("rb") as data, wave.open(data) as file:
        samples = torch.frombuffer(bytearray(file.readframes(file.getnframes())), dtype=torch.int16)
    speech = samples.float() / 2**15
    noise = _machine(speech.numel() + RATE_HZ)
    clean = torch.nn.functional.pad(speech, (RATE_HZ // 2, RATE_HZ // 2))
    noise *= clean.square().mean().sqrt() / noise.square().mean().sqrt() * 10 ** (-snr_db / 20)
    noisy = clean + noise
    gain = 0.9 / noisy.abs().max()  # so that it fits into a file
    return (clean * gain)[None], (noisy * gain)[None]


def _machine(length: int) -> Tensor:
    # A motor whose speed wanders, and the air that it blows: a sawtooth, and noise that falls by 3 dB an octave.
    chance = torch.Generator().manual_seed(0)
    t = torch.arange(length) / RATE_HZ
    hertz = 52 + 6 * torch.sin(2 * torch.pi * 0.31 * t) + 2 * torch.sin(2 * torch.pi * 1.7 * t)
    motor = 2 * ((hertz.double().cumsum(0) / RATE_HZ) % 1).float() - 1
    spectrum = torch.fft.rfft(torch.randn(length, generator=chance))
    air = torch.fft.irfft(spectrum / torch.arange(1, spectrum.numel() + 1).clamp(min=50).sqrt(), length)
    gust = 1 + 0.4 * torch.sin(2 * torch.pi * 0.45 * t)
    return motor / motor.std() + 2.0 * gust * air / air.std()


def _write_wav(path: Path, x: Tensor) -> None:
    samples = (x[0].clamp(-1, 1) * (2**15 - 1)).round().to(torch.int16)
    with path.open("wb") as data, wave.open(data, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(samples.numpy().tobytes())
