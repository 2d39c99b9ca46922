"""Published architectures with recurrent layers, small and with random weights."""

from crdnn import CRDNN
from dpcrn import DPCRN
from rnnoise import RNNoise
from silero import Silero
from zoo import _entry, _random, _signal


def _features(size, default):
    """[B, T, size]."""
    return lambda length=default, batch=1: _random(batch, length, size)


def _spectra(bands, default):
    """[B, 2, bands, T]."""
    return lambda length=default, batch=1: _random(batch, 2, bands, length)


RECURRENT = [
    _entry("silero", lambda: Silero(window=16, context=4, filters=8, step=4, hidden=4), _signal(1, 96), shortest=16),
    _entry("rnnoise", lambda: RNNoise(4, 3, 3, 2, 3, 4), _features(4, 30), time_dim=1, output_time_dim=1),
    _entry(
        "crdnn", lambda: CRDNN(4, (2, 3), 2, 2, 3, 1, 4), _features(4, 30), time_dim=1, output_time_dim=1, shortest=2
    ),
    _entry("dpcrn", lambda: DPCRN(9, (2, 4), 1), _spectra(9, 24)),
]
