"""A new graph stream tried against the model itself: on the example, on signals as short as the model takes, and at
lengths for which a guard of the capture does not hold."""

from typing import Dict, List, Optional, Sequence, Set, Tuple

import torch
from torch import Tensor

from ..core.closeness import distance, largest, tolerance
from ..core.frozen import is_twin
from ..core.telling import Telling
from ..errors import UnsupportedModuleError
from .capture import Capture
from .graph_stream import GraphStream
from .guard_ends import first_broken

__all__ = ["BranchError", "runs_on", "shortest_length"]

_SHORT = 24  # of the shortest lengths, so many are looked at
_FIRST = 6  # and so many are tried whatever is known of them
_AHEAD = 512  # lengths beyond the example at which guards are looked at
_FAR = (10_000, 100_003)
_LONGEST = 1 << 16  # samples of a signal that is tried
_PER_GUARD = 4
_GUARDED = 24


def shortest_length(
    found: Capture,
    stream: GraphStream,
    telling: Telling,
    least: int = 1,
    short: Sequence[int] = (),
    later: bool = True,
) -> Tuple[int, int]:
    """The least length that the model takes, and the least from which on the stream is exact.

    They differ where the model takes another branch for short signals.

    The exporter records guards: conditions on the length under which it took the branches that it took. Many exclude
    lengths only because an axis of one sample, or a contiguous tensor, is special to the tracer. So where a guard does
    not hold the model itself is asked, and the stream must agree with it. So it must on the shortest signals that the
    model takes: on the very first, and further on one of every phase.

    Args:
        found: the capture
        stream: the stream
        telling: is told what is at work
        least: the shortest signal that will come
        short: lengths at which the stream must agree with the model besides
        later: whether it may begin to agree with the model at any length

    Raises:
        UnsupportedModuleError: the stream gives something else than the model
    """
    port = found.streamed[0]
    assert port.time is not None
    typical = _within(found, stream, port.example.shape[port.time])
    trial = _Trial(found, stream, telling)
    telling.begin("trying the stream against the model")
    problem = trial.disagreement(typical)
    if problem and is_twin(found.net):
        raise UnsupportedModuleError(
            "training_mode",
            found.net,
            f"what it computes in training mode differs from its eval form by more than dropout: {problem}",
            "keep what is for training alone out of the module that is streamed",
        )
    if problem:
        raise UnsupportedModuleError(
            "not_exact",
            found.net,
            f"on the example its stream differs from the model: {problem}",
            "register a handler for the part of it that depends on values or on chance",
        )
    shortest = max(_shortest_that_runs(found, typical), least)
    for n in short:
        if shortest <= n and trial.disagreement(n):
            raise _branch(found, typical, f"the length {n}", n)
    try:
        agreed, branched = _agreed(trial, shortest, typical)
        return agreed, max(agreed, least) if branched else least
    except UnsupportedModuleError:
        if short or not later:
            raise
        # Another branch for short signals, if all conditions hold from some length on.
        broken = [n for n in range(shortest, typical) if found.valid(n) and found.broken_guards(n)]
        first = next((n for n in range(broken[-1] + 1, typical + 1) if found.valid(n)), None) if broken else None
        if first is None:
            raise
        return shortest, _agreed(trial, first, typical)[0]


