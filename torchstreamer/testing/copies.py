"""Do states move between batches, and do copies of a stream go on by themselves?"""

import copy
import pickle
import sys
from typing import Any, Callable, Dict

import torch

from ..core.state import stack_states, unstack_state
from ..errors import StreamInputError
from .report import Recorder, VerificationError
from .snapshots import check_outputs, fed, go_on, outputs, tail_of
from .subject import Subject
from .walking import difference

__all__ = ["check_copies", "check_stacking"]


def check_stacking(subject: Subject, recorder: Recorder) -> None:
    """States of equal phase go on as rows of one batch; the rows of a batch go on alone."""
    count = 0
    with torch.no_grad():
        start = 2 * subject.settled + 3
        ages = [start, start + subject.period, start + 3 * subject.period]
        streams = [fed(subject, n, rows, variant=i) for i, (n, rows) in enumerate(zip(ages, (1, -1, 1), strict=True))]
        try:
            stacked = stack_states([stream.get_state() for stream in streams])
        except StreamInputError as error:
            raise VerificationError(
                "state", f"states after {ages} samples, hop {subject.hop}, do not stack: {error}"
            ) from error
        batch = subject.make()
        batch.set_state(stacked)
        steps = subject.rest(start, 2 * subject.settled + 7)
        alone = []
        for i, (n, rows) in enumerate(zip(ages, (1, -1, 1), strict=True)):
            alone.append(outputs(streams[i], tail_of(subject, n, rows, i, steps)))
        together = outputs(batch, torch.cat([tail_of(subject, n, 1, i, steps) for i, n in enumerate(ages)]))
        for i, (own, age) in enumerate(zip(alone, ages, strict=True)):
            own = own if own.dim() == 3 else own[None]
            if (
                own.shape != together[i : i + 1].shape
                or difference(together[i : i + 1], own, subject.scale) > subject.tolerance
            ):
                raise VerificationError(
                    "state", f"the stream stacked after {age} samples goes on differently as row {i}"
                )
            count += 1
        for unbatched in (False, True):
            rows = max(subject.rows, 2)
            n = subject.settled + 1
            batch = fed(subject, n, rows)
            states = unstack_state(batch.get_state(), unbatched)
            tail = tail_of(subject, n, rows)
            together = outputs(batch, tail)
            if len(states) != rows and len(batch.get_state()) > 0:
                raise VerificationError("state", f"the state of {rows} rows came apart into {len(states)}")
            for i, state in enumerate(states):
                stream = subject.make()
                stream.set_state(state)
                own = outputs(stream, tail[i] if unbatched else tail[i : i + 1])
                expected = together[i] if unbatched else together[i : i + 1]
                if own.shape != expected.shape or difference(own, expected, subject.scale) > subject.tolerance:
                    raise VerificationError("state", f"row {i} of a batch goes on differently alone")
                count += 1
    recorder.ran("stack and unstack", "state", count)


def check_copies(subject: Subject, recorder: Recorder) -> None:
    """``deepcopy`` and pickling in the middle of a signal give streams that go on by themselves."""
    kinds: Dict[str, Callable[[Any], Any]] = {}
    if _works(copy.deepcopy, subject):
        kinds["deepcopy"] = copy.deepcopy
    else:
        recorder.skip("deepcopy", "state", "the network itself cannot be copied")
    if _works(_pickled, subject) and _importable(type(subject.make())):
        kinds["pickling"] = _pickled
    else:
        recorder.skip("pickling", "state", "the network itself, or the class of its stream, cannot be pickled")
    for name, copied in kinds.items():
        count = 0
        for mode in (torch.no_grad, torch.enable_grad) if name == "deepcopy" else (torch.no_grad,):
            with mode():
                for n in (0, 1, subject.settled + 1):
                    stream = fed(subject, n, subject.rows)
                    try:
                        other = copied(stream)
                    except Exception as error:
                        raise VerificationError(
                            "state", f"{name} after {n} samples raised {type(error).__name__}: {error}"
                        ) from error
                    third = copied(stream)
                    tail = tail_of(subject, n, subject.rows)
                    go_on(third, tail_of(subject, n, subject.rows, variant=1))
                    expected = go_on(fed(subject, n, subject.rows), tail)
                    check_outputs(go_on(other, tail), expected, f"{name} after {n} samples goes on differently")
                    check_outputs(go_on(stream, tail), expected, f"after {name} the original goes on differently")
                    count += 1
        recorder.ran(name, "state", count)


def _pickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


def _works(copied: Callable[[Any], Any], subject: Subject) -> bool:
    if subject.module is None:
        return True
    try:
        copied(subject.module)
    except Exception:
        return False
    return True


def _importable(kind: type) -> bool:
    found: Any = sys.modules.get(kind.__module__)
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is kind
