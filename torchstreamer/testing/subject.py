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
    _offline: Dict[Tuple[int, int, int], Optional[Tensor]] = field(default_factory=dict)
    _signals: Dict[Tuple[int, int], Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.offline(self.typical) is None:
            raise ValueError(
                f"invalid_example: the reference gives nothing for [{self.rows}, {self.channels}, {self.typical}], "
                f"{self.dtype} ({self.complaint(self.typical)}); a length at which it works was expected; "
                "use a longer example"
            )
        stream = self.make()
        self.hop = max(int(getattr(stream, "hop", 1)), 1)
        self.first = self._first_length()
        self.lookahead = self._lookahead(stream) if self.knows_length else self.first
        # Start, end and a few periods: what happens at short lengths happens here.
        self.settled = self.first + self.lookahead + 2 * self.hop
        self.long = max(self.typical, 3 * self.settled, 300)
        whole = self.offline(self.long)
        if whole is None or not bool(whole.isfinite().all()):
            raise ValueError(
                f"invalid_example: for {self.long} random samples the reference gives nothing, or values that are not "
                "finite; finite values were expected; give domain= to say where it is defined, for instance "
                "domain=torch.abs"
            )
        top = float(whole.abs().max())
        self.scale = top if top > 0 else 1.0

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

    def offline(self, n: int, rows: int = 0, variant: int = 0) -> Optional[Tensor]:
        """What the reference gives for a signal; ``None`` where it raises or gives nothing."""
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
        """All lengths up to a bound, and some around the first that gives anything."""
        bound = min(max(self.settled + 3, 12), 128 if self.thorough else 32)
        around = {self.first + i for i in (-2, -1, 0, 1, 2)} | {self.settled + i for i in (0, 1, self.hop)}
        return sorted({*range(1, bound + 1), *(n for n in around if n > 0)})

    def cases(self, sparse: int = 1) -> Iterator[Chunking]:
        """Chunkings of signals of many lengths; every ``sparse``-th of the short ones."""
        for i, n in enumerate(self.short_lengths()):
            if i % sparse == 0:
                found = chunkings(n, self.seed + n, 128 if self.thorough else 16, self.thorough)
                # Of the longer ones every length gets some of the chunkings, in turns.
                yield from found if n <= 10 or self.thorough else found[i % 3 :: 3]
        yield from self.long_cases()

    def long_cases(self) -> Iterator[Chunking]:
        """Chunkings of signals much longer than the start and the end."""
        yield from chunkings(self.long, self.seed, 40, self.thorough)
        steps = min(self.settled + self.hop, 10_000 if self.thorough else 1_000)
        yield even_chunks(steps, 1)
        # Long chunks behind short ones and the reverse: handlers may choose another kernel for each.
        yield (3, self.long - 10, 1, 1, 5)
        yield (*even_chunks(60, 4), 200, *even_chunks(60, 1), self.long)
        if self.thorough:
            for i in range(20):
                yield random_chunks(self.long + 37 * i, self.seed + i, None if i % 2 else 50)

    # ------------------------------------------------------------------ geometry

    def _first_length(self) -> int:
        top = 1
        while top < self.typical and self.offline_length(top) == 0:
            top = min(2 * top, self.typical)
        low, high = top // 2, top
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if self.offline_length(middle) > 0 else (middle, high)
        return high

    def _lookahead(self, stream: BaseStream) -> int:
        n = 4 * (self.first + self.typical)
        most = max(
            stream.output_length(n + i, True) - stream.output_length(n + i, False) for i in range(min(self.hop, 64))
        )
        up, down = stream.ratio
        return math.ceil(max(most, 0) * down / up)
