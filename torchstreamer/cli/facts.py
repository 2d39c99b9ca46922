"""What is known of a model: read from a stream, a script or an exported file."""

import math
from typing import Any, Dict, Optional, Tuple

import torch

from ..analysis import StreamSummary, summary
from ..core.stream import BaseStream
from ..deploy.static import StaticStream
from ..deploy.told import told_of
from ..errors import StreamError
from .failing import Code, Failure, blame
from .model import Model

__all__ = ["facts_of", "layers_of"]


def facts_of(model: Model) -> Dict[str, Any]:
    """Plain values, by name; ``None`` where something cannot be known."""
    with blame(Code.MODEL), torch.no_grad():
        stream = model.stream
        told = told_of(stream) if isinstance(stream, BaseStream) else stream.told
        found: Dict[str, Any] = {
            "model": model.name,
            "kind": model.kind,
            "dtype": str(model.dtype).removeprefix("torch."),
            "parameters": told.get("parameters"),
            "rate_hz": model.rate_hz,
            "channels": model.channels or None,
            "rows": model.rows or None,
            "ratio": list(map(int, stream.ratio)),
            "hop": int(stream.hop),
        }
        found.update(_latency(model))
        found["past"] = told.get("past")
        found["out_channels"], found["state_nbytes"] = _tried(model)
        found["static"] = _static(model)
        found["streams"] = told.get("streams", {})
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
