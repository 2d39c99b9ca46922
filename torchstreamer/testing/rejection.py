"""Does a stream survive chunks that it cannot take, and errors in the middle of a step?"""

import re
from typing import Any, Dict, Iterator, List, Optional, Tuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..errors import StreamInputError, StreamStateError
from .chunkings import split_signal
from .report import Recorder, VerificationError
from .subject import Subject
from .walking import same_bits, walk

__all__ = ["check_broken_steps", "check_rejected", "rejected_chunks"]


def rejected_chunks(good: Tensor) -> Dict[str, Any]:
    """Chunks that do not continue a signal whose chunks are like ``good``.

    Args:
        good: a chunk that does, ``[B, C, T]`` or ``[C, T]``
    """
    channels = good.shape[-2]
    wrong: Dict[str, Any] = {
        "a single number": good.new_zeros(()),
        "a chunk [T]": good.flatten(0, -2)[0],
        "a chunk of rank 4": good.reshape(1, *([1] * (3 - good.dim())), *good.shape),
        "one channel more": good.new_zeros(*good.shape[:-2], channels + 1, good.shape[-1]),
        "an empty chunk of one channel more": good.new_zeros(*good.shape[:-2], channels + 1, 0),
        "another dtype": good.to(torch.float32 if good.dtype != torch.float32 else torch.float64),
        "a chunk of integers": good.to(torch.int64 if good.dtype != torch.int64 else torch.int32),
        "another device": good.to("meta"),
        "a list": good.tolist(),
        "a number": 1.5,
    }
    if channels > 1:
        wrong["a single channel"] = good[..., :1, :]
    if good.dim() == 3:
        wrong["a chunk [C, T]"] = good[0]
        wrong["one row more"] = torch.cat([good, good[:1]])
        if good.shape[0] > 1:
            wrong["a single row"] = good[:1]
    else:
        wrong["a chunk [1, C, T]"] = good[None]
        wrong["a chunk [2, C, T]"] = torch.stack([good, good])
    return wrong


def check_rejected(subject: Subject, recorder: Recorder) -> None:
    """Chunks that do not fit raise `StreamInputError`; the stream is as it was, and the next good chunk continues."""
    count = 0
    with torch.no_grad():
        for rows in (subject.rows, -1):
            for n in sorted({0, 1, max(subject.first - 1, 1), subject.settled + 1}):
                stream = subject.make()
                shadow = subject.make()
                whole = subject.signal(subject.fit(n + 30), abs(rows))
                whole = whole[0] if rows == -1 else whole
                if n > 0:
                    stream(whole[..., :n])
                    shadow(whole[..., :n])
                good = whole[..., n : subject.fit(n + 2)].clone()
                wrong = rejected_chunks(good) if n > 0 else _rejected_at_start(subject, stream, good)
                for name, chunk in wrong.items():
                    for final in (False, True):
                        _reject(stream, chunk, final, name, "at the start" if n == 0 else f"after {n} samples")
                        count += 1
                tail = whole[..., n:]
                for chunk, final in split_signal(tail, (10, 10, tail.shape[-1] - 20)):
                    if not _same(stream, shadow, chunk, final):
                        raise VerificationError(
                            "safe", f"after chunks rejected at {n} samples the stream goes on differently"
                        )
    recorder.ran("rejected chunks", "safe", count)


def _rejected_at_start(subject: Subject, stream: Any, good: Tensor) -> Dict[str, Any]:
    wrong = rejected_chunks(good)
    possible = ["a single number", "a chunk of rank 4", "a list", "a number"]
    if not stream._takes_line:
        possible.append("a chunk [T]")
    if stream.output_channels(good.shape[-2]) >= 0:  # the handler knows its channels
        for name in ("one channel more", "a single channel", "an empty chunk of one channel more"):
            if name in wrong:
                x = subject.signal(subject.long)
                x = torch.cat([x, x[:, :1]], 1) if "more" in name else x[:, :1]
                if subject.refer(x) is None:
                    possible.append(name)
    if stream.anchor() is not None:  # the handler knows its dtype and device
        possible += ["another dtype", "a chunk of integers", "another device"]
    return {name: wrong[name] for name in possible if name in wrong}


def _reject(stream: Any, chunk: Any, final: bool, name: str, where: str) -> None:
    before = stream.get_state()
    try:
        stream(chunk, final)
    except StreamInputError as error:
        if not re.match(r"[a-z_]+: .", str(error)):
            raise VerificationError(
                "safe", f"{name} {where}: the message {str(error)!r} does not open with a code"
            ) from error
    except Exception as error:
        raise VerificationError(
            "safe", f"{name} {where} raised {type(error).__name__}: {error}; StreamInputError was expected"
        ) from error
    else:
        raise VerificationError("safe", f"{name} {where} was accepted; StreamInputError was expected")
    try:
        after = stream.get_state()
    except Exception as error:
        raise VerificationError("safe", f"{name} {where} was rejected, and then get_state() raised {error}") from error
    if before.keys() != after.keys() or not all(same_bits(before[key], after[key]) for key in before):
        raise VerificationError("safe", f"{name} {where} was rejected, but changed the state")


