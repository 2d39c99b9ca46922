"""`torchstreamer export`: a model as a file."""

from pathlib import Path
from typing import Any, Dict, Optional

from ..deploy.export import export as write
from .failing import Code, Failure, blame
from .model import open_model
from .quantities import samples_in

__all__ = ["export_command"]


def export_command(
    name: str,
    output: Path,
    rate: Optional[int],
    chunk: Optional[str],
    batch: int,
    channels: Optional[int],
    example: Optional[str],
) -> None:
    """Write it; see `app.export`."""
    model = open_model(name, rate, example)
    if model.net is None:
        raise Failure(Code.USAGE, f"{name} came; package.module:factory was expected, as a file is exported already")
    options: Dict[str, Any] = {}
    if chunk is not None:
        if chunk.strip().endswith("s"):
            model.needed_rate()
        options["chunk"] = samples_in(chunk, model.rate_hz or 1)
        options["batch"] = batch
        options["dtype"] = model.dtype
        if channels or model.channels:
            options["channels"] = channels or model.channels
    elif batch != 1:
        options["batch"] = batch
    if output.suffix in (".hpp", ".cpp") and (channels or model.channels):
        options["channels"] = channels or model.channels
    try:
        path = write(model.stream, output, sampling_fs=model.rate_hz, **options)
    except OSError as error:
        with blame(Code.OUTPUT):
            raise error
    except ValueError as error:
        text = str(error)
        raise Failure(Code.USAGE if _typed(text) else Code.MODEL, text) from error
    print(f"wrote {path}  {path.stat().st_size / 1e6:.3g} MB, {f'{model.rate_hz} Hz' if model.rate_hz else 'no rate'}")


def _typed(text: str) -> bool:
    # Whether it is about what was typed, and not about the model.
    return text.split(":")[0] in (
        "invalid_suffix",
        "missing_chunk",
        "unused_argument",
        "invalid_chunk",
        "invalid_batch",
    )
