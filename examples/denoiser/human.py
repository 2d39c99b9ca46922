"""Recordings of people, to evaluate on: fetched from Debian, kept in a folder, never trained on and never shipped.

The packages `asterisk-core-sounds-LANGUAGE-g722` hold the announcements of a telephone exchange, 16 kHz, one speaker a
language: English by Allison Smith, French by June Wallack (both CC BY-SA 3.0), Russian by Maxim Topal (CC BY 3.0), and
Italian and Spanish, whose copyright files say more.
"""

import subprocess
from pathlib import Path

import numpy as np
import numpy.typing as npt
from speech import LEVEL, RATE_HZ

__all__ = ["LANGUAGES", "recordings"]

Samples = npt.NDArray[np.float32]

LANGUAGES = ("en", "es", "fr", "it", "ru")
_PACKAGE = "asterisk-core-sounds-{}-g722"
_NO_SPEECH = ("silence", "beep", "tone")


def _fetched(folder: Path, language: str) -> Path:
    name = _PACKAGE.format(language)
    place = folder / name
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-qq", name], cwd=folder, check=True, stderr=subprocess.DEVNULL)
        (package,) = folder.glob(f"{name}_*.deb")
        subprocess.run(["dpkg-deb", "-x", package, place], check=True)
    return place


def recordings(folder: Path, language: str) -> Samples:
    """The recordings of a language that last a second or more, joined, of equal loudness, with pauses between them.

    Args:
        folder: where the package is kept
        language: one of `LANGUAGES`
    """
    import av

    parts = []
    for path in sorted(_fetched(folder, language).rglob("*.g722")):
        if any(word in path.as_posix() for word in _NO_SPEECH):
            continue
        with av.open(str(path), format="g722") as file:
            pieces = [frame.to_ndarray().reshape(-1) for frame in file.decode(audio=0)]
        if not pieces:
            continue  # an empty file
        heard = np.concatenate(pieces).astype(np.float32) / 32768
        loudness = np.sqrt((heard**2).mean())
        if len(heard) >= RATE_HZ and loudness > 1e-3:
            parts += [heard * (LEVEL / loudness), np.zeros(RATE_HZ // 4, np.float32)]
    return np.concatenate(parts)
