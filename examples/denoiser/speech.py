"""Speech that nobody said: random syllables, spoken by espeak-ng in many voices, or by a small voice made here.

There is no text, no recording and no download behind it, so what is trained on it carries no one's rights. The voices
of `HELD_OUT` (languages and ways of speaking) are never trained on.
"""

import random
import shutil
import subprocess
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.signal import fftconvolve, lfilter, resample_poly  # type: ignore[import-untyped]

__all__ = ["HELD_OUT", "RATE_HZ", "TRAINED", "Voices", "espeak_is_there", "speech"]

Samples = npt.NDArray[np.float32]

RATE_HZ = 16000
LEVEL = 0.05  # root mean square of an utterance

_ONSETS = "b bl br ch d dr f fl fr g gr h j k kl kr l m n p pl pr r s sh sk sl sm sn sp st str t th tr v w z".split()
_NUCLEI = "a e i o u ai ee oo ou ea oi".split()
_CODAS = ["", *"n m t k s l r d p ng nd st rk".split(), ""]


@dataclass(frozen=True)
class Voices:
    """Languages and variants of espeak-ng; each language is spoken in each variant."""

    languages: tuple[str, ...]
    variants: tuple[str, ...]


TRAINED = Voices(
    tuple("en-gb en-us en-gb-scotland de es it pl nl cs fi hu pt-br ro sv tr cy id hi el hr".split()),
    (
        *"m1 m2 m3 m4 m5 m7 f1 f2 f4 klatt klatt3 Andy Annie edward Alex Andrea Denis Mario linda pablo".split(),
        *"steph rob".split(),
    ),
)
HELD_OUT = Voices(
    tuple("fr-fr da en-029 lt ca".split()),
    tuple("m6 f3 f5 klatt2 adam anika boris".split()),
)


def espeak_is_there() -> bool:
    """Whether the program espeak-ng can be called."""
    return shutil.which("espeak-ng") is not None


def _sentence(chance: random.Random) -> str:
    words = []
    for _ in range(chance.randint(6, 14)):
        parts = chance.choice((1, 1, 2, 2, 3))
        word = "".join(
            chance.choice([*_ONSETS, "", ""]) + chance.choice(_NUCLEI) + chance.choice(_CODAS) for _ in range(parts)
        )
        words.append(word + ("," if chance.random() < 0.15 else ""))
    return " ".join(words) + chance.choice(".?!")


def _spoken(chance: random.Random, voices: Voices) -> Samples | None:
    voice = f"{chance.choice(voices.languages)}+{chance.choice(voices.variants)}"
    manner = ["-s", str(chance.randint(120, 200)), "-p", str(chance.randint(25, 75))]
    done = subprocess.run(["espeak-ng", "-v", voice, *manner, "--stdout", _sentence(chance)], capture_output=True)
    if done.returncode != 0 or len(done.stdout) < 4000:
        return None  # a voice that this espeak-ng does not have, or one that swallowed the sentence
    heard = np.frombuffer(done.stdout[44 : len(done.stdout) // 2 * 2], np.int16).astype(np.float32) / 32768
    # From 22050 Hz, and up to a tenth faster or slower: other lengths of the vocal tract than the variants have.
    return np.asarray(resample_poly(heard, chance.randint(290, 352), 441), np.float32)


def _buzzed(chance: random.Random) -> Samples:
    # Pulses and hiss through three resonances, a new set for each syllable: far from speech, and enough to try the
    # program where espeak-ng is not installed.
    pitch, syllables = chance.uniform(90, 220), []
    noise = np.random.default_rng(chance.randrange(2**32))
    for _ in range(chance.randint(8, 20)):
        count = chance.randint(1600, 4000)
        phase = (
            np.cumsum(pitch * (1 + 0.1 * np.linspace(chance.uniform(-1, 1), chance.uniform(-1, 1), count))) / RATE_HZ
        )
        syllable = np.diff(np.floor(phase), prepend=0.0) + chance.choice((0.01, 0.01, 0.3)) * noise.standard_normal(
            count
        )
        for low, high in ((250, 900), (900, 2400), (2200, 3600)):
            turn = 2 * np.pi * chance.uniform(low, high) / RATE_HZ
            syllable = lfilter([1.0], [1.0, -2 * 0.97 * np.cos(turn), 0.97**2], syllable)
        syllables += [syllable * np.hanning(count), np.zeros(chance.choice((0, 0, 400, 2400)))]
    return np.asarray(np.concatenate(syllables), np.float32)


def _coloured(chance: random.Random, dry: Samples) -> Samples:
    # A tilt of the spectrum, and for a third of the utterances a room: against one timbre.
    heard = np.asarray(lfilter([1.0, -chance.uniform(-0.5, 0.5)], [1.0], dry), np.float32)
    if chance.random() < 0.3:
        count = int(RATE_HZ * chance.uniform(0.1, 0.45))
        tail = np.random.default_rng(chance.randrange(2**32)).standard_normal(count)
        tail *= chance.uniform(0.02, 0.1) * np.exp(-6.9 * np.arange(count) / count)
        tail[0] = 1.0
        heard = np.asarray(fftconvolve(heard, tail)[: len(heard)], np.float32)
    return np.asarray(heard * (LEVEL / (np.sqrt((heard**2).mean()) + 1e-9)), np.float32)


def speech(seed: int, seconds: float, voices: Voices | None) -> Samples:
    """Utterances with pauses of 0.1 to 0.6 s between them, of equal loudness.

    Args:
        seed: of all random choices
        seconds: how much at least
        voices: of espeak-ng, which must be installed; without voices the small one made here
    """
    chance, parts, count, failed = random.Random(seed), [], 0, 0
    while count < seconds * RATE_HZ:
        heard = _buzzed(chance) if voices is None else _spoken(chance, voices)
        if heard is None:
            failed += 1
            if failed > 200:
                raise RuntimeError("no_voices: espeak-ng spoke none of the voices; install its data: espeak-ng-data")
            continue
        pause = np.zeros(chance.randint(RATE_HZ // 10, RATE_HZ * 6 // 10), np.float32)
        parts += [_coloured(chance, heard), pause]
        count += len(heard) + len(pause)
    return np.concatenate(parts)
