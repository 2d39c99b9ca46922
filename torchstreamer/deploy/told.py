"""What a file tells of the stream that is in it, for those who only have the file."""

import math
from collections import Counter
from typing import Any, Dict, Optional, Union

from ..core.stream import BaseStream
from ..errors import StreamError

__all__ = ["kinds_in", "past_of", "told_of"]

_PARTS = {"Sequential1dStream", "Residual1dStream", "Parallel1dStream", "GraphStream", "PortedGraphStream"}


def told_of(stream: BaseStream) -> Dict[str, Any]:
    """Plain values, by name: what `past_of` and `kinds_in` give, and how many parameters there are."""
    return {
        "past": past_of(stream),
        "streams": dict(kinds_in(stream).most_common()),
        "parameters": sum(weight.numel() for weight in stream.parameters()),
    }


def past_of(stream: BaseStream) -> Optional[Union[int, str]]:
    """Samples that an output looks back, ``"unbounded"``, or ``None`` where the geometry does not say it."""
    # Nobody needs the analysis who exports nothing.
    from ..analysis.field import receptive_field
    from ..analysis.geometry import has_rule

    if not all(has_rule(part) for part in stream.modules() if isinstance(part, BaseStream)):
        return None
    try:
        left = receptive_field(stream).left
    except (StreamError, ValueError):
        return None
    return "unbounded" if math.isinf(left) else int(left)


def kinds_in(stream: BaseStream) -> "Counter[str]":
    """How many handlers of each kind are in a stream; containers do not count."""
    kinds: "Counter[str]" = Counter()
    for module in stream.modules():
        name = type(module).__name__
        if name.endswith("Stream") and name not in _PARTS:
            kinds[name] += 1
    return kinds
