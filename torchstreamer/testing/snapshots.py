"""Is the state data: copied, restored, saved, stacked, and nothing else?"""

import io
from typing import Any, Dict, List, Optional

import torch
from torch import Tensor

from ..errors import StreamInputError
from .chunkings import Chunking, even_chunks, split_signal
from .report import Recorder, VerificationError
from .subject import Subject
from .walking import call, play, same_bits

__all__ = ["check_foreign_states", "check_snapshots", "check_state_dict"]

State = Dict[str, Tensor]


def check_snapshots(subject: Subject, recorder: Recorder) -> None:
    """Snapshot, restore and fork in the middle of a signal, at many positions, bit for bit, also through a file."""
    count = 0
    with torch.no_grad():
        for rows in (subject.rows, -1):
            for n in _positions(subject)[:: 1 if rows > 0 or subject.thorough else 2]:
                stream = fed(subject, n, rows)
                state = stream.get_state()
                _check_form(state, abs(rows), n, stream)
                kept = {key: value.clone() for key, value in state.items()}
                tail = tail_of(subject, n, rows)
                expected = go_on(stream, tail)
                _check_same(state, kept, f"a state taken after {n} samples changed while the stream went on")
                restored = {"a new stream": subject.make(), "a stream in use": fed(subject, 5, rows, variant=2)}
                buffer = io.BytesIO()
                torch.save(state, buffer)
                buffer.seek(0)
                states = {"": state, " (through torch.save)": torch.load(buffer, weights_only=True)}
                for saved, taken in states.items():
                    for name, other in restored.items():
                        what = f"{name} with the state{saved} after {n} samples"
                        other.set_state({key: value.clone() for key, value in taken.items()})
                        _check_same(other.get_state(), kept, f"get_state() of {what} gives another state")
                        if other.state_nbytes() != _nbytes(kept):
                            raise VerificationError(
                                "state", f"{what} counts {other.state_nbytes()} bytes, not {_nbytes(kept)}"
                            )
                        check_outputs(go_on(other, tail), expected, f"{what} goes on differently")
                        count += 1
                # Two futures from one state, and set_state() copies.
                given = {key: value.clone() for key, value in state.items()}
                forks = [subject.make(), subject.make()]
                for fork in forks:
                    fork.set_state(given)
                for value in given.values():
                    subject.spoil(value)
                go_on(forks[1], tail_of(subject, n, rows, variant=1))
                check_outputs(go_on(forks[0], tail), expected, f"two streams forked after {n} samples see each other")
                stream = fed(subject, n, rows)
                for value in stream.get_state().values():
                    subject.spoil(value)
                check_outputs(
                    go_on(stream, tail), expected, f"writing to a state taken after {n} samples reached the stream"
                )
                count += 2
    recorder.ran("snapshot, restore, fork", "state", count)


def check_foreign_states(subject: Subject, recorder: Recorder) -> None:
    """States with entries missing, unknown or of another rank raise `StreamInputError`, and change nothing."""
    count = 0
    with torch.no_grad():
        for n in (1, subject.settled + 1):
            stream = fed(subject, n, subject.rows)
            good = stream.get_state()
            foreign: Dict[str, State] = {"an unknown entry": {**good, "no_such.entry": torch.tensor(1)}}
            for key in good:
                if not key.endswith("@unbatched"):
                    foreign[f"no '{key}'"] = {other: value for other, value in good.items() if other != key}
                if good[key].dim() > 1:
                    foreign[f"'{key}' of another rank"] = {**good, key: good[key][None]}
            foreign["no entries"] = {}
            new = subject.make().get_state()
            for name, state in foreign.items():
                if state.keys() == new.keys() and all(same_bits(state[key], new[key]) for key in new):
                    continue  # the state of a new stream
                try:
                    stream.set_state(state)
                except StreamInputError:
                    pass
                except Exception as error:
                    raise VerificationError(
                        "state",
                        f"a state with {name} raised {type(error).__name__}: {error}; StreamInputError was expected",
                    ) from error
                else:
                    raise VerificationError("state", f"a state with {name} was accepted; StreamInputError was expected")
                _check_same(stream.get_state(), good, f"a state with {name} was rejected, but changed the stream")
                count += 1
            tail = tail_of(subject, n, subject.rows)
            expected = go_on(fed(subject, n, subject.rows), tail)
            check_outputs(go_on(stream, tail), expected, "after foreign states the stream goes on differently")
    recorder.ran("foreign states", "state", count)


