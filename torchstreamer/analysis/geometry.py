"""Which inputs the outputs of a layer depend on, from its geometry alone: what its handler states, or a rule for it.

Needs travel backwards, from chosen outputs to the inputs of a whole signal, as a mask ``[samples, outputs]``.
"""

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Any, Callable, Dict, FrozenSet, Iterable, Iterator, List, Optional, Tuple, Type, TypeVar

import torch
from torch import Tensor

from ..containers.kept_length import KeptLength1dStream
from ..containers.parallel import Parallel1dStream
from ..containers.residual import Residual1dStream
from ..containers.sequential import Sequential1dStream
from ..core.reach import Reach
from ..core.stream import BaseStream
from .ends import Ends, NoEnds, through_taps

__all__ = [
    "Taps",
    "cropped",
    "field_rule",
    "has_rule",
    "needed",
    "needed_by_taps",
    "note_probed",
    "note_unbounded",
    "register_needs",
    "watched",
    "watching",
]

Taps = Iterable[Tensor]
Need = TypeVar("Need", Tensor, Ends)
TapsRule = TypeVar("TapsRule", bound=Callable[[Any, int, int], Any])
NeedsRule = Callable[[Any, Any, int], Any]

_needs: Dict[Type[BaseStream], NeedsRule] = {}
_taps: Dict[Type[BaseStream], Callable[[Any, int, int], Any]] = {}
_fallback: List[NeedsRule] = []


@dataclass(frozen=True)
class _Span:
    # What an output in the middle of a signal reads by a rule: its place, how far back and ahead, in how many taps.
    place: int
    back: int
    ahead: int
    taps: int


@dataclass
class Watch:
    """What is noted while needs travel: masks of columns, of which those that hold count.

    Attributes:
        recurrences: handlers that look back without bound, by identity
        spans: what outputs of handlers with a rule read far from the ends
        recurrent: columns that ask something of these
        before: columns that ask for what stands before the signal
        beyond: columns that ask for what stands beyond its end
        short: whether a handler needs a longer signal to be probed
        uncertain: whether a handler was probed that may depend on more than was found
    """

    recurrences: FrozenSet[int]
    spans: Dict[int, _Span]
    recurrent: List[Tensor] = field(default_factory=list)
    before: List[Tensor] = field(default_factory=list)
    beyond: List[Tensor] = field(default_factory=list)
    short: bool = False
    uncertain: bool = False

    def clear(self) -> None:
        """Begin anew."""
        for masks in (self.recurrent, self.before, self.beyond):
            masks.clear()
        self.short = self.uncertain = False


_watch: ContextVar[Optional[Watch]] = ContextVar("watch", default=None)

# Lengths of two signals. What still begins with both, and has more taps in the second, remembers everything.
_SHORT, _LONG = 4096, 16384


def field_rule(stream_type: Type[BaseStream]) -> Callable[[TapsRule], TapsRule]:
    """Say which inputs the outputs of a handler depend on, where its `Reach` does not say it; a decorator.

    A handler whose outputs look back to the start of a signal of 16,384 samples, at more inputs the longer it is,
    counts as a recurrence: its field is unbounded.

    Args:
        stream_type: type of the handler. Subclasses follow the same rule

    Returns:
        a decorator for a function ``(stream, n, m)``: for a whole signal of ``n`` samples, of which the handler makes
        ``m``, it gives tensors of ``m`` positions each. Output ``i`` depends on the inputs at place ``i`` of all of
        them; a position outside of the signal, such as -1, stands for none

    Example:
        >>> import torch, torchstreamer as pts
        >>> from torchstreamer.analysis import field_rule, receptive_field
        >>> class LastTwoStream(pts.BaseStream):
        ...     def output_length(self, n, final=True):
        ...         return n
        >>> @field_rule(LastTwoStream)
        ... def taps(stream, n, m):
        ...     yield torch.arange(m)
        ...     yield torch.arange(m) - 1
        >>> receptive_field(LastTwoStream()).left
        1
    """

    def register(rule: TapsRule) -> TapsRule:
        def needs(stream: Any, need: Any, n: int) -> Tensor:
            if isinstance(need, Ends):
                raise NoEnds
            return needed_by_taps(need, rule(stream, n, need.shape[0]), n)

        register_needs(stream_type, needs)
        _taps[stream_type] = rule
        return rule

    return register


