"""Lengths of time and shapes, as people type them."""

import re
from typing import List, Tuple

from .failing import Code, Failure

__all__ = ["chunks_of", "clock", "duration", "samples_in", "shape_of"]


def samples_in(text: str, rate_hz: int) -> int:
    """``10ms``, ``0.5s`` or ``480`` as samples, at least 1."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|)", text.strip())
    if found is None or float(found[1]) == 0 or (not found[2] and "." in found[1]):
        raise Failure(
            Code.USAGE, f"{text!r} came as a length; a time such as 10ms or 1s, or samples such as 480, were expected"
        )
    number = float(found[1]) * {"ms": rate_hz / 1000, "s": rate_hz, "": 1}[found[2]]
    return max(round(number), 1)


def chunks_of(text: str, rate_hz: int) -> List[Tuple[str, int]]:
    """Several lengths, between commas: each as it was typed, and in samples."""
    return [(part.strip(), samples_in(part, rate_hz)) for part in text.split(",")]


def shape_of(text: str) -> List[int]:
    """``1,1,4000`` as numbers."""
    if re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text) is None:
        raise Failure(Code.USAGE, f"{text!r} came as a shape; sizes between commas were expected, such as 1,1,4000")
    return [int(part) for part in text.split(",")]


def clock(seconds: float) -> str:
    """Seconds as ``3:12``, or ``1:02:03``."""
    whole = int(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def duration(seconds: float) -> str:
    """A length of time in the unit that suits it."""
    if seconds >= 1:
        return f"{seconds:.3g} s"
    return f"{1e3 * seconds:.3g} ms" if seconds >= 1e-3 else f"{1e6 * seconds:.3g} µs"
