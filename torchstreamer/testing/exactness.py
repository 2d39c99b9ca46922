"""Does a stream give what the network gives, and is it as new afterwards?"""

from functools import partial
from typing import Any, Callable, ContextManager, Dict, Iterable, List, Optional

import torch
from torch import Tensor

from .chunkings import Chunking, chunkings, even_chunks, random_chunks
from .report import Recorder, VerificationError
from .subject import Subject
from .walking import Failure, confirm, play, same_bits, walk

__all__ = ["check_empty", "check_exact", "check_final", "check_grad_modes", "check_shapes", "try_all"]

Walk = Callable[[Any, Chunking], Optional[Failure]]


def try_all(subject: Subject, cases: Iterable[Chunking], attempt: Walk, context: str = "") -> int:
    """Run one stream over many signals, one behind the other, and trace the first failure.

    Raises:
        VerificationError: with the smallest failing chunking
    """
    stream = subject.make()
    count = 0
    for chunking in cases:
        failure = attempt(stream, chunking)
        if failure is not None:
            used = f"served {count} signals before" if count else "is new too"
            error = confirm(subject.make, failure, chunking, attempt, used, subject.multiple)
            if context:
                raise VerificationError(error.rule, f"{context}: {error.detail}", error.chunking)
            raise error
        count += 1
    return count


def check_exact(subject: Subject, recorder: Recorder, sparse: int = 1) -> None:
    """Many lengths, cut in many ways, in one row of signals through one stream."""
    dtype = str(subject.dtype).removeprefix("torch.")
    with torch.no_grad():
        count = try_all(subject, subject.cases(sparse), partial(walk, subject), dtype)
    recorder.ran(f"chunkings, {dtype}", "exact", count)
    # Handlers may choose another kernel when gradients are on.
    with torch.enable_grad():
        count = try_all(subject, subject.cases(4 * sparse), partial(walk, subject), f"{dtype}, gradients on")
    recorder.ran(f"chunkings with gradients on, {dtype}", "exact", count)


def check_shapes(subject: Subject, recorder: Recorder) -> None:
    """``[C, T]``, other batch sizes, and chunks that are not contiguous in memory."""
    cases = _few_cases(subject)
    with torch.no_grad():
        recorder.ran("[C, T]", "exact", try_all(subject, cases, partial(walk, subject, rows=-1), "[C, T]"))
        for rows in (1, subject.rows + 2):
            count = try_all(subject, cases, partial(walk, subject, rows=rows), f"{rows} rows")
            recorder.ran("other batch sizes", "exact", count)
        for name, change in (("transposed", _transposed), ("strided", _strided), ("contiguous", _contiguous)):
            attempt = partial(walk, subject, change=change)
            recorder.ran("memory layouts", "exact", try_all(subject, cases, attempt, f"{name} chunks"))


def check_grad_modes(subject: Subject, recorder: Recorder) -> None:
    """Gradients switched on and off, and inference mode, in the middle of a signal."""
    modes: List[Callable[[], ContextManager[Any]]] = [
        torch.no_grad,
        torch.enable_grad,
        torch.inference_mode,
        torch.no_grad,
        torch.enable_grad,
        torch.no_grad,
        torch.inference_mode,
        torch.inference_mode,
    ]

    def attempt(stream: Any, chunking: Chunking) -> Optional[Failure]:
        return walk(subject, _Switching(stream, modes), chunking)

    cases = [case for case in _few_cases(subject) if len(case) > 2]
    count = try_all(
        subject, cases, attempt, "gradient modes that change with every call (no_grad, enable_grad, inference_mode)"
    )
    recorder.ran("changing gradient modes", "exact", count)


def check_empty(subject: Subject, recorder: Recorder) -> None:
    """Signals of no samples give nothing, and leave the stream as new."""
    empty = subject.signal(0)
    calls: List[List[Any]] = [
        [lambda s: s.flush()],
        [lambda s: s(None, True)],
        [lambda s: s(empty), lambda s: s.flush()],
        [lambda s: s(empty, True)],
        [
            lambda s: s(None),
            lambda s: s(empty),
            lambda s: s(None),
            lambda s: s(empty[0:1, :, :].expand(empty.shape), True),
        ],
        [lambda s: s(empty[0]), lambda s: s.flush()],
    ]
    with torch.no_grad():
        stream = subject.make()
        for sequence in calls:
            for step in sequence:
                try:
                    y = step(stream)
                except Exception as error:
                    raise VerificationError(
                        "final", f"an empty signal raised {type(error).__name__}: {error}", (0,)
                    ) from error
                if y is not None:
                    rule = "none" if y.shape[-1] == 0 else "exact"
                    raise VerificationError(
                        rule, f"an empty signal gave shape {tuple(y.shape)}; None was expected", (0,)
                    )
            chunking = (subject.fit(subject.settled), None)
            failure = walk(subject, stream, chunking)
            if failure is not None:
                raise VerificationError("final", f"behind an empty signal: {failure.detail}", chunking)
    recorder.ran("empty signals", "final", len(calls))


