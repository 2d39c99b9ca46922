"""What is verified: a way to make new streams, and the reference that they must equal."""

import math
from dataclasses import dataclass, field
from typing import Callable, Dict, Iterator, List, Optional, Tuple

import torch
from torch import Tensor, nn

from ..core.stream import BaseStream
from .chunkings import Chunking, chunkings, even_chunks, random_chunks

__all__ = ["Reference", "Subject"]

Reference = Callable[[Tensor], Tensor]

_BLOCK = 1024  # samples made at a time


@dataclass
class Subject:
    """A stream under verification, in one dtype.

    Args:
        make: makes a new stream
        reference: the network on the whole signal ``[B, C, T]``
        module: the network itself, if it is known
        rows: rows of the signals
        channels: channels of the signals
        typical: a length at which the reference works
        dtype: dtype of the signals
        device: device of the signals
        tolerance: largest difference allowed, relative to the output's scale
        domain: takes normal random samples to where the reference is defined, sample by sample
        knows_length: whether the stream defines ``output_length``
        seed: of signals and chunkings
        thorough: whether to try more
        multiple: what the length of every whole signal must be a multiple of
        apart: makes a new stream with nothing taken over from earlier ones, where ``make`` copies
    """

    make: Callable[[], BaseStream]
    reference: Reference
    module: Optional[nn.Module]
    rows: int
    channels: int
    typical: int
    dtype: torch.dtype
    device: torch.device
    tolerance: float
    domain: Callable[[Tensor], Tensor]
    knows_length: bool
    seed: int
    thorough: bool
    multiple: int = 1
    apart: Optional[Callable[[], BaseStream]] = None
    _offline: Dict[Tuple[int, int, int], Optional[Tensor]] = field(default_factory=dict)
    _signals: Dict[Tuple[int, int], Tensor] = field(default_factory=dict)
    _spreads: Optional[bool] = None

    def __post_init__(self) -> None:
        self.typical = self.fit(self.typical)
        if self.offline(self.typical) is None:
            raise ValueError(
                f"invalid_example: the reference gives nothing for [{self.rows}, {self.channels}, {self.typical}], "
                f"{self.dtype} ({self.complaint(self.typical)}); a length at which it works was expected; "
                "use a longer example"
            )
        stream = self.make()
        said = getattr(stream, "length_multiple", 1)
        if said != self.multiple:
            raise ValueError(
                f"invalid_length_multiple: {self.multiple} came; the stream's own length_multiple is {said!r}; pass "
                "length_multiple=, and give the stream this attribute"
            )
        self.hop = max(int(getattr(stream, "hop", 1)), 1)
        # Whole signals that differ by a period are of equal phase, and of allowed lengths alike.
        self.period = math.lcm(self.hop, self.multiple)
        self.first = self._first_length()
        self.lookahead = self._lookahead(stream) if self.knows_length else self.first
        # Start, end and a few periods: what happens at short lengths happens here.
        self.settled = self.first + self.lookahead + 2 * self.hop
        self.long = self.fit(max(self.typical, 3 * self.settled, 300))
        whole = self.offline(self.long)
        if whole is None or not bool(whole.isfinite().all()):
            raise ValueError(
                f"invalid_example: for {self.long} random samples the reference gives nothing, or values that are not "
                "finite; finite values were expected; give domain= to say where it is defined, for instance "
                "domain=torch.abs"
            )
        top = float(whole.abs().max())
        self.scale = top if top > 0 else 1.0

    # ------------------------------------------------------------------ lengths of whole signals

    def fit(self, n: int) -> int:
        """The smallest length of a whole signal that is at least ``n``."""
        return -(-n // self.multiple) * self.multiple

    def rest(self, n: int, least: int) -> int:
        """How many samples, at least ``least``, complete a signal of which ``n`` samples came."""
        return self.fit(n + least) - n

    def whole_lengths(self, top: int) -> List[int]:
        """All lengths of whole signals up to ``top``, and never fewer than four."""
        return list(range(self.multiple, max(self.fit(top), 4 * self.multiple) + 1, self.multiple))

    # ------------------------------------------------------------------ signals and what the reference makes of them

    def signal(self, n: int, rows: int = 0, variant: int = 0) -> Tensor:
        """The first ``n`` samples of an endless random signal; a new tensor. ``variant`` chooses another signal."""
        rows = rows or self.rows
        known = self._signals.get((rows, variant))
        while known is None or known.shape[-1] < n:
            # Blocks of samples, each of its own seed, so that a longer signal goes on where a shorter one ended.
            block = 0 if known is None else known.shape[-1] // _BLOCK
            generator = torch.Generator().manual_seed(self.seed + 7919 * variant + 104729 * rows + 15485863 * block)
            noise = torch.randn(rows, self.channels, _BLOCK, generator=generator, dtype=torch.float64)
            noise = self.domain(noise).to(self.device, self.dtype)
            known = noise if known is None else torch.cat([known, noise], -1)
            self._signals[rows, variant] = known
        return known[..., :n].clone()

    @property
    def differentiable(self) -> bool:
        """Whether signals can have gradients; whole numbers cannot."""
        return self.dtype.is_floating_point or self.dtype.is_complex

    def extremes(self, n: int) -> Dict[str, Tensor]:
        """Constant signals unlike the random ones; of whole numbers, those that the random ones hold too."""
        if self.differentiable:
            thousand = torch.full((self.rows, self.channels, n), 1e3, dtype=torch.float64)
            thousand = self.domain(thousand).to(self.device, self.dtype)
            if self.spreads_nan:
                return {"a thousand": thousand}
            return {"nan": torch.full_like(thousand, math.nan), "a thousand": thousand}
        known = self.signal(_BLOCK)
        like = known.new_empty(self.rows, self.channels, n)
        ends = {"the largest": known.max(), "the smallest": known.min()}
        return {name: torch.full_like(like, int(value)) for name, value in ends.items()}

    @property
    def spreads_nan(self) -> bool:
        """Whether a single ``nan``, in the middle of a long signal, spoils what the reference gives from the start on.

        So do products with weights of 0, as a softmax gives them to masked scores. Then ``nan`` tells nothing of what
        depends on what.
        """
        if not self.differentiable:
            return False
        if self._spreads is None:
            x = self.signal(self.long)
            x[..., self.long // 2] = math.nan
            y = self.refer(x)
            self._spreads = y is not None and bool(y.isnan().all())
        return self._spreads

    def spoil(self, x: Tensor) -> None:
        """Overwrite a tensor: with ``nan``, or with a whole number that the reference takes."""
        if x.is_floating_point() or x.is_complex():
            x.fill_(math.nan)
        else:
            x.fill_(-7 if x.dim() == 0 else int(self.signal(_BLOCK).max()))

    def offline(self, n: int, rows: int = 0, variant: int = 0) -> Optional[Tensor]:
        """What the reference gives for a signal; ``None`` where it raises or gives nothing."""
        assert n % self.multiple == 0, f"{n} is no multiple of {self.multiple}"
        key = (n, rows or self.rows, variant)
        if key not in self._offline:
            self._offline[key] = self.refer(self.signal(*key)) if n > 0 else None
        return self._offline[key]

    def refer(self, x: Tensor) -> Optional[Tensor]:
        """What the reference gives for ``x``, which it may write to; ``None`` where it raises or gives nothing."""
        try:
            with torch.no_grad():
                y = self.reference(x)
        except Warning:  # made an error by the caller's filters; it says nothing about the length
            raise
        except Exception:  # too short, whatever the network calls it
            return None
        return y if y.shape[-1] > 0 else None

    def complaint(self, n: int) -> str:
        """Why the reference refuses a signal."""
        try:
            with torch.no_grad():
                return f"it returned shape {tuple(self.reference(self.signal(n)).shape)}"
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    def offline_length(self, n: int) -> int:
        """Samples that the reference gives for ``n`` samples."""
        y = self.offline(n)
        return 0 if y is None else y.shape[-1]

    # ------------------------------------------------------------------ what to try

    def short_lengths(self) -> List[int]:
        """All lengths of whole signals up to a bound, and some around the first that gives anything."""
        bound = min(max(self.settled + 3, 12), 128 if self.thorough else 32)
        around = {self.first + i * self.multiple for i in (-2, -1, 0, 1, 2)}
        around |= {self.fit(self.settled + i) for i in (0, 1, self.hop)}
        bound = max(bound, min(8 * self.multiple, 32))
        return sorted({*self.whole_lengths(bound), *(n for n in around if n > 0)})

    def cases(self, sparse: int = 1) -> Iterator[Chunking]:
        """Chunkings of signals of many lengths; every ``sparse``-th of the short ones."""
        for i, n in enumerate(self.short_lengths()):
            if i % sparse == 0:
                found = chunkings(n, self.seed + n, 128 if self.thorough else 16, self.thorough)
                # Of the longer ones every length gets some of the chunkings, in turns.
                yield from found if n <= 10 * self.multiple or self.thorough else found[i % 3 :: 3]
        yield from self.long_cases()

    def long_cases(self) -> Iterator[Chunking]:
        """Chunkings of signals much longer than the start and the end."""
        yield from chunkings(self.long, self.seed, 40, self.thorough)
        steps = min(self.settled + self.hop, 10_000 if self.thorough else 1_000)
        yield even_chunks(self.fit(steps), 1)
        # Long chunks behind short ones and the reverse: handlers may choose another kernel for each.
        yield (3, self.long - 10, 1, 1, 5)
        yield (*even_chunks(60, 4), 200, *even_chunks(60, 1), self.rest(320, self.long))
        if self.thorough:
            for i in range(20):
                yield random_chunks(self.fit(self.long + 37 * i), self.seed + i, None if i % 2 else 50)

    # ------------------------------------------------------------------ geometry

    def _first_length(self) -> int:
        # Counted in multiples.
        top, most = 1, self.typical // self.multiple
        while top < most and self.offline_length(top * self.multiple) == 0:
            top = min(2 * top, most)
        low, high = top // 2, top
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.offline_length(middle * self.multiple) > 0 else (middle, high)
        return high * self.multiple

    def _lookahead(self, stream: BaseStream) -> int:
        n, step = 4 * (self.first + self.typical), self.multiple
        most = max(
            stream.output_length(n + i, True) - stream.output_length(n + i, False)
            for i in range(0, min(self.period, 64 * step), step)
        )
        up, down = stream.ratio
        return math.ceil(max(most, 0) * down / up) + step - 1
