"""Does a stream whose signals have lengths of a multiple refuse all other ends, and go on unharmed?"""

from functools import partial
from typing import Any, Callable, Iterator, List, Optional, Tuple

import torch
from torch import Tensor

from ..errors import StreamInputError
from .chunkings import Chunking, split_signal, total_length
from .report import Recorder, VerificationError
from .subject import Subject
from .walking import call, play, same_bits

__all__ = ["check_multiples", "refuse_lengths", "refuse_wrong_ends"]

_CODE = "length_multiple"


def check_multiples(subject: Subject, recorder: Recorder) -> None:
    """An end at a length that is no multiple raises `StreamInputError`; the stream is as it was, and goes on."""
    if subject.multiple == 1:
        return
    count = refuse_lengths(subject, subject.make()) if subject.knows_length else 0
    for mode in (torch.no_grad, torch.enable_grad):
        with mode():
            count += refuse_wrong_ends(subject, subject.make)
    recorder.ran("lengths that are no multiple", "safe", count)


def refuse_lengths(subject: Subject, stream: Any) -> int:
    """``output_length(n, True)`` raises where a signal cannot end.

    Raises:
        VerificationError: it gives a number, or another error
    """
    m = subject.multiple
    around = [n + i for n in (m, subject.first, subject.settled, subject.long) for i in (-1, 1, m // 2)]
    lengths = [n for n in sorted({1, *range(2, min(2 * m, 40)), *around}) if n > 0 and n % m > 0]
    for n in lengths:
        for action in (partial(stream.output_length, n, True), partial(stream.output_length, n)):
            message = _refusal(action)
            if message:
                raise VerificationError(
                    "prompt", f"output_length({n}, True), where lengths are multiples of {m}, {message}"
                )
    return 2 * len(lengths)


def refuse_wrong_ends(subject: Subject, fresh: Callable[[], Any]) -> int:
    """Every way of ending a signal too early, tried before each of its chunks.

    Args:
        subject: what is verified
        fresh: gives a stream as new, scripted or not

    Raises:
        VerificationError: an end was accepted, or did the stream harm
    """
    count = 0
    for rows in (subject.rows, -1):
        for chunking in _chunkings(subject):
            x = subject.signal(total_length(chunking), abs(rows))
            x = x[0] if rows == -1 else x
            expected = play(fresh(), x, chunking)
            stream = fresh()
            pieces: List[Tensor] = []
            came = 0
            for chunk, final in split_signal(x, chunking):
                for what, wrong in _wrong_ends(subject, x, came, chunk):
                    _refuse(subject, stream, wrong, f"{what} after {came} samples")
                    count += 1
                came += 0 if chunk is None else chunk.shape[-1]
                try:
                    y = call(stream, chunk, final)
                except Exception as error:
                    raise VerificationError(
                        "safe",
                        f"after ends that were refused the stream raised {type(error).__name__}: {error}",
                        chunking,
                    ) from error
                pieces += [] if y is None else [y]
            same = len(pieces) == len(expected) and all(map(same_bits, pieces, expected))
            if not same:
                raise VerificationError("safe", "after ends that were refused the stream goes on differently", chunking)
    return count


def _chunkings(subject: Subject) -> Iterator[Chunking]:
    m = subject.multiple
    for n in sorted({1, max(subject.first - 1, 1), subject.fit(subject.settled)}):
        yield (n, 1, m, subject.rest(n + 1 + m, m + 3))
        yield (n, 2, subject.rest(n + 2, 2), None)
    yield (m,)


def _wrong_ends(
    subject: Subject, x: Tensor, came: int, chunk: Optional[Tensor]
) -> Iterator[Tuple[str, Callable[[Any], Any]]]:
    """Calls that would end a signal of which ``came`` samples came at a length that is no multiple."""
    m = subject.multiple
    if came % m > 0:
        yield "flush()", lambda s: s.flush()
        yield "a final call without a chunk", lambda s: s(None, True)
        yield "a final call with an empty chunk", lambda s: s(x[..., :0], True)
    sizes = {1, m - 1, m + 1, subject.settled, 0 if chunk is None else chunk.shape[-1]}
    for size in sorted(size for size in sizes if size > 0 and (came + size) % m > 0):
        more = subject.signal(size, x.shape[0] if x.dim() == 3 else 1, variant=1)
        more = more if x.dim() == 3 else more[0]
        yield f"a final call with {size} samples", partial(_end_with, more)
        if came == 0:  # nothing of a refused chunk stays, so another number of rows and another rank may follow
            other = subject.signal(size, subject.rows + 1)
            yield f"a final call with {size} samples of other rows", partial(_end_with, other)


def _end_with(chunk: Tensor, stream: Any) -> Any:
    return stream(chunk, True)


def _refuse(subject: Subject, stream: Any, wrong: Callable[[Any], Any], what: str) -> None:
    before, nbytes = stream.get_state(), stream.state_nbytes()
    message = _refusal(lambda: wrong(stream))
    if message:
        raise VerificationError("safe", f"{what}, where lengths are multiples of {subject.multiple}, {message}")
    try:
        after = stream.get_state()
    except Exception as error:
        raise VerificationError("safe", f"{what} was refused, and then get_state() raised {error}") from error
    same = before.keys() == after.keys() and all(same_bits(before[key], after[key]) for key in before)
    if not same or stream.state_nbytes() != nbytes:
        raise VerificationError("safe", f"{what} was refused, but changed the state")


def _refusal(action: Callable[[], Any]) -> str:
    """What is wrong with how an action was refused, or nothing."""
    expected = f"StreamInputError with the code {_CODE} was expected"
    try:
        action()
    except StreamInputError as error:
        return "" if error.code == _CODE else f"raised {error}; {expected}"
    except torch.jit.Error as error:
        return "" if f"{_CODE}: " in str(error) else f"raised {error}; {expected}"
    except Exception as error:
        return f"raised {type(error).__name__}: {error}; {expected}"
    return f"was accepted; {expected}"
