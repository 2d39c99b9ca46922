"""Files that run without Python, or without torch."""

import json
import logging
import os
import warnings
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional, Tuple, Union

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec
from torch.utils.flop_counter import FlopCounterMode

from ..core.stream import BaseStream
from ..core.telling import ProgressCallback, Telling
from ..core.whole_numbers import whole_number
from ..errors import require_packages
from ..graph.fields import keys_of
from ..graph.several import PortedGraphStream
from .backends import SETTINGS
from .chunks import check_stream
from .exported_file import KEY, names_of, parse_geometry
from .files import checked_destination, checked_metadata, checked_suffix, replacing, seal, source_suffix
from .native import source_of
from .native_library import save_library
from .static import StaticStream
from .steady import fresh
from .told import told_of

__all__ = ["FunctionalStep", "export", "geometry"]

_REASONS = {
    ".pt": "a script takes chunks of any size and any rows",
    ".onnx": "ONNX Runtime chooses kernels",
    ".so": "the library takes chunks of any size and any rows",
    **dict.fromkeys((".hpp", ".cpp"), "the class takes one signal in chunks of any size, and holds nothing else"),
}

# A step of so many floating-point operations costs what its products do, and oneDNN's pay.
_LONG = 100_000_000


class FunctionalStep(nn.Module):
    """The step of a `StaticStream` on plain tensors, as exporters take it: all inputs, ``lengths, first, last`` and the
    states in, all outputs, starts, stops and the next states out.

    Args:
        static: the static stream
    """

    def __init__(self, static: StaticStream) -> None:
        super().__init__()
        self.static = static
        self.names = list(static.init_state())

    def forward(self, *given: Tensor) -> Tuple[Tensor, ...]:
        count = len(given) - len(self.names)
        state = dict(zip(self.names, given[count:], strict=True))
        following, flat = self.static.flat_step(state, *given[:count])
        return tuple(value.contiguous() for value in [*flat, *(following[name] for name in self.names)])

    def example(self) -> Tuple[Tensor, ...]:
        """Inputs."""
        state = self.static.init_state()
        clock = state["row.age"]
        xs = [source.zeros(clock.device) for source in self.static.sources]
        return (*xs, clock + self.static.chunk, clock == 0, clock != 0, *state.values())


def geometry(static: StaticStream, stream: BaseStream) -> Dict[str, Any]:
    """What a runner must know of a static stream."""
    state = static.init_state()
    common = {
        "chunk": static.chunk,
        "batch": static.batch,
        "device": str(state["row.age"].device),
        "flush_steps": static.flush_steps,
        "length_multiple": static.length_multiple,
        "min_length": static.min_length,
        "hop": stream.hop,
        "ratio": list(stream.ratio),
        "states": {name: [list(value.shape), _name(value.dtype)] for name, value in state.items()},
    }
    if isinstance(stream, PortedGraphStream):
        return {"version": 2, **common, **several(static, stream)}
    return {
        "version": 1,
        **common,
        "channels": static.channels,
        "dtype": _name(static.dtype),
        "outputs": static.outputs,
        "out_shape": static.out_shape,
        "lag": static.lag,
        "lengths": [static.table.values, static.table.start, static.table.period, static.table.rise],
    }


def several(static: StaticStream, stream: PortedGraphStream) -> Dict[str, Any]:
    """What a runner must know of several inputs and outputs."""
    inputs = [
        {
            "name": source.name,
            "shape": list(source.shape),
            "dtype": _name(source.dtype),
            "time": source.time,
            "rows": source.rows,
            "rate": list(source.rate) if source.time >= 0 else [1, 1],
        }
        for source in static.sources
    ]
    results = [
        {
            "shape": list(result.shape),
            "time": result.time,
            "rows": result.rows,
            "outputs": result.per_step,
            "lag": result.lag,
            "lengths": [table.values, table.start, table.period, table.rise],
        }
        for result, table in zip(static.results, static.tables, strict=True)
    ]
    count = iter(range(len(results)))
    places = [next(count) if slot >= 0 else None for slot in stream.outputs]
    return {"inputs": inputs, "results": results, "structure": laid_out(stream.structure.spec, iter(places))}


def laid_out(structure: TreeSpec, places: Iterator[Optional[int]]) -> Any:
    """A structure of outputs as JSON holds it; what is neither tuple nor list is told by its names."""
    if structure.is_leaf():
        return next(places)
    parts = [laid_out(child, places) for child in structure.children()]
    names = [] if structure.type in (tuple, list) else keys_of(structure)
    if names:
        return {"dict": dict(zip(names, parts, strict=True))}
    return {"list" if structure.type is list else "tuple": parts}


