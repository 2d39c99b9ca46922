"""Speech and noise, mixed: batches to train on."""

from pathlib import Path

import noise
import numpy as np
import numpy.typing as npt
import torch
from speech import RATE_HZ, TRAINED, speech
from torch import Tensor

__all__ = ["Mixtures", "prepared"]

Samples = npt.NDArray[np.float32]

SECONDS = 1.5  # of a signal
PIECE_S = 6  # of a noise
LEAST_POWER = 4e-4  # of a piece of speech; in what is softer there are mostly pauses


class Mixtures:
    """Draws batches of noisy and clean signals, without end.

    Four signals of ten have two noises. The speech is between 6 dB softer and 16 dB louder than the noise, and the
    whole up to 12 dB softer or 14 dB louder than `speech` makes it.

    Args:
        clean: utterances, joined
        noises: a noise a row, longer than a signal
        seed: of all random choices
    """

    def __init__(self, clean: Samples, noises: Samples, seed: int = 0) -> None:
        self.clean, self.noises = clean, noises
        self.chance = np.random.default_rng(seed)
        self.length = int(SECONDS * RATE_HZ)

    def batch(self, rows: int) -> tuple[Tensor, Tensor]:
        """Noisy signals and clean ones, ``[rows, 1, T]`` each."""
        drawn = [self._one() for _ in range(rows)]
        noisy, clean = (torch.from_numpy(np.stack(side)).unsqueeze(1) for side in zip(*drawn, strict=True))
        return noisy, clean

    def _one(self) -> tuple[Samples, Samples]:
        chance = self.chance
        power = 0.0
        while power < LEAST_POWER:
            clean = self._cut(self.clean)
            power = float((clean**2).mean())
        disturbance = self._cut(self.noises[chance.integers(len(self.noises))])
        if chance.random() < 0.4:
            second = self._cut(self.noises[chance.integers(len(self.noises))])
            disturbance = disturbance + second * chance.uniform(0.1, 1)
        ratio = power / ((disturbance**2).mean() + 1e-9) * 10 ** (-chance.uniform(-6, 16) / 10)
        gain = 10 ** (chance.uniform(-12, 14) / 20)
        noisy = clean + disturbance * np.sqrt(ratio)
        return np.asarray(noisy * gain, np.float32), np.asarray(clean * gain, np.float32)

    def _cut(self, signal: Samples) -> Samples:
        start = self.chance.integers(0, len(signal) - self.length)
        return signal[start : start + self.length]


def prepared(folder: Path, minutes: float, synthetic: bool) -> Mixtures:
    """Utterances and noises, made once and kept in ``folder``.

    Args:
        folder: where they are kept; a later call with the same arguments takes them from there
        minutes: of speech, at least one; there is a noise of 6 s for every 12 s of speech, of fourteen one is babble
        synthetic: of the voice that needs no program, not of espeak-ng
    """
    kept = folder / f"{'synthetic' if synthetic else 'espeak'}-{minutes:g}.npz"
    if not kept.exists():
        voices = None if synthetic else TRAINED
        clean, murmur = speech(1, 60 * minutes, voices), speech(2, max(30, 12 * minutes), voices)
        chance, count, noises = np.random.default_rng(0), PIECE_S * RATE_HZ, []
        for number in range(int(5 * minutes)):
            if number % 14 == 13:
                noises.append(noise.babble(chance, count, murmur, int(chance.integers(3, 8))))
            else:
                noises.append(noise.TRAINED[number % len(noise.TRAINED)](chance, count))
        folder.mkdir(parents=True, exist_ok=True)
        np.savez(kept, clean=clean, noises=np.stack(noises))
    with np.load(kept) as arrays:
        return Mixtures(arrays["clean"], arrays["noises"])
