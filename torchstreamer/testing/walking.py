"""Run a stream over a signal in pieces, and compare every call with the contract."""

import math
from dataclasses import dataclass
from typing import Any, Callable, List, Optional

import torch
from torch import Tensor

from .chunkings import Chunking, shrink_chunking, split_signal, total_length
from .report import VerificationError
from .subject import Subject

__all__ = ["Failure", "call", "confirm", "difference", "play", "same_bits", "walk"]


@dataclass
class Failure:
    """A broken rule, not yet traced to its smallest chunking."""

    rule: str
    detail: str


def same_bits(a: Any, b: Any) -> bool:
    """Whether two tensors are the same, ``nan`` included."""
    if a.shape != b.shape or a.dtype != b.dtype or a.device != b.device:
        return False
    return bool(torch.equal(a, b)) or bool(((a == b) | (a.isnan() & b.isnan())).all())


def difference(y: Tensor, expected: Tensor, scale: float) -> float:
    """The largest difference of two tensors of one shape, relative to ``scale``; infinite where one is not finite."""
    wide = torch.complex128 if expected.is_complex() else torch.float64
    a, b = y.detach().to(wide), expected.detach().to(wide)
    if torch.equal(a, b):
        return 0.0
    error = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs())
    return float(error.nan_to_num(nan=math.inf).max()) / scale


def call(stream: Any, chunk: Optional[Tensor], final: bool) -> Optional[Tensor]:
    """One call of a stream; ``flush()`` where it is the end without a chunk."""
    if chunk is None and final:
        return stream.flush()
    return stream(chunk, final) if final else stream(chunk)


def play(stream: Any, x: Tensor, chunking: Chunking) -> List[Tensor]:
    """Run a stream over a signal, and give what came out."""
    pieces = [call(stream, chunk, final) for chunk, final in split_signal(x, chunking)]
    return [piece for piece in pieces if piece is not None]


def walk(
    subject: Subject,
    stream: Any,
    chunking: Chunking,
    rows: int = 0,
    variant: int = 0,
    change: Callable[[Tensor], Tensor] = lambda chunk: chunk,
) -> Optional[Failure]:
    """Run a new stream over a signal in the given pieces, and compare every call with the contract.

    Args:
        subject: what is verified
        stream: a stream as new, scripted or not
        chunking: the pieces
        rows: rows of the signal, -1 for a signal ``[C, T]``
        variant: which signal
        change: what becomes of a chunk before it is given to the stream; its values must stay

    Returns:
        what went wrong first, or ``None``
    """
    n = total_length(chunking)
    unbatched = rows == -1
    rows = 1 if unbatched else rows
    x = subject.signal(n, rows, variant)
    expected = subject.offline(n, rows, variant)
    if unbatched:
        x = x[0]
        expected = None if expected is None else expected[0]
    pieces: List[Tensor] = []
    came, given = 0, 0
    for chunk, final in split_signal(x, chunking):
        came += 0 if chunk is None else chunk.shape[-1]
        where = f"in the call {'' if chunk is None else f'with {chunk.shape[-1]} samples '}after {came} of {n} samples"
        try:
            y = call(stream, None if chunk is None else change(chunk), final)
        except Exception as error:
            return Failure("exact", f"{where} the stream raised {type(error).__name__}: {_first_lines(error)}")
        if y is not None:
            failure = _check_piece(y, x, expected, where)
            if failure is not None:
                return failure
            pieces.append(y.clone())  # whether outputs stay as they were is another check
            given += y.shape[-1]
        if not final and subject.knows_length:
            due = stream.output_length(came, False)
            if given != due:
                timing = "late" if given < due else "early"
                return Failure(
                    "prompt",
                    f"{timing}: after {came} samples {given} were out; output_length({came}, False) says {due}",
                )
    return _check_joined(subject, pieces, expected, given, n)


def _check_piece(y: Any, x: Tensor, expected: Optional[Tensor], where: str) -> Optional[Failure]:
    if not isinstance(y, Tensor):
        return Failure("exact", f"{where} a {type(y).__name__} came out; a tensor or None was expected")
    if y.dim() > 0 and y.shape[-1] == 0:
        return Failure("none", f"{where} a tensor of length 0 came out; None was expected")
    if expected is None:
        return Failure("exact", f"{where} shape {tuple(y.shape)} came out; the reference gives nothing for this length")
    if y.dim() != expected.dim() or y.shape[:-1] != expected.shape[:-1]:
        return Failure("exact", f"{where} shape {tuple(y.shape)} came out; {(*expected.shape[:-1], 'T')} was expected")
    if y.dtype != expected.dtype or y.device != expected.device:
        return Failure(
            "exact",
            f"{where} {y.dtype} on {y.device} came out; {expected.dtype} on {expected.device} was expected",
        )
    return None


def _check_joined(
    subject: Subject, pieces: List[Tensor], expected: Optional[Tensor], given: int, n: int
) -> Optional[Failure]:
    length = 0 if expected is None else expected.shape[-1]
    if expected is not None and given > 0:
        common = min(given, length)
        joined = torch.cat(pieces, -1).narrow(-1, 0, common)
        wrong = difference(joined, expected.narrow(-1, 0, common), subject.scale)
        if wrong > subject.tolerance:
            first = _first_wrong(joined, expected.narrow(-1, 0, common), subject.tolerance * subject.scale)
            return Failure(
                "exact",
                f"output sample {first} of {length} is wrong; the largest difference is {wrong:.2g} of the output's "
                f"scale, {subject.tolerance:.0e} is allowed",
            )
    if given != length:
        rule = "final" if given < length else "exact"
        return Failure(rule, f"{given} samples came out of {n}; the reference gives {length}")
    return None


def _first_wrong(y: Tensor, expected: Tensor, tolerance: float) -> int:
    for i in range(y.shape[-1]):
        if difference(y[..., i], expected[..., i], 1.0) > tolerance:
            return i
    return -1


def _first_lines(error: BaseException) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    # TorchScript puts the message last, behind a traceback.
    text = " ".join(lines[-1:] if len(lines) > 3 else lines)
    return text[:300]


def confirm(
    fresh: Callable[[], Any],
    failure: Failure,
    chunking: Chunking,
    retry: Callable[[Any, Chunking], Optional[Failure]],
    used: str,
    multiple: int = 1,
) -> VerificationError:
    """Trace a failure of a stream that served earlier signals to its smallest chunking on a new one.

    Args:
        fresh: gives a stream as new
        failure: what went wrong
        chunking: where it went wrong
        retry: runs a new stream over a chunking
        used: what the stream that failed had done before, for the message
        multiple: what the length of every whole signal must be a multiple of
    """
    again = retry(fresh(), chunking)
    if again is None:
        rule = "final" if failure.rule in ("exact", "prompt", "none", "final") else failure.rule
        return VerificationError(
            rule, f"{failure.detail}; a new stream does it right, this one {used}, so it did not reset", chunking
        )
    rule = again.rule

    def fails(smaller: Chunking) -> bool:
        found = retry(fresh(), smaller)
        return found is not None and found.rule == rule

    smallest = shrink_chunking(chunking, fails, multiple=multiple)
    found = retry(fresh(), smallest) or again
    return VerificationError(found.rule, found.detail, smallest)
