"""Does a stream give every sample as soon as it is settled, and does it say so?"""

import math
from typing import Any, Dict, Iterator, List, Optional, Tuple

import torch
from torch import Tensor

from .chunkings import Chunking, even_chunks, random_chunks
from .report import Recorder, VerificationError
from .subject import Subject
from .walking import difference, play

__all__ = ["check_future", "check_largest", "check_lengths", "check_phase", "check_rates"]


def check_lengths(subject: Subject, recorder: Recorder) -> None:
    """``output_length`` as a function: its values against the reference, and its order."""
    stream = subject.make()
    for final in (False, True):
        if stream.output_length(0, final) != 0:
            raise VerificationError(
                "prompt", f"output_length(0, {final}) is {stream.output_length(0, final)}; an empty signal gives 0"
            )
    whole = subject.whole_lengths(min(subject.settled, 200) + 39)
    lengths = sorted({*whole, *subject.short_lengths(), subject.long})
    for n in lengths:
        if stream.output_length(n, True) != subject.offline_length(n):
            raise VerificationError(
                "prompt",
                f"output_length({n}, True) is {stream.output_length(n, True)}; the reference gives "
                f"{subject.offline_length(n)} samples",
            )
        if stream.output_length(n) != stream.output_length(n, True):
            raise VerificationError(
                "prompt", f"output_length({n}) is not output_length({n}, True); final=True is its default"
            )
    before, least = 0, math.inf
    top = subject.long + 4 * subject.hop
    now = [stream.output_length(n, False) for n in range(top)]
    end = [stream.output_length(n, True) if n % subject.multiple == 0 else math.inf for n in range(top)]
    for n in range(top):
        if now[n] < before:
            raise VerificationError("prompt", f"output_length falls from {before} to {now[n]} at {n} samples")
        before = now[n]
    for n in reversed(range(top)):
        least = min(least, end[n])
        if now[n] > least:
            shortest = next(m for m in range(n, top) if end[m] < now[n])
            raise VerificationError(
                "prompt",
                f"early: output_length({n}, False) is {now[n]}, but a signal of {shortest} samples gives only "
                f"{end[shortest]}",
            )
    recorder.ran("output_length against the reference", "prompt", len(lengths))


def check_rates(subject: Subject, recorder: Recorder) -> None:
    """``hop`` and ``ratio``: kinds, lowest terms, and agreement with ``output_length``."""
    stream = subject.make()
    hop, ratio = stream.hop, stream.ratio
    if not isinstance(hop, int) or hop < 1:
        raise VerificationError("prompt", f"hop is {hop!r}; a whole number of samples, 1 or more, was expected")
    if (
        not isinstance(ratio, tuple)
        or len(ratio) != 2
        or any(not isinstance(part, int) or part < 1 for part in ratio)
        or math.gcd(*ratio) != 1
    ):
        raise VerificationError(
            "prompt", f"ratio is {ratio!r}; a pair of integers without a common factor was expected"
        )
    up, down = ratio
    if hop * up % down != 0:
        raise VerificationError("prompt", f"hop {hop} at ratio {up}/{down} is no whole number of outputs")
    count = 0
    if subject.knows_length:
        start = 2 * subject.settled + 64
        for n in [*range(start, start + min(2 * hop, 200) + 2), 50 * start + 1]:
            for k in (1, 2, 5):
                for final in (False, True):
                    begin, more = (subject.fit(n), k * subject.period) if final else (n, k * hop)
                    grown = stream.output_length(begin + more, final) - stream.output_length(begin, final)
                    if grown * down != more * up:
                        raise VerificationError(
                            "prompt",
                            f"hop {hop} and ratio {up}/{down} do not fit output_length: from {begin} to {begin + more} "
                            f"samples output_length(…, {final}) grows by {grown}; {more * up / down:g} was expected",
                        )
                    count += 1
    recorder.ran("hop and ratio", "prompt", max(count, 1))


