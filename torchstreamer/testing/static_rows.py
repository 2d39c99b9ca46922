"""Do the rows of a static step give what the stream gives, whatever their age and whatever stands before it?"""

import math
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.stream import BaseStream
from ..deploy.static import StaticStream
from ..errors import UnsupportedModuleError
from .behind import Behind
from .live_rows import LiveRows
from .report import Recorder, VerificationError
from .subject import Subject
from .walking import difference, same_bits

__all__ = ["check_static"]

_STEPS = 20


def check_static(subject: Subject, recorder: Recorder, wanted: Optional[bool]) -> None:
    """`StaticStream` against the stream: its numbers, signals of all short lengths, and rows that live at random.

    Args:
        subject: what is verified
        recorder: told what ran
        wanted: whether the stream must have a static form; ``None``: it is checked where there is one
    """
    lengths = [0, *subject.short_lengths()]
    with torch.no_grad():
        stream = subject.make()
        stream(subject.signal(subject.settled + 1))
        before = stream.get_state()
        made, refusal = _make(subject, stream, len(lengths)) if wanted is not False else (None, "static=False")
        if made is None:
            if wanted:
                raise VerificationError("static", f"there is no static form: {refusal}")
            recorder.skip("static rows", "static", refusal)
            return
        numbers = _check_numbers(subject, stream, made)
        _check_from_the_start(subject, made, lengths)
        late = subject.hop + 1
        behind = f"behind a value that comes {late} samples late and is arbitrary outside of its signal"
        count = 0
        for source, turns, context in (
            (stream, 1, "rows of any age"),
            (Behind(stream, late, _garbage(subject)), 2 + subject.seed % 2, behind),
        ):
            try:
                live = _live(subject, source, _chunk(subject, turns))
                numbers += _check_numbers(subject, stream, live.statics[0])
                _check_apart(stream, [made, *live.statics])
                steps = (10 if subject.thorough else 1) * _STEPS + 2 * live.statics[0].flush_steps
                count += live.run(steps).compare()
            except VerificationError as error:
                raise VerificationError(error.rule, f"{context}: {error.detail}", error.chunking) from error
            except Exception as error:
                raise VerificationError("static", f"{context}: a StaticStream raised {_named(error)}") from error
        if not _same_state(before, stream.get_state()):
            raise VerificationError("static", "a StaticStream changed the state of the stream that it was made of")
    recorder.ran("lengths of a static step", "static", numbers)
    recorder.ran("static rows from the first step on", "static", len(lengths))
    recorder.ran("static rows of any age", "static", count)


# ---------------------------------------------------------------------- what there is


def _make(subject: Subject, stream: BaseStream, batch: int) -> Tuple[Optional[StaticStream], str]:
    """The static form, or why there is none."""
    if not subject.knows_length:
        return None, "output_length=False"
    try:
        return StaticStream(stream, _chunk(subject, 1), batch, **_options(subject)), ""
    except UnsupportedModuleError as error:
        return None, str(error)
    except Exception as error:
        raise VerificationError(
            "static", f"StaticStream(stream, {_chunk(subject, 1)}) raised {_named(error)}"
        ) from error


def _options(subject: Subject) -> Dict[str, Any]:
    return {"channels": subject.channels, "dtype": subject.dtype, "device": subject.device}


