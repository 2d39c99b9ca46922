"""Broken handlers of a network whose signals have even lengths: how they refuse odd ones, and what they hold back."""

from typing import Optional

import torch
from handlers_by_hand import Pyramid, PyramidStream
from torch import Tensor

import torchstreamer as pts


class EndsAnywhere(PyramidStream):
    def check_end(self, x: Optional[Tensor]) -> None:
        pass


class EndsAnywhereWithoutAChunk(PyramidStream):
    def check_end(self, x: Optional[Tensor]) -> None:
        if x is not None:
            super().check_end(x)


class EndsAnywhereWhenScripted(PyramidStream):
    def check_end(self, x: Optional[Tensor]) -> None:
        if not torch.jit.is_scripting():
            PyramidStream.check_end(self, x)


class LosesTheChunk(PyramidStream):
    """Takes the chunk before it looks at the length."""

    def _run(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        try:
            return super()._run(x, final)
        except pts.StreamInputError as error:
            if error.code == "length_multiple":
                self.checked_run(x, False)
            raise


class ForgetsTheSignal(PyramidStream):
    def check_end(self, x: Optional[Tensor]) -> None:
        try:
            super().check_end(x)
        except pts.StreamInputError:
            self.reset()
            raise


class FailsInTheStep(PyramidStream):
    """Looks at the length inside the step, when the stream counts as failed already."""

    def check_end(self, x: Optional[Tensor]) -> None:
        pass

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if final:
            super().check_end(x)
        return super().step(x, final)


class RemembersTheRefusal(PyramidStream):
    """Gives other values after it refused an end, though its state is the same."""

    refused = False

    def check_end(self, x: Optional[Tensor]) -> None:
        self.refused = True
        super().check_end(x)
        self.refused = False

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        y = super().step(x, final)
        return y + 1e-3 if y is not None and self.refused else y


class OtherCode(PyramidStream):
    def check_end(self, x: Optional[Tensor]) -> None:
        try:
            super().check_end(x)
        except pts.StreamInputError as error:
            raise pts.StreamInputError("odd_length: an odd length came; an even one was expected; go on") from error


class OtherError(PyramidStream):
    def check_end(self, x: Optional[Tensor]) -> None:
        try:
            super().check_end(x)
        except pts.StreamInputError as error:
            raise IndexError("odd") from error


class LengthOfAnyEnd(PyramidStream):
    def output_length(self, n: int, final: bool = True) -> int:
        return n if final else max(n - 1, 0)


class LengthOfAnyEndWhenScripted(PyramidStream):
    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        if final and n % 2 != 0 and not torch.jit.is_scripting():
            raise pts.StreamInputError("length_multiple: an odd length came; an even one was expected; go on first")
        return n if final else max(n - 1, 0)


class WaitsForTheMultiple(PyramidStream):
    """Holds back, at odd lengths, an output on which all even lengths agree, and says so."""

    def __init__(self, net: Pyramid) -> None:
        super().__init__(net)
        self.late = pts.RingBuffer()

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        y = super().step(x, final)
        if y is None and self.late.length() == 0:
            return None
        window = self.late.window() if y is None else self.late.append(y)
        ready = window.size(-1) - (0 if final else self.odd.value)
        if ready <= 0:
            return None
        self.late.drop(ready)
        return window[..., :ready]

    def output_length(self, n: int, final: bool = True) -> int:
        return super().output_length(n, True) if final else max(n // 2 * 2 - 1, 0)


class EarlyBetweenMultiples(PyramidStream):
    """Counts, at odd lengths, an output that the next sample decides."""

    def output_length(self, n: int, final: bool = True) -> int:
        return super().output_length(n, True) if final else max(n - 1 + n % 2, 0)


class HopTooShort(PyramidStream):
    """Counts samples modulo 2, and says that its state repeats with every sample."""

    def __init__(self, net: Pyramid) -> None:
        super().__init__(net)
        self.hop = 1
