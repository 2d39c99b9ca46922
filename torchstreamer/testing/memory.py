"""Does the memory of a stream stay small, however long the signal?"""

import random
from typing import Any, Dict, List, Set

import torch
from torch import Tensor, nn

from ..core.memory import Memory
from .report import Recorder, VerificationError
from .subject import Subject

__all__ = ["check_bounded"]

_CHUNKS = 10_000


def check_bounded(subject: Subject, recorder: Recorder, chunks: int = _CHUNKS) -> None:
    """``state_nbytes()`` and everything that the stream can reach stay the same over many chunks."""
    with torch.no_grad():
        _check_count(subject)
        _check_storage(subject)
        _check_uneven(subject)
        stream = subject.make()
        stream(subject.signal(2 * subject.settled))
        chunk = subject.signal(subject.hop)
        usual, objects, size = set(), 0, 0
        for _ in range(40):
            stream(chunk)
            usual.add(stream.state_nbytes())
            objects, size = max(objects, _objects(stream)), max(size, _reachable(stream))
        for i in range(1, chunks + 1):
            stream(chunk)
            if i % max(chunks // 20, 1) > 0:
                continue
            if stream.state_nbytes() not in usual:
                raise VerificationError(
                    "bounded",
                    f"state_nbytes() was {max(usual)} in the steady state, and is {stream.state_nbytes()} {i} chunks "
                    "later",
                )
            if _objects(stream) > objects or _reachable(stream) > 4 * size:
                raise VerificationError(
                    "bounded",
                    f"the stream keeps more and more outside of its memories: {objects} objects of {size} bytes in the "
                    f"steady state, {_objects(stream)} of {_reachable(stream)} bytes {i} chunks later",
                )
    recorder.ran("memory in the steady state", "bounded", chunks)


def _check_uneven(subject: Subject) -> None:
    # Chunks of all sizes: the state is largest at some phase, but that is reached early.
    rng = random.Random(subject.seed)
    stream = subject.make()
    stream(subject.signal(2 * subject.settled))
    most: List[int] = []
    x = subject.signal(2 * subject.hop + 40)
    for _ in range(2):
        most.append(0)
        for _ in range(150):
            stream(x[..., : rng.randint(1, x.shape[-1])])
            most[-1] = max(most[-1], stream.state_nbytes())
        for _ in range(min(subject.hop, 500) + 1):
            stream(x[..., :1])
            most[-1] = max(most[-1], stream.state_nbytes())
    if most[1] > 1.25 * most[0]:
        raise VerificationError(
            "bounded", f"with chunks of uneven sizes the state grows from {most[0]} to {most[1]} bytes"
        )


def _check_count(subject: Subject) -> None:
    stream = subject.make()
    for n in (0, 1, subject.settled):
        stream(subject.signal(n))
        held = sum(value.nbytes for value in stream.get_state().values() if value.dim() > 0)
        if stream.state_nbytes() != held:
            raise VerificationError("bounded", f"state_nbytes() is {stream.state_nbytes()}; the state has {held} bytes")


def _check_storage(subject: Subject) -> None:
    # What is allocated for the memories, after long chunks and after short ones.
    for sizes in ((subject.long, 1, 1), (subject.settled, *[1] * 30), (subject.long, subject.long), (2, 3) * 20):
        stream = subject.make()
        for size in sizes:
            y = stream(subject.signal(size))
            chunk = subject.signal(size).nbytes
            chunk = max(chunk, 0 if y is None else y.nbytes)
            held = stream.state_nbytes()
            allocated = sum(_storages(stream).values())
            if allocated > 4 * held + chunk:
                raise VerificationError(
                    "bounded",
                    f"after chunks of {sizes[:2]} … samples {allocated} bytes are allocated for a state of {held}; 4 "
                    f"times the state and one chunk ({chunk}) are allowed",
                )


def _storages(stream: nn.Module) -> Dict[int, int]:
    memories = [module for module in stream.modules() if isinstance(module, Memory)]
    storages = [tensor.untyped_storage() for memory in memories for tensor in memory.tensors()]
    return {storage.data_ptr(): storage.nbytes() for storage in storages}


def _reachable(stream: nn.Module) -> int:
    """Bytes of all tensors that can be reached from a stream, each storage once, and its containers' entries."""
    storages: Dict[int, int] = {}
    entries = 0
    for value in _walk(stream):
        if isinstance(value, Tensor):
            storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        entries += 1
    return sum(storages.values()) + 8 * entries


def _objects(stream: nn.Module) -> int:
    return sum(1 for _ in _walk(stream))


def _walk(root: Any) -> List[Any]:
    """Everything reachable through attributes, lists, tuples, dicts, sets and deques."""
    found: List[Any] = []
    seen: Set[int] = set()
    waiting = [root]
    while waiting:
        value = waiting.pop()
        found.append(value)
        if (
            isinstance(value, (str, bytes, int, float, type, Tensor))
            or callable(value)
            and not isinstance(value, nn.Module)
        ):
            continue
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, (list, tuple, set, frozenset)) or type(value).__name__ == "deque":
            waiting += value
        elif hasattr(value, "__dict__"):
            waiting += vars(value).values()
    return found
