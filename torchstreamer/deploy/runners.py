"""Runners of exported files, for tensors."""

import json
import os
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from ..core.describe import describe, is_plain
from ..core.state import require_named_tensors, require_plain
from ..errors import StreamInputError, StreamStateError
from .onnx_runner import KEY, OnnxRunner, StepRunner

__all__ = ["OnnxTensorRunner", "PackageRunner", "load"]


class PackageRunner(StepRunner):
    """Streams tensors through an AOTInductor package that `export` wrote.

    Args:
        path: the ``.pt2`` file

    Raises:
        ValueError: the file is no exported stream
    """

    input_error = StreamInputError
    state_error = StreamStateError

    def __init__(self, path: Union[str, Path]) -> None:
        # Private, as all of AOTInductor in Python.
        from torch._inductor import aoti_load_package

        self.loader = aoti_load_package(str(path)).loader
        metadata = self.loader.get_metadata()
        if KEY not in metadata:
            raise ValueError(
                f"invalid_file: {path} has no geometry of a stream; a file of torchstreamer.export was expected; "
                "export the stream anew"
            )
        geometry = json.loads(metadata[KEY])
        self.device = torch.device(geometry["device"])
        self._flags: Dict[Tuple[int, bool, bool], List[Tensor]] = {}
        super().__init__(geometry)

    def _run(self, program: Dict[str, Any], x: Any, lengths: int, first: bool, last: bool) -> Tuple[Any, Any, int, int]:
        key = (lengths, first, last)
        if key not in self._flags:
            if len(self._flags) > 64:
                self._flags.clear()
            counts = torch.full([self.batch], lengths, dtype=torch.int64, device=self.device)
            flags = [torch.full([self.batch], flag, dtype=torch.bool, device=self.device) for flag in (first, last)]
            self._flags[key] = [counts, *flags]
        # The package checks nothing, strides neither.
        given = [x.contiguous(), *self._flags[key], *(value.contiguous() for value in program.values())]
        y, start, stop, *states = self.loader.run(given)
        return dict(zip(program, states, strict=True)), y, int(start[0]), int(stop[0])

    def _initial(self) -> Dict[str, Any]:
        states = self.geometry["states"]
        return {
            name: torch.zeros(shape, dtype=getattr(torch, dtype), device=self.device)
            for name, (shape, dtype) in states.items()
        }

    def _zeros(self, shape: Sequence[int]) -> Any:
        return torch.zeros(list(shape), dtype=getattr(torch, self.dtype), device=self.device)

    def _copy(self, x: Any) -> Any:
        return x.detach().to(self.device, copy=True)

    def _concatenate(self, pieces: List[Any]) -> Any:
        return torch.cat(pieces, -1)

    def _number(self, n: int) -> Any:
        return torch.tensor(n)

    def _describe(self, x: Any) -> Optional[Tuple[Tuple[int, ...], str]]:
        return (tuple(x.shape), _name(x.dtype)) if isinstance(x, Tensor) and is_plain(x) and not x.is_meta else None

    def _check(self, x: Any, begun: bool) -> bool:
        unbatched = super()._check(x, begun)
        if x.device.type != self.device.type or (self.device.index is not None and x.device.index != self.device.index):
            raise StreamInputError(
                f"invalid_chunk: a chunk came on {x.device}; {self.device} was expected; move it with .to()"
            )
        return unbatched


class OnnxTensorRunner(OnnxRunner):
    """`OnnxRunner` for tensors."""

    input_error = StreamInputError
    state_error = StreamStateError

    def __call__(self, x: Any, final: bool = False) -> Any:
        if isinstance(x, Tensor):
            if not is_plain(x):
                raise StreamInputError(
                    f"invalid_chunk: a chunk came with {describe(x)}; a dense tensor was expected; convert it"
                )
            if x.device.type != "cpu" or _name(x.dtype) != self.dtype:
                raise StreamInputError(
                    f"invalid_chunk: a chunk came with {_name(x.dtype)} on {x.device}; {self.dtype} on the cpu was "
                    "expected; convert it with .to()"
                )
            x = x.detach().numpy()
        y = super().__call__(x, final)
        return None if y is None else torch.from_numpy(y)

    def get_state(self) -> Dict[str, Any]:
        return {name: torch.from_numpy(value) for name, value in super().get_state().items()}

    def set_state(self, state: Dict[str, Any]) -> None:
        require_named_tensors(state)
        require_plain(state)
        super().set_state({name: value.detach().cpu().numpy() for name, value in state.items()})


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def load(path: Union[str, "os.PathLike[str]"], threads: int = 1) -> Any:
    """A runner of an exported stream.

    Args:
        path: a file that `export` wrote
        threads: threads of ONNX Runtime, for ``.onnx``

    Returns:
        of ``.pt`` the scripted stream, with everything that a stream promises, for chunks of any size; of ``.pt2`` and
        ``.onnx`` a runner that is called like a stream and gathers chunks of any size to the planned one

    Raises:
        ValueError: the suffix is none of these, or the file is no exported stream

    Example:
        >>> import os, tempfile, torch, torchstreamer as pts
        >>> net = torch.nn.Conv1d(1, 2, 3)
        >>> path = os.path.join(tempfile.mkdtemp(), "net.pt")
        >>> pts.export(pts.create_stream(net), path)
        >>> x = torch.randn(1, 20)
        >>> torch.testing.assert_close(pts.load(path)(x, final=True), net(x))
    """
    suffix = Path(path).suffix
    if suffix == ".pt":
        # Parameters made in inference mode have no version, so packed copies of them would be made anew at every call.
        with torch.inference_mode(False):
            return torch.jit.load(str(path))  # type: ignore[no-untyped-call]
    if suffix == ".pt2":
        return PackageRunner(Path(path))
    if suffix == ".onnx":
        return OnnxTensorRunner(path, threads)
    raise ValueError(f"invalid_suffix: {path} came; '.pt', '.pt2' or '.onnx' was expected; see torchstreamer.export")