def export(
    stream: BaseStream,
    path: Union[str, "os.PathLike[str]"],
    chunk: Optional[int] = None,
    batch: int = 1,
    autotune: bool = False,
    progress: Optional[ProgressCallback] = None,
    metadata: Optional[Dict[str, Any]] = None,
    sampling_fs: Optional[int] = None,
    **options: Any,
) -> Path:
    """Write a stream to a file.

    | suffix | what it holds | chunks | needs |
    |---|---|---|---|
    | ``.pt`` | the stream, in TorchScript | any | libtorch, in Python or C++ |
    | ``.pt2`` | the static step, compiled by AOTInductor for this kind of machine | gathered to ``chunk`` | libtorch |
    | ``.onnx`` | the static step, states in and out, geometry in the metadata | gathered to ``chunk`` | ONNX Runtime |
    | ``.hpp``, ``.cpp`` | the stream of one signal, as C++17 with its weights | any | a compiler |
    | ``.so`` | the same, built by the system's compiler for this kind of machine | any | a program that loads it |

    Weights are those of this moment. The stream is left alone. `load` gives a runner. A file that was there is replaced
    when the new one is whole.

    Args:
        stream: the stream, from `create_stream`
        path: the file; its suffix says what is written, in capitals too
        chunk: samples per step, a multiple of ``stream.hop``; for ``.pt2`` and ``.onnx`` alone
        batch: rows; for ``.pt2`` and ``.onnx`` alone
        autotune: whether kernels are tried out, which takes minutes; for ``.pt2`` alone
        progress: is told what is at work, as ``progress(stage, done, total)``; see `ProgressCallback`
        metadata: what is to travel with the stream, as ``{"rate_hz": 16000}``: a dict of what JSON holds. It comes back
            as ``load(path).metadata``.
        sampling_fs: samples per second of the signals that the network was trained on, in Hz. It comes back as
            ``load(path).sampling_fs``, and tells the command line what to resample files to
        options: for `StaticStream`, as ``channels`` and ``dtype``; not for ``.pt``. For ``.hpp``, ``.cpp`` and ``.so``
            also ``name``, of the class, ``"Net"`` unless it is given; for ``.hpp`` and ``.cpp`` also ``weights_file``,
            whether the weights stand in a ``.bin`` file of the same name beside it, as they do from 48 MiB on

    Returns:
        the path of the file

    Raises:
        UnsupportedModuleError: a layer has no static form, or cannot be written as C++ (``not_native``)
        ValueError: the suffix is none of these, ``chunk`` is missing or does not fit, an argument is of no use for this
            suffix, ``metadata`` is not what JSON holds, ``sampling_fs`` is no whole number, or an ``.onnx`` file would
            hold complex numbers, or weights that are too large for it
        FileNotFoundError: the folder is missing
        ModuleNotFoundError: a package is missing that writes ``.onnx`` files
        RuntimeError: for ``.so`` there is no compiler, or it failed

    Example:
        >>> import os, tempfile, torch, torchstreamer as pts
        >>> stream = pts.create_stream(torch.nn.Conv1d(1, 2, 3))
        >>> path = pts.export(stream, os.path.join(tempfile.mkdtemp(), "net.pt"), metadata={"rate_hz": 16000})
        >>> pts.load(path).metadata
        {'rate_hz': 16000}
    """
    suffix = checked_suffix(path) or source_suffix(path)
    if suffix is None:
        raise ValueError(
            f"invalid_suffix: {path} came; '.pt', '.pt2', '.onnx', '.so', '.hpp' or '.cpp' was expected; choose one of "
            "these"
        )
    check_stream(stream)
    target = checked_destination(path)
    carried: Dict[str, Any] = {"metadata": checked_metadata(metadata), "told": told_of(stream)}
    if sampling_fs is not None:
        carried["sampling_fs"] = whole_number(sampling_fs, "sampling_fs")
    unused = {"autotune": autotune} if suffix == ".onnx" else {}
    if suffix in (".pt", ".so", ".hpp", ".cpp"):
        unused = {"chunk": chunk is not None, "batch": batch != 1, "autotune": autotune}
    if suffix == ".pt":
        unused |= dict.fromkeys(options, True)
    if suffix in (".hpp", ".cpp"):
        unused["metadata"] = metadata is not None
    if suffix == ".so":
        unused["weights_file"] = "weights_file" in options
    for name, given in unused.items():
        if given:
            raise ValueError(
                f"unused_argument: {name}= came for {path}; it is of no use there, as "
                + _REASONS[suffix]
                + "; leave it out, or write another kind of file"
            )
    if suffix in (".pt2", ".onnx") and chunk is None:
        raise ValueError(
            f"missing_chunk: no chunk= came; samples per step were expected, a multiple of {stream.hop}; a longer step "
            "costs less per sample and answers later"
        )
    if suffix == ".onnx":
        require_packages("an .onnx file is written with it", "onnx", "onnxscript")
    telling = Telling(f"export({type(stream).__name__}, {Path(path).name})", progress)
    with replacing(target, suffix) as place:
        if suffix in (".hpp", ".cpp"):
            telling.expect(2)
            telling.begin("planning the static step")
            text, weights = source_of(stream, target.with_suffix(suffix), carried.get("sampling_fs"), **options)
            telling.begin("writing C++")
            place.write_text(text, encoding="utf-8")
            if weights is not None:
                with replacing(target.with_suffix(".bin"), ".bin") as beside:
                    beside.write_bytes(weights)
        elif suffix == ".so":
            telling.begin("writing C++ and building it")
            save_library(stream, place, carried, **options)
        elif chunk is None:
            telling.begin("scripting the stream")
            _save_script(stream, str(place), json.dumps({"version": 1, **carried}))
        else:
            _save_step(stream, place, chunk, batch, autotune, telling, carried, options)
    telling.end()
    return Path(path)


