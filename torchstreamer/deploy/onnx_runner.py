"""Runs exported streams with ONNX Runtime and NumPy alone.

This file and those that it imports, `step_runner.py` and `exported_file.py`, need neither torch nor anything else of
this package, so the three can be copied to where no torch is:

    runner = OnnxRunner("model.onnx")
    for chunk in microphone:                 # [C, T] or [B, C, T], any number of samples
        y = runner(chunk)                    # the outputs that the plan gives so far, or None
    y = runner.flush()                       # the rest
"""

from typing import Any, Dict, List, Optional, Sequence, Tuple

try:
    from .exported_file import KEY, SEAL, check_graph, names_of, parse_geometry, read_sealed, refusal
    from .step_runner import StepRunner
except ImportError:  # copied to where this package is not
    from exported_file import KEY, SEAL, check_graph, names_of, parse_geometry, read_sealed, refusal  # type: ignore[import-not-found, no-redef]
    from step_runner import StepRunner  # type: ignore[import-not-found, no-redef]

__all__ = ["OnnxRunner"]


class OnnxRunner(StepRunner):
    """Streams NumPy arrays through a file that `torchstreamer.export` wrote.

    Args:
        path: the ``.onnx`` file
        threads: threads of ONNX Runtime within an operation
        providers: execution providers of ONNX Runtime

    Raises:
        FileNotFoundError: there is no such file
        ValueError: the file is no exported stream
    """

    def __init__(self, path: Any, threads: int = 1, providers: Sequence[str] = ("CPUExecutionProvider",)) -> None:
        import numpy
        import onnxruntime  # type: ignore[import-untyped]

        data = read_sealed(path, SEAL, self.file_error)
        self._numpy = numpy
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            # Of the bytes that were checked. So it can read no other file either.
            self.session = onnxruntime.InferenceSession(data, options, providers=list(providers))
            geometry = parse_geometry(self.session.get_modelmeta().custom_metadata_map.get(KEY, ""))
            self._inputs = [value.name for value in self.session.get_inputs()]
            self._names = [value.name for value in self.session.get_outputs()]
            check_graph(geometry, self.session.get_inputs(), self._names)
            super().__init__(geometry)
        except Exception as error:  # ONNX Runtime has many of its own
            raise self.file_error(refusal(path, str(error) or type(error).__name__)) from error

    def _run(
        self, program: Dict[str, Any], xs: List[Any], lengths: int, first: bool, last: bool
    ) -> Tuple[Dict[str, Any], List[Any]]:
        numpy = self._numpy
        flags = [
            numpy.full([self.batch], lengths, dtype="int64"),
            numpy.full([self.batch], first),
            numpy.full([self.batch], last),
        ]
        taken, gives = names_of(self.geometry)
        given = {**dict(zip(taken, [*map(numpy.ascontiguousarray, xs), *flags], strict=True)), **program}
        # An input that the program does not need is none of the file's.
        outputs = self.session.run(self._names, {name: given[name] for name in self._inputs})
        found = dict(zip(self._names, outputs, strict=True))
        return {name: found["next." + name] for name in program}, [found[name] for name in gives]

    def _initial(self) -> Dict[str, Any]:
        states = self.geometry["states"]
        return {name: self._numpy.zeros(shape, dtype=dtype) for name, (shape, dtype) in states.items()}

    def _zeros(self, shape: Sequence[int], dtype: str) -> Any:
        return self._numpy.zeros(shape, dtype=dtype)

    def _copy(self, x: Any) -> Any:
        return self._numpy.array(x)

    def _concatenate(self, pieces: List[Any]) -> Any:
        return self._numpy.concatenate(pieces, -1)

    def _number(self, n: int) -> Any:
        return self._numpy.array(n)

    def _describe(self, x: Any) -> Optional[Tuple[Tuple[int, ...], str]]:
        return (x.shape, x.dtype.name) if isinstance(x, self._numpy.ndarray) else None
