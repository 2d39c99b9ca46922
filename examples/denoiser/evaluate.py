"""Measure the denoiser: the gain in SI-SDR on speech and noise that it was not trained on.

    python examples/denoiser/evaluate.py [denoiser.pt] --folder FOLDER

Voices of espeak-ng that were held out, and people, whose recordings are fetched from Debian (`--generated` leaves them
out); noises of the kinds that were trained on, of kinds that were not, and babble; at four ratios of speech to noise.
A cell of the table is the mean over at least 60 signals of 4 s and, in parentheses, the lower end of its interval of
95 %. Without weights, those of the package are measured. Needs the packages numpy, scipy and av, and espeak-ng.
"""

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Failed to initialize NumPy")
    import noise
    import numpy as np
    import numpy.typing as npt
    import torch
    from human import LANGUAGES, recordings
    from mixing import LEAST_POWER
    from speech import HELD_OUT, RATE_HZ, speech
    from torch import Tensor, nn

    from torchstreamer.models import pretrained_denoiser, si_sdr

Samples = npt.NDArray[np.float32]

LENGTH = 4 * RATE_HZ
RATIOS_DB = (-5, 0, 5, 10)
LEAST_DB = {"espeak-ng": 5.5, "people": 4.5}  # the mean at 0 dB, less what chance may have given, on held-out noise


def gains(net: nn.Module, clean: Samples, kinds: Iterable[noise.Noise], signals: int, seed: int) -> Tensor:
    """Gain in dB of each signal, ``[signals, ratios]``."""
    chance, kinds = np.random.default_rng(seed), tuple(kinds)
    rows: list[Tensor] = []
    while len(rows) < signals:
        start = chance.integers(0, len(clean) - LENGTH)
        meant = torch.from_numpy(clean[start : start + LENGTH])
        power = meant.square().mean()
        if power < 1.5 * LEAST_POWER:
            continue  # mostly a pause
        disturbance = torch.from_numpy(kinds[len(rows) % len(kinds)](chance, LENGTH)) * power.sqrt()
        noisy = torch.stack([meant + disturbance * 10 ** (-ratio / 20) for ratio in RATIOS_DB])
        with torch.inference_mode():
            rows.append(si_sdr(net(noisy.unsqueeze(1)).squeeze(1), meant) - si_sdr(noisy, meant))
    return torch.stack(rows)


def low(sample: Tensor) -> Tensor:
    """Lower end of the interval of 95 % of the mean."""
    return sample.mean(0) - 1.96 * sample.std(0) / len(sample) ** 0.5


def row(name: str, kind: str, sample: Tensor) -> str:
    """A row of the table."""
    cells = [f"{mean:+.1f} ({least:+.1f})" for mean, least in zip(sample.mean(0), low(sample), strict=True)]
    return f"| {name} | {kind} | {len(sample)} | " + " | ".join(cells) + " |"


def main() -> int:
    """Print the table; 1 if the denoiser does less than is claimed."""
    parser = argparse.ArgumentParser(description="Measure the gain of the denoiser.")
    parser.add_argument("weights", type=Path, nargs="?", help="file of weights; by default those of the package")
    parser.add_argument("--folder", type=Path, help="where speech is kept")
    parser.add_argument("--signals", type=int, default=60, help="of each speaker or set of voices in a cell")
    parser.add_argument("--generated", action="store_true", help="no recordings of people")
    wanted = parser.parse_args()
    torch.set_num_threads(1)
    folder = wanted.folder or Path(tempfile.mkdtemp(prefix="denoiser-"))
    net = pretrained_denoiser(wanted.weights)

    crowd = speech(4, 150, HELD_OUT)
    kinds: dict[str, tuple[Callable[[np.random.Generator, int], Samples], ...]] = {
        "trained kinds": noise.TRAINED[2:],
        "held-out kinds": noise.HELD_OUT,
        "babble": (partial(noise.babble, speech=crowd),),
    }
    print("| speech | noise | signals | " + " | ".join(f"{ratio:+d} dB" for ratio in RATIOS_DB) + " |")
    print("|---|---|--:" + "|--:" * len(RATIOS_DB) + "|")
    means: dict[str, float] = {}

    def line(name: str, kind: str, sample: Tensor) -> None:
        print(row(name, kind, sample), flush=True)
        if kind == "held-out kinds":
            means[name] = float(low(sample)[RATIOS_DB.index(0)])

    generated = speech(3, 12 * wanted.signals, HELD_OUT)
    for kind, makers in kinds.items():
        line("espeak-ng", kind, gains(net, generated, makers, wanted.signals, 1))
    if not wanted.generated:
        people = {language: recordings(folder, language) for language in LANGUAGES}
        for kind, makers in kinds.items():
            samples = [gains(net, clean, makers, wanted.signals, 2 + i) for i, clean in enumerate(people.values())]
            for language, sample in zip(people, samples, strict=True):
                line(f"a person, {language}", kind, sample)
            line("people", kind, torch.cat(samples))
    short = {name: least for name, least in LEAST_DB.items() if name in means and means[name] < least}
    for name, least in short.items():
        print(f"{name}: {means[name]:.2f} dB at 0 dB on held-out noise, less than the {least} that are claimed")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
