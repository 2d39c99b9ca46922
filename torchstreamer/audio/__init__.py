"""Sound: operations on samples and frames, each with an offline forward and an exact stream."""

from .resample import Resample, ResampleStream, resample

__all__ = ["Resample", "ResampleStream", "resample"]