def _chunk(subject: Subject, turns: int) -> int:
    # So many periods, or more where the start of a signal would take too many steps.
    return subject.hop * max(turns, -(-subject.settled // (_STEPS * subject.hop)))


def _garbage(subject: Subject) -> float:
    return math.nan if subject.differentiable else float(subject.extremes(1)["the largest"].max())


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"


def _same_state(one: Dict[str, Tensor], other: Dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(same_bits(one[name], other[name]) for name in one)


# ---------------------------------------------------------------------- what it says of itself


def _check_numbers(subject: Subject, stream: BaseStream, static: StaticStream) -> int:
    """Outputs per step, lengths and flush steps are those that the stream's own ``output_length`` says."""
    chunk = static.chunk
    up, down = stream.ratio
    if static.outputs * down != chunk * up:
        raise VerificationError(
            "static", f"a step of {chunk} samples gives {static.outputs}; ratio {up}/{down} says {chunk * up / down:g}"
        )
    bound = subject.fit(subject.settled + 2 * subject.period + chunk)
    lengths = range(0, bound + 1, subject.multiple * max(bound // subject.multiple // 200, 1))
    for n in [*lengths, subject.long, subject.fit(20 * bound + 1)]:
        length, said = stream.output_length(n, True), static.output_length(n)
        if said != length:
            raise VerificationError(
                "static", f"output_length({n}) of the StaticStream is {said}, that of the stream {length}"
            )
        steps = max(-(-n // chunk), 1)
        needed = -(-(length + static.lag) // static.outputs) - steps if length > 0 else 0
        if needed > static.flush_steps:
            raise VerificationError(
                "static",
                f"{n} samples in steps of {chunk}, lag {static.lag}, need {needed} more steps; flush_steps is "
                f"{static.flush_steps}",
            )
    return len(lengths) + 2


def _check_apart(stream: BaseStream, statics: Sequence[StaticStream]) -> None:
    """No memory is shared."""
    owners: Dict[int, int] = {}
    for i, module in enumerate([stream, *statics]):
        for value in [*module.parameters(), *module.buffers()]:
            other = owners.setdefault(value.untyped_storage().data_ptr(), i) if value.numel() > 0 else i
            if other != i:
                whose = "its stream" if other == 0 else "another one of its stream"
                raise VerificationError("static", f"a StaticStream shares the memory of a weight or state with {whose}")


# ---------------------------------------------------------------------- signals that start together


def _check_from_the_start(subject: Subject, static: StaticStream, lengths: Sequence[int]) -> None:
    """Signals of all short lengths, one in each row, all from the first step on; the shortest wrong one is told."""
    signals = [subject.signal(n, 1, variant=i % 3)[0] for i, n in enumerate(lengths)]
    expected = [subject.offline(n, 1, i % 3) for i, n in enumerate(lengths)]
    others = [subject.signal(3 * static.chunk, 1, variant=3)[0] for _ in lengths]
    try:
        found = _play(static, signals, [0] * len(signals))
        _compare(subject, static, lengths, found, expected, "in a new row")
        _play(static, others, [0] * len(signals), 2)
        found = _play(static, signals, [i % 3 for i in range(len(signals))])
        _compare(subject, static, lengths, found, expected, "in the row of one that went on, after 0 to 2 rests")
    except VerificationError:
        raise
    except Exception as error:
        raise VerificationError("static", f"a step of {static.chunk} samples raised {_named(error)}") from error


def _compare(
    subject: Subject,
    static: StaticStream,
    lengths: Sequence[int],
    found: Sequence[Tensor],
    wanted: Sequence[Optional[Tensor]],
    row: str,
) -> None:
    for n, y, expected in zip(lengths, found, wanted, strict=True):
        length = 0 if expected is None else expected.shape[-1]
        where = f"{n} samples in steps of {static.chunk} {row}"
        if y.shape[-1] != length:
            raise VerificationError(
                "static", f"{y.shape[-1]} samples came out of {where}; the reference gives {length}"
            )
        if expected is None:
            continue
        if y.shape != expected[0].shape or y.dtype != expected.dtype:
            raise VerificationError(
                "static",
                f"shape {tuple(y.shape)}, {y.dtype} came out of {where}; {tuple(expected[0].shape)}, {expected.dtype} "
                "was expected",
            )
        wrong = difference(y, expected[0], subject.scale)
        if wrong > subject.tolerance:
            allowed = subject.tolerance * subject.scale
            k = next(k for k in range(length) if difference(y[..., k], expected[0, ..., k], 1.0) > allowed)
            raise VerificationError(
                "static",
                f"output sample {k} of {length} is wrong, of {where}; the largest difference is {wrong:.2g} of the "
                f"output's scale, {subject.tolerance:.0e} is allowed",
            )


def _play(static: StaticStream, signals: Sequence[Tensor], rests: Sequence[int], steps: int = 0) -> List[Tensor]:
    """What comes out of signals that all start at once and bring full chunks up to their ends.

    Args:
        static: has a row for each
        signals: the signals
        rests: steps in which each rests, right after its start
        steps: only so many, from the start on
    """
    chunk = static.chunk
    counts = [max(-(-x.shape[-1] // chunk), 1) + rest for x, rest in zip(signals, rests, strict=True)]
    pieces: List[List[Tensor]] = [[] for _ in signals]
    for step in range(steps or max(counts) + static.flush_steps):
        came = []
        for x, rest in zip(signals, rests, strict=True):
            begin = (step - rest) * chunk
            came.append(x[:, begin : begin + chunk] if begin >= 0 else x[:, :0])
        x = torch.stack([F.pad(piece, [0, chunk - piece.shape[-1]]) for piece in came])
        lengths = torch.tensor([piece.shape[-1] for piece in came], device=x.device)
        first = torch.full_like(lengths, step == 0, dtype=torch.bool)
        last = torch.tensor([count == step + 1 for count in counts], device=x.device)
        state = static.get_state()
        y, start, stop = static(x, lengths, first, last)
        if step in (0, 1, max(counts) - 1):
            _check_pure(static, state, (x, lengths, first, last))
        for b, (i, j) in enumerate(zip(start.tolist(), stop.tolist(), strict=True)):
            pieces[b].append(y[b].narrow(-1, i, j - i))
    return [torch.cat(each, -1) for each in pieces]


def _check_pure(static: StaticStream, state: Dict[str, Tensor], inputs: Tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    """`StaticStream.step` is a function: it gives the state that a call gave, and writes to nothing."""
    kept = {name: value.clone() for name, value in state.items()}
    after = static.get_state()
    following, *_ = static.step(state, *inputs)
    if not _same_state(state, kept) or not _same_state(static.get_state(), after):
        raise VerificationError("static", "step() writes to the state that it is given")
    if not _same_state(following, after):
        raise VerificationError("static", "step() gives another state than a call does from the same one")


# ---------------------------------------------------------------------- rows that live at random


def _live(subject: Subject, stream: BaseStream, chunk: int) -> LiveRows:
    """Signals that start, rest, end, start over others and move between two batches at random."""
    streamed = subject.make()

    def whole(x: Tensor) -> Optional[Tensor]:
        y, expected = streamed(x.clone(), True), subject.refer(x)
        if (None if y is None else y.shape) != (None if expected is None else expected.shape):
            raise VerificationError(
                "exact", f"of {x.shape[-1]} samples the stream gives another shape than the reference"
            )
        return y

    m, first, settled = subject.multiple, subject.first, subject.settled
    return LiveRows(
        stream,
        whole,
        chunk,
        (4, 3),
        subject.seed,
        multiple=m,
        lengths=[subject.fit(n) for n in (first - m, first, first + m, settled, settled + chunk)],
        draw=subject.domain,
        longest=min(settled, 4 * chunk) + 2 * chunk,
        tolerance=subject.tolerance,
        scale=subject.scale,
        nan=0.0 if subject.spreads_nan else 0.1,
        **_options(subject),
    )
