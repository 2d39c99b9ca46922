"""The tables of a subject: all that its stream says of its geometry and keeps, as plain lists, numbers and texts.

A table that cannot be made holds the type and the code of the error instead.
"""

import hashlib
import math
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence

import torch
from subjects import Subject
from torch import Tensor
from torch.utils import _pytree as pytree

import torchstreamer as pts
from torchstreamer.analysis import receptive_field

Tables = Dict[str, Any]

# Lengths of the table: all up to this many times `length_multiple`, and some long ones.
SHORT = 160
LONG = (240, 241, 255, 360, 1000, 1001, 1003, 4096, 65537)
# Pieces of a signal whose memory is watched.
PIECES = [1] * 20 + [2, 3, 5, 7, 11, 13]


def tables_of(subject: Subject) -> Tables:
    """All tables of a subject, by name."""
    try:
        stream: Any = pts.create_stream(subject.make(), **subject.create_arguments())
    except Exception as error:
        return {"stream": _refusal(error)}
    lengths = [n * subject.length_multiple for n in [*range(SHORT), *LONG]]
    made: Tables = {
        "stream": type(stream).__name__,
        "repr": repr(stream).splitlines(),
        "hop": stream.hop,
        "ratio": list(stream.ratio),
        "length.open": _attempt(lambda: [_plain(stream.output_length(n, False)) for n in lengths]),
        "length.final": _attempt(lambda: [_plain(stream.output_length(n, True)) for n in lengths]),
        "length.odd": _attempt(lambda: _odd_length(stream, subject.length_multiple)),
        "field": _attempt(lambda: _field(stream)),
    }
    with torch.no_grad():
        made |= _group("state", lambda: _state(stream.get_state(), "new"))
        if subject.shape is not None:
            made |= _group("fed", lambda: _fed(stream, subject))
            stream.reset()
            made |= _group("steady", lambda: _state(_steady(stream, subject), "steady"))
            stream.reset()
        for label, chunk in _chunks(stream, subject).items():
            static = _group("static", lambda chunk=chunk: _static(stream, subject, chunk))
            made |= {name.replace("static", f"static.{label}", 1): table for name, table in static.items()}
    return made


def _attempt(make: Callable[[], Any]) -> Any:
    try:
        return make()
    except Exception as error:
        return _refusal(error)


def _group(name: str, make: Callable[[], Tables]) -> Tables:
    """Tables that are made together; where they cannot be, one table says so."""
    made = _attempt(make)
    return made if isinstance(made, dict) else {name: made}


def _refusal(error: Exception) -> str:
    code = getattr(error, "code", None) or str(error).split(":")[0][:60]
    return f"{type(error).__name__}: {code}"


def _plain(value: Any) -> Any:
    """Lengths of several outputs as a list."""
    return value if isinstance(value, int) else pytree.tree_leaves(value)


def _odd_length(stream: Any, multiple: int) -> Any:
    """What comes of a length that is no multiple."""
    return None if multiple == 1 else _plain(stream.output_length(8 * multiple + 1, True))


def _field(stream: Any) -> List[Any]:
    field = receptive_field(stream, method="symbolic")
    phases = [None if phase is None else [_bound(end) for end in phase] for phase in field.phases]
    return [list(field.period), phases, field.certain]


def _bound(value: float) -> Any:
    return "inf" if math.isinf(value) else int(value)


# ---------------------------------------------------------------------- the stream's own state


def _state(state: Dict[str, Tensor], label: str) -> Tables:
    """The entries of a state, and apart from them their names."""
    return {
        f"state.{label}": _entries([value for name, value in state.items() if name not in ("@layout", "@seal")]),
        f"state.{label}.names": [name for name in state if name != "@seal"],
        f"state.{label}.bytes": sum(value.nbytes for value in state.values() if value.dim()),
        "layout": int(state["@layout"]),
    }


def _entries(values: Iterable[Tensor]) -> List[Any]:
    # Sorted, as a name that moves from one ring to another is no other geometry.
    return sorted((_entry(value) for value in values), key=str)


def _entry(value: Tensor) -> List[Any]:
    kind = str(value.dtype).replace("torch.", "")
    return [kind, list(value.shape), value.nbytes] if value.dim() else [kind, int(value)]


