"""Files that run without Python, or without torch."""

import importlib.util
import json
import os
import warnings
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ..core.stream import BaseStream
from ..core.telling import ProgressCallback, Telling
from .backends import SETTINGS
from .chunks import check_stream
from .onnx_runner import KEY
from .static import StaticStream
from .steady import fresh

__all__ = ["FunctionalStep", "export", "geometry"]

# A step of so many floating-point operations costs what its products do, and oneDNN's pay.
_LONG = 100_000_000


class FunctionalStep(nn.Module):
    """The step of a `StaticStream` on plain tensors, as exporters take it: ``x, lengths, first, last`` and the states
    in, ``y, start, stop`` and the next states out.

    Args:
        static: the static stream
    """

    def __init__(self, static: StaticStream) -> None:
        super().__init__()
        self.static = static
        self.names = list(static.init_state())

    def forward(self, x: Tensor, lengths: Tensor, first: Tensor, last: Tensor, *states: Tensor) -> Tuple[Tensor, ...]:
        given = dict(zip(self.names, states, strict=True))
        following, y, start, stop = self.static.step(given, x, lengths, first, last)
        return (y.contiguous(), start, stop, *(following[name].contiguous() for name in self.names))

    def example(self) -> Tuple[Tensor, ...]:
        """Inputs."""
        state = self.static.init_state()
        clock = state["row.age"]
        x = clock.new_zeros([self.static.batch, self.static.channels, self.static.chunk], dtype=self.static.dtype)
        return (x, clock + self.static.chunk, clock == 0, clock != 0, *state.values())


def geometry(static: StaticStream, stream: BaseStream) -> Dict[str, Any]:
    """What a runner must know of a static stream."""
    state = static.init_state()
    return {
        "version": 1,
        "chunk": static.chunk,
        "batch": static.batch,
        "channels": static.channels,
        "dtype": _name(static.dtype),
        "device": str(state["row.age"].device),
        "outputs": static.outputs,
        "out_shape": static.out_shape,
        "lag": static.lag,
        "flush_steps": static.flush_steps,
        "length_multiple": static.length_multiple,
        "hop": stream.hop,
        "ratio": list(stream.ratio),
        "lengths": [static.table.values, static.table.start, static.table.period, static.table.rise],
        "states": {name: [list(value.shape), _name(value.dtype)] for name, value in state.items()},
    }


def export(
    stream: BaseStream,
    path: Union[str, "os.PathLike[str]"],
    chunk: Optional[int] = None,
    batch: int = 1,
    autotune: bool = False,
    progress: Optional[ProgressCallback] = None,
    **options: Any,
) -> None:
    """Write a stream to a file.

    | suffix | what it holds | chunks | needs |
    |---|---|---|---|
    | ``.pt`` | the stream, in TorchScript | any | libtorch, in Python or C++ |
    | ``.pt2`` | the static step, compiled by AOTInductor for this kind of machine | gathered to ``chunk`` | libtorch |
    | ``.onnx`` | the static step, states in and out, geometry in the metadata | gathered to ``chunk`` | ONNX Runtime |

    Weights are those of this moment. The stream is left alone. `load` gives a runner.

    Args:
        stream: the stream, from `create_stream`
        path: the file; its suffix says what is written
        chunk: samples per step, a multiple of ``stream.hop``; for ``.pt2`` and ``.onnx``
        batch: rows; for ``.pt2`` and ``.onnx``
        autotune: for ``.pt2``, whether kernels are tried out, which takes minutes
        progress: is told what is at work, as ``progress(stage, done, total)``; see `ProgressCallback`
        options: for `StaticStream`, as ``channels`` and ``dtype``

    Raises:
        UnsupportedModuleError: a layer has no static form
        ValueError: the suffix is none of these, or ``chunk`` is missing or does not fit

    Example:
        >>> import os, tempfile, torch, torchstreamer as pts
        >>> stream = pts.create_stream(torch.nn.Conv1d(1, 2, 3))
        >>> pts.export(stream, os.path.join(tempfile.mkdtemp(), "net.pt"))
    """
    suffix = Path(path).suffix
    if suffix not in (".pt", ".pt2", ".onnx"):
        raise ValueError(f"invalid_suffix: {path} came; '.pt', '.pt2' or '.onnx' was expected; choose one of these")
    check_stream(stream)
    telling = Telling(f"export({type(stream).__name__}, {Path(path).name})", progress)
    if suffix == ".pt":
        telling.begin("scripting the stream")
        _save_script(stream, str(path))
        telling.end()
        return
    if chunk is None:
        raise ValueError(
            f"missing_chunk: no chunk= came; samples per step were expected, a multiple of {stream.hop}; a longer step "
            "costs less per sample and answers later"
        )
    anchor = stream.anchor()
    gpu = anchor is not None and anchor.is_cuda
    if suffix == ".onnx" and gpu:  # the file is for any device, so it is planned as for a CPU
        stream = fresh(stream).to("cpu")
    telling.expect(3)
    telling.begin("planning the static step")
    static = StaticStream(stream, chunk, batch, validate=False, **options)
    step = FunctionalStep(static).eval()
    telling.begin("recording the step with torch.export")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(step, step.example(), strict=False)
    about = json.dumps(geometry(static, stream))
    if suffix == ".pt2":
        kernels = "packed" if not gpu and _work(step) > _LONG else ""
        if autotune:
            kernels = "tuned on a GPU" if gpu else "tuned"
        telling.begin("compiling the step with AOTInductor" + (" and trying kernels out" if autotune else ""))
        _save_package(program, str(path), about, kernels)
    else:
        telling.begin("writing the step as ONNX")
        _save_onnx(program, str(path), about, step.names)
    telling.end()


def _save_script(stream: BaseStream, path: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        script = torch.jit.script(stream)
        script.reset()
        torch.jit.save(script, path)


def _work(step: nn.Module) -> int:
    # Floating-point operations of a step.
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        step(*step.example())  # type: ignore[operator]
    return counter.get_total_flops()


def _save_package(program: Any, path: str, about: str, kernels: str) -> None:
    from torch._inductor import aoti_compile_and_package

    settings = {"aot_inductor.metadata": {KEY: about}, **SETTINGS[kernels]}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        aoti_compile_and_package(program, package_path=path, inductor_configs=settings)


def _save_onnx(program: Any, path: str, about: str, names: List[str]) -> None:
    import logging

    for needed in ("onnx", "onnxscript"):
        if importlib.util.find_spec(needed) is None:
            raise ModuleNotFoundError(
                f"missing_package: there is no {needed}; an .onnx file needs it; pip install torchstreamer[onnx]"
            )
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            written = torch.onnx.export(
                program,
                dynamo=True,
                input_names=["x", "lengths", "first", "last", *names],
                output_names=["y", "start", "stop", *(f"next.{name}" for name in names)],
                verbose=False,
            )
    finally:
        quiet.setLevel(level)
    assert written is not None
    written.model.metadata_props[KEY] = about
    written.save(path)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
