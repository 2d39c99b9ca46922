"""The line that sound goes through: resampled to the model's rate, streamed, and resampled back."""

from fractions import Fraction
from typing import Any, List, Optional

import torch
from torch import Tensor

from ..core.registry import create_stream
from .failing import Code, Failure, blame
from .model import Model

__all__ = ["Line"]


class Line:
    """Takes blocks ``[channels, t]`` of sound and gives those of the output.

    The output has as many samples as the input where the model's has: resampling there and back may give some more,
    which are left out.

    Args:
        model: the model
        rate_hz: of the input
        channels: of the input

    Attributes:
        rate_out_hz: of the output
        resampled: whether anything is resampled
        apart: whether the channels go through the model one by one

    Raises:
        Failure: the model does not take such sound
    """

    def __init__(self, model: Model, rate_hz: int, channels: int) -> None:
        inner = model.needed_rate()
        self.model = model
        self.resampled = inner != rate_hz
        self.apart = model.channels in (0, 1) and channels > 1
        self.ratio = Fraction(*map(int, model.stream.ratio))
        if not self.apart and model.channels not in (0, channels):
            raise Failure(
                Code.USAGE,
                f"wrong_channels: the input has {channels}; {model.channels} were expected, as {model.name} takes; mix "
                "it first",
            )
        rows = channels if self.apart else 1
        if model.rows > 1:
            raise Failure(
                Code.USAGE,
                f"wrong_batch: {model.name} was exported for {model.rows} rows; 1 was expected; give export --batch 1",
            )
        self.rate_out_hz = _whole(rate_hz * self.ratio, model)
        self._stages: List[Any] = []
        with blame(Code.MODEL):
            if self.resampled:
                self._stages.append(_resampler(rate_hz, inner))
            streams = [model.stream, *(model.again() for _ in range(rows - 1))] if model.rows else [model.stream]
            self._net = streams[0] if len(streams) == 1 else _SideBySide(streams)
            self._stages.append(self._counted)
            if self.resampled:
                self._stages.append(_resampler(_whole(inner * self.ratio, model), self.rate_out_hz))
        self._came = self._inside = self._outside = 0
        self._gone = 0
        self._waiting: Optional[Tensor] = None

    def __call__(self, block: Optional[Tensor], final: bool = False) -> Optional[Tensor]:
        """Take a block, or ``None`` for nothing new, and give ``[channels, t]``, or ``None``."""
        y: Optional[Tensor] = None
        if block is not None:
            self._came += block.shape[1]
            y = (block[:, None] if self.apart else block[None]).to(self.model.dtype)
        with torch.inference_mode(), blame(Code.MODEL):
            for stage in self._stages:
                if y is not None or final:
                    y = stage(y, final)
        if y is not None and y.dim() != 3:
            raise Failure(
                Code.MODEL,
                f"wrong_output: the model gives {list(y.shape)}; [B, C, T] was expected; call it from Python",
            )
        return self._kept(None if y is None else y.reshape(-1, y.shape[-1]), final)

    def _counted(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        y = self._net(x, final)
        self._inside += 0 if x is None else x.shape[-1]
        self._outside += 0 if y is None else y.shape[-1]
        return y

    def _kept(self, y: Optional[Tensor], final: bool) -> Optional[Tensor]:
        # What is beyond the length of the input waits, until it is known whether the model itself gives more.
        if not self.resampled:
            return y
        if self._waiting is not None:
            y = self._waiting if y is None else torch.cat([self._waiting, y], -1)
        if y is None:
            return None
        keeps = self._outside == self._inside * self.ratio
        room = max(-(-self._came * self.ratio.numerator // self.ratio.denominator) - self._gone, 0)
        if final and not keeps:
            room = y.shape[-1]
        given, rest = y[:, :room], y[:, room:]
        self._waiting = rest.clone() if rest.shape[-1] and not final else None
        self._gone += given.shape[-1]
        return given if given.shape[-1] else None


class _SideBySide:
    # Programs of one row, one for each.
    def __init__(self, streams: List[Any]) -> None:
        self.streams = streams

    def __call__(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        given = [None] * len(self.streams) if x is None else list(torch.split(x, 1))
        found = [stream(row, final) for stream, row in zip(self.streams, given, strict=True)]
        return None if found[0] is None else torch.cat(found)


def _whole(rate: Fraction, model: Model) -> int:
    if rate.denominator != 1:
        raise Failure(
            Code.USAGE,
            f"wrong_rate: {model.name} would give {float(rate):g} samples per second; a whole number was expected; "
            "resample the input first",
        )
    return int(rate)


def _resampler(source_hz: int, target_hz: int) -> Any:
    from ..audio import Resample

    return create_stream(Resample(source_hz, target_hz))
