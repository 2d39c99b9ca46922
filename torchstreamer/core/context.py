"""What a query of an attention sees: `Context` for what people say, `Pattern` for what a memory is made for."""

import random
from dataclasses import dataclass
from typing import Any, Dict, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor

from .whole_numbers import as_index, require_length

__all__ = ["Context", "ContextSampler", "Pattern", "band_mask", "chunk_mask"]

# Chunks that NeMo's chunked masks look back over where their left context is -1.
_NEMO_CHUNKS = 10_000

_STYLES = ("regular", "chunked_limited", "chunked_limited_with_rc")


@dataclass(frozen=True)
class Context:
    """The keys that each query of an attention sees, by their positions.

    With ``c(i) = chunk * floor(i / chunk)``, where the chunk of query ``i`` begins, it sees the keys ``j`` with

        c(i) - left <= j <= c(i) + chunk - 1 + right

    as far as there are any. With ``chunk=1`` that is a band, ``left`` keys before the query, itself, and ``right``
    after it; otherwise whole chunks of a fixed grid see each other, ``left`` keys before them and ``right`` after them.

    Args:
        left: keys before the chunk of the query; for chunk 1, before the query, its own key not counted. ``None`` for
            all, which streams with a ``max_length`` only
        right: keys after the chunk
        chunk: length of the chunks
        max_length: the longest signal, in samples; a stream refuses more with ``signal_too_long``, and its memory is
            never longer

    Attributes:
        hop: samples after which the state of a stream repeats its shape: ``chunk``
        lookahead: the most samples that a query looks ahead

    Raises:
        ValueError: a number does not fit

    Example:
        >>> import torchstreamer as pts
        >>> pts.Context(left=1, right=1).mask(4).int()
        tensor([[1, 1, 0, 0],
                [1, 1, 1, 0],
                [0, 1, 1, 1],
                [0, 0, 1, 1]], dtype=torch.int32)
        >>> pts.Context.chunks(2, 1).mask(5).int()
        tensor([[1, 1, 0, 0, 0],
                [1, 1, 0, 0, 0],
                [1, 1, 1, 1, 0],
                [1, 1, 1, 1, 0],
                [0, 0, 1, 1, 1]], dtype=torch.int32)
    """

    left: Optional[int]
    right: int = 0
    chunk: int = 1
    max_length: Optional[int] = None

    def __post_init__(self) -> None:
        numbers = {"right": _whole(self.right, "right", 0), "chunk": _whole(self.chunk, "chunk", 1)}
        if self.left is not None:
            numbers["left"] = _whole(self.left, "left", 0)
        if self.max_length is not None:
            numbers["max_length"] = _whole(self.max_length, "max_length", 1)
        for name, value in numbers.items():
            object.__setattr__(self, name, value)

    # ------------------------------------------------------------------ as others say it

    @staticmethod
    def window(n: int) -> "Context":
        """The last ``n`` keys, the query's own included, as moshi and Mistral count their windows."""
        return Context(left=_whole(n, "window", 1) - 1)

    @staticmethod
    def chunks(chunk: int, left_chunks: Optional[int], max_length: Optional[int] = None) -> "Context":
        """Whole chunks, each with so many before it, as in WeNet, SpeechBrain and Zipformer.

        Args:
            chunk: length of a chunk
            left_chunks: chunks before the query's own; ``None`` or a negative number for all of them
            max_length: the longest signal
        """
        chunk = _whole(chunk, "chunk", 1)
        if left_chunks is not None:
            left_chunks = _whole(left_chunks, "left_chunks", None)
        left = None if left_chunks is None or left_chunks < 0 else left_chunks * chunk
        return Context(left, 0, chunk, max_length)

    @staticmethod
    def nemo(att_context_size: Sequence[int], style: str = "regular", max_length: Optional[int] = None) -> "Context":
        """What ``att_context_size`` and ``att_context_style`` mean in NeMo's encoders.

        Args:
            att_context_size: ``[left, right]``, or ``[left, chunk, right]`` for ``"chunked_limited_with_rc"``; -1 on
                the left for all
            style: ``"regular"``, a band; ``"chunked_limited"``, chunks of ``right + 1`` frames, of which a query sees
                its own and the ``left // (right + 1)`` before it; or ``"chunked_limited_with_rc"``, chunks with frames
                on the right of them
            max_length: the longest signal, in frames
        """
        if style not in _STYLES:
            raise ValueError(
                f"invalid_context: style={style!r} came; one of {', '.join(map(repr, _STYLES))} was expected; pass the "
                "att_context_style of the model"
            )
        expected = 3 if style == "chunked_limited_with_rc" else 2
        size = [_whole(each, "att_context_size", -1) for each in att_context_size]
        if len(size) != expected:
            raise ValueError(
                f"invalid_context: att_context_size={list(att_context_size)} came; {expected} numbers were expected "
                f"for {style!r}; pass the att_context_size of the model"
            )
        if size[-1] < 0:
            raise ValueError(
                f"invalid_context: att_context_size={list(att_context_size)} came, with -1 on the right: every frame "
                "sees the end of the signal; a bounded right context was expected; use a model trained with one"
            )
        if style == "regular":
            return Context(None if size[0] < 0 else size[0], size[1], 1, max_length)
        chunk = size[1] + 1 if style == "chunked_limited" else size[1]
        right = 0 if style == "chunked_limited" else size[2]
        left: Optional[int] = size[0]
        if size[0] < 0:
            # All of them in any signal that is not longer than that.
            left = None if max_length is None or max_length <= _NEMO_CHUNKS * chunk else _NEMO_CHUNKS * chunk
        elif style == "chunked_limited" and size[0] % chunk:
            raise ValueError(
                f"invalid_context: att_context_size={list(att_context_size)} came; for 'chunked_limited' a multiple of "
                f"the right context plus 1, here of {chunk}, was expected on the left; pass such a number"
            )
        return Context(left, right, chunk, max_length)

    # ------------------------------------------------------------------ what follows

    @property
    def hop(self) -> int:
        """Samples after which the state of a stream repeats its shape."""
        return self.chunk

    @property
    def lookahead(self) -> int:
        """The most samples that a query looks ahead."""
        return self.chunk - 1 + self.right

    def output_length(self, n: int, final: bool = True) -> int:
        """Queries that are answered after ``n`` samples: in whole chunks before the end, all of them at the end."""
        require_length(n)
        return n if final else max((n - self.right) // self.chunk * self.chunk, 0)

    def mask(self, length: int, masked: bool = False, device: Optional[torch.device] = None) -> Tensor:
        """Which query sees which key, ``[length, length]``, queries first.

        Args:
            length: of the signal, in samples
            masked: which polarity: by default ``True`` stands where a query sees, as in
                `torch.nn.functional.scaled_dot_product_attention`; with ``masked=True`` where it does not, as in
                `torch.nn.MultiheadAttention`
            device: where to make it
        """
        require_length(length)
        return self._back(length if self.left is None else self.left).mask(length, masked, device)

    @property
    def bounded(self) -> bool:
        """Whether a stream can have it: ``left`` or ``max_length`` is given."""
        return self.left is not None or self.max_length is not None

    def pattern(self) -> "Pattern":
        """The same as a `Pattern`, for signals up to ``max_length``.

        Raises:
            ValueError: ``unbounded_context``, neither ``left`` nor ``max_length`` is given
        """
        bounds = [bound for bound in (self.left, self.max_length) if bound is not None]
        if not bounds:
            raise ValueError(
                f"unbounded_context: {self!r} came; a pattern with an end was expected; give left= or max_length="
            )
        return self._back(min(bounds))

    def _back(self, left: int) -> "Pattern":
        return Pattern((-left,) * self.chunk, (self.chunk - 1 + self.right,) * self.chunk)

    def __repr__(self) -> str:
        parts = [f"left={self.left}"]
        parts += [f"right={self.right}"] if self.right else []
        parts += [f"chunk={self.chunk}"] if self.chunk > 1 else []
        parts += [f"max_length={self.max_length}"] if self.max_length is not None else []
        return f"Context({', '.join(parts)})"


@dataclass(frozen=True)
class Pattern:
    """The general form of a mask that repeats itself: what every memory of attention is made for.

    With ``b(i) = P * floor(i / P)``, where the period of query ``i`` begins, and ``r = i - b(i)``, it sees of the keys
    ``j`` from ``b(i) + lo[r]`` to ``b(i) + hi[r]`` all, or those that the table says; and besides of the first
    ``prefix`` keys of the signal all up to ``b(i) + hi[r]``, as attention sinks.

    Args:
        lo: of each of the ``P`` places of a period the oldest key, counted from where the period begins. A query looks
            back no less far than ``lo`` of the one before it plus what it moved: ``lo(i) <= lo(i + 1)``
        hi: the newest key, likewise never less than that of the query before
        table: for each place, whether the keys from ``min(lo)`` on are seen; ``None`` for all from ``lo`` to ``hi``
        prefix: keys at the start of a signal that every later query sees

    Attributes:
        period: ``P``

    Example:
        >>> from torchstreamer.core.context import Pattern
        >>> every_other = Pattern((-3,), (0,), table=((False, True, False, True),))
        >>> every_other.mask(5).int()
        tensor([[1, 0, 0, 0, 0],
                [0, 1, 0, 0, 0],
                [1, 0, 1, 0, 0],
                [0, 1, 0, 1, 0],
                [0, 0, 1, 0, 1]], dtype=torch.int32)
    """

    lo: Tuple[int, ...]
    hi: Tuple[int, ...]
    table: Optional[Tuple[Tuple[bool, ...], ...]] = None
    prefix: int = 0

    def __post_init__(self) -> None:
        lo, hi, period = self.lo, self.hi, len(self.lo)
        sound = 0 < period == len(hi) and self.prefix >= 0
        for bounds in (lo, hi) if sound else ():
            following = (*bounds[1:], bounds[0] + period)
            sound = sound and all(a <= b for a, b in zip(bounds, following, strict=True))
        sound = sound and (self.table is None or len(self.table) == period)
        if not sound:
            raise ValueError(
                f"invalid_pattern: lo={lo}, hi={hi}, prefix={self.prefix} came; as many of both, which never fall from "
                "one query to the next, and a row of the table for each were expected; check the mask"
            )

    @property
    def period(self) -> int:
        """Queries after which the pattern repeats itself."""
        return len(self.lo)

    @property
    def lookahead(self) -> int:
        """The most keys that a query looks ahead; negative if none sees its own key."""
        return max(newest - place for place, newest in enumerate(self.hi))

    @property
    def lookback(self) -> int:
        """The most keys that a query looks back, those of the prefix not counted."""
        return max(place - oldest for place, oldest in enumerate(self.lo))

    def newest(self, i: int) -> int:
        """The newest key that query ``i`` sees."""
        place = i % self.period
        return i - place + self.hi[place]

    def settled(self, n: int) -> int:
        """Queries that ``n`` samples settle: those whose newest key is there."""
        period = self.period
        whole = max((n - 1 - self.hi[-1]) // period + 1, 0)
        return min(whole * period + sum(newest + whole * period < n for newest in self.hi), n)

    def visible(self, i: Tensor, j: Tensor) -> Tensor:
        """Whether queries see keys, for positions of shapes that broadcast against each other."""
        place = torch.remainder(i, self.period)
        base = i - place
        lo, hi = (torch.tensor(bounds, device=i.device)[place] + base for bounds in (self.lo, self.hi))
        seen = (j >= lo) & (j <= hi)
        if self.table is not None:
            table = torch.tensor(self.table, dtype=torch.bool, device=i.device)
            column = j - base - min(self.lo)
            inside = (column >= 0) & (column < table.size(1))
            seen = seen & inside & table[place.expand_as(column), column.clamp(0, table.size(1) - 1)]
        return seen | ((j < self.prefix) & (j <= hi)) if self.prefix > 0 else seen

    def mask(self, length: int, masked: bool = False, device: Optional[torch.device] = None) -> Tensor:
        """Which query sees which key, ``[length, length]``; see `Context.mask`."""
        position = torch.arange(length, device=device)
        seen = self.visible(position.unsqueeze(1), position.unsqueeze(0))
        return ~seen if masked else seen


def band_mask(length: int, left: int, right: int = 0, masked: bool = False) -> Tensor:
    """`Context.mask` of ``left`` keys before each query, its own, and ``right`` after it."""
    return Context(left, right).mask(length, masked)


def chunk_mask(length: int, chunk: int, left_chunks: Optional[int] = None, masked: bool = False) -> Tensor:
    """`Context.mask` of whole chunks that see each other and ``left_chunks`` before them, by default all."""
    return Context.chunks(chunk, left_chunks).mask(length, masked)


class ContextSampler:
    """Draws a context for each batch, for the training of models that run with any: dynamic-chunk training.

    As in WeNet: with probability ``full`` every query sees the whole signal; otherwise the signal is cut into chunks of
    a random length, each of which sees a random number of chunks before it, or all.

    Args:
        chunk: the shortest and the longest chunk
        left_chunks: the fewest and the most chunks on the left; ``None`` for all of them
        full: probability of the whole signal
        limited: probability that the left context is limited at all, where it can be
        right: keys after each chunk, the fewest and the most
        seed: of the generator

    Example:
        >>> import torchstreamer as pts
        >>> sampler = pts.ContextSampler(chunk=(1, 8), left_chunks=(1, 4), full=0.0, seed=3)
        >>> sampler(100)
        Context(left=12, chunk=3)
    """

    def __init__(
        self,
        chunk: Tuple[int, int] = (1, 25),
        left_chunks: Optional[Tuple[int, int]] = None,
        full: float = 0.5,
        limited: float = 1.0,
        right: Union[int, Tuple[int, int]] = 0,
        seed: int = 0,
    ) -> None:
        self.chunk = _span(chunk, "chunk", 1)
        self.left_chunks = None if left_chunks is None else _span(left_chunks, "left_chunks", 0)
        self.right = _span((right, right) if isinstance(right, int) else right, "right", 0)
        for name, chance in (("full", full), ("limited", limited)):
            if not 0 <= chance <= 1:
                raise ValueError(
                    f"invalid_context: {name}={chance!r} came; a probability from 0 to 1 was expected; pass such a "
                    "number"
                )
        self.full = full
        self.limited = limited
        self._generator = random.Random(seed)

    def __call__(self, length: int) -> Context:
        """The context of the next batch.

        Args:
            length: of its longest signal, in samples
        """
        draw = self._generator
        if draw.random() < self.full:
            return Context(None, 0, max(_whole(length, "length", 0), 1))
        chunk = draw.randint(*self.chunk)
        right = draw.randint(*self.right)
        if self.left_chunks is None or draw.random() >= self.limited:
            return Context(None, right, chunk)
        return Context(draw.randint(*self.left_chunks) * chunk, right, chunk)

    def state_dict(self) -> Dict[str, Any]:
        """Where the generator stands, to resume a training."""
        return {"generator": self._generator.getstate()}

    def load_state_dict(self, state: Dict[str, Any]) -> None:
        """Go on from there."""
        version, numbers, gauss = state["generator"]
        self._generator.setstate((version, tuple(numbers), gauss))


def _span(numbers: Tuple[int, int], name: str, least: int) -> Tuple[int, int]:
    low, high = (_whole(number, name, least) for number in numbers)
    if low > high:
        raise ValueError(
            f"invalid_context: {name}={numbers!r} came; the smaller number first was expected; turn them round"
        )
    return low, high


def _whole(value: Any, name: str, least: Optional[int]) -> int:
    number = as_index(value)
    if number is None or (least is not None and number < least):
        bound = "" if least is None else f" from {least} on"
        hint = "; left=None, with max_length=, is for all keys" if name == "left" else ""
        raise ValueError(
            f"invalid_context: {name}={value!r} came; a whole number{bound} was expected{hint}; pass such a number"
        )
    return number
