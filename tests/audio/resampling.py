"""The definition of resampling in float64, straight from the formula: every output as a sum over the whole signal."""

import math
from fractions import Fraction

import numpy as np
import torch

__all__ = ["BETA", "formula", "off", "read", "stream_in"]

BETA = 14.769656459379492


def _bandwidth(down, up, rolloff):
    return min(down, up) * Fraction(str(rolloff))


def read(length, source, target, width=6, rolloff=0.99):
    """Which inputs outputs read: a table ``[outputs, inputs]``, from fractions."""
    common = math.gcd(source, target)
    down, up = source // common, target // common
    if down == up:
        return np.eye(length, dtype=bool)
    # |b·(m/o - j/n)| < width, times o·n
    bound = width * down * up / _bandwidth(down, up, rolloff)
    distance = np.abs(np.arange(length)[None] * up - np.arange(-(-length * up // down))[:, None] * down)
    return distance < math.ceil(bound)


def formula(x, source, target, method="sinc_interp_hann", width=6, rolloff=0.99, beta=BETA):
    """A signal ``[..., T]`` at another rate, in float64."""
    used = read(x.shape[-1], source, target, width, rolloff)
    common = math.gcd(source, target)
    down, up = source // common, target // common
    if down == up:
        return x.double()
    j, m = np.arange(used.shape[0])[:, None], np.arange(used.shape[1])[None]
    b = min(down, up) * rolloff
    t = np.clip(b * (m / down - j / up), -width, width)
    if method == "sinc_interp_hann":
        window = np.cos(t * np.pi / width / 2) ** 2
    else:
        window = np.i0(beta * np.sqrt(1 - (t / width) ** 2)) / np.i0(beta)
    weights = np.where(used, np.sinc(t) * window * b / down, 0.0)
    return x.double() @ torch.from_numpy(weights).T


def stream_in(stream, x, *sizes):
    pieces = x.split(list(sizes) if len(sizes) > 1 else sizes[0], -1)
    found = [stream(piece) for piece in pieces] + [stream.flush()]
    return torch.cat([piece for piece in found if piece is not None], -1)


def off(y, expected):
    """The greatest difference, by the scale of what is expected."""
    assert y.shape == expected.shape
    return float((y.double() - expected).abs().max() / expected.abs().max().clamp(min=1e-30))
