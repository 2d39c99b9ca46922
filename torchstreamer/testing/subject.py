"""What is verified: a way to make new streams, and the reference that they must equal."""

import math
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import torch
from torch import Tensor, nn

from ..core.stream import BaseStream
from .chunkings import Chunking, chunkings, even_chunks, random_chunks, shrink_chunking, split_signal, total_length
from .report import VerificationError

__all__ = ["Failure", "Subject", "confirm", "difference", "play", "same_bits", "walk"]

Reference = Callable[[Tensor], Tensor]
Case = Chunking


@dataclass
class Failure:
    """A broken rule, not yet traced to its smallest chunking."""

    rule: str
    detail: str


@dataclass
class Subject:
    """A stream under verification, in one dtype.

    Args:
        make: makes a new stream
        reference: the network on the whole signal ``[B, C, T]``
        module: the network itself, if it is known
        rows: rows of the signals
        channels: channels of the signals
        typical: a length at which the reference works
        dtype: dtype of the signals
        device: device of the signals
        tolerance: largest difference allowed, relative to the output's scale
        knows_length: whether the stream defines ``output_length``
        seed: of signals and chunkings
        thorough: whether to try more
    """

    make: Callable[[], BaseStream]
    reference: Reference
    module: Optional[nn.Module]
    rows: int
    channels: int
    typical: int
    dtype: torch.dtype
    device: torch.device
    tolerance: float
    knows_length: bool
    seed: int
    thorough: bool
    _offline: Dict[Tuple[int, int, int], Optional[Tensor]] = field(default_factory=dict)
    _signals: Dict[Tuple[int, int], Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.offline(self.typical) is None:
            raise ValueError(
                f"invalid_example: the reference gives nothing for [{self.rows}, {self.channels}, {self.typical}], "
                f"{self.dtype} ({self.complaint(self.typical)}); a length at which it works was expected; use a longer example"
            )
        stream = self.make()
        self.hop = max(int(getattr(stream, "hop", 1)), 1)
        self.first = self._first_length()
        self.lookahead = self._lookahead(stream) if self.knows_length else self.first
        # Start, end and a few periods: what happens at short lengths happens here.
        self.settled = self.first + self.lookahead + 2 * self.hop
        self.long = max(self.typical, 3 * self.settled, 300)
        whole = self.offline(self.long)
        finite = torch.zeros(0) if whole is None else whole[whole.isfinite()]
        top = float(finite.abs().max()) if finite.numel() > 0 else 0.0
        self.scale = top if top > 0 else 1.0

    # ------------------------------------------------------------------ signals and what the reference makes of them

    def signal(self, n: int, rows: int = 0, variant: int = 0) -> Tensor:
        """The first ``n`` samples of an endless random signal; a new tensor. ``variant`` chooses another signal."""
        rows = rows or self.rows
        known = self._signals.get((rows, variant))
        if known is None or known.shape[-1] < n:
            # Sample t depends on t alone, so that a longer signal goes on where a shorter one ended.
            length = max(1024, 2 * n)
            generator = torch.Generator().manual_seed(self.seed + 7919 * variant + rows)
            known = torch.randn(length, rows, self.channels, generator=generator, dtype=torch.float64)
            self._signals[rows, variant] = known = known.permute(1, 2, 0).to(self.device, self.dtype).contiguous()
            self._offline = {key: y for key, y in self._offline.items() if key[1:] != (rows, variant)}
        return known[..., :n].clone()

    def offline(self, n: int, rows: int = 0, variant: int = 0) -> Optional[Tensor]:
        """What the reference gives for a signal; ``None`` where it raises or gives nothing."""
        key = (n, rows or self.rows, variant)
        if key not in self._offline:
            self._offline[key] = self.refer(self.signal(*key)) if n > 0 else None
        return self._offline[key]

    def refer(self, x: Tensor) -> Optional[Tensor]:
        """What the reference gives for ``x``, which it may write to; ``None`` where it raises or gives nothing."""
        try:
            with torch.no_grad():
                y = self.reference(x)
        except Exception:  # too short, whatever the network calls it
            return None
        return y if y.shape[-1] > 0 else None

    def complaint(self, n: int) -> str:
        """Why the reference refuses a signal."""
        try:
            with torch.no_grad():
                return f"it returned shape {tuple(self.reference(self.signal(n)).shape)}"
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    def offline_length(self, n: int) -> int:
        """Samples that the reference gives for ``n`` samples."""
        y = self.offline(n)
        return 0 if y is None else y.shape[-1]

    # ------------------------------------------------------------------ what to try

    def short_lengths(self) -> List[int]:
        """All lengths up to a bound, and some around the first that gives anything."""
        bound = min(max(self.settled + 3, 12), 128 if self.thorough else 32)
        around = {self.first + i for i in (-2, -1, 0, 1, 2)} | {self.settled + i for i in (0, 1, self.hop)}
        return sorted({*range(1, bound + 1), *(n for n in around if n > 0)})

    def cases(self, sparse: int = 1) -> Iterator[Case]:
        """Chunkings of signals of many lengths; every ``sparse``-th of the short ones."""
        dense = 128 if self.thorough else 24
        for i, n in enumerate(self.short_lengths()):
            if i % sparse == 0:
                yield from chunkings(n, self.seed + n, dense, self.thorough)
        yield from self.long_cases()

    def long_cases(self) -> Iterator[Case]:
        """Chunkings of signals much longer than the start and the end."""
        yield from chunkings(self.long, self.seed, 40, self.thorough)
        steps = min(self.settled + self.hop, 10_000 if self.thorough else 1_000)
        yield even_chunks(steps, 1)
        # Long chunks behind short ones and the reverse: handlers may choose another kernel for each.
        yield (3, self.long - 10, 1, 1, 5)
        yield (*even_chunks(60, 4), 200, *even_chunks(60, 1), self.long)
        if self.thorough:
            for i in range(20):
                yield random_chunks(self.long + 37 * i, self.seed + i, None if i % 2 else 50)

    # ------------------------------------------------------------------ geometry

    def _first_length(self) -> int:
        top = 1
        while top < self.typical and self.offline_length(top) == 0:
            top = min(2 * top, self.typical)
        low, high = top // 2, top
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.offline_length(middle) > 0 else (middle, high)
        return high

    def _lookahead(self, stream: BaseStream) -> int:
        n = 4 * (self.first + self.typical)
        most = max(stream.output_length(n + i, True) - stream.output_length(n + i, False) for i in range(min(self.hop, 64)))
        up, down = stream.ratio
        return math.ceil(max(most, 0) * down / up)


# ---------------------------------------------------------------------- comparing


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


# ---------------------------------------------------------------------- running


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
            pieces.append(y)
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
                f"output sample {first} of {length} is wrong; the largest difference is {wrong:.2g} of the output's scale, "
                f"{subject.tolerance:.0e} is allowed",
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
) -> VerificationError:
    """Trace a failure of a stream that served earlier signals to its smallest chunking on a new one.

    Args:
        fresh: gives a stream as new
        failure: what went wrong
        chunking: where it went wrong
        retry: runs a new stream over a chunking
        used: what the stream that failed had done before, for the message
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

    smallest = shrink_chunking(chunking, fails)
    found = retry(fresh(), smallest) or again
    return VerificationError(found.rule, found.detail, smallest)
