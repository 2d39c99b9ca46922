"""Random signals in the rows of static streams, compared with the network on the whole."""

import random
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

import torchstreamer as pts

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}

Network = Callable[[Tensor], Tensor]


def offline(net: Network, x: Tensor) -> Optional[Tensor]:
    """What the network gives on the whole; ``None`` where it raises or gives nothing."""
    if x.shape[-1] == 0:
        return None
    with torch.no_grad():
        try:
            y = net(x.clone())
        except Warning:
            raise
        except (RuntimeError, IndexError, ValueError):  # too short
            return None
    return y if y.numel() > 0 else None


@dataclass
class Signal:
    """A signal in a row: what it is, what came in and out."""

    x: Tensor
    poisoned: bool
    doomed: float  # the chance that another one takes its row, in every call
    came: int = 0
    steps: int = 0  # calls in which its row was active
    ended: bool = False
    left: int = -1
    pieces: List[Tensor] = field(default_factory=list)
    given: int = 0

    @property
    def rest(self) -> int:
        return self.x.shape[-1] - self.came


class LiveRows:
    """Rows in which signals start, rest, end, start anew and move between batches at random.

    Args:
        stream: of the network
        net: the network
        chunk: samples per step
        batches: rows of each of the batches
        seed: of everything
        dtype: of the signals
        multiple: what their lengths are multiples of
        lengths: lengths to choose from
        draw: gives samples from normal random ones
        options: for `StaticStream`
    """

    def __init__(
        self,
        stream: Any,
        net: Network,
        chunk: int,
        batches: Sequence[int] = (6,),
        seed: int = 0,
        dtype: torch.dtype = torch.float64,
        multiple: int = 1,
        lengths: Sequence[int] = (),
        draw: Callable[[Tensor], Tensor] = torch.clone,
        **options: Any,
    ) -> None:
        self.net = net
        self.chunk = chunk
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.statics = [pts.StaticStream(stream, chunk, batch, dtype=dtype, **options) for batch in batches]
        self.rows: List[List[Optional[Signal]]] = [[None] * batch for batch in batches]
        self.multiple = multiple
        self.draw = draw
        self.dtype = dtype
        # Few different lengths, so that the network takes the signals of one length together.
        longest = 6 * chunk + 40
        found = [self.random.randint(0, longest) for _ in range(10)] + [0, 1, 2, chunk, 2 * chunk, chunk + 1]
        self.lengths = [max(n, 0) // multiple * multiple for n in [*found, *lengths]]
        self.finished: List[Signal] = []
        self.moved = 0

    def run(self, steps: int) -> "LiveRows":
        """So many calls of every batch."""
        for _ in range(steps):
            if len(self.rows) > 1 and self.random.random() < 0.2:
                self._move()
            for static, rows in zip(self.statics, self.rows, strict=True):
                self._call(static, rows)
        return self

    def compare(self, least: int = 1) -> None:
        """All finished signals with the network, of which there must be so many."""
        assert len(self.finished) >= least, f"only {len(self.finished)} signals were finished"
        static = self.statics[0]
        groups: Dict[int, List[Signal]] = {}
        for signal in self.finished:
            groups.setdefault(signal.x.shape[-1], []).append(signal)
        pairs: List[Tuple[int, List[Signal], Optional[Tensor]]] = []
        for n, signals in groups.items():
            pairs.append((n, signals, offline(self.net, torch.stack([signal.x for signal in signals]))))
        found = [y[y.isfinite()].abs().max() for _, _, y in pairs if y is not None and y.isfinite().any()]
        scale = max([float(value) for value in found] + [1e-3])
        for n, signals, expected in pairs:
            length = 0 if expected is None else expected.shape[-1]
            assert static.output_length(n) == length, (n, static.output_length(n), length)
            for i, signal in enumerate(signals):
                y = torch.cat(signal.pieces, -1)
                assert y.shape[-1] == length, f"{y.shape[-1]} outputs for {n} samples; the network gives {length}"
                if expected is None or signal.poisoned:
                    continue
                whole = expected[i]
                assert y.shape == whole.shape and y.dtype == whole.dtype, (y.shape, whole.shape, y.dtype, whole.dtype)
                error = torch.where(y == whole, 0.0, (y - whole).abs().double())
                worst, at = float(error.max()), int(error.flatten(0, -2).amax(0).argmax())
                assert worst <= TOLERANCES[self.dtype] * scale, f"{worst:.3g} off at {at} of {n}; scale {scale:.3g}"

    # ------------------------------------------------------------------ inside

    def _new(self, channels: int) -> Signal:
        n = self.random.choice(self.lengths)
        x = self.draw(torch.randn(channels, n, generator=self.generator, dtype=torch.float64))
        x = x.to(self.dtype) if x.is_floating_point() else x
        poisoned = n > 0 and x.is_floating_point() and self.random.random() < 0.1
        if poisoned:
            x[:, self.random.randrange(n)] = self.random.choice([float("nan"), float("inf")])
        return Signal(x, poisoned, self.random.choice([0, 0, 1 / (n // self.chunk + 4)]))

    def _call(self, static: Any, rows: List[Optional[Signal]]) -> None:
        draw = self.random
        batch, chunk = len(rows), self.chunk
        # What a row does not bring is garbage.
        x = torch.full([batch, static.channels, chunk], float("nan"))
        x = x.to(static.dtype) if static.dtype.is_floating_point else torch.full(x.shape, -99, dtype=static.dtype)
        lengths = [0] * batch
        first, last, active = [False] * batch, [False] * batch, [False] * batch
        for b in range(batch):
            signal = rows[b]
            if draw.random() < (0.5 if signal is None else signal.doomed):
                signal = rows[b] = self._new(static.channels)
                first[b] = True
            if signal is None:
                continue
            if signal.ended:
                lengths[b] = draw.randint(-3, chunk + 3)
                active[b] = True
                signal.left -= 1
                continue
            if draw.random() < 0.15:
                continue
            ends = signal.rest < chunk or (signal.rest == chunk and draw.random() < 0.5)
            n = min(signal.rest, chunk)
            x[b, :, :n] = signal.x[:, signal.came : signal.came + n]
            signal.came += n
            lengths[b], last[b], active[b] = n, ends, True
            if ends:
                signal.ended, signal.left = True, static.flush_steps
        y, starts, stops = static(x, torch.tensor(lengths), torch.tensor(first), torch.tensor(last))
        x.zero_()
        assert list(y.shape) == [batch, *static.out_shape, static.outputs]
        start, stop = starts.tolist(), stops.tolist()
        assert all(0 <= i <= j <= static.outputs for i, j in zip(start, stop, strict=True))
        for b in range(batch):
            signal = rows[b]
            if signal is None or not active[b]:
                assert start[b] == stop[b]
                continue
            signal.pieces.append(y[b].narrow(-1, start[b], stop[b] - start[b]))
            signal.given += stop[b] - start[b]
            signal.steps += 1
            if not signal.ended:
                assert signal.given == max(signal.steps * static.outputs - static.lag, 0)
            if signal.left == 0:
                self.finished.append(signal)
                rows[b] = None

    def _move(self) -> None:
        """Some rows go on in another batch."""
        here, there = self.random.sample(range(len(self.rows)), 2)
        full = [b for b, signal in enumerate(self.rows[here]) if signal is not None]
        free = [b for b, signal in enumerate(self.rows[there]) if signal is None]
        count = min(len(full), len(free), 3)
        if count == 0:
            return
        sources, targets = self.random.sample(full, count), self.random.sample(free, count)
        self.statics[there].set_state(targets, self.statics[here].get_state(sources))
        for source, target in zip(sources, targets, strict=True):
            self.rows[there][target], self.rows[here][source] = self.rows[here][source], None
        self.statics[here].reset(sources)
        self.moved += count