def _agreed(trial: "_Trial", shortest: int, typical: int) -> Tuple[int, bool]:
    """From which length on the stream agrees with the model, about the one that is given; and whether the model gives
    something for a shorter signal.

    Raises:
        UnsupportedModuleError: from none
    """
    found, stream = trial.found, trial.stream
    unit = found.sizes.scale * found.multiple
    most = max(stream._limit, shortest) if stream._limit >= 0 else shortest + _SHORT * unit
    short: List[int] = []
    for n in range(shortest, shortest + _SHORT * unit):
        if found.valid(n) and n <= most and (len(short) < _FIRST or sum(short) < 3 * typical):
            short.append(n)
    wrong = [n for n in _telling_lengths(found, stream, short) if trial.disagreement(n)]
    if wrong:
        wrong = [n for n in short if trial.disagreement(n)]
    if wrong and wrong[-1] in short[-(len(short) // 3) :]:
        raise _branch(found, typical, f"the length {wrong[-1]}", wrong[-1])
    if wrong:
        # So short that a crop takes more than there is, or a branch for short signals.
        shortest = next(n for n in range(wrong[-1] + 1, wrong[-1] + unit + 1) if found.valid(n))
    _check_guards(trial, max([shortest, *short]), typical)
    return shortest, any(_gives(found, n) for n in wrong)


def _within(found: Capture, stream: GraphStream, typical: int) -> int:
    """The length of the example, or the longest signal that there is, if that is less."""
    if stream._limit < 0 or typical <= stream._limit:
        return typical
    return next((n for n in range(stream._limit, 0, -1) if found.valid(n) and runs_on(found, n)), typical)


def _telling_lengths(found: Capture, stream: GraphStream, short: List[int]) -> List[int]:
    """Of short lengths those whose trial tells most: no guard excludes the others, and of each phase one is tried."""
    chosen: List[int] = []
    phases: Set[int] = set()
    for i, n in enumerate(short):
        if i < _FIRST or n == short[-1] or n % stream.hop not in phases or found.broken_guards(n):
            chosen.append(n)
            phases.add(n % stream.hop)
    return chosen


def _shortest_that_runs(found: Capture, typical: int) -> int:
    lengths = [n for n in range(1, typical + 1) if found.valid(n)]
    low, high = -1, len(lengths) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if runs_on(found, lengths[middle]) else (middle, high)
    return lengths[high]


def _check_guards(trial: "_Trial", above: int, typical: int) -> None:
    """Compare stream and model where a guard does not hold, for each guard at lengths of several phases.

    There the model takes another branch, which does the same; where it would not, a capture of that branch tells.
    """
    found, stream = trial.found, trial.stream
    unit = found.sizes.scale * found.multiple
    near = [n for n in range(above + 1, typical + 1 + _AHEAD * unit) if found.valid(n)]
    far = [n for start in _FAR for n in range(start, start + 4 * unit) if found.valid(n)]
    most = stream._limit if stream._limit >= 0 else near[-1] + far[-1]
    broken = {n: found.broken_guards(n) for n in near + far if n <= most}
    _try_where_broken(trial, found, broken, typical)
    # A branch for the longest signal alone has just been tried.
    last = max((n for n in near if n != stream._limit and broken.get(n)), default=0)
    other = found.other
    if other is None and 2 * last > typical and found.again is not None:
        try:
            other = found.again(found.other_frames(False) or found.other_frames(True) or last)
        except UnsupportedModuleError:
            raise _branch(found, typical, broken[last][0], last) from None
    if other is not None:
        # As many samples as it was captured with, and whole periods more.
        far = [start - (start - other.typical) % stream.hop for start in _FAR]
        broken |= {n: found.broken_guards(n) for n in far if n <= most and found.valid(n)}
        _try_where_broken(trial, other, {n: other.broken_guards(n) for n in broken if broken[n]}, typical)


def _try_where_broken(trial: "_Trial", of: Capture, broken: Dict[int, List[str]], typical: int) -> None:
    """Compare stream and model at lengths at which guards of a capture do not hold, of each guard the last one too.

    Raises:
        BranchError: they differ
    """
    found = trial.found
    ahead = typical + _AHEAD * found.sizes.scale * found.multiple
    lengths: Dict[str, Dict[int, int]] = {}
    last: Dict[str, int] = {}
    for n, guards in broken.items():
        for guard in guards:
            phases = lengths.setdefault(guard, {})
            if n <= ahead:
                last[guard] = n
            if len(phases) < _PER_GUARD:
                phases.setdefault(n % max(trial.stream.hop, 2), n)
    tried: Set[int] = set()
    for guard, phases in lengths.items():
        for n in dict.fromkeys([*phases.values(), last.get(guard, typical)]):
            if n > ahead:
                _try_beyond(trial, of, guard, typical, n)
            elif n not in tried and len(tried) < _GUARDED:
                tried.add(n)
                if trial.disagreement(n):
                    raise _branch(found, typical, guard, n)


def _try_beyond(trial: "_Trial", of: Capture, guard: str, typical: int, far: int) -> None:
    """Compare stream and model on the first lengths at which a guard does not hold that ends beyond the example.

    Raises:
        BranchError: they differ, or the lengths are too far to be tried
    """
    found = trial.found
    unit = found.sizes.scale * found.multiple
    over = first_broken(found, [guard], typical, far) if of is found else far
    for n in (over, over + 7 * unit):
        if n > _LONGEST or trial.disagreement(n):
            raise _branch(found, typical, guard, n)


class BranchError(UnsupportedModuleError):
    """For some lengths a model computes something else.

    Attributes:
        length: one of them
    """

    length = 0


def _branch(found: Capture, typical: int, guard: str, n: int) -> BranchError:
    multiple = None if runs_on(found, n) else _multiple(found, typical)
    if multiple is not None:
        error = BranchError(
            "branch_on_length",
            found.net,
            f"it takes signals of some lengths only: it raises for {n} samples, captured with {typical}",
            f"give length_multiple={multiple}",
        )
    else:
        error = BranchError(
            "branch_on_length",
            found.net,
            f"it computes something else for other lengths: captured with {typical} samples, it takes another branch "
            f"for {n} ({guard})",
            "give length_multiple=, and an example of such a length, if only such lengths occur; or write the model "
            "without a branch on its length",
        )
    error.length = n
    return error


def _multiple(found: Capture, typical: int) -> Optional[int]:
    """Of what divides the length of the example the least by which a signal that the model takes is longer."""
    unit = found.sizes.scale * found.multiple
    for step in range(unit, typical + 1, unit):
        if typical % step == 0 and found.valid(typical + step) and runs_on(found, typical + step):
            return step if step > unit else None
    return None


def runs_on(found: Capture, n: int) -> bool:
    """Whether the model takes the first ``n`` samples of the example."""
    try:
        with torch.no_grad():
            found.answer.leaves(*(x.clone() for x in found.inputs_of(n)))
    except Warning:
        raise
    except Exception:  # too short, whatever the model calls it
        return False
    return True


def _gives(found: Capture, n: int) -> bool:
    """Whether samples come out of the model for so many."""
    try:
        with torch.no_grad():
            ys = found.answer.leaves(*(x.clone() for x in found.inputs_of(n)))
    except Exception:
        return False
    return any(isinstance(y, Tensor) and y.numel() > 0 for y in ys)


class _Trial:
    """Compares a stream with its model; no length twice."""

    def __init__(self, found: Capture, stream: GraphStream, telling: Telling) -> None:
        self.found = found
        self.stream = stream
        self.telling = telling
        self.known: Dict[int, str] = {}
        self.dtypes = _coarsest(found)

    def disagreement(self, n: int) -> str:
        """How stream and model differ on the first ``n`` samples of the example, or why the model refuses them."""
        if n not in self.known:
            self.telling.note(f"trying the stream against the model on {n} samples")
            self.known[n] = _disagreement(self.found, self.stream, n, self.dtypes)
        return self.known[n]


def _coarsest(found: Capture) -> List[Optional[torch.dtype]]:
    """Of each output the coarsest dtype that it is computed in, as that of a norm in float32 in a model of float64."""
    nodes = {node.name: node for node in found.graph.nodes}
    coarsest: List[Optional[torch.dtype]] = []
    for name in found.outputs:
        waiting, seen, best = [] if name is None else [nodes[name]], set(), None
        while waiting:
            node = waiting.pop()
            if node in seen:
                continue
            seen.add(node)
            waiting += node.all_input_nodes
            value = node.meta.get("val")
            if isinstance(value, Tensor) and value.is_floating_point() and any(map(found.sizes.varies, value.shape)):
                if best is None or torch.finfo(value.dtype).eps > torch.finfo(best).eps:
                    best = value.dtype
        coarsest.append(best)
    return coarsest


def _disagreement(found: Capture, stream: GraphStream, n: int, dtypes: Sequence[Optional[torch.dtype]]) -> str:
    inputs = found.inputs_of(n)
    with torch.no_grad():
        try:
            whole = found.answer.leaves(*(x.clone() for x in inputs))
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        try:
            pieces = _streamed(found, stream, inputs)
        except BaseException:
            stream.reset()  # without an error the last call has done so
            raise
    if len(whole) != len(pieces):
        return f"{len(pieces)} outputs came for {len(whole)}"
    largest_input = max(largest(x) for x in inputs)
    for y, parts, axis, dtype in zip(whole, pieces, _axes(found, stream), dtypes, strict=True):
        if y is None:
            continue
        got = torch.cat(parts, axis) if parts else None
        if got is None:
            if y.shape[axis] > 0:
                return f"nothing came for {y.shape[axis]} samples"
        elif got.shape != y.shape:
            return f"shape {tuple(got.shape)} came for {tuple(y.shape)}"
        elif found.altered:
            continue  # only as long as the model's own
        # An output of zeros may come as rounding errors of the input's size.
        elif distance(got, y, max(largest(y), 1e-4 * largest_input, 1e-30)) > tolerance(
            _coarser(y.dtype, dtype), 1e-7, 1e-3, 1e-1
        ):
            return "its values differ"
    return ""


def _coarser(dtype: torch.dtype, inside: Optional[torch.dtype]) -> torch.dtype:
    if inside is None or not (dtype.is_floating_point or dtype.is_complex):
        return dtype
    return inside if torch.finfo(inside).eps > torch.finfo(dtype).eps else dtype


def _axes(found: Capture, stream: GraphStream) -> List[int]:
    return list(getattr(stream, "time_axes", [-1]))


def _streamed(found: Capture, stream: GraphStream, inputs: List[Tensor]) -> List[List[Tensor]]:
    """The outputs for the inputs, in three pieces."""
    pieces: List[List[Tensor]] = [[] for _ in found.outputs]
    for turn in range(3):
        chunks: List[Optional[Tensor]] = []
        for port, x in zip(found.inputs, inputs, strict=True):
            if port.time is None:
                chunks.append(x if turn == 0 else None)
            else:
                length = x.shape[port.time]
                cuts = [0, length // 3, length // 3 + (length + 1) // 2, length]
                cuts = [min(cut, length) for cut in cuts]
                chunks.append(x.narrow(port.time, cuts[turn], cuts[turn + 1] - cuts[turn]))
        for piece, part in zip(pieces, stream.leaves(chunks, turn == 2), strict=True):
            piece += [] if part is None else [part]
    return pieces