def _save_script(stream: BaseStream, path: str, about: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit")  # a FutureWarning from torch 2.15 on
        script = torch.jit.script(stream)
        script.reset()
        torch.jit.save(script, path, _extra_files={KEY: about})
    seal(Path(path))


def _save_step(
    stream: BaseStream,
    place: Path,
    chunk: int,
    batch: int,
    autotune: bool,
    telling: Telling,
    carried: Dict[str, Any],
    options: Dict[str, Any],
) -> None:
    anchor = stream.anchor()
    gpu = anchor is not None and anchor.is_cuda
    if place.suffix == ".onnx" and gpu:  # the file is for any device, so it is planned as for a CPU
        stream = fresh(stream).to("cpu")
    telling.expect(3)
    telling.begin("planning the static step")
    static = StaticStream(stream, chunk, batch, validate=False, **options)
    about = json.dumps({**geometry(static, stream), **carried})
    parse_geometry(about)  # what could not be loaded is not written
    step = FunctionalStep(static).eval()
    telling.begin("recording the step with torch.export")
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(step, step.example(), strict=False)
    if place.suffix == ".pt2":
        kernels = "packed" if not gpu and _work(step) > _LONG else ""
        if autotune:
            kernels = "tuned on a GPU" if gpu else "tuned"
        telling.begin("compiling the step with AOTInductor" + (" and trying kernels out" if autotune else ""))
        _save_package(program, str(place), about, kernels)
    else:
        _refuse_complex(program)
        telling.begin("writing the step as ONNX")
        _save_onnx(program, str(place), about, names_of(json.loads(about)), step.names)


def _refuse_complex(program: Any) -> None:
    # Inside of the step they are taken apart; what comes in, goes out or is kept cannot be.
    places = [*program.graph.find_nodes(op="placeholder"), *program.graph.output_node().args[0]]
    if any(isinstance(node.meta.get("val"), Tensor) and node.meta["val"].is_complex() for node in places):
        raise ValueError(
            "complex_values: a chunk, an output or a state of complex numbers came; real ones were expected, as .onnx "
            "files hold no others; take real and imaginary parts as channels (return_complex=False, "
            "complex_input=False), or write .pt or .pt2"
        )


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
    seal(Path(path))


def _save_onnx(program: Any, path: str, about: str, signals: Tuple[List[str], List[str]], names: List[str]) -> None:
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            written = torch.onnx.export(
                program,
                dynamo=True,
                input_names=[*signals[0], *names],
                output_names=[*signals[1], *(f"next.{name}" for name in names)],
                verbose=False,
            )
    finally:
        quiet.setLevel(level)
    assert written is not None
    written.model.metadata_props[KEY] = about
    written.save(path)
    if len(list(Path(path).parent.iterdir())) > 1:  # weights in a file beside it, which no checksum would hold
        raise ValueError(
            "too_large: the weights do not fit into one .onnx file; less than 1.5 GiB was expected; write .pt or .pt2"
        )
    seal(Path(path))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
