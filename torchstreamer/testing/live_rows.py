"""Random signals in the rows of static streams, compared with the network on the whole."""

import random
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import torch
from torch import Tensor

from ..deploy.static import StaticStream
from .report import VerificationError

__all__ = ["LiveRows"]

TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.bfloat16: 5e-2, torch.float16: 1e-2}

Network = Callable[[Tensor], Optional[Tensor]]


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
    return y if y is not None and y.numel() > 0 else None


@dataclass
class Signal:
    """A signal in a row: what it is, what came in and out, and what happened to it."""

    x: Tensor
    doomed: float  # the chance that another one takes its row, in every call
    came: int = 0
    steps: int = 0  # calls in which its row was active
    ended: bool = False
    left: int = -1
    pieces: List[Tensor] = field(default_factory=list)
    given: int = 0
    before: str = "a free row"  # where it began
    rests: int = 0
    moves: int = 0

    @property
    def rest(self) -> int:
        return self.x.shape[-1] - self.came

    def __str__(self) -> str:
        text = f"a signal of {self.x.shape[-1]} samples that began in {self.before}"
        text += f", rested {self.rests} times" if self.rests else ""
        return text + (f", moved to another batch {self.moves} times" if self.moves else "")


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
        longest: lengths to choose from are also random ones up to this; by default six steps and 40 samples
        tolerance: largest difference allowed, relative to the largest output; by default one for the dtype
        scale: of the outputs, if that is more than the largest one
        nan: the share of signals with a sample that is ``nan`` or infinite; outputs are so where the network's are
        options: for `StaticStream`

    Raises:
        VerificationError: by every method: the rows do not give what the network gives; the rule is ``"static"``
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
        longest: Optional[int] = None,
        tolerance: Optional[float] = None,
        scale: float = 1e-3,
        nan: float = 0.1,
        **options: Any,
    ) -> None:
        self.net = net
        self.chunk = chunk
        self.random = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.statics = [StaticStream(stream, chunk, batch, dtype=dtype, **options) for batch in batches]
        self.device = next(self.statics[0].buffers()).device
        self.rows: List[List[Optional[Signal]]] = [[None] * batch for batch in batches]
        self.multiple = multiple
        self.draw = draw
        self.dtype = dtype
        self.tolerance = tolerance
        self.scale = scale
        self.nan = nan
        # Few different lengths, so that the network takes the signals of one length together.
        longest = 6 * chunk + 40 if longest is None else longest
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

    def compare(self, least: int = 1) -> int:
        """All finished signals with the network, the short ones first, of which there must be so many."""
        if len(self.finished) < least:
            raise AssertionError(f"only {len(self.finished)} signals were finished; at least {least} were expected")
        groups: Dict[int, List[Signal]] = {}
        for signal in self.finished:
            groups.setdefault(signal.x.shape[-1], []).append(signal)
        pairs: List[Tuple[int, List[Signal], Optional[Tensor]]] = []
        for n, signals in sorted(groups.items()):
            pairs.append((n, signals, offline(self.net, torch.stack([signal.x for signal in signals]))))
        found = [y[y.isfinite()].abs().max() for _, _, y in pairs if y is not None and y.isfinite().any()]
        scale = max([float(value) for value in found] + [self.scale])
        for n, signals, expected in pairs:
            length = 0 if expected is None else expected.shape[-1]
            said = self.statics[0].output_length(n)
            _require(said == length, f"output_length({n}) is {said}; the network gives {length}")
            order = sorted(range(len(signals)), key=lambda i: signals[i].rests + signals[i].moves)
            for i in order:
                self._hold(signals[i], None if expected is None else expected[i], scale)
        return len(self.finished)

    # ------------------------------------------------------------------ inside

    def _hold(self, signal: Signal, expected: Optional[Tensor], scale: float) -> None:
        where = f"{signal}, in steps of {self.chunk}"
        y = torch.cat(signal.pieces, -1)
        length = 0 if expected is None else expected.shape[-1]
        _require(y.shape[-1] == length, f"{y.shape[-1]} outputs came of {where}; the network gives {length}")
        if expected is None:
            return
        came, due = (tuple(y.shape), y.dtype), (tuple(expected.shape), expected.dtype)
        _require(came == due, f"shape {came[0]}, {came[1]} came of {where}; {due[0]}, {due[1]} was expected")
        error = torch.where((y == expected) | (y.isnan() & expected.isnan()), 0.0, (y - expected).abs().double())
        error = error.nan_to_num(nan=float("inf")).flatten(0, -2).amax(0)
        allowed = (TOLERANCES.get(self.dtype, 1e-4) if self.tolerance is None else self.tolerance) * scale
        wrong = (error > allowed).nonzero()
        if wrong.numel() > 0:
            raise VerificationError(
                "static",
                f"output sample {int(wrong[0])} of {length} is wrong, of {where}; the largest difference is "
                f"{float(error.max()) / scale:.2g} of the output's scale, {allowed / scale:.0e} is allowed",
            )

    def _new(self, channels: int, before: Optional[Signal]) -> Signal:
        n = self.random.choice(self.lengths)
        x = self.draw(torch.randn(channels, n, generator=self.generator, dtype=torch.float64))
        x = (x.to(self.dtype) if x.is_floating_point() else x).to(self.device)
        if n > 0 and x.is_floating_point() and self.random.random() < self.nan:
            x[:, self.random.randrange(n)] = self.random.choice([float("nan"), float("inf")])
        made = Signal(x, self.random.choice([0, 0, 1 / (n // self.chunk + 4)]))
        if before is not None:
            made.before = "the row of one that had ended" if before.ended else "the row of one that went on"
        return made

    def _call(self, static: StaticStream, rows: List[Optional[Signal]]) -> None:
        draw = self.random
        batch, chunk = len(rows), self.chunk
        # What a row does not bring is garbage.
        fill = float("nan") if static.dtype.is_floating_point else -99
        x = torch.full([batch, static.channels, chunk], fill, dtype=static.dtype, device=self.device)
        lengths = [0] * batch
        first, last, active = [False] * batch, [False] * batch, [False] * batch
        for b in range(batch):
            signal = rows[b]
            if draw.random() < (0.5 if signal is None else signal.doomed):
                signal = rows[b] = self._new(static.channels, signal)
                first[b] = True
            if signal is None:
                continue
            if signal.ended:
                lengths[b] = draw.randint(-3, chunk + 3)
                active[b] = True
                signal.left -= 1
                continue
            if draw.random() < 0.15:
                signal.rests += 1
                continue
            ends = signal.rest < chunk or (signal.rest == chunk and draw.random() < 0.5)
            n = min(signal.rest, chunk)
            x[b, :, :n] = signal.x[:, signal.came : signal.came + n]
            signal.came += n
            lengths[b], last[b], active[b] = n, ends, True
            if ends:
                signal.ended, signal.left = True, static.flush_steps
        flags = [torch.tensor(values, device=self.device) for values in (lengths, first, last)]
        y, starts, stops = static(x, *flags)
        x.zero_()
        due = [batch, *static.out_shape, static.outputs]
        _require(list(y.shape) == due, f"a step gave shape {list(y.shape)}; {due} was expected")
        start, stop = starts.tolist(), stops.tolist()
        for b in range(batch):
            signal = rows[b]
            _require(
                0 <= start[b] <= stop[b] <= static.outputs,
                f"of {static.outputs} outputs of a step those from {start[b]} to {stop[b]} are given",
            )
            if signal is None or not active[b]:
                _require(start[b] == stop[b], f"a row that rests gives {stop[b] - start[b]} outputs")
                continue
            signal.pieces.append(y[b].narrow(-1, start[b], stop[b] - start[b]))
            signal.given += stop[b] - start[b]
            signal.steps += 1
            if not signal.ended:
                wanted = max(signal.steps * static.outputs - static.lag, 0)
                _require(
                    signal.given == wanted,
                    f"after {signal.steps} steps of {chunk} samples {signal.given} outputs are out; at the lag "
                    f"{static.lag} {wanted} were expected",
                )
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
            signal = self.rows[here][source]
            assert signal is not None
            signal.moves += 1
            self.rows[there][target], self.rows[here][source] = signal, None
        self.statics[here].reset(sources)
        self.moved += count


def _require(holds: bool, detail: str) -> None:
    if not holds:
        raise VerificationError("static", detail)
