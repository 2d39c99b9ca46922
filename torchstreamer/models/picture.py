"""The picture of the demo: what went in and what came out, and how long each chunk took."""

import math
from pathlib import Path
from typing import Any, Sequence

import torch
from torch import Tensor

from ..analysis.drawing import BLACK, BLUE, VERMILION
from ..errors import missing_package

__all__ = ["draw"]

LEAST_DB = -70  # darkest, below the loudest point of the noisy recording


def _spectrogram(x: Tensor) -> Tensor:
    spectrum = torch.stft(x[0], 512, 128, window=torch.hann_window(512), return_complex=True)
    return 20 * torch.log10(spectrum.abs() + 1e-7)


def draw(
    path: Path, noisy: Tensor, denoised: Tensor, times_ms: Sequence[float], chunk_ms: float, title: str, rate_hz: int
) -> None:
    """Write a PNG of 1200 by 700 points: waveforms, spectrograms, and a histogram of the time that a chunk took.

    Args:
        path: the file
        noisy: ``[1, T]``
        denoised: ``[1, T]``
        times_ms: of each chunk, in milliseconds
        chunk_ms: length of a chunk; a stream that takes longer does not keep up
        title: the line above all
        rate_hz: the sampling rate

    Raises:
        ModuleNotFoundError: matplotlib is not installed
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_package("matplotlib", "the picture of the demo is drawn with it") from error
    figure = Figure(figsize=(12, 7), layout="constrained")
    figure.suptitle(title, fontsize=13)
    grid = figure.add_gridspec(3, 2, height_ratios=(1, 1.9, 1.1))
    seconds = noisy.size(-1) / rate_hz
    time = torch.arange(noisy.size(-1)) / rate_hz
    before, after = _spectrogram(noisy), _spectrogram(denoised)
    top = float(before.max())
    spectra = []
    for column, (name, x, spectrum, colour) in enumerate(
        (("noisy", noisy, before, VERMILION), ("denoised", denoised, after, BLUE))
    ):
        wave = figure.add_subplot(grid[0, column])
        wave.plot(time.tolist(), x[0].tolist(), color=colour, linewidth=0.4, rasterized=True)
        wave.set(title=name, xlim=(0, seconds), ylim=(-1, 1), yticks=(-1, 0, 1))
        wave.tick_params(labelbottom=False)
        spectral = figure.add_subplot(grid[1, column], sharex=wave)
        image = spectral.imshow(
            (spectrum - top).tolist(),
            origin="lower",
            aspect="auto",
            extent=(0, seconds, 0, rate_hz / 2000),
            cmap="magma",
            vmin=LEAST_DB,
            vmax=0,
        )
        spectral.set(xlabel="time, s")
        if column == 0:
            wave.set_ylabel("amplitude")
            spectral.set_ylabel("frequency, kHz")
        spectra.append(spectral)
    figure.colorbar(image, ax=spectra, label="level, dB", pad=0.01)
    _histogram(figure.add_subplot(grid[2, :]), times_ms, chunk_ms)
    figure.savefig(path, dpi=100)


def _histogram(ax: Any, times_ms: Sequence[float], chunk_ms: float) -> None:
    ordered = sorted(times_ms)
    least, most = math.log10(ordered[0] * 0.8), math.log10(max(chunk_ms, ordered[-1]) * 1.25)
    edges = [10 ** (least + (most - least) * i / 120) for i in range(121)]
    ax.hist(ordered, bins=edges, color=BLUE)
    ax.set_xscale("log")
    ax.set(xlabel=f"time to compute a chunk of {chunk_ms:g} ms, ms", ylabel="chunks", xlim=(edges[0], edges[-1]))
    for share, line in ((0.5, "-"), (0.99, "--")):
        value = ordered[int(len(ordered) * share)]
        ax.axvline(
            value, color=BLACK, linestyle=line, linewidth=1.2, label=f"{100 * share:.0f} % within {value:.2f} ms"
        )
    ax.axvline(chunk_ms, color=VERMILION, linestyle=":", linewidth=2, label=f"real time: {chunk_ms:g} ms")
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if edges[0] <= tick <= edges[-1]]
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="best", frameon=False)
