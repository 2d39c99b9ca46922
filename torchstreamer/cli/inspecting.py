"""`torchstreamer inspect`: what a model takes and gives."""

import json
from typing import Any, Dict, List, Optional

from .facts import facts_of, layers_of
from .model import Model, open_model
from .quantities import duration

__all__ = ["inspect_command"]


def inspect_command(name: str, rate: Optional[int], example: Optional[str], layers: bool, as_json: bool) -> None:
    """Print it; see `app.inspect`."""
    model = open_model(name, rate, example)
    found = facts_of(model)
    told = layers_of(model) if layers else None
    if told is not None:
        found["layers"] = told.as_dict()["layers"]
    if as_json:
        print(json.dumps(found))
        return
    for head, text in _lines(model, found):
        print(f"{head:15s} {text}".rstrip())
    if told is not None:
        print(f"\n{told}")


def _lines(model: Model, found: Dict[str, Any]) -> List[List[str]]:
    rate = found["rate_hz"]

    def length(samples: Any) -> str:
        if not isinstance(samples, int):
            return str(samples)
        time = f" ({duration(samples / rate)})" if rate and samples else ""
        return f"{samples:,} {'sample' if samples == 1 else 'samples'}{time}"

    about = [found["kind"], found["dtype"]]
    if found["parameters"] is not None:
        about.append(f"{found['parameters']:,} parameters")
    about.append(f"{rate} Hz" if rate else "rate not known")
    outs, ins = found["ratio"]
    rows = found["rows"] or "B"
    shape = f"in [{rows}, {found['channels'] or 'C'}, T]"
    lines = [
        [found["model"], ", ".join(about)],
        [shape, f"out [{rows}, {found['out_channels'] or 'C'}, T']   ratio {outs}/{ins}   hop {length(found['hop'])}"],
        [
            "latency",
            f"first sample out after {length(found['first_output'])} in; look-ahead {length(found['lookahead'])}",
        ],
    ]
    past = {None: "", "unbounded": "all of the past   "}.get(found["past"], f"{length(found['past'])} of the past   ")
    lines.append(["remembers", f"{past}state {found['state_nbytes'] / 1000:,.3g} kB per signal"])
    if found["streams"]:
        kinds = ", ".join(f"{count} {name}" for name, count in found["streams"].items())
        lines.append(["layers", f"{sum(found['streams'].values())} streams: {kinds}"])
    chunks = "any chunk" if model.kind in ("module", "TorchScript") else f"steps of {length(model.stream.chunk)}"
    if found["static"] is not None:
        static = "yes" if found["static"] else "no"
        chunks += f"; StaticStream {static}; .pt2 {static}; .onnx {static}"
    lines.append(["streams in", chunks])
    if found["metadata"]:
        lines.append(["metadata", json.dumps(found["metadata"])])
    return lines
