"""`StaticStream`: the same program at every step, for rows of different age."""

from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor, nn

from ..core.lengths import LengthTable
from ..core.liveness import spent
from ..core.stream import BaseStream
from ..core.turns import Turn, in_use, refuse_shallow_copy, stays_in_eval
from ..core.whole_numbers import require_length, whole_number
from ..errors import StreamInputError, UnsupportedModuleError
from ..layers.weights import copy_network
from . import attention, graph_rules, recurrence, rules  # noqa: F401  (they register themselves)
from .chunks import check_call, check_state, check_step, input_channels
from .counting import OPEN
from .cuda_graphs import CudaGraph
from .inductor import inductor
from .planning import Edge, Planner
from .pruning import needed
from .rows import Rows

__all__ = ["StaticStream"]

State = Dict[str, Tensor]
RowIndex = Union[Sequence[int], Tensor]


class StaticStream(nn.Module):
    r"""A stream as one program in which every call has the same shapes and nothing but tensors changes.

    Each row of the batch is a signal of its own, and they need not be of one age: a row starts, pauses and ends when
    its flags say so. So one program, one CUDA graph or one exported file serves a batch of live signals.

    A row is free, live or draining. ``first`` starts a new signal in it, whatever it held. A live row brings ``chunk``
    samples, or 0 without a flag: then it rests and stays as it was. ``last`` ends the signal, with 0 to ``chunk``
    samples, also together with ``first``. From then on the row drains by itself for ``flush_steps`` calls, in which its
    ``lengths`` are ignored; then it is free.

    The samples come ``lag`` later than positions say: at a row's step ``k`` its outputs are those at the positions
    ``k · outputs - lag …``, as far as they belong to its signal.

    Weights are those of the moment in which it is made.

    Args:
        stream: the stream, from `create_stream`; it is left alone
        chunk: samples per step, a multiple of ``stream.hop``
        batch: rows
        channels: channels in, where the stream takes any
        dtype: of the input, where the stream takes any
        device: of the input, where the stream has no weights
        validate: whether calls are checked; switch it off inside CUDA graphs
        columns: up to so many outputs over all rows, a convolution is one product of unfolded windows; by default as
            many as paid where it was measured

    Attributes:
        outputs: output samples per step
        lag: output samples by which the outputs lag behind
        flush_steps: calls that a row needs after its last one
        out_shape: sizes of the output's axes between batch and time

    Shape:
        - x: ``[batch, channels, chunk]``; what lies after a row's ``lengths`` is ignored
        - lengths: ``[batch]`` int64, samples that each row brings
        - first, last: ``[batch]`` bool
        - output: ``y [batch, *out_shape, outputs]``, ``start [batch]``, ``stop [batch]``: row ``b`` gives
          ``y[b, ..., start[b]:stop[b]]``

    Raises:
        UnsupportedModuleError: a layer has no static form; the message names it
        ValueError: ``chunk`` or ``batch`` does not fit; the message names sizes that do

    Example:
        >>> import torch, torchstreamer as pts
        >>> net = torch.nn.Conv1d(2, 3, 5, padding=2)
        >>> step = pts.StaticStream(pts.create_stream(net), chunk=4, batch=1)
        >>> x, pieces = torch.randn(1, 2, 8), []
        >>> flag = lambda value: torch.tensor([value])
        >>> for i in range(2 + step.flush_steps):
        ...     chunk = x[..., 4 * i : 4 * i + 4] if i < 2 else torch.zeros(1, 2, 4)
        ...     y, start, stop = step(chunk, torch.tensor([4]), flag(i == 0), flag(i == 1))
        ...     pieces.append(y[0, :, start[0] : stop[0]])
        >>> torch.testing.assert_close(torch.cat(pieces, -1), net(x)[0])
    """

    def __init__(
        self,
        stream: BaseStream,
        chunk: int,
        batch: int = 1,
        channels: Optional[int] = None,
        dtype: Optional[torch.dtype] = None,
        device: Optional[torch.device] = None,
        validate: bool = True,
        columns: Optional[int] = None,
    ) -> None:
        super().__init__()
        chunk, batch = check_step(stream, chunk, batch)
        anchor = stream.anchor()
        device = anchor.device if anchor is not None else torch.device(device or "cpu")
        dtype = (anchor.dtype if anchor is not None else torch.get_default_dtype()) if dtype is None else dtype
        self.chunk = chunk
        self.batch = batch
        self.channels = input_channels(stream) if channels is None else whole_number(channels, "channels")
        self.dtype = dtype
        self.validate = validate
        self._captured: Optional[CudaGraph] = None
        self._turn = Turn()
        if anchor is not None and dtype != anchor.dtype:
            raise ValueError(
                f"invalid_dtype: dtype={dtype} came; {anchor.dtype}, that of the weights, was expected; leave dtype out"
            )
        stream.output_channels(self.channels)  # refuses what does not fit
        self.length_multiple = int(getattr(stream, "length_multiple", 1))
        self._limit = stream._limit
        with torch.inference_mode(False), torch.no_grad():
            self._plan(stream, Planner(chunk, batch, stream.hop, self.length_multiple, columns, device))

    def _plan(self, stream: BaseStream, plan: Planner) -> None:
        batch = self.batch
        x = torch.zeros([batch, self.channels, self.chunk], dtype=self.dtype, device=plan.device)
        try:
            out = plan.settled(plan.lower(stream, Edge(0, 0, _same, x)))
        except UnsupportedModuleError as error:
            raise error.within(stream) from None
        self.outputs = out.per_step
        self.lag = out.lag
        self.out_shape = list(out.example.movedim(out.time, -1).shape[1:-1])
        self._time = out.time
        self._result = out.slot
        self._length = plan.key(out)
        self._table = (plan.tables[self._length],)  # a tuple, since it is no part of the step
        self.flush_steps = self._count_flush_steps(plan)
        used = needed(plan.parts, out.slot)
        # Copies, which no change of the network reaches, nor one of this module the network.
        parts = copy_network(nn.ModuleList(used)).requires_grad_(False)
        assert isinstance(parts, nn.ModuleList)
        self.parts = parts
        self.counters = nn.ModuleList(plan.counters)
        self._spent = spent([(*part.sources, part.target) for part in used], {out.slot})
        # The state: of each row how old it is, how long its signal is, and how many steps are left (-1: live).
        self._names = ["row.age", "row.total", "row.left"]
        clock = torch.zeros([batch], dtype=torch.int64, device=plan.device)
        self._empty: State = {name: clock for name in self._names}
        empty_of = {part: states for part, states in zip(plan.parts, plan.empty, strict=True)}
        self._held: List[List[str]] = []  # the states of each part, by name
        for i, part in enumerate(used):
            states = empty_of[part]
            names = [f"ring.{i}"] if len(states) == 1 else [f"ring.{i}.{k}" for k in range(len(states))]
            for name, empty in zip(names, states, strict=True):
                # Rows first, where another axis is merged into them.
                self._empty[name] = empty.reshape(batch, -1, *empty.shape[1:])
            self._held.append(names)
            self._names += names
        for name, empty in self._empty.items():
            self.register_buffer(_buffer(name), empty.clone(), persistent=False)

    # ------------------------------------------------------------------ the interface

    def forward(self, x: Tensor, lengths: Tensor, first: Tensor, last: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        """One step of all rows.

        Args:
            x: new samples, ``[batch, channels, chunk]``
            lengths: how many of them each row brings, ``[batch]`` int64
            first: whether a signal starts in a row, ``[batch]`` bool
            last: whether it ends in a row, ``[batch]`` bool

        Returns:
            the outputs, and from where to where they are valid in each row

        Raises:
            StreamInputError: a call does not fit; nothing was written. Only with ``validate=True``
            StreamStateError: a call of another thread runs
        """
        if torch.compiler.is_compiling():
            return self._run(x, lengths, first, last)  # a lock cannot be traced
        lock = self._turn.lock
        if not lock.acquire(False):
            raise in_use()
        try:
            return self._run(x, lengths, first, last)
        finally:
            lock.release()

    def _run(self, x: Tensor, lengths: Tensor, first: Tensor, last: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        if self.validate:
            age, left = getattr(self, _buffer("row.age")), getattr(self, _buffer("row.left"))
            expected = self.channels, self.chunk, self.dtype, self.length_multiple, self._limit
            check_call(x, lengths, first, last, age, left, *expected)
        if self._captured is not None:
            y, edges = self._captured(x, lengths, first, last)
            start, stop = edges.unbind()
            return y, start, stop
        return self._advance(x, lengths, first, last, *(getattr(self, _buffer(name)) for name in self._names))

    def _advance(
        self, x: Tensor, lengths: Tensor, first: Tensor, last: Tensor, *states: Tensor
    ) -> Tuple[Tensor, Tensor, Tensor]:
        following, y, start, stop = self.step(dict(zip(self._names, states, strict=True)), x, lengths, first, last)
        for name, state in zip(self._names, states, strict=True):
            state.copy_(following[name].detach())
        return y, start, stop

    def step(
        self, state: State, x: Tensor, lengths: Tensor, first: Tensor, last: Tensor
    ) -> Tuple[State, Tensor, Tensor, Tensor]:
        """The step as a function: from a state and an input to the next state and the outputs.

        Args:
            state: from `init_state`, or the one that the last step gave
            x: as in a call
            lengths: as in a call
            first: as in a call
            last: as in a call

        Returns:
            the next state, the outputs, and from where to where they are valid
        """
        age, total, left = state["row.age"], state["row.total"], state["row.left"]
        zero = torch.zeros_like(age)
        age = torch.where(first, zero, age)
        live = first | (left < 0)
        ends = live & last
        brings = torch.where(live, lengths, zero)
        total = torch.where(live, torch.where(ends, age * self.chunk + brings, zero + OPEN), total)
        active = (live & (last | (lengths > 0))) | (~live & (left > 0))
        rows = Rows(age, first, active, total, list(self.counters))
        # Samples that no row brings are 0, so that nothing inside meets what is not a sample.
        came = torch.arange(self.chunk, device=x.device) < brings.unsqueeze(1)
        values: List[Optional[Tensor]] = [torch.where(came.unsqueeze(1), x, torch.zeros_like(x))]
        following: State = {}
        for i, part in enumerate(self.parts):
            xs: List[Any] = [values[source] for source in part.sources]  # type: ignore[union-attr]
            y, kept = part(xs, [state[name].flatten(0, 1) for name in self._held[i]], rows)
            values.extend([None] * (part.target + 1 - len(values)))  # type: ignore[operator]
            values[part.target] = y  # type: ignore[index]
            for name, value in zip(self._held[i], kept, strict=True):
                following[name] = value.reshape(state[name].shape)
            for slot in self._spent[i]:
                values[slot] = None
        result = values[self._result]
        assert result is not None
        if self._time != result.dim() - 1:
            result = result.movedim(self._time, -1)
        begin = age * self.outputs - self.lag
        start = (-begin).clamp(0, self.outputs)
        stop = torch.maximum((rows.length(self._length).squeeze(1) - begin).clamp(0, self.outputs), start)
        following["row.age"] = age + active.to(age.dtype)
        following["row.total"] = total
        left = torch.where(live, zero - 1, (left - 1).clamp(min=0))
        following["row.left"] = torch.where(ends, zero + self.flush_steps, left)
        ordered = {name: following[name] for name in self._names}
        return ordered, result, torch.where(active, start, zero), torch.where(active, stop, zero)

    def capture(self, fuse: bool = False) -> None:
        """Record the step as a CUDA graph, which every later call replays. Outputs stay valid.

        Args:
            fuse: let Inductor make kernels of all that stands between the convolutions first, which needs Triton, and
                a minute or more for a large network

        Raises:
            RuntimeError: the stream is not on a GPU
        """
        device = self._empty["row.age"].device
        if device.type != "cuda":
            raise RuntimeError(
                f"not_on_gpu: the stream is on {device}; a CUDA device was expected; make it of a stream there, as "
                "StaticStream(stream.to('cuda'), …), which chooses its kernels for a GPU"
            )
        with self._turn:
            self._capture(fuse)

    @torch.inference_mode(False)
    def _capture(self, fuse: bool) -> None:
        clock = self._empty["row.age"]
        x = torch.zeros([self.batch, self.channels, self.chunk], dtype=self.dtype, device=clock.device)
        inputs = (x, clock.clone(), clock != 0, clock != 0)
        states = [getattr(self, _buffer(name)) for name in self._names]
        kept = self.get_state()
        try:
            run = inductor(self._advance, [*inputs, *states], {}) if fuse else self._advance

            def advance(*given: Tensor) -> List[Tensor]:
                y, start, stop = run(*given, *states)
                return [y, torch.stack([start, stop])]  # one copy less of what a call gives

            # Weights and states are this module's; to hold a method of it would be a circle.
            self._captured = CudaGraph(advance, inputs, keeps=run if fuse else None)
        finally:
            self.set_state(None, kept)

    def init_state(self) -> State:
        """The state in which all rows are free."""
        return {name: empty.clone() for name, empty in self._empty.items()}

    @property
    def table(self) -> LengthTable:
        """The length of the output, as a function of the input's."""
        return self._table[0]

    def output_length(self, n: int) -> int:
        """Number of samples that the network gives for ``n``."""
        require_length(n)
        if n % self.length_multiple:
            raise StreamInputError(
                f"length_multiple: a length of {n} samples came; a multiple of {self.length_multiple} was expected; "
                "pad the signal"
            )
        return self.table(n)

    def reset(self, rows: Optional[RowIndex] = None) -> None:
        """Free rows, all unless they are given."""
        self.set_state(rows, {name: empty[self._index(rows)] for name, empty in self._empty.items()})

    def get_state(self, rows: Optional[RowIndex] = None) -> State:
        """A copy of the state of rows, all unless they are given; every tensor has the rows first."""
        index = self._index(rows)
        with self._turn:
            return {name: getattr(self, _buffer(name))[index].clone() for name in self._names}

    def set_state(self, rows: Optional[RowIndex], state: State) -> None:
        """Let rows continue from a state that `get_state` gave, of this or another batch of the same plan.

        Raises:
            StreamInputError: the state does not fit; nothing was written
        """
        index = self._index(rows)
        check_state(state, self._empty, index.numel(), self.chunk, self.flush_steps, self.length_multiple)
        device = self._empty["row.age"].device
        copies = {name: value.detach().to(device) for name, value in state.items()}
        with self._turn:
            for name in self._names:
                getattr(self, _buffer(name))[index] = copies[name]

    def extra_repr(self) -> str:
        text = f"chunk={self.chunk}, batch={self.batch}, outputs={self.outputs}, lag={self.lag}"
        return f"{text}, flush_steps={self.flush_steps}"

    # ------------------------------------------------------------------ inside

    def _index(self, rows: Optional[RowIndex]) -> Tensor:
        device = self._empty["row.age"].device
        if rows is None:
            return torch.arange(self.batch, device=device)
        index = torch.as_tensor(rows).reshape(-1)
        numbers = index.numel() == 0 or not (index.is_floating_point() or index.dtype == torch.bool)
        if not numbers or any(not 0 <= row < self.batch for row in index.tolist()):
            raise StreamInputError(
                f"invalid_rows: rows {index.tolist()} came; whole numbers from 0 to {self.batch - 1} were expected; "
                "check the batch"
            )
        return index.to(device, torch.int64)

    def _apply(self, fn: Any, recurse: bool = True) -> "StaticStream":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._captured = None
        self._empty = {name: fn(empty) for name, empty in self._empty.items()}
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=self._empty["row.age"].device)).dtype
        return self

    def train(self, mode: bool = True) -> "StaticStream":
        """``train(False)`` is ``eval()``; ``train()`` warns, as the step stays as it was made."""
        if mode:
            stays_in_eval(self)
            return self
        return super().train(False)

    def __copy__(self) -> "StaticStream":
        raise refuse_shallow_copy(self)

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "_captured": None}  # a graph reads this module's memory, not a copy's

    def _count_flush_steps(self, plan: Planner) -> int:
        ahead = 0
        for k in range((len(self.table.values) + 2 * self.table.period) // self.chunk + 2):
            for n in range(k * self.chunk, (k + 1) * self.chunk + 1):
                if n % self.length_multiple == 0:
                    steps = -(-(self.output_length(n) + self.lag) // self.outputs)
                    ahead = max(ahead, steps - (k + 1) if self.output_length(n) > 0 else 0)
        return ahead


def _buffer(name: str) -> str:
    return name.replace(".", "_")


def _same(n: int) -> int:
    return n