def _fed(stream: Any, subject: Subject) -> Tables:
    """A signal in small pieces, then the rest: how many samples come, the bytes that are held, and the values."""
    x = subject.signal(subject.length, seed=1)
    held, given, pieces, at = [], [], [], 0
    for size in [*PIECES, x.shape[-1] - sum(PIECES)]:
        y = stream(x[..., at : at + size])
        at += size
        held.append(stream.state_nbytes())
        given.append(0 if y is None else y.shape[-1])
        pieces.append(y)
    pieces.append(stream.flush())
    return {"fed.bytes": held, "fed.given": given, "values": checksum(pieces)}


def _steady(stream: Any, subject: Subject) -> Dict[str, Tensor]:
    """The state from which on every chunk leaves one of the same shapes."""
    hop = math.lcm(stream.hop, subject.length_multiple)
    chunk = -(-64 // hop) * hop
    x = subject.signal(chunk)
    before: Optional[List[Any]] = None
    for k in range(64):
        stream(x)
        state = stream.get_state()
        shapes = [[name, list(value.shape)] for name, value in state.items()]
        if shapes == before and stream.output_length(k * chunk, False) > 0:
            return state
        before = shapes
    raise RuntimeError("never_steady: the state changes with every chunk")


# ---------------------------------------------------------------------- the static step


def _chunks(stream: Any, subject: Subject) -> Dict[str, int]:
    """Chunks of two sizes, for captured models of one."""
    hop = math.lcm(stream.hop, subject.length_multiple)
    some = -(-16 // hop) * hop
    return {"some": some} if subject.captured or subject.shape is None else {"hop": hop, "some": max(some, 2 * hop)}


def _static(stream: Any, subject: Subject, chunk: int) -> Tables:
    channels = {} if subject.shape is None else {"channels": subject.shape[1]}
    static = pts.StaticStream(stream, chunk, batch=2, dtype=torch.float64, **channels)
    state = static.init_state()
    made = {
        "static.lag": static.lag,
        "static.outputs": static.outputs,
        "static.flush": static.flush_steps,
        "static.shape": list(static.out_shape),
        "static.length": [static.output_length(n * subject.length_multiple) for n in [*range(64), *LONG]],
        "static.state": _entries(state.values()),
        "static.state.names": [name for name in state if name != "@seal"],
        "static.state.bytes": sum(value.nbytes for value in state.values()),
        "static.repr": repr(static).splitlines(),
    }
    if subject.shape is not None:
        made["static.values"] = _attempt(lambda: _played(static, subject))
    return made


def _played(static: Any, subject: Subject) -> List[str]:
    """Two rows, the second a step younger, each to its end."""
    multiple, chunk = subject.length_multiple, static.chunk
    lengths = [(5 * chunk // 2) // multiple * multiple, 2 * chunk]
    x = subject.signal(max(lengths), seed=2)
    pieces: List[List[Tensor]] = [[], []]
    for k in range(4 + static.flush_steps):
        given = torch.zeros([2, x.shape[1], chunk], dtype=x.dtype)
        brings, first, last = [0, 0], [False, False], [False, False]
        for row, length in enumerate(lengths):
            start = (k - row) * chunk
            if 0 <= start < length:
                brings[row] = min(chunk, length - start)
                given[row, :, : brings[row]] = x[row, :, start : start + brings[row]]
                first[row], last[row] = start == 0, start + chunk >= length
        y, begin, end = static(given, torch.tensor(brings), torch.tensor(first), torch.tensor(last))
        for row in range(2):
            pieces[row].append(y[row, ..., int(begin[row]) : int(end[row])].clone())
    return [checksum(row) for row in pieces]


# ---------------------------------------------------------------------- values


def checksum(pieces: Sequence[Optional[Tensor]]) -> str:
    """Shape and checksum of the pieces, joined and rounded to a millionth of the largest number's decade."""
    came = [piece for piece in pieces if piece is not None]
    if not came:
        return "nothing"
    y = torch.cat(came, -1).double()
    finite = y[y.isfinite()].abs()
    largest = float(finite.max()) if finite.numel() else 0.0
    unit = 10.0 ** (math.floor(math.log10(largest)) - 5) if largest > 0 else 1.0
    rounded = (y / unit).round() + 0.0  # no negative zeros
    return f"{tuple(y.shape)} {hashlib.sha256(rounded.contiguous().numpy().tobytes()).hexdigest()[:16]}"
