"""What is known of a model: read from a stream, a script or an exported file."""

import math
from collections import Counter
from typing import Any, Dict, Optional, Tuple

import torch

from ..analysis import StreamSummary, receptive_field, summary
from ..core.stream import BaseStream
from ..deploy.static import StaticStream
from ..errors import StreamError
from .failing import Code, Failure, blame
from .model import Model

__all__ = ["facts_of", "layers_of"]

_PARTS = {"Sequential1dStream", "Residual1dStream", "Parallel1dStream", "GraphStream", "PortedGraphStream"}


def facts_of(model: Model) -> Dict[str, Any]:
    """Plain values, by name; ``None`` where something cannot be known."""
    with blame(Code.MODEL), torch.no_grad():
        stream = model.stream
        found: Dict[str, Any] = {
            "model": model.name,
            "kind": model.kind,
            "dtype": str(model.dtype).removeprefix("torch."),
            "parameters": _parameters(model),
            "rate_hz": model.rate_hz,
            "channels": model.channels or None,
            "rows": model.rows or None,
            "ratio": list(map(int, stream.ratio)),
            "hop": int(stream.hop),
        }
        found.update(_latency(model))
        found["past"] = _past(stream)
        found["out_channels"], found["state_nbytes"] = _tried(model)
        found["static"] = _static(model)
        found["streams"] = dict(_kinds(stream).most_common())
        found["metadata"] = dict(getattr(stream, "metadata", None) or {})
    return found


def layers_of(model: Model) -> StreamSummary:
    """What every layer does and costs.

    Raises:
        Failure: it is a file, which does not know
    """
    if not isinstance(model.stream, BaseStream):
        raise Failure(Code.USAGE, f"--layers came with {model.name}; package.module:factory was expected; name one")
    with blame(Code.MODEL):
        chunk = model.stream.hop
        return summary(model.stream, chunk, model.rate_hz, x=model.noise(chunk), calls=3)


def _parameters(model: Model) -> Any:
    source: Any = model.net if model.net is not None else model.stream
    return sum(value.numel() for value in source.parameters()) if hasattr(source, "parameters") else None


def _latency(model: Model) -> Dict[str, Any]:
    # By what `output_length` says, which scripts and runners have too.
    stream = model.stream
    outs, ins = map(int, stream.ratio)
    hop = int(stream.hop)

    def out(n: int) -> int:
        return int(stream.output_length(n, False))

    def needed(output: int) -> int:
        high = 1
        while out(high) <= output:
            high *= 2
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if out(middle) <= output else (low, middle)
        return high

    first = needed(0)
    begin = -(-2 * first // ins) * outs
    period = max(outs * hop // math.gcd(hop, ins), outs)
    ahead = max(needed(begin + i) - 1 - (begin + i) * ins // outs for i in range(min(period, 4096)))
    return {"first_output": first, "lookahead": ahead}


def _past(stream: Any) -> Any:
    if not isinstance(stream, BaseStream):
        return None
    try:
        left = receptive_field(stream).left
    except StreamError:
        return None
    return "unbounded" if math.isinf(left) else int(left)


def _static(model: Model) -> Optional[bool]:
    # Whether it has a static form, which .pt2 and .onnx files hold; files do not know.
    if not isinstance(model.stream, BaseStream):
        return None
    try:
        StaticStream(
            model.stream, chunk=model.stream.hop, channels=model.channels or None, validate=False, dtype=model.dtype
        )
    except (StreamError, ValueError):
        return False
    return True


def _tried(model: Model) -> Tuple[Optional[int], int]:
    # Channels of the output, and bytes that one signal takes, after some of it.
    stream = model.stream
    samples = max(-(-4096 // stream.hop), 4) * stream.hop
    outputs = [stream(model.noise(samples)) for _ in range(4)]
    size = stream.state_nbytes
    size = int(size() if callable(size) else size) // (model.rows or 1)
    stream.reset()
    y = outputs[-1]
    return (int(y.shape[1]) if isinstance(y, torch.Tensor) and y.dim() == 3 else None), size


def _kinds(stream: Any) -> "Counter[str]":
    kinds: "Counter[str]" = Counter()
    for module in stream.modules() if hasattr(stream, "modules") else ():
        name = getattr(module, "original_name", type(module).__name__)
        if name.endswith("Stream") and name not in _PARTS:
            kinds[name] += 1
    return kinds