def register_needs(stream_type: Type[BaseStream], rule: NeedsRule) -> None:
    """Say how needs travel through a stream: ``(stream, need [outputs, …], n) -> [n, …]``."""
    _needs[stream_type] = rule


def register_unknown(rule: NeedsRule) -> None:
    """Say how needs travel through a stream without a rule."""
    _fallback[:] = [rule]


def has_rule(stream: BaseStream) -> bool:
    """Whether it is known what outputs of a stream depend on."""
    return stream.reach is not None or any(kind in _needs for kind in type(stream).__mro__)


def is_recurrent(stream: BaseStream) -> bool:
    """Whether outputs of a handler look back without bound."""
    spans = _spans_of(stream)
    if spans is None:
        return _remembers(stream)
    return all(8 * span.back >= 7 * span.place for span in spans) and spans[1].taps > spans[0].taps


def _remembers(stream: BaseStream) -> bool:
    # What states its taps has none without bound.
    return stream.reach is not None and not stream.reach.bounded and type(stream).taps is BaseStream.taps


def _spans_of(stream: BaseStream) -> Optional[Tuple[_Span, _Span]]:
    # By the rule of a handler, if it has one, in a short signal and in a long one.
    rule = next((_taps[kind] for kind in type(stream).__mro__ if kind in _taps), None)
    return None if rule is None else (_span(rule, stream, _SHORT), _span(rule, stream, _LONG))


def _span(rule: Callable[[Any, int, int], Any], stream: BaseStream, n: int) -> _Span:
    m = stream.output_length(n, True)
    middle = m // 2
    place = middle * stream.ratio[1] // stream.ratio[0]
    found = [int(tap[middle]) for tap in rule(stream, n, m)] if m > 0 else []
    read = [tap for tap in found if 0 <= tap < n] or [place]
    return _Span(place, max(place - min(read), 0), max(max(read) - place, 0), len(found))


@contextmanager
def watched(stream: BaseStream) -> Iterator[Watch]:
    """While this is open, `needed` notes what is asked of the recurrences in a stream, and of what is no signal."""
    parts = [part for part in stream.modules() if isinstance(part, BaseStream)]
    spans = {id(part): found[1] for part in parts for found in [_spans_of(part)] if found is not None}
    watch = Watch(frozenset(id(part) for part in parts if is_recurrent(part)), spans)
    before = _watch.set(watch)
    try:
        yield watch
    finally:
        _watch.reset(before)


def needed(stream: BaseStream, need: Need, n: int) -> Need:
    """The inputs that outputs of a stream depend on.

    Args:
        stream: the stream
        need: outputs that are asked for, as columns of a mask ``[outputs of n samples, columns]``; or their `Ends`
        n: length of the whole signal

    Returns:
        a mask ``[n, columns]``; or ends

    Raises:
        NoEnds: ends came, and are not enough to tell
    """
    watch = _watch.get()
    if watch is not None and isinstance(need, Tensor):
        _note(watch, stream, need, n)
    for kind in type(stream).__mro__:
        if kind in _needs:
            found: Need = _needs[kind](stream, need, n)
            return found
    if isinstance(need, Ends):
        if stream.reach is None:
            raise NoEnds
        return _newest(stream.reach, need).unbounded() if _remembers(stream) else through_taps(stream, need)
    if stream.reach is None:
        mask: Need = _fallback[0](stream, need, n)
        return mask
    if _remembers(stream):
        return _needed_before(stream.reach, need, n)
    return needed_by_taps(need, stream.taps(n, need.shape[0]), n)


