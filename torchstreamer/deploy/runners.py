"""Runners of exported files, for tensors."""

import os
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from ..core.describe import describe, is_plain
from ..core.state import require_named_tensors, require_plain
from ..errors import StreamFileError, StreamInputError, StreamStateError
from .exported_file import KEY, parse_geometry, refusal
from .files import read_archive
from .onnx_runner import OnnxRunner
from .step_runner import StepRunner

__all__ = ["OnnxTensorRunner", "PackageRunner"]


class PackageRunner(StepRunner):
    """Streams tensors through an AOTInductor package that `export` wrote.

    Args:
        path: the ``.pt2`` file

    Raises:
        FileNotFoundError: there is no such file
        StreamFileError: the file is no exported stream
    """

    file_error = StreamFileError
    input_error = StreamInputError
    state_error = StreamStateError

    def __init__(self, path: Union[str, "os.PathLike[str]"]) -> None:
        # Private, as all of AOTInductor in Python.
        from torch._inductor import aoti_load_package

        read_archive(path)
        self._flags: Dict[Tuple[int, bool, bool], List[Tensor]] = {}
        try:
            self.loader = aoti_load_package(os.fspath(path)).loader
            geometry = parse_geometry(self.loader.get_metadata().get(KEY, ""))
            self.device = torch.device(geometry["device"])
            super().__init__(geometry)
        except Exception as error:  # torch raises anything
            raise StreamFileError(refusal(path, str(error) or type(error).__name__)) from error

    def _run(
        self, program: Dict[str, Any], xs: List[Any], lengths: int, first: bool, last: bool
    ) -> Tuple[Dict[str, Any], List[Any]]:
        key = (lengths, first, last)
        if key not in self._flags:
            if len(self._flags) > 64:
                self._flags.clear()
            counts = torch.full([self.batch], lengths, dtype=torch.int64, device=self.device)
            flags = [torch.full([self.batch], flag, dtype=torch.bool, device=self.device) for flag in (first, last)]
            self._flags[key] = [counts, *flags]
        # The package checks nothing, strides neither.
        given = [*(x.contiguous() for x in xs), *self._flags[key], *(value.contiguous() for value in program.values())]
        found = self.loader.run(given)
        count = 3 * len(self.results)
        return dict(zip(program, found[count:], strict=True)), list(found[:count])

    def _initial(self) -> Dict[str, Any]:
        states = self.geometry["states"]
        return {
            name: torch.zeros(shape, dtype=getattr(torch, dtype), device=self.device)
            for name, (shape, dtype) in states.items()
        }

    def _zeros(self, shape: Sequence[int], dtype: str) -> Any:
        return torch.zeros(list(shape), dtype=getattr(torch, dtype), device=self.device)

    def _copy(self, x: Any) -> Any:
        return x.detach().to(self.device, copy=True)

    def _concatenate(self, pieces: List[Any]) -> Any:
        return torch.cat(pieces, -1)

    def _number(self, n: int) -> Any:
        return torch.tensor(n)

    def _describe(self, x: Any) -> Optional[Tuple[Tuple[int, ...], str]]:
        return (tuple(x.shape), _name(x.dtype)) if isinstance(x, Tensor) and is_plain(x) and not x.is_meta else None

    def _check(self, x: Any, signal: Dict[str, Any], unbatched: Optional[bool]) -> bool:
        unbatched = super()._check(x, signal, unbatched)
        if x.device.type != self.device.type or (self.device.index is not None and x.device.index != self.device.index):
            raise StreamInputError(
                f"invalid_chunk: a chunk came on {x.device}; {self.device} was expected; move it with .to()"
            )
        return unbatched


class OnnxTensorRunner(OnnxRunner):
    """`OnnxRunner` for tensors."""

    file_error = StreamFileError
    input_error = StreamInputError
    state_error = StreamStateError

    def __call__(self, *chunks: Any, final: bool = False) -> Any:
        arrays = [self._array(x, i) for i, x in enumerate(chunks)]
        return _tensors(super().__call__(*arrays, final=final))

    def _array(self, x: Any, i: int) -> Any:
        if not isinstance(x, Tensor):
            return x
        if not is_plain(x):
            raise StreamInputError(
                f"invalid_chunk: a chunk came with {describe(x)}; a dense tensor was expected; convert it"
            )
        dtype = self.signals[min(i, len(self.signals) - 1)]["dtype"]
        if x.device.type != "cpu" or _name(x.dtype) != dtype:
            raise StreamInputError(
                f"invalid_chunk: a chunk came with {_name(x.dtype)} on {x.device}; {dtype} on the cpu was "
                "expected; convert it with .to()"
            )
        return x.detach().numpy()

    def get_state(self) -> Dict[str, Any]:
        return {name: torch.from_numpy(value) for name, value in super().get_state().items()}

    def set_state(self, state: Dict[str, Any]) -> None:
        require_named_tensors(state)
        require_plain(state)
        super().set_state({name: value.detach().cpu().numpy() for name, value in state.items()})


def _tensors(answer: Any) -> Any:
    if isinstance(answer, dict):
        return {name: _tensors(each) for name, each in answer.items()}
    if isinstance(answer, (tuple, list)):
        return type(answer)(_tensors(each) for each in answer)
    return None if answer is None else torch.from_numpy(answer)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
