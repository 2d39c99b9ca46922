"""The list of published models that are streamed as they are, with a verdict for each, read in its source.

Each entry says how the package is installed, how the model is built with random weights, how it is called, and whether
it can be streamed: where it cannot, which operation of the whole signal forbids it.
"""

from . import (
    codecs,
    features,
    layers,
    separation,
    series,
    speech,
    transformers_audio,
    transformers_sequences,
    transformers_speech,
    vocoders,
)
from .listing import Model, Package

__all__ = ["PACKAGES", "Model", "Package"]

PACKAGES: tuple[Package, ...] = (
    transformers_audio.PACKAGE,
    *codecs.PACKAGES,
    *vocoders.PACKAGES,
    *separation.PACKAGES,
    *speech.PACKAGES,
    transformers_speech.PACKAGE,
    transformers_sequences.PACKAGE,
    *layers.PACKAGES,
    *series.PACKAGES,
    *features.PACKAGES,
)