def _newest(reach: Reach, need: Ends) -> Ends:
    return Ends(need.low, torch.div(reach.q * need.high + reach.last, reach.p, rounding_mode="floor"))


def note_unbounded(need: Tensor) -> None:
    """Say that outputs ask for what came at any time before; what `needed` notes."""
    watch = _watch.get()
    if watch is not None:
        watch.recurrent.append(need.any(0))


def watching() -> bool:
    """Whether anybody notes what is said here."""
    return _watch.get() is not None


def note_probed(short: bool = False, uncertain: bool = False) -> None:
    """Say that a handler without a rule needs a longer signal, or that more than was found may count."""
    watch = _watch.get()
    if watch is not None:
        watch.short |= short
        watch.uncertain |= uncertain


def _note(watch: Watch, stream: BaseStream, need: Tensor, n: int) -> None:
    reach = stream.reach
    if id(stream) in watch.recurrences:
        watch.recurrent.append(need.any(0))
    elif id(stream) in watch.spans:
        span, (outs, ins) = watch.spans[id(stream)], stream.ratio
        watch.before.append(need[: -(-span.back * outs // ins)].any(0))
        watch.beyond.append(need[max(-(-(n - span.ahead) * outs // ins), 0) :].any(0))
    elif reach is not None and reach.bounded:
        # The outputs i with q·i + first < 0, and those that are not settled by what there is.
        watch.before.append(need[: max(-(reach.first // reach.q), 0)].any(0))
        watch.beyond.append(need[reach.settled(n) :].any(0))


def _needed_before(reach: Reach, need: Tensor, n: int) -> Tensor:
    """The inputs that are needed by outputs that read all up to their newest one."""
    newest = [min(reach.newest(i), n - 1) for i in range(need.shape[0])]
    found = needed_by_taps(need, [torch.tensor(newest, dtype=torch.int64)], n)
    return found.to(torch.uint8).flip(0).cummax(0).values.flip(0) > 0


def needed_by_taps(need: Tensor, taps: Taps, n: int) -> Tensor:
    """The inputs that are needed by outputs with these taps."""
    found = torch.zeros(n + 1, need.shape[1], dtype=torch.int32)
    counted = need.to(torch.int32)
    for tap in taps:
        found.index_add_(0, torch.where((tap >= 0) & (tap < n), tap, n), counted)
    return found[:n] > 0


# ---------------------------------------------------------------------- containers


def cropped(need: Need, lead: int, length: int) -> Need:
    """Needs of a value from those of what was cropped from it, which begins at sample ``lead``."""
    if isinstance(need, Ends):
        return need.moved(lead)
    found = torch.zeros(length, need.shape[1], dtype=torch.bool)
    stop = min(lead + need.shape[0], length)
    if stop > lead:
        found[lead:stop] = need[: stop - lead]
    return found


def _sequential(stream: Any, need: Need, n: int) -> Need:
    lengths = [n]
    for part in stream.streams:
        lengths.append(part.output_length(lengths[-1], True))
    for part, length in zip(reversed(stream.streams), reversed(lengths[:-1]), strict=True):
        need = needed(part, need, length)
    return need


def _residual(stream: Residual1dStream, need: Need, n: int) -> Need:
    return needed(stream.stream, need, n) | cropped(need, stream.lead, n)


def _parallel(stream: Any, need: Need, n: int) -> Need:
    parts = zip(stream.streams, stream.leads, strict=True)
    return reduce(or_, (needed(part, cropped(need, lead, part.output_length(n, True)), n) for part, lead in parts))


def _kept_length(stream: KeptLength1dStream, need: Need, n: int) -> Need:
    # What is missing at the end is zeros, which need nothing.
    return needed(stream.stream, cropped(need, 0, stream.stream.output_length(n, True)), n)


register_needs(Sequential1dStream, _sequential)
register_needs(Residual1dStream, _residual)
register_needs(KeptLength1dStream, _kept_length)
register_needs(Parallel1dStream, _parallel)