def check_final(subject: Subject, recorder: Recorder) -> None:
    """After ``final``, ``flush()`` and ``reset()`` a stream is as new: in state, values, batch size and rank."""
    as_new = subject.make().get_state()
    bytes_new = subject.make().state_nbytes()
    n = subject.fit(subject.settled + 1)
    ends: Dict[str, Callable[[Any], Any]] = {
        "flush()": lambda s: s.flush(),
        "a final call without a chunk": lambda s: s(None, True),
        "a final call with an empty chunk": lambda s: s(subject.signal(0), True),
    }
    count = 0
    with torch.no_grad():
        stream = subject.make()
        # Lengths that the network refuses too: the stream resets all the same.
        for came in sorted({1, max(subject.first - 3 * subject.multiple, 1), subject.first, n, subject.long}):
            for name in (*ends, "a final call", "reset()"):
                length = subject.fit(came) if name in ends else came
                stream(subject.signal(length))
                if name in ends:
                    ends[name](stream)
                elif name == "reset()":
                    stream.reset()
                else:
                    stream(subject.signal(subject.rest(length, 2)), True)
                what = f"after {length} samples and {name}"
                state = stream.get_state()
                differing = sorted(
                    {key for key in state.keys() & as_new.keys() if not _as_new(state[key], as_new[key])}
                    | (state.keys() ^ as_new.keys())
                )
                if differing or stream.state_nbytes() != bytes_new:
                    raise VerificationError(
                        "final",
                        f"{what} the state is not that of a new stream: {', '.join(differing) or 'state_nbytes()'}",
                    )
                for rows in (subject.rows + 1, -1, subject.rows):
                    chunking = (n // 2, n - n // 2)
                    failure = walk(subject, stream, chunking, rows=rows, variant=1)
                    if failure is not None and walk(subject, subject.make(), chunking, rows=rows, variant=1) is None:
                        raise VerificationError(
                            "final", f"{what} the next signal goes wrong: {failure.detail}", chunking
                        )
                    count += 1
        pieces = play(subject.make(), subject.signal(n), (n // 2, n - n // 2))
        again = subject.make()
        again(subject.signal(n))
        again.reset()
        for y, expected in zip(play(again, subject.signal(n), (n // 2, n - n // 2)), pieces, strict=True):
            if not same_bits(y, expected):
                raise VerificationError("final", "after reset() the stream gives other values than a new one")
    recorder.ran("as new after the end", "final", count)


def _few_cases(subject: Subject) -> List[Chunking]:
    n = subject.fit(subject.settled + 5)
    lengths = sorted({subject.fit(length) for length in (1, 2, 3, subject.first, subject.first + 1, n)})
    cases = [case for length in lengths for case in chunkings(length, subject.seed, 16)[:6]]
    cases += [even_chunks(subject.fit(min(n, 200)), 1), (n, None), (n, n, None)]
    cases += [random_chunks(subject.long, subject.seed + i, 50) for i in range(2)]
    return [case for case in cases if len(case) <= 400]


def _as_new(value: Tensor, new: Tensor) -> bool:
    # The empty data of a ring may keep the dtype of the last signal.
    return (value.numel() == 0 == new.numel() and value.dim() == new.dim()) or same_bits(value, new)


def _transposed(chunk: Tensor) -> Tensor:
    return chunk.transpose(-1, -2).contiguous().transpose(-1, -2)


def _strided(chunk: Tensor) -> Tensor:
    return chunk.repeat_interleave(3, -1)[..., ::3]


def _contiguous(chunk: Tensor) -> Tensor:
    return chunk.clone(memory_format=torch.contiguous_format)


class _Switching:
    # A stream whose calls happen in one gradient mode after the other.
    def __init__(self, stream: Any, modes: List[Callable[[], ContextManager[Any]]]) -> None:
        self.stream = stream
        self.modes = modes
        self.calls = 0

    def _next(self) -> ContextManager[Any]:
        self.calls += 1
        return self.modes[(self.calls - 1) % len(self.modes)]()

    def __call__(self, x: Optional[Tensor], final: bool = False) -> Optional[Tensor]:
        with self._next():
            return self.stream(x, final)

    def flush(self) -> Optional[Tensor]:
        with self._next():
            return self.stream.flush()

    def output_length(self, n: int, final: bool) -> int:
        return self.stream.output_length(n, final)