def _same(a: Any, b: Any, chunk: Optional[Tensor], final: bool) -> bool:
    y, z = a(chunk, final), b(chunk, final)
    return (y is None) == (z is None) and (y is None or same_bits(y, z))


# ---------------------------------------------------------------------- errors inside a step


class _InjectedError(Exception):
    pass


class _Fault(TorchFunctionMode):
    # Raises at the k-th call of torch, and counts them.
    def __init__(self, at: int = -1) -> None:
        super().__init__()
        self.at = at
        self.calls = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Tuple[Any, ...] = (), kwargs: Optional[Dict[str, Any]] = None
    ) -> Any:
        self.calls += 1
        if self.calls == self.at:
            raise _InjectedError(f"injected into {getattr(func, '__name__', func)}")
        return func(*args, **(kwargs or {}))


def check_broken_steps(subject: Subject, recorder: Recorder) -> None:
    """Errors in the middle of a step: the stream raises `StreamStateError` until ``reset()`` or ``set_state()``.

    Every call of torch in a step is made to fail in turn. A stream that was not touched yet may also go on as if
    nothing had happened.
    """
    count = failed = 0
    with torch.no_grad():
        for before, size, final in _situations(subject):
            for at in _points(_calls(subject, before, size, final), 40 if subject.thorough else 12):
                failed += _break(subject, before, size, final, at)
                count += 1
    if count > 0:
        recorder.ran("errors inside a step", "safe", count)
    if failed == 0:
        raise VerificationError("safe", "no error inside a step ever made the stream refuse to go on")


def _situations(subject: Subject) -> Iterator[Tuple[int, int, bool]]:
    yield 0, subject.settled, False
    yield subject.settled, 3 + subject.hop, False
    yield subject.settled, subject.rest(subject.settled, 2), True
    yield 1, subject.rest(1, subject.settled + 200), True


def _calls(subject: Subject, before: int, size: int, final: bool) -> int:
    x = subject.signal(before + size)
    stream = subject.make()
    stream(x[..., :before])
    with _Fault() as fault:
        stream(x[..., before:], final)
    return fault.calls


def _points(calls: int, most: int) -> List[int]:
    return sorted({1 + i * (calls - 1) // max(min(most, calls) - 1, 1) for i in range(min(most, calls))})


def _break(subject: Subject, before: int, size: int, final: bool, at: int) -> bool:
    x = subject.signal(before + size)
    chunk = x[..., before:]
    stream = subject.make()
    stream(x[..., :before])
    state = stream.get_state()
    what = f"an error inside the step after {before} samples, {'final, ' if final else ''}in call {at} of torch,"
    shadow = subject.make()
    shadow(x[..., :before])
    expected = shadow(chunk, final)
    try:
        with _Fault(at):
            y = stream(chunk, final)
    except _InjectedError:
        pass
    except Exception as error:
        raise VerificationError("safe", f"{what} came out as {type(error).__name__}: {error}") from error
    else:
        _equal(y, expected, f"{what} was swallowed")
        return False
    try:
        y = stream(chunk, final)
    except StreamStateError:
        pass
    except Exception as error:
        raise VerificationError(
            "safe", f"after {what} the next call raised {type(error).__name__}: {error}; StreamStateError was expected"
        ) from error
    else:
        # Nothing had been written yet, so the same chunk again must do.
        _equal(y, expected, f"after {what} the stream went on")
        return False
    for method in ("flush", "get_state"):
        try:
            getattr(stream, method)()
        except StreamStateError:
            continue
        except Exception as error:
            raise VerificationError(
                "safe", f"after {what} {method}() raised {type(error).__name__}: {error}; StreamStateError was expected"
            ) from error
        raise VerificationError("safe", f"after {what} {method}() did not raise StreamStateError")
    stream.set_state(state)
    _equal(stream(chunk, final), expected, f"after {what} and set_state() the stream went on")
    stream.reset()
    failure = walk(subject, stream, (subject.settled, subject.rest(subject.settled, 2)))
    if failure is not None:
        raise VerificationError("safe", f"after {what} and reset() the next signal goes wrong: {failure.detail}")
    return True


def _equal(y: Optional[Tensor], expected: Optional[Tensor], what: str) -> None:
    if (y is None) != (expected is None) or (y is not None and not same_bits(y, expected)):
        raise VerificationError("safe", f"{what} with other values; StreamStateError was expected, or the same output")
