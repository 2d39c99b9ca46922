"""Noises, all computed: those of `TRAINED` are trained on, those of `HELD_OUT` come about in other ways and are not.

Each takes a generator of random numbers and a number of samples, and gives samples of root mean square 1.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from speech import RATE_HZ

__all__ = ["HELD_OUT", "TRAINED", "Noise", "babble", "level"]

Samples = npt.NDArray[np.float32]
Signal = npt.NDArray[np.floating]
Noise = Callable[[np.random.Generator, int], Samples]


def level(x: Signal) -> Samples:
    """The signal with a root mean square of 1."""
    return np.asarray(x / (np.sqrt((x**2).mean()) + 1e-9), np.float32)


def _slow(chance: np.random.Generator, count: int, rate_hz: float = 2.0) -> npt.NDArray[np.float64]:
    # A random line that turns so often a second.
    turns = chance.standard_normal(int(count / RATE_HZ * rate_hz) + 4)
    return np.interp(np.arange(count) * rate_hz / RATE_HZ, np.arange(len(turns)), turns)


def _tone(hertz: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.asarray(np.sin(2 * np.pi * np.cumsum(hertz) / RATE_HZ))


def coloured(chance: np.random.Generator, count: int, slope: float | None = None) -> Samples:
    """Hiss whose power falls as the frequency to the power ``slope``, half of the time with one broad resonance."""
    slope = chance.uniform(-0.5, 2.2) if slope is None else slope
    spectrum = np.fft.rfft(chance.standard_normal(count))
    hertz = np.maximum(np.arange(len(spectrum)) * RATE_HZ / count, 30.0)
    spectrum = spectrum * hertz ** (-slope / 2)
    if chance.random() < 0.5:
        centre, width = chance.uniform(200, 4000), chance.uniform(0.2, 1.2)
        spectrum = spectrum * (1 + chance.uniform(0, 6) * np.exp(-0.5 * (np.log(hertz / centre) / width) ** 2))
    return level(np.fft.irfft(spectrum, count))


def hum(chance: np.random.Generator, count: int) -> Samples:
    """Mains: a low tone with many overtones."""
    base = chance.choice([50, 60, 100, 120]) * chance.uniform(0.98, 1.02)
    phase = 2 * np.pi * np.cumsum(base * (1 + 0.002 * _slow(chance, count, 0.5))) / RATE_HZ
    total = np.zeros(count)
    for overtone in range(1, int(chance.integers(8, 40))):
        weight = chance.uniform(0, 1) / overtone ** chance.uniform(0.3, 1.2)
        total += weight * np.sin(overtone * phase + chance.uniform(0, 2 * np.pi))
    return level(level(total) + chance.uniform(0.02, 0.3) * coloured(chance, count))


def fan(chance: np.random.Generator, count: int) -> Samples:
    """Air that is blown, and the motor that blows it."""
    air = coloured(chance, count, chance.uniform(0.6, 1.6)) * (1 + 0.2 * _slow(chance, count, 4))
    return level(air + 0.7 * hum(chance, count))


def wind(chance: np.random.Generator, count: int) -> Samples:
    """Low noise in gusts."""
    return level(coloured(chance, count, chance.uniform(1.4, 2.4)) * np.exp(0.8 * _slow(chance, count, 1.5)))


def clicks(chance: np.random.Generator, count: int, per_second: float | None = None) -> Samples:
    """Short knocks, each a noise and a tone that decay, above a quiet ground."""
    per_second = chance.uniform(2, 12) if per_second is None else per_second
    total = np.zeros(count)
    for start in chance.integers(0, max(count - 1600, 1), chance.poisson(per_second * count / RATE_HZ)):
        long = int(chance.uniform(30, 900))
        t = np.arange(long)
        tone = np.sin(2 * np.pi * chance.uniform(300, 5000) / RATE_HZ * t)
        knock = chance.uniform(0.2, 1) * np.exp(-5 * t / long) * (0.6 * chance.standard_normal(long) + tone)
        total[start : start + long] += knock[: count - start]
    return level(level(total) + chance.uniform(0.03, 0.3) * coloured(chance, count))


def whine(chance: np.random.Generator, count: int) -> Samples:
    """One to three tones that wander a little."""
    total = np.zeros(count)
    for _ in range(int(chance.integers(1, 4))):
        total += _tone(chance.uniform(300, 6000) * (1 + 0.01 * _slow(chance, count, 0.7)))
    return level(level(total) + chance.uniform(0.2, 1) * coloured(chance, count))


def rain(chance: np.random.Generator, count: int) -> Samples:
    """Hundreds of knocks a second."""
    return level(clicks(chance, count, 400) + 0.5 * coloured(chance, count, 0.3))


def engine(chance: np.random.Generator, count: int) -> Samples:
    """A sawtooth whose speed changes."""
    turns = np.cumsum(chance.uniform(25, 70) * np.exp(0.15 * _slow(chance, count, 0.6))) / RATE_HZ
    motor = level((2 * (turns % 1) - 1) * np.exp(0.3 * _slow(chance, count, 8)))
    return level(motor + 0.5 * coloured(chance, count, 1.2))


def gated(chance: np.random.Generator, count: int) -> Samples:
    """Noise that is switched on and off one to six times a second."""
    on = np.sin(2 * np.pi * chance.uniform(1, 6) * np.arange(count) / RATE_HZ) > 0
    return level(coloured(chance, count, 1.0) * (0.15 + on))


def siren(chance: np.random.Generator, count: int) -> Samples:
    """A tone that rises and falls between 400 and 1400 Hz."""
    hertz = 900 + 500 * np.sin(2 * np.pi * 0.4 * np.arange(count) / RATE_HZ + chance.uniform(0, 2 * np.pi))
    return level(_tone(hertz) + 0.3 * coloured(chance, count, 1.0))


TRAINED: tuple[Noise, ...] = (coloured, coloured, coloured, hum, fan, wind, clicks, whine)
HELD_OUT: tuple[Noise, ...] = (rain, engine, gated, siren)


def babble(chance: np.random.Generator, count: int, speech: Samples, voices: int = 6) -> Samples:
    """Several voices at once, cut at random places out of ``speech``."""
    starts = chance.integers(0, len(speech) - count, voices)
    return level(np.stack([speech[start : start + count] for start in starts]).sum(0))