def check_state_dict(subject: Subject, recorder: Recorder) -> None:
    """What a stream remembers is not in ``state_dict()``."""
    stream = subject.make()
    new = {key: value.clone() for key, value in stream.state_dict().items()}
    with torch.no_grad():
        for n in (1, subject.settled, 3):
            stream(subject.signal(n))
            now = stream.state_dict()
            if now.keys() != new.keys() or not all(same_bits(now[key], new[key]) for key in new):
                differing = sorted(
                    (now.keys() ^ new.keys()) | {k for k in now.keys() & new.keys() if not same_bits(now[k], new[k])}
                )
                raise VerificationError("state", f"state_dict() changes with the signal: {', '.join(differing)}")
    held = stream.get_state().keys() & now.keys()
    if held:
        raise VerificationError("state", f"state_dict() holds the state: {', '.join(sorted(held))}")
    recorder.ran("state_dict", "state", 3)


# ---------------------------------------------------------------------- inside


def _positions(subject: Subject) -> List[int]:
    found = {0, 1, 2, subject.first - 1, subject.first, subject.first + 1, subject.settled, subject.settled + 1}
    if subject.thorough:
        found |= {*range(1, subject.settled + 2 * min(subject.hop, 20))}
    return sorted(n for n in found if n >= 0)


def fed(subject: Subject, n: int, rows: int, variant: int = 0) -> Any:
    stream = subject.make()
    x = subject.signal(n, abs(rows), variant)
    x = x[0] if rows == -1 else x
    for chunk, _ in split_signal(x, (n - n // 3, n // 3)):
        if chunk is not None and chunk.shape[-1] > 0:
            stream(chunk)
    return stream


def tail_of(subject: Subject, n: int, rows: int, variant: int = 0, length: int = 0) -> Tensor:
    x = subject.signal(n + (length or subject.rest(n, subject.settled + 20)), abs(rows), variant)[..., n:]
    return x[0] if rows == -1 else x


def _cut(n: int) -> Chunking:
    return (*even_chunks(min(n // 2, 12), 1), n - min(n // 2, 12), None)


def go_on(stream: Any, tail: Tensor) -> List[Optional[Tensor]]:
    return [call(stream, chunk, final) for chunk, final in split_signal(tail, _cut(tail.shape[-1]))]


def outputs(stream: Any, tail: Tensor) -> Tensor:
    pieces = play(stream, tail, _cut(tail.shape[-1]))
    if not pieces:
        raise VerificationError("state", f"a stream that goes on for {tail.shape[-1]} samples gave nothing")
    return torch.cat(pieces, -1)


def _nbytes(state: State) -> int:
    return sum(value.numel() * value.element_size() for value in state.values() if value.dim() > 0)


def _check_form(state: Any, rows: int, n: int, stream: Any) -> None:
    if not isinstance(state, dict):
        raise VerificationError("state", f"get_state() gave a {type(state).__name__}; a dict of tensors was expected")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise VerificationError(
                "state", f"get_state() gave {key!r}: {type(value).__name__}; names and tensors were expected"
            )
        if value.dim() == 0 and value.dtype != torch.int64:
            raise VerificationError("state", f"'{key}' is a single {value.dtype}; whole numbers are 0-d int64 tensors")
        if value.dim() > 0 and value.numel() > 0 and value.shape[0] != rows:
            raise VerificationError("state", f"'{key}' has shape {tuple(value.shape)}; its {rows} rows must come first")
        if value.requires_grad:
            raise VerificationError("state", f"'{key}' requires gradients; a state is data")
    if stream.state_nbytes() != _nbytes(state):
        raise VerificationError(
            "bounded",
            f"state_nbytes() is {stream.state_nbytes()} after {n} samples; the state has {_nbytes(state)} bytes",
        )


def _check_same(state: State, expected: State, what: str) -> None:
    differing = sorted(state.keys() ^ expected.keys()) + [
        key for key in state.keys() & expected.keys() if not same_bits(state[key], expected[key])
    ]
    if differing:
        raise VerificationError("state", f"{what}: {', '.join(differing)}")


def check_outputs(y: List[Optional[Tensor]], expected: List[Optional[Tensor]], what: str) -> None:
    for i, (one, other) in enumerate(zip(y, expected, strict=True)):
        if (one is None) != (other is None) or (one is not None and not same_bits(one, other)):
            raise VerificationError("state", f"{what}, from call {i} on")