def check_phase(subject: Subject, recorder: Recorder) -> None:
    """The state has the same shape every ``hop`` samples, however the signal was cut."""
    stream = subject.make()
    hop = stream.hop
    count = 0
    with torch.no_grad():
        start = 2 * subject.settled + 3
        for offset in sorted({0, 1, hop - 1, hop // 2}):
            phases: List[Any] = []
            for periods, chunking in enumerate(_cuts(start + offset, hop, subject.seed)):
                stream.reset()
                for y in play(_Unfinished(stream), subject.signal(start + offset + periods % 4 * hop), chunking):
                    del y
                phases.append(_phase(stream.get_state()))
                if phases[-1] != phases[0]:
                    key = next(key for key in {**phases[0], **phases[-1]} if phases[0].get(key) != phases[-1].get(key))
                    raise VerificationError(
                        "prompt",
                        f"hop {hop}: the state does not repeat its shape: '{key}' is {phases[0].get(key)} after "
                        f"{start + offset} samples and {phases[-1].get(key)} after {periods % 4} · hop more (or for "
                        "another chunking)",
                        chunking,
                    )
                count += 1
    recorder.ran("phase repeats after hop", "prompt", count)


def check_future(subject: Subject, recorder: Recorder) -> None:
    """What is out must not depend on what comes: neither its values, nor ``nan``, nor the end."""
    stream = subject.make()
    count = 0
    with torch.no_grad():
        for n in _positions(subject):
            stream.reset()
            pieces = play(_Unfinished(stream), subject.signal(n), (n,))
            if not pieces:
                continue
            out = torch.cat(pieces, -1)
            for more in _futures(subject, n):
                for name, y in _outcomes(subject, n, more):
                    length = 0 if y is None else y.shape[-1]
                    if y is None or length < out.shape[-1]:
                        raise VerificationError(
                            "prompt",
                            f"early: after {n} samples {out.shape[-1]} are out; if the signal ends after {n + more}, "
                            f"there are only {length}",
                            (n, more),
                        )
                    wrong = difference(out, y[..., : out.shape[-1]], subject.scale)
                    if wrong > subject.tolerance:
                        raise VerificationError(
                            "prompt",
                            f"early: after {n} samples {out.shape[-1]} are out, of which some change if {more} more "
                            f"samples ({name}) follow, by {wrong:.2g} of the output's scale",
                            (n, more),
                        )
                    count += 1
    recorder.ran("independence of the future", "prompt", max(count, 1))


def check_largest(subject: Subject, recorder: Recorder) -> None:
    """The first sample that is not out must depend on what comes, or on the end; otherwise it is held too long."""
    stream = subject.make()
    count = 0
    with torch.no_grad():
        for n in _positions(subject):
            out = stream.output_length(n, False)
            now = subject.offline(subject.fit(n))
            if now is not None and now.shape[-1] > out and not _depends(subject, n, out, now):
                raise VerificationError(
                    "prompt",
                    f"late: after {n} samples output_length({n}, False) is {out}, but no continuation changes output "
                    f"{out}: it was settled",
                    (n,),
                )
            count += 1
    recorder.ran("output_length is the largest", "prompt", count)


# ---------------------------------------------------------------------- inside


class _Unfinished:
    # A stream whose signal goes on: the last call is not final.
    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def __call__(self, x: Any, final: bool = False) -> Any:
        return self.stream(x)

    def flush(self) -> None:
        return None


def _positions(subject: Subject) -> List[int]:
    bound = subject.settled + 2 * subject.hop
    dense, spread = (300, 60) if subject.thorough else (32, 16)
    beyond = range(dense + 1, bound + 1)
    return sorted(
        {
            *range(1, min(bound, dense) + 1),
            *beyond[:: max(len(beyond) // spread, 1)],
            subject.first,
            bound,
            subject.long,
        }
    )


def _futures(subject: Subject, n: int) -> List[int]:
    # 0 is the end, where the signal may end; one sample more, a period, and as much as any output looks ahead.
    reach = subject.lookahead + subject.first + subject.hop + 1
    return sorted({subject.rest(n, more) for more in (0, 1, 2, subject.hop, reach)})


def _outcomes(subject: Subject, n: int, more: int) -> Iterator[Tuple[str, Optional[Tensor]]]:
    """What the reference makes of ``n`` samples and different continuations by ``more`` samples."""
    if more == 0:
        yield "the end", subject.offline(n)
        return
    signal = subject.signal(n + more)
    begun = signal[..., :n]
    others = {"other values": subject.signal(n + more, variant=2)[..., n:], **subject.extremes(more)}
    continuations = {"the same signal": signal}
    continuations.update({name: torch.cat([begun, other], -1) for name, other in others.items()})
    y = subject.refer(torch.cat(list(continuations.values())))
    for i, name in enumerate(continuations):
        yield name, None if y is None else y[i * subject.rows : (i + 1) * subject.rows]


def _depends(subject: Subject, n: int, i: int, now: Tensor) -> bool:
    futures = _futures(subject, n)
    # Long continuations and near ends tell most; then ends at every other distance.
    for more in [*(more for more in reversed(futures) if more > 0), *range(3, futures[-1])]:
        if (n + more) % subject.multiple > 0:
            continue
        for _, y in _outcomes(subject, n, more):
            if y is None or y.shape[-1] <= i or difference(y[..., i], now[..., i], subject.scale) > subject.tolerance:
                return True
    return False


def _cuts(n: int, hop: int, seed: int) -> List[Chunking]:
    lengths = [n, n + hop, n + 2 * hop, n + 3 * hop]
    cuts = [
        (lengths[0],),
        (n, hop),
        even_chunks(lengths[2], max(lengths[2] // 50, 1)),
        (n, hop, hop, hop),
        even_chunks(lengths[0], max(n // 100, 1)),
        random_chunks(lengths[1], seed, 7 + n // 20),
        even_chunks(lengths[2], hop),
        random_chunks(lengths[3], seed + 1),
    ]
    return cuts


def _phase(state: Dict[str, Tensor]) -> Dict[str, Any]:
    return {key: int(value) if value.dim() == 0 else tuple(value.shape) for key, value in state.items()}
