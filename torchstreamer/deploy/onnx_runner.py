"""Runs exported streams with ONNX Runtime and NumPy alone.

This file and `exported_file.py`, which it imports, need neither torch nor anything else of this package, so the two can
be copied to where no torch is:

    runner = OnnxRunner("model.onnx")
    for chunk in microphone:                 # [C, T] or [B, C, T], any number of samples
        y = runner(chunk)                    # the outputs that the plan gives so far, or None
    y = runner.flush()                       # the rest
"""

from threading import RLock
from typing import Any, Dict, List, Optional, Sequence, Tuple

try:
    from .exported_file import (
        KEY,
        OPEN,
        SEAL,
        check_graph,
        parse_geometry,
        possible_row,
        read_sealed,
        refusal,
        sampling_rate,
        told,
    )
except ImportError:  # copied to where this package is not
    from exported_file import (  # type: ignore[import-not-found, no-redef]
        KEY,
        OPEN,
        SEAL,
        check_graph,
        parse_geometry,
        possible_row,
        read_sealed,
        refusal,
        sampling_rate,
        told,
    )

__all__ = ["OnnxRunner", "StepRunner"]


class StepRunner:
    """Feeds chunks of any size to a program that takes steps of one size.

    Samples are gathered until a step is full. The outputs come at the lag of the plan, `output_length` says when; from
    first to last they are those of the network on the whole signal.

    Args:
        geometry: what `torchstreamer.export` wrote about the program

    Attributes:
        chunk: samples per step
        batch: rows
        hop: input period after which the state repeats its shape
        ratio: outputs per inputs, a pair of integers
        flush_steps: steps that the end of a signal takes
        dtype: of the input, by name
        metadata: what was given to `torchstreamer.export`
        sampling_fs: samples per second of the signals that it is for, or ``None``
        told: what the stream was like that the program was made of
    """

    # What a subclass raises.
    file_error: Any = ValueError
    input_error: Any = ValueError
    state_error: Any = RuntimeError

    def __init__(self, geometry: Dict[str, Any]) -> None:
        self.geometry = geometry
        self.metadata: Dict[str, Any] = geometry["metadata"]
        self.sampling_fs = sampling_rate(geometry)
        self.told = told(geometry)
        self.chunk = int(geometry["chunk"])
        self.batch = int(geometry["batch"])
        self.channels = int(geometry["channels"])
        self.outputs = int(geometry["outputs"])
        self.lag = int(geometry["lag"])
        self.flush_steps = int(geometry["flush_steps"])
        self.length_multiple = int(geometry["length_multiple"])
        self.dtype = str(geometry["dtype"])
        self.hop = self.chunk
        self.ratio = (int(geometry["ratio"][0]), int(geometry["ratio"][1]))
        self._values, self._start, self._period, self._rise = geometry["lengths"]
        self._program: Dict[str, Any] = {}  # the state of the program
        self._pending: Any = None  # samples that fill no step yet
        self._unbatched = False
        self._steps = 0
        self._failed = False
        self._turn = RLock()
        self.reset()

    # ------------------------------------------------------------------ the interface

    def __call__(self, x: Any, final: bool = False) -> Any:
        """Take a chunk and give the outputs of all steps that it fills.

        Args:
            x: ``[batch, C, T]``, or ``[C, T]`` where ``batch`` is 1; or ``None`` for nothing new
            final: whether the signal ends here; gives all that is left, and the runner is as new

        Returns:
            the new output samples, or ``None`` if there are none

        Raises:
            ValueError: the chunk does not fit; nothing was written
            RuntimeError: an earlier call failed half-way, or a call of another thread runs
        """
        self._take_turn()
        try:
            return self._advance(x, final)
        finally:
            self._turn.release()

    def _advance(self, x: Any, final: bool) -> Any:
        self._ensure_sound()
        pending, unbatched = self._pending, self._unbatched
        if x is not None:
            unbatched = self._check(x, pending is not None)
            x = self._copy(x[None] if unbatched else x)
            pending = x if pending is None else self._concatenate([pending, x])
        came = 0 if pending is None else int(pending.shape[2])
        total = self._steps * self.chunk + came
        if final and total % self.length_multiple:
            raise self.input_error(
                f"length_multiple: the signal ends after {total} samples; a multiple of {self.length_multiple} was "
                "expected; go on to the next multiple, or call reset()"
            )
        self._failed = True
        self._unbatched = unbatched
        pieces: List[Any] = []
        done = 0
        if pending is not None:
            while came - done >= self.chunk:
                self._take(pending[:, :, done : done + self.chunk], False, pieces)
                done += self.chunk
            rest = pending[:, :, done:]
            self._pending = self._copy(rest) if done else rest
        if final and total > 0:
            self._take(self._pending, True, pieces)
            for _ in range(self.flush_steps):
                self._take(None, False, pieces)
        y = None
        if pieces:
            y = self._copy(pieces[0]) if len(pieces) == 1 else self._concatenate(pieces)
            y = y[0] if unbatched else y
        if final:
            self.reset()
        self._failed = False
        return y

    def flush(self) -> Any:
        """End the signal: the same as a call with ``None`` and ``final=True``."""
        return self(None, True)

    def reset(self) -> None:
        """Forget the signal. The runner is as new."""
        self._take_turn()
        try:
            self._program = self._initial()
            self._pending = None
            self._unbatched = False
            self._steps = 0
            self._failed = False
        finally:
            self._turn.release()

    def output_length(self, n: int, final: bool = True) -> int:
        """Number of samples out after ``n`` samples in.

        Args:
            n: input length, in samples
            final: whether the signal ends there
        """
        if n <= 0:
            return 0
        if not final:
            return max(n // self.chunk * self.outputs - self.lag, 0)
        if n % self.length_multiple:
            raise self.input_error(
                f"length_multiple: a length of {n} samples came; a multiple of {self.length_multiple} was expected; "
                "pad the signal"
            )
        turns = max((n - self._start) // self._period, 0)
        return int(self._values[n - turns * self._period] + turns * self._rise)

    def get_state(self) -> Dict[str, Any]:
        """A copy of everything the runner remembers: arrays, rows first, and whole numbers of no dimension."""
        self._take_turn()
        try:
            return self._collect_state()
        finally:
            self._turn.release()

    def _collect_state(self) -> Dict[str, Any]:
        self._ensure_sound()
        state = {name: self._copy(value) for name, value in self._program.items()}
        if self._pending is not None:
            state["@pending"] = self._copy(self._pending)
        state["@steps"] = self._number(self._steps)
        state["@unbatched"] = self._number(int(self._unbatched))
        return state

    def set_state(self, state: Dict[str, Any]) -> None:
        """Continue from a state that `get_state` gave, of a runner of the same file.

        Raises:
            ValueError: the state does not fit; nothing was written
        """
        expected = self._initial()
        whole = isinstance(state, dict) and {*expected, "@steps", "@unbatched"} == set(state) - {"@pending"}
        if not (whole and self._fits(state, expected)):
            raise self.input_error(
                "invalid_state: the state is that of another program, or not whole, or its entries do not belong "
                "together; a state that get_state() of a runner of this file gave was expected; take it anew"
            )
        program = {name: self._copy(state[name]) for name in expected}
        pending = self._copy(state["@pending"]) if "@pending" in state else None
        self._take_turn()
        try:
            self._program = program
            self._pending = pending
            self._steps = int(state["@steps"])
            self._unbatched = bool(int(state["@unbatched"]))
            self._failed = False
        finally:
            self._turn.release()

    def _fits(self, state: Dict[str, Any], expected: Dict[str, Any]) -> bool:
        # Shapes and dtypes, and the whole numbers together: between calls, all rows are as old as the runner.
        if any(self._describe(state[name]) != self._describe(value) for name, value in expected.items()):
            return False
        if any(self._describe(state[name]) != ((), "int64") for name in ("@steps", "@unbatched")):
            return False
        steps, unbatched = int(state["@steps"]), int(state["@unbatched"])
        clocks = (steps, OPEN, -1) if steps else (0, 0, 0)
        for name, clock in zip(("row.age", "row.total", "row.left"), clocks, strict=True):
            if any(value != clock for value in state[name].reshape(-1).tolist()):
                return False
        if not possible_row(*clocks, self.chunk, self.flush_steps, self.length_multiple):
            return False
        if "@pending" not in state:
            return steps == unbatched == 0
        found = self._describe(state["@pending"])
        if found is None or unbatched not in ((0, 1) if self.batch == 1 else (0,)):
            return False
        shape, dtype = found
        return (
            len(shape) == 3
            and shape[:2] == (self.batch, self.channels)
            and shape[2] < self.chunk
            and dtype == self.dtype
        )

    def state_nbytes(self) -> int:
        """Bytes of the state, the gathered samples among them."""
        kept = [*self._program.values()] + ([] if self._pending is None else [self._pending])
        return sum(int(value.nbytes) for value in kept)

    def __repr__(self) -> str:
        shape = f"[{self.batch}, {self.channels}, {self.chunk}]"
        return f"{type(self).__name__}({shape}, outputs={self.outputs}, lag={self.lag}, ratio={self.ratio})"

    # ------------------------------------------------------------------ what a subclass knows

    def _run(self, program: Dict[str, Any], x: Any, lengths: int, first: bool, last: bool) -> Tuple[Any, Any, int, int]:
        """One step: the next state of the program, the outputs, and from where to where they are valid."""
        raise NotImplementedError

    def _initial(self) -> Dict[str, Any]:
        raise NotImplementedError

    def _zeros(self, shape: Sequence[int]) -> Any:
        raise NotImplementedError

    def _copy(self, x: Any) -> Any:
        raise NotImplementedError

    def _concatenate(self, pieces: List[Any]) -> Any:
        raise NotImplementedError

    def _number(self, n: int) -> Any:
        raise NotImplementedError

    def _describe(self, x: Any) -> Optional[Tuple[Tuple[int, ...], str]]:
        """Shape and dtype of an array, ``None`` if it is none, or not a plain one."""
        raise NotImplementedError

    # ------------------------------------------------------------------ inside

    def _take(self, x: Any, last: bool, pieces: List[Any]) -> None:
        came = 0 if x is None else int(x.shape[2])
        if x is None:
            x = self._zeros([self.batch, self.channels, self.chunk])
        elif came < self.chunk:
            x = self._concatenate([x, self._zeros([self.batch, self.channels, self.chunk - came])])
        first = self._steps == 0
        self._program, y, start, stop = self._run(self._program, x, came, first, last)
        self._steps += 1
        if stop > start:
            pieces.append(y[..., start:stop])

    def _check(self, x: Any, begun: bool) -> bool:
        found = self._describe(x)
        if found is None:
            raise self.input_error(
                f"invalid_chunk: the chunk is a {type(x).__name__} that is no dense array; an array [B, C, T] or "
                "[C, T] was expected; convert it"
            )
        shape, dtype = found
        unbatched = len(shape) == 2
        good = len(shape) in (2, 3) and shape[-2] == self.channels and dtype == self.dtype
        good = good and (self.batch == 1 if unbatched else shape[0] == self.batch)
        if begun:
            good = good and unbatched == self._unbatched
        if not good:
            expected = f"[{self.batch}, {self.channels}, T]"
            if self.batch == 1:
                expected += f" or [{self.channels}, T]"
            raise self.input_error(
                f"invalid_chunk: a chunk came with shape {list(shape)}, {dtype}; {expected}, {self.dtype}, was "
                "expected, of one rank through a signal; reshape or convert it"
            )
        return unbatched

    def _take_turn(self) -> None:
        if not self._turn.acquire(blocking=False):
            raise self.state_error(
                "in_use: the runner is in use by another thread, whose call goes on unharmed; one call at a time was "
                "expected; give each thread a runner of its own"
            )

    def __copy__(self) -> Any:
        raise self.state_error(
            "shallow_copy: copy.copy of a runner shares its memory, and the two disturb each other; one with "
            "memory of its own was expected, as of copy.deepcopy; load the file again and set its state"
        )

    def _ensure_sound(self) -> None:
        if self._failed:
            raise self.state_error(
                "failed_stream: an earlier call failed half-way, so the state is not that of any signal; a sound "
                "runner was expected; call reset(), or set_state() with an earlier state"
            )


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

    def _run(self, program: Dict[str, Any], x: Any, lengths: int, first: bool, last: bool) -> Tuple[Any, Any, int, int]:
        numpy = self._numpy
        given = {
            "x": numpy.ascontiguousarray(x),
            "lengths": numpy.full([self.batch], lengths, dtype="int64"),
            "first": numpy.full([self.batch], first),
            "last": numpy.full([self.batch], last),
            **program,
        }
        # An input that the program does not need is none of the file's.
        outputs = self.session.run(self._names, {name: given[name] for name in self._inputs})
        found = dict(zip(self._names, outputs, strict=True))
        following = {name: found["next." + name] for name in program}
        return following, found["y"], int(found["start"][0]), int(found["stop"][0])

    def _initial(self) -> Dict[str, Any]:
        states = self.geometry["states"]
        return {name: self._numpy.zeros(shape, dtype=dtype) for name, (shape, dtype) in states.items()}

    def _zeros(self, shape: Sequence[int]) -> Any:
        return self._numpy.zeros(shape, dtype=self.dtype)

    def _copy(self, x: Any) -> Any:
        return self._numpy.array(x)

    def _concatenate(self, pieces: List[Any]) -> Any:
        return self._numpy.concatenate(pieces, -1)

    def _number(self, n: int) -> Any:
        return self._numpy.array(n)

    def _describe(self, x: Any) -> Optional[Tuple[Tuple[int, ...], str]]:
        return (x.shape, x.dtype.name) if isinstance(x, self._numpy.ndarray) else None
