"""Does a stream keep to itself: the caller's chunks, its outputs, other streams of the same network?"""

import weakref
from functools import partial
from typing import List, Optional

import torch
from torch import Tensor

from .chunkings import (
    Chunking,
    all_at_once,
    chunkings,
    even_chunks,
    random_chunks,
    shrink_chunking,
    split_signal,
    total_length,
)
from .report import Recorder, VerificationError
from .subject import Subject
from .walking import call, difference, same_bits

__all__ = ["check_isolated", "check_released", "check_two_streams"]


def check_isolated(subject: Subject, recorder: Recorder) -> None:
    """The caller's chunk is never written to; the caller may write to it, and to every output."""
    lengths = [subject.fit(n) for n in (1, 2, subject.first, subject.settled + 3)]
    cases = [case for n in lengths for case in chunkings(n, subject.seed, 16)[:5]]
    cases += [even_chunks(subject.fit(min(subject.settled + 9, 300)), 1), random_chunks(subject.long, subject.seed, 40)]
    count = 0
    for mode in (torch.no_grad, torch.enable_grad):
        with mode():
            for chunking in cases:
                for attempt in (_read_only, _chunks_overwritten, _outputs_overwritten):
                    if attempt(subject, chunking):
                        smallest = shrink_chunking(chunking, partial(attempt, subject), multiple=subject.multiple)
                        raise VerificationError("isolated", attempt(subject, smallest), smallest)
                    count += 1
    recorder.ran("chunks and outputs belong to the caller", "isolated", count)


def check_released(subject: Subject, recorder: Recorder) -> None:
    """Nothing that was computed in a call shares memory with the caller's chunk, once the caller has let it go."""
    if subject.device.type != "cpu":
        recorder.skip(
            "no memory of the caller is kept", "isolated", f"the memory of {subject.device} cannot be watched"
        )
        return
    count = 0
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            stream = subject.make()
            for size in (1, 2, 1, 7, subject.first, subject.settled, 1, subject.long, 3):
                buffer = _Watched(subject.signal(size).numel() * subject.signal(0).element_size())
                memory = weakref.ref(buffer)
                chunk = torch.frombuffer(buffer, dtype=subject.dtype).view(subject.rows, subject.channels, size)
                chunk.copy_(subject.signal(size))
                y = stream(chunk)
                del chunk, buffer
                if memory() is not None:
                    y = None
                    holder = "the output shares" if memory() is None else "the stream keeps"
                    raise VerificationError(
                        "isolated", f"after a call with {size} samples {holder} the caller's memory", (size,)
                    )
                del y
                count += 1
    recorder.ran("no memory of the caller is kept", "isolated", count)


def check_two_streams(subject: Subject, recorder: Recorder) -> None:
    """Streams of one network, fed in turns, do not see each other."""
    count = 0
    with torch.no_grad():
        apart = (subject.apart or subject.make)()
        for n in (subject.fit(subject.settled + 4), subject.long):
            cuts = [even_chunks(n, max(n // 20, 1)), random_chunks(n, subject.seed, max(n // 5, 1)), all_at_once(n)]
            streams = [apart, *(subject.make() for _ in cuts[1:])]
            turns = [list(split_signal(subject.signal(n, variant=i), cut)) for i, cut in enumerate(cuts)]
            outputs: List[List[Tensor]] = [[] for _ in cuts]
            for turn in range(max(len(calls) for calls in turns)):
                for stream, calls, out in zip(streams, turns, outputs, strict=True):
                    if turn < len(calls):
                        try:
                            y = call(stream, *calls[turn])
                        except Exception as error:
                            raise VerificationError(
                                "isolated", f"of streams fed in turns one raised {type(error).__name__}: {error}"
                            ) from error
                        out += [] if y is None else [y.clone()]
            for i, (out, cut) in enumerate(zip(outputs, cuts, strict=True)):
                wrong = _against(subject, out, subject.offline(n, variant=i))
                if wrong:
                    raise VerificationError(
                        "isolated",
                        f"of {len(cuts)} streams of the network fed in turns, number {i} goes wrong: {wrong}",
                        cut,
                    )
                count += 1
    recorder.ran("streams fed in turns", "isolated", count)


def _read_only(subject: Subject, chunking: Chunking) -> str:
    stream = subject.make()
    for chunk, final in split_signal(subject.signal(total_length(chunking)), chunking):
        if chunk is None:
            call(stream, chunk, final)
            continue
        chunk = chunk.clone()
        before, version = chunk.clone(), chunk._version
        call(stream, chunk, final)
        if not same_bits(chunk, before):
            return f"a call with {chunk.shape[-1]} samples changed the caller's chunk"
        if chunk._version != version:
            return f"a call with {chunk.shape[-1]} samples wrote to the caller's chunk"
    return ""


def _chunks_overwritten(subject: Subject, chunking: Chunking) -> str:
    n = total_length(chunking)
    stream = subject.make()
    given: List[Tensor] = []
    copies: List[Tensor] = []
    for chunk, final in split_signal(subject.signal(n), chunking):
        chunk = None if chunk is None else chunk.clone()
        y = call(stream, chunk, final)
        if y is not None:
            given.append(y.detach())
            copies.append(y.detach().clone())
        if chunk is not None:
            subject.spoil(chunk)
    for i, (y, copy) in enumerate(zip(given, copies, strict=True)):
        if not same_bits(y, copy):
            return f"output {i} changed after it was given"
    wrong = _against(subject, copies, subject.offline(n))
    return f"when the caller overwrites each chunk after the call, the stream goes wrong: {wrong}" if wrong else ""


def _outputs_overwritten(subject: Subject, chunking: Chunking) -> str:
    n = total_length(chunking)
    stream = subject.make()
    copies: List[Tensor] = []
    for chunk, final in split_signal(subject.signal(n), chunking):
        y = call(stream, chunk, final)
        if y is not None:
            copies.append(y.detach().clone())
            subject.spoil(y.detach())
    wrong = _against(subject, copies, subject.offline(n))
    return (
        f"an output shares memory with the state: when the caller overwrites it, the stream goes wrong: {wrong}"
        if wrong
        else ""
    )


def _against(subject: Subject, pieces: List[Tensor], expected: Optional[Tensor]) -> str:
    length = sum(piece.shape[-1] for piece in pieces)
    due = 0 if expected is None else expected.shape[-1]
    if length != due:
        return f"{length} samples came, {due} were expected"
    wrong = difference(torch.cat(pieces, -1), expected, subject.scale) if expected is not None else 0.0
    return f"the largest difference is {wrong:.2g} of the output's scale" if wrong > subject.tolerance else ""


class _Watched(bytearray):
    # Memory that a weak reference can watch.
    pass
