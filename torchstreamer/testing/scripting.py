"""Does a stream script, and does the script obey the same rules?"""

import io
import warnings
from functools import partial
from typing import Any, Callable, Dict, Iterator, List, Optional, Sequence

import torch
from torch import Tensor, nn

from .chunkings import Chunking, chunkings, even_chunks, random_chunks
from .multiples import refuse_lengths, refuse_wrong_ends
from .rejection import rejected_chunks
from .report import Recorder, VerificationError
from .subject import Subject
from .walking import Failure, confirm, play, same_bits, walk

__all__ = ["check_scripted", "script_quietly"]


def script_quietly(stream: Any) -> Any:
    """``torch.jit.script`` without the warning that it is deprecated."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit")  # a FutureWarning from torch 2.15 on
        return torch.jit.script(stream)


def check_scripted(
    subject: Subject, recorder: Recorder, weights: Sequence[nn.Parameter] = (), chunks: int = 10_000
) -> None:
    """The scripted stream, and the one saved and loaded again, against every rule that they share with the stream.

    Args:
        subject: what is verified
        recorder: takes the checks down
        weights: the weights that stream and script share
        chunks: how many chunks the steady state must last
    """
    stream = subject.make()
    with torch.no_grad():
        stream(subject.signal(subject.settled))
        before = stream.get_state()
        try:
            script = script_quietly(stream)
        except Exception as error:
            raise VerificationError("scriptable", f"torch.jit.script raised {type(error).__name__}: {error}") from error
        _check_apart(subject, stream, script, before)
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`torch.jit")  # a FutureWarning from torch 2.15 on
            script.reset()
            torch.jit.save(script, buffer)
            buffer.seek(0)
            loaded = torch.jit.load(buffer, map_location=subject.device)  # type: ignore[no-untyped-call]
        cases = list(_cases(subject))
        for name, scripted, tried in (("scripted", script, cases), ("saved and loaded", loaded, cases[::4])):
            count = _try_script(subject, scripted, tried, partial(walk, subject), name)
            few = tried[::6]
            count += _try_script(subject, scripted, few, partial(walk, subject, rows=-1), f"{name}, [C, T]")
            count += _try_script(subject, scripted, few, partial(walk, subject, rows=1), f"{name}, one row")
            recorder.ran(f"chunkings, {name}", "scriptable", count)
            _check_geometry(subject, stream, scripted, name)
            recorder.ran(f"state, {name}", "scriptable", _check_state(subject, scripted, name))
            recorder.ran(f"rejected chunks, {name}", "scriptable", _check_rejected(subject, scripted, name))
            if subject.multiple > 1:
                count = _check_multiples(subject, scripted, name)
                recorder.ran(f"lengths that are no multiple, {name}", "scriptable", count)
        broken = _check_broken_step(subject, script, weights)
        if broken > 0:
            recorder.ran("errors inside a step, scripted", "scriptable", broken)
        else:
            recorder.skip("errors inside a step, scripted", "scriptable", "no step fails for weights of another rank")
        _check_bounded(subject, script, chunks)
        recorder.ran("memory in the steady state, scripted", "scriptable", chunks)
    with torch.enable_grad():
        count = _try_script(subject, script, cases[::6], partial(walk, subject), "scripted, gradients on")
    recorder.ran("chunkings with gradients on, scripted", "scriptable", count)


def _cases(subject: Subject) -> Iterator[Chunking]:
    lengths = subject.short_lengths()
    around = {subject.fit(n) for n in (subject.first, subject.first + 1, subject.settled + 1)}
    for n in sorted({*lengths[::3], *around}):
        found = chunkings(n, subject.seed + n, 16, subject.thorough)
        yield from found if subject.thorough else found[n // subject.multiple % 2 :: 2]
    yield even_chunks(subject.fit(min(subject.settled + subject.hop, 600)), 1)
    yield random_chunks(subject.long, subject.seed, 40)
    yield random_chunks(subject.long, subject.seed + 1)
    yield (3, subject.long - 10, 1, 1, 5)


def _try_script(
    subject: Subject,
    script: Any,
    cases: List[Chunking],
    attempt: Callable[[Any, Chunking], Optional[Failure]],
    name: str,
) -> int:
    def as_new() -> Any:
        script.reset()
        return script

    for i, chunking in enumerate(cases):
        failure = attempt(script, chunking)
        if failure is not None:
            error = confirm(as_new, failure, chunking, attempt, f"served {i} signals before", subject.multiple)
            raise VerificationError("scriptable", f"{name}: {error.rule}: {error.detail}", error.chunking)
    return len(cases)


def _check_apart(subject: Subject, stream: Any, script: Any, before: Dict[str, Tensor]) -> None:
    # Scripting a stream that was fed leaves it alone, and the script starts as new.
    chunking: Chunking = (subject.settled, subject.rest(subject.settled, 4), None)
    failure = walk(subject, script, chunking)
    if failure is not None:
        used = subject.make()
        again = walk(subject, used, chunking)
        if again is None:
            script.reset()
            later = walk(subject, script, chunking)
            if later is None:
                raise VerificationError(
                    "scriptable",
                    f"scripted from a stream that was fed, the script does not start as new: {failure.detail}",
                )
            raise VerificationError("scriptable", f"scripted: {later.rule}: {later.detail}", chunking)
    after = stream.get_state()
    if before.keys() != after.keys() or not all(same_bits(before[key], after[key]) for key in before):
        raise VerificationError("scriptable", "the script shares its state with the stream that it was made from")
    new = subject.make()
    new.set_state(before)
    n = subject.rest(subject.settled, 12)
    tail = subject.signal(subject.settled + n)[..., subject.settled :]
    for y, expected in zip(play(stream, tail, (5, n - 5)), play(new, tail, (5, n - 5)), strict=True):
        if not same_bits(y, expected):
            raise VerificationError("scriptable", "after torch.jit.script the original stream goes on differently")


def _check_geometry(subject: Subject, stream: Any, script: Any, name: str) -> None:
    if script.hop != stream.hop or tuple(script.ratio) != tuple(stream.ratio):
        raise VerificationError(
            "scriptable", f"{name}: hop and ratio are {script.hop} and {script.ratio}, not those of the stream"
        )
    if subject.knows_length:
        for n in range(0, subject.settled + 2 * subject.hop + 20):
            for final in (False, True) if n % subject.multiple == 0 else (False,):
                if script.output_length(n, final) != stream.output_length(n, final):
                    raise VerificationError(
                        "scriptable",
                        f"{name}: output_length({n}, {final}) is {script.output_length(n, final)}, that of the "
                        f"stream is {stream.output_length(n, final)}",
                    )


def _check_state(subject: Subject, script: Any, name: str) -> int:
    count = 0
    for rows in (subject.rows, -1):
        for n in sorted({1, subject.first, subject.settled + 1}):
            x = subject.signal(subject.fit(n + subject.settled + 20), abs(rows))
            x = x[0] if rows == -1 else x
            tail = x[..., n:]
            cut = (1, 2, tail.shape[-1] - 3, None)
            script.reset()
            script(x[..., :n])
            state = script.get_state()
            kept = {key: value.clone() for key, value in state.items()}
            nbytes = script.state_nbytes()
            expected = play(script, tail, cut)
            if not all(same_bits(state[key], kept[key]) for key in kept):
                raise VerificationError("scriptable", f"{name}: a state changed while the stream went on")
            if script.state_nbytes() != subject.make().state_nbytes():
                raise VerificationError(
                    "scriptable", f"{name}: after the end state_nbytes() is {script.state_nbytes()}"
                )
            eager = subject.make()
            for other, what in ((script, "the script"), (eager, "the stream")):
                other.set_state(state)
                if other.state_nbytes() != nbytes:
                    raise VerificationError("scriptable", f"{name}: {what} with the script's state counts other bytes")
                pieces = play(other, tail, cut)
                same = len(pieces) == len(expected) and all(
                    y.shape == z.shape
                    and torch.allclose(y, z, rtol=0, atol=subject.tolerance * subject.scale, equal_nan=True)
                    for y, z in zip(pieces, expected, strict=True)
                )
                if not same:
                    raise VerificationError(
                        "scriptable", f"{name}: {what} with the script's state after {n} samples goes on differently"
                    )
            before = script.get_state()
            message = _error(script.set_state, {**state, "no_such.entry": torch.tensor(1)})
            if "invalid_state" not in message:
                raise VerificationError(
                    "scriptable", f"{name}: a state with an unknown entry gave {message!r}; invalid_state was expected"
                )
            if script.get_state().keys() != before.keys():
                raise VerificationError("scriptable", f"{name}: a rejected state changed the script")
            script.detach_state()
            script.refresh_weights()
            count += 1
    script.reset()
    return count


def _check_rejected(subject: Subject, script: Any, name: str) -> int:
    count = 0
    n = subject.fit(subject.settled)
    for rows in (subject.rows, -1):
        x = subject.signal(n + subject.fit(2), abs(rows))
        x = x[0] if rows == -1 else x
        good = x[..., n:]
        script.reset()
        script(x[..., :n])
        state = script.get_state()
        for what, chunk in rejected_chunks(good).items():
            if not isinstance(chunk, Tensor):
                continue
            message = _error(script, chunk, True)
            if "invalid_chunk" not in message or "expected" not in message:
                raise VerificationError(
                    "scriptable",
                    f"{name}: {what} gave {message!r}; a torch.jit.Error with 'invalid_chunk' was expected",
                )
            after = script.get_state()
            if state.keys() != after.keys() or not all(same_bits(state[key], after[key]) for key in state):
                raise VerificationError("scriptable", f"{name}: {what} was rejected, but changed the state")
            count += 1
        script.reset()
    return count


def _check_multiples(subject: Subject, script: Any, name: str) -> int:
    if getattr(script, "length_multiple", None) != subject.multiple:
        raise VerificationError("scriptable", f"{name}: length_multiple is not that of the stream")

    def as_new() -> Any:
        script.reset()
        return script

    try:
        count = refuse_lengths(subject, script) if subject.knows_length else 0
        return count + refuse_wrong_ends(subject, as_new)
    except VerificationError as error:
        raise VerificationError("scriptable", f"{name}: {error.rule}: {error.detail}", error.chunking) from error


def _check_broken_step(subject: Subject, script: Any, weights: Sequence[nn.Parameter]) -> int:
    # Nothing can be injected into a script, but weights of another rank make its step fail.
    count = 0
    for size in (subject.settled, subject.long):
        script.reset()
        kept = [weight.data for weight in weights]
        try:
            for weight in weights:
                weight.data = weight.data.unsqueeze(0)
            message = _error(script, subject.signal(size))
        finally:
            for weight, value in zip(weights, kept, strict=True):
                weight.data = value
        if message == "no error":
            continue
        for method in (script.flush, script.get_state):
            later = _error(method)
            if "failed_stream" not in later:
                raise VerificationError(
                    "scriptable",
                    f"safe: after a step that failed {later!r} came; a torch.jit.Error 'failed_stream' was expected",
                )
        script.reset()
        failure = walk(subject, script, (subject.settled, subject.rest(subject.settled, 2)))
        if failure is not None:
            raise VerificationError("scriptable", f"safe: after a step that failed, and reset(), {failure.detail}")
        count += 1
    return count


def _check_bounded(subject: Subject, script: Any, chunks: int) -> None:
    script.reset()
    script(subject.signal(2 * subject.settled))
    chunk = subject.signal(subject.hop)
    for _ in range(20):
        script(chunk)
    nbytes = script.state_nbytes()
    for i in range(1, chunks + 1):
        script(chunk)
        if i % max(chunks // 20, 1) == 0 and script.state_nbytes() != nbytes:
            raise VerificationError(
                "scriptable",
                f"bounded: state_nbytes() was {nbytes} in the steady state, and is {script.state_nbytes()} {i} chunks "
                "later",
            )
    script.reset()


def _error(action: Callable[..., Any], *arguments: Any) -> str:
    try:
        action(*arguments)
    except torch.jit.Error as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"
