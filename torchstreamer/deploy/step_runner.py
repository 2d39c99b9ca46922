"""Feeds chunks of any size to a program that takes steps of one size, whatever runs the program.

This file needs neither torch nor anything else of this package but `exported_file.py`, so it can be copied to where no
torch is, with that and `onnx_runner.py`.
"""

from threading import RLock
from typing import Any, Dict, List, Optional, Sequence, Tuple

try:
    from .exported_file import OPEN, possible_row, sampling_rate, shortest_signal, signals_of, told
except ImportError:  # copied to where this package is not
    from exported_file import OPEN, possible_row, sampling_rate, shortest_signal, signals_of, told  # type: ignore[import-not-found, no-redef]

__all__ = ["StepRunner"]


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
        self.channels = int(geometry.get("channels", -1))
        self.signals, self.results = signals_of(geometry)
        self._first = next(i for i, each in enumerate(self.signals) if each["time"] >= 0)
        self._structure = geometry["structure"] if geometry["version"] == 2 else 0
        self.outputs = self._filled([int(each["outputs"]) for each in self.results], 0)
        self.lag = self._filled([int(each["lag"]) for each in self.results], 0)
        self.flush_steps = int(geometry["flush_steps"])
        self.length_multiple = int(geometry["length_multiple"])
        self.min_length = shortest_signal(geometry)
        self.dtype = str(self.signals[self._first]["dtype"])
        self.hop = self.chunk
        self.ratio = (int(geometry["ratio"][0]), int(geometry["ratio"][1]))
        self._program: Dict[str, Any] = {}  # the state of the program
        self._pending: List[Any] = []  # of each input, the samples that fill no step yet; None where none ever came
        self._unbatched = False
        self._steps = 0
        self._failed = False
        self._turn = RLock()
        self.reset()

    # ------------------------------------------------------------------ the interface

    def __call__(self, *chunks: Any, final: bool = False) -> Any:
        """Take a chunk of every input, and give the outputs of all steps that these fill.

        Args:
            chunks: ``[batch, C, T]``, or ``[C, T]`` where ``batch`` is 1; or ``None`` for nothing new. Of a model with
                other inputs a chunk of each, as the stream takes them; those left out count as ``None``
            final: whether the signal ends here; gives all that is left, and the runner is as new

        Returns:
            the new output samples, or ``None`` if there are none. Of a model with several outputs, these in its
            structure; what is neither tuple nor list is a dict by names

        Raises:
            ValueError: a chunk does not fit; nothing was written
            RuntimeError: an earlier call failed half-way, or a call of another thread runs
        """
        given = list(chunks)
        if given and isinstance(given[-1], bool):
            final = given.pop()
        self._take_turn()
        try:
            return self._advance(given, final)
        finally:
            self._turn.release()

    def _advance(self, chunks: List[Any], final: bool) -> Any:
        self._ensure_sound()
        pending, unbatched = self._joined(chunks)
        came = [self._came(each, signal) for each, signal in zip(pending, self.signals, strict=True)]
        total = self._steps * self.chunk + came[self._first]
        if final:
            self._check_end(came, total)
        self._failed = True
        self._unbatched = unbatched
        pieces: List[List[Any]] = [[] for _ in self.results]
        steps = min(
            n // signal["shape"][signal["time"]] for n, signal in zip(came, self.signals, strict=True) if n >= 0
        )
        for k in range(steps):
            self._take(self._cut(pending, k, k + 1), self.chunk, False, pieces)
        self._pending = self._cut(pending, steps, None) if steps else pending
        if final and total > 0:
            self._take(self._pending, total % self.chunk, True, pieces)
            for _ in range(self.flush_steps):
                self._take([None] * len(self.signals), 0, False, pieces)
        ys = [self._whole(parts, each, unbatched) for parts, each in zip(pieces, self.results, strict=True)]
        if final:
            self.reset()
        self._failed = False
        return self._filled(ys)

    def _joined(self, chunks: List[Any]) -> Tuple[List[Any], bool]:
        """What is pending of each input with its chunk, all of them checked."""
        if len(chunks) > len(self.signals):
            raise self.input_error(
                f"invalid_chunk: {len(chunks)} chunks came; {len(self.signals)}, one for each input, were expected; "
                "leave out the others"
            )
        chunks = chunks + [None] * (len(self.signals) - len(chunks))
        begun = any(each is not None for each in self._pending)
        present = any(x is not None for x in chunks)
        unbatched, known = self._unbatched, begun
        pending = list(self._pending)
        for i, (x, signal) in enumerate(zip(chunks, self.signals, strict=True)):
            static = signal["time"] < 0
            if static and (x is not None if begun else x is None and present):
                came = "came again" if begun else "is missing"
                raise self.input_error(
                    f"static_input: the static input '{signal['name']}' {came}; it was expected with the first call of "
                    "a signal, and not again; pass it with the first chunk"
                )
            if x is None:
                continue
            unbatched = self._check(x, signal, unbatched if known else None)
            known = True
            x = self._copy(x[(slice(None),) * signal["rows"] + (None,)] if unbatched else x)
            before = pending[i]
            pending[i] = x if before is None else self._put_together([before, x], signal["time"])
        return pending, unbatched

    def _came(self, pending: Any, signal: Dict[str, Any]) -> int:
        # Samples that wait; -1 of a static input.
        if signal["time"] < 0:
            return -1
        return 0 if pending is None else int(pending.shape[signal["time"]])

    def _check_end(self, came: List[int], total: int) -> None:
        if total % self.length_multiple:
            raise self.input_error(
                f"length_multiple: the signal ends after {total} samples; a multiple of {self.length_multiple} was "
                "expected; go on to the next multiple, or call reset()"
            )
        if 0 < total < self.min_length:
            raise self.input_error(
                f"min_length: the signal ends after {total} samples; {self.min_length} at least were expected; go on, "
                "or call reset(), and give the model itself short signals"
            )
        for n, signal in zip(came, self.signals, strict=True):
            p, q = signal["rate"]
            expected = total * p // q
            found = self._steps * self.chunk * p // q + n
            if n >= 0 and found != expected:
                raise self.input_error(
                    f"unequal_lengths: the signal ends with {found} samples of '{signal['name']}' for {total} of the "
                    f"first input; {expected} were expected; feed the rest first, or call reset()"
                )

    def _cut(self, pending: List[Any], begin: int, end: Optional[int]) -> List[Any]:
        """Steps of what is pending."""
        found = []
        for x, signal in zip(pending, self.signals, strict=True):
            axis = signal["time"]
            if axis >= 0 and x is not None:
                m = signal["shape"][axis]
                x = x[(slice(None),) * axis + (slice(begin * m, None if end is None else end * m),)]
                x = self._copy(x) if end is None else x
            found.append(x)
        return found

    def _whole(self, pieces: List[Any], result: Dict[str, Any], unbatched: bool) -> Any:
        if not pieces:
            return None
        y = self._copy(pieces[0]) if len(pieces) == 1 else self._put_together(pieces, result["time"])
        return y[(slice(None),) * result["rows"] + (0,)] if unbatched else y

    def _put_together(self, pieces: List[Any], axis: int) -> Any:
        last = len(pieces[0].shape) - 1
        if axis == last:
            return self._concatenate(pieces)
        return self._concatenate([piece.swapaxes(axis, last) for piece in pieces]).swapaxes(axis, last)

    def _filled(self, values: List[Any], nothing: Any = None, structure: Any = -1) -> Any:
        """The structure of outputs with one value for each."""
        structure = self._structure if structure == -1 else structure
        if structure is None:
            return nothing
        if isinstance(structure, int):
            return values[structure]
        ((kind, parts),) = structure.items()
        if kind == "dict":
            return {name: self._filled(values, nothing, part) for name, part in parts.items()}
        found = [self._filled(values, nothing, part) for part in parts]
        return tuple(found) if kind == "tuple" else found

    def flush(self) -> Any:
        """End the signal: the same as a call with ``None`` and ``final=True``."""
        return self(final=True)

    def reset(self) -> None:
        """Forget the signal. The runner is as new."""
        self._take_turn()
        try:
            self._program = self._initial()
            self._pending = [None] * len(self.signals)
            self._unbatched = False
            self._steps = 0
            self._failed = False
        finally:
            self._turn.release()

    def output_length(self, n: int, final: bool = True) -> Any:
        """Number of samples out after ``n`` samples in.

        Args:
            n: input length, in samples
            final: whether the signal ends there
        """
        if n > 0 and final and n % self.length_multiple:
            raise self.input_error(
                f"length_multiple: a length of {n} samples came; a multiple of {self.length_multiple} was expected; "
                "pad the signal"
            )
        return self._filled([_length(each, max(n, 0), final, self.chunk) for each in self.results], 0)

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
        for name, pending in zip(self._kept_names(), self._pending, strict=True):
            if pending is not None:
                state[name] = self._copy(pending)
        state["@steps"] = self._number(self._steps)
        state["@unbatched"] = self._number(int(self._unbatched))
        return state

    def set_state(self, state: Dict[str, Any]) -> None:
        """Continue from a state that `get_state` gave, of a runner of the same file.

        Raises:
            ValueError: the state does not fit; nothing was written
        """
        expected = self._initial()
        names = self._kept_names()
        whole = isinstance(state, dict) and {*expected, "@steps", "@unbatched"} == set(state) - {*names}
        if not (whole and self._fits(state, expected)):
            raise self.input_error(
                "invalid_state: the state is that of another program, or not whole, or its entries do not belong "
                "together; a state that get_state() of a runner of this file gave was expected; take it anew"
            )
        program = {name: self._copy(state[name]) for name in expected}
        pending = [self._copy(state[name]) if name in state else None for name in names]
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
        if unbatched not in ((0, 1) if self.batch == 1 else (0,)):
            return False
        names = self._kept_names()
        if not any(name in state for name in names):
            return steps == unbatched == 0
        alone = len(names) == 1
        for name, signal in zip(names, self.signals, strict=True):
            axis = signal["time"]
            if name not in state:
                if axis < 0 or steps:
                    return False
                continue
            found = self._describe(state[name])
            if found is None or found[1] != signal["dtype"]:
                return False
            shape = list(found[0])
            # Of several inputs one may have come further than the others.
            if len(shape) != len(signal["shape"]) or (alone and shape[axis] >= signal["shape"][axis]):
                return False
            if any(a != b for i, (a, b) in enumerate(zip(shape, signal["shape"], strict=True)) if i != axis):
                return False
        return True

    def _kept_names(self) -> List[str]:
        if len(self.signals) == 1:
            return ["@pending"]
        return [f"@pending.{i}" for i in range(len(self.signals))]

    def state_nbytes(self) -> int:
        """Bytes of the state, the gathered samples among them."""
        kept = [*self._program.values(), *(each for each in self._pending if each is not None)]
        return sum(int(value.nbytes) for value in kept)

    def __repr__(self) -> str:
        shapes = ", ".join(str(each["shape"]) for each in self.signals)
        return f"{type(self).__name__}({shapes}, outputs={self.outputs}, lag={self.lag}, ratio={self.ratio})"

    # ------------------------------------------------------------------ what a subclass knows

    def _run(
        self, program: Dict[str, Any], xs: List[Any], lengths: int, first: bool, last: bool
    ) -> Tuple[Dict[str, Any], List[Any]]:
        """One step: the next state of the program, and the outputs, all starts and all stops in a list."""
        raise NotImplementedError

    def _initial(self) -> Dict[str, Any]:
        raise NotImplementedError

    def _zeros(self, shape: Sequence[int], dtype: str) -> Any:
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

    def _take(self, pending: List[Any], came: int, last: bool, pieces: List[List[Any]]) -> None:
        xs = []
        for x, signal in zip(pending, self.signals, strict=True):
            shape, axis = list(signal["shape"]), signal["time"]
            n = self._came(x, signal)
            if x is None:
                x = self._zeros(shape, signal["dtype"])
            elif axis >= 0 and n < shape[axis]:
                shape[axis] -= n
                x = self._put_together([x, self._zeros(shape, signal["dtype"])], axis)
            xs.append(x)
        first = self._steps == 0
        self._program, flat = self._run(self._program, xs, came, first, last)
        self._steps += 1
        count = len(self.results)
        for i, result in enumerate(self.results):
            start, stop = int(flat[count + i][0]), int(flat[2 * count + i][0])
            if stop > start:
                pieces[i].append(flat[i][(slice(None),) * result["time"] + (slice(start, stop),)])

    def _check(self, x: Any, signal: Dict[str, Any], unbatched: Optional[bool]) -> bool:
        """Whether a chunk has no axis of rows; refuses one that does not fit, or not to those before it."""
        wanted, rows, time = signal["shape"], signal["rows"], signal["time"]
        found = self._describe(x)
        named = ["T" if axis == time else size for axis, size in enumerate(wanted)]
        whole = f"[{', '.join(map(str, named))}]"
        alone = f"[{', '.join(str(size) for axis, size in enumerate(named) if axis != rows)}]"
        name = f" for '{signal['name']}'" if len(self.signals) > 1 else ""
        if found is None:
            raise self.input_error(
                f"invalid_chunk: the chunk{name} is a {type(x).__name__} that is no dense array; an array {whole} or "
                f"{alone} was expected; convert it"
            )
        shape, dtype = found
        bare = len(shape) == len(wanted) - 1
        full = (*shape[:rows], 1, *shape[rows:]) if bare else shape
        good = len(full) == len(wanted) and dtype == signal["dtype"]
        good = good and all(a == b for axis, (a, b) in enumerate(zip(full, wanted, strict=False)) if axis != time)
        if unbatched is not None:
            good = good and bare == unbatched
        if not good:
            expected = f"{whole} or {alone}" if self.batch == 1 else whole
            raise self.input_error(
                f"invalid_chunk: a chunk{name} came with shape {list(shape)}, {dtype}; {expected}, {signal['dtype']}, "
                "was expected, of one rank through a signal; reshape or convert it"
            )
        return bare

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


def _length(result: Dict[str, Any], n: int, final: bool, chunk: int) -> int:
    # Of an output after so many samples of the first input.
    if n == 0:
        return 0
    if not final:
        return max(n // chunk * int(result["outputs"]) - int(result["lag"]), 0)
    values, start, period, rise = result["lengths"]
    turns = max((n - start) // period, 0)
    return int(values[n - turns * period] + turns * rise)
