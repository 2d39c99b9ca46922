"""`StaticStream`: the same program at every step, for rows of different age."""

from dataclasses import replace
from functools import cache
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import torch
from torch import Tensor, nn

from ..core.lengths import LengthTable
from ..core.liveness import spent
from ..core.stream import BaseStream
from ..core.turns import Turn, in_use, refuse_shallow_copy, stays_in_eval
from ..core.whole_numbers import require_length, whole_number
from ..errors import StreamInputError, UnsupportedModuleError
from ..graph.several import PortedGraphStream
from ..graph.signature import Structure
from ..layers.weights import copy_network
from . import attention, graph_rules, recurrence, rules  # noqa: F401  (they register themselves)
from .chunks import check_call, check_state, check_step, input_channels
from .counting import OPEN
from .cuda_graphs import CudaGraph
from .inductor import inductor
from .planning import Edge, Planner
from .pruning import needed
from .rows import Rows
from .signals import Given, Result, Source, check_inputs, common_multiple, sources_of

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

    A captured model with several inputs or outputs, or other layouts, keeps them: ``x`` is a tuple of all its inputs.
    Those with time bring their share of a step, a static one counts where ``first`` is set. ``lengths`` and ``chunk``
    count samples of the first input with time. Outputs, ``start``, ``stop``, and of the attributes ``outputs``, ``lag``
    and ``out_shape``, whole shapes here, stand in the structure of the model's outputs.

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
        self.dtype = dtype
        self.validate = validate
        self._captured: Optional[CudaGraph] = None
        self._turn = Turn()
        if anchor is not None and dtype != anchor.dtype:
            raise ValueError(
                f"invalid_dtype: dtype={dtype} came; {anchor.dtype}, that of the weights, was expected; leave dtype out"
            )
        self.length_multiple = int(getattr(stream, "length_multiple", 1))
        self.min_length = int(getattr(stream, "min_length", 1))
        self.channels = -1
        self._structure: Optional[Structure] = None
        if isinstance(stream, PortedGraphStream):
            self.sources = sources_of(stream, chunk, batch)
            self.length_multiple = common_multiple(self.sources, self.length_multiple)
            self._structure = stream.structure
            self._filled = [slot >= 0 for slot in stream.outputs]  # the others are always None
        else:
            self.channels = input_channels(stream) if channels is None else whole_number(channels, "channels")
            stream.output_channels(self.channels)  # refuses what does not fit
            self.sources = [Source("x", (batch, self.channels, chunk), dtype)]
        self._limit = stream._limit
        with torch.inference_mode(False), torch.no_grad():
            self._plan(stream, Planner(chunk, batch, stream.hop, self.length_multiple, columns, device))

    def _plan(self, stream: BaseStream, plan: Planner) -> None:
        batch = self.batch
        try:
            outs = [plan.settled(edge) for edge in self._lower(stream, plan)]
        except UnsupportedModuleError as error:
            raise error.within(stream) from None
        self.results = [Result.of(plan, out) for out in outs]
        self.tables = tuple(plan.tables[result.key] for result in self.results)  # no part of the step
        shapes = [list(out.example.movedim(out.time, -1).shape[1:-1]) for out in outs]
        self.outputs: Any = self._told([result.per_step for result in self.results], 0)
        self.lag: Any = self._told([result.lag for result in self.results], 0)
        self.out_shape: Any = self._told(shapes if self._structure is None else [list(r.shape) for r in self.results])
        self.flush_steps = self._count_flush_steps()
        slots = {result.slot for result in self.results}
        used = needed(plan.parts, slots)
        # Copies, which no change of the network reaches, nor one of this module the network.
        parts = copy_network(nn.ModuleList(used)).requires_grad_(False)
        assert isinstance(parts, nn.ModuleList)
        self.parts = parts
        self.counters = nn.ModuleList(plan.counters)
        self._spent = spent([(*part.sources, part.target) for part in used], slots)
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

    def _lower(self, stream: BaseStream, plan: Planner) -> List[Edge]:
        plan.slots = len(self.sources)
        inputs = [source.zeros(plan.device) for source in self.sources]
        if not isinstance(stream, PortedGraphStream):
            return [plan.lower(stream, Edge(0, 0, _same, inputs[0]))]
        edges, ports = [], list(stream.ports)
        for i, (source, x, port) in enumerate(zip(self.sources, inputs, ports, strict=True)):
            edge = Edge(i, 0, _same, x, source.time, source.rows)
            if source.time < 0:
                edge = plan.add(Given(source.rows), [edge], 0, time=-1, rows=source.rows)
            else:
                edge = replace(edge, length=cache(port.length))  # type: ignore[arg-type]
            edges.append(edge)
        return graph_rules.ported(plan, stream, edges)

    def _told(self, values: Sequence[Any], nothing: Any = None) -> Any:
        # One of each output: in the model's structure, if it has one.
        if self._structure is None:
            return values[0]
        given = iter(values)
        return self._structure.filled([next(given) if there else nothing for there in self._filled])

    # ------------------------------------------------------------------ the interface

    def forward(self, x: Any, lengths: Tensor, first: Tensor, last: Tensor) -> Tuple[Any, Any, Any]:
        """One step of all rows.

        Args:
            x: new samples, ``[batch, channels, chunk]``; of a model with several inputs a tuple of all of them
            lengths: how many of them each row brings, ``[batch]`` int64
            first: whether a signal starts in a row, ``[batch]`` bool
            last: whether it ends in a row, ``[batch]`` bool

        Returns:
            the outputs, and from where to where they are valid in each row; of a model with several outputs each of
            the three in its structure

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

    def _run(self, x: Any, lengths: Tensor, first: Tensor, last: Tensor) -> Tuple[Any, Any, Any]:
        several = self._structure is not None
        if self.validate:
            age, left = getattr(self, _buffer("row.age")), getattr(self, _buffer("row.left"))
            if several:
                x = check_inputs(x, self.sources, age.device)
            one = None if several else x
            expected = self.channels, self.chunk, self.dtype, self.length_multiple, self._limit, self.min_length
            check_call(one, lengths, first, last, age, left, *expected)
        inputs = list(x) if isinstance(x, (tuple, list)) else [x]
        if self._captured is not None:
            *ys, edges = self._captured(*inputs, lengths, first, last)
            return self._given([*ys, *edges.unbind()])
        return self._given(
            self._advance(*inputs, lengths, first, last, *(getattr(self, _buffer(name)) for name in self._names))
        )

    def _given(self, flat: Sequence[Tensor]) -> Tuple[Any, Any, Any]:
        count = len(self.results)
        return self._told(flat[:count]), self._told(flat[count : 2 * count]), self._told(flat[2 * count :])

    def _advance(self, *given: Tensor) -> List[Tensor]:
        count = len(given) - len(self._names)
        states = given[count:]
        following, flat = self.flat_step(dict(zip(self._names, states, strict=True)), *given[:count])
        for name, state in zip(self._names, states, strict=True):
            state.copy_(following[name].detach())
        return flat

    def step(self, state: State, x: Any, lengths: Tensor, first: Tensor, last: Tensor) -> Tuple[State, Any, Any, Any]:
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
        inputs = [x] if isinstance(x, Tensor) else list(x)
        following, flat = self.flat_step(state, *inputs, lengths, first, last)
        return (following, *self._given(flat))

    def flat_step(self, state: State, *given: Tensor) -> Tuple[State, List[Tensor]]:
        """The step as a function without structures.

        Args:
            state: as in `step`
            given: all inputs, and lengths, first and last

        Returns:
            the next state, and the outputs, all starts and all stops in a list
        """
        lengths, first, last = given[-3:]
        age, total, left = state["row.age"], state["row.total"], state["row.left"]
        zero = torch.zeros_like(age)
        age = torch.where(first, zero, age)
        live = first | (left < 0)
        ends = live & last
        brings = torch.where(live, lengths, zero)
        total = torch.where(live, torch.where(ends, age * self.chunk + brings, zero + OPEN), total)
        active = (live & (last | (lengths > 0))) | (~live & (left > 0))
        rows = Rows(age, first, active, total, list(self.counters))
        pairs = zip(self.sources, given[:-3], strict=True)
        values: List[Optional[Tensor]] = [source.came(x, brings) for source, x in pairs]
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
        ys: List[Tensor] = []
        starts: List[Tensor] = []
        stops: List[Tensor] = []
        for result in self.results:
            y = values[result.slot]
            assert y is not None
            ys.append(y.movedim(result.time, -1) if self._structure is None and result.time != y.dim() - 1 else y)
            m = result.per_step
            begin = age * m - result.lag
            start = (-begin).clamp(0, m)
            stop = torch.maximum((rows.length(result.key).squeeze(1) - begin).clamp(0, m), start)
            starts.append(torch.where(active, start, zero))
            stops.append(torch.where(active, stop, zero))
        following["row.age"] = age + active.to(age.dtype)
        following["row.total"] = total
        left = torch.where(live, zero - 1, (left - 1).clamp(min=0))
        following["row.left"] = torch.where(ends, zero + self.flush_steps, left)
        ordered = {name: following[name] for name in self._names}
        return ordered, [*ys, *starts, *stops]

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
        xs = [source.zeros(clock.device) for source in self.sources]
        inputs = (*xs, clock.clone(), clock != 0, clock != 0)
        states = [getattr(self, _buffer(name)) for name in self._names]
        kept = self.get_state()
        try:
            run = inductor(self._advance, [*inputs, *states], {}) if fuse else self._advance

            def advance(*given: Tensor) -> List[Tensor]:
                flat = run(*given, *states)
                count = len(self.results)
                return [*flat[:count], torch.stack(flat[count:])]  # fewer copies of what a call gives

            # Weights and states are this module's; to hold a method of it would be a circle.
            self._captured = CudaGraph(advance, inputs, keeps=run if fuse else None)
        finally:
            self.set_state(None, kept)

    def init_state(self) -> State:
        """The state in which all rows are free."""
        return {name: empty.clone() for name, empty in self._empty.items()}

    @property
    def table(self) -> LengthTable:
        """The length of the (first) output, as a function of the (first) input's."""
        return self.tables[0]

    def output_length(self, n: int) -> Any:
        """Number of samples that the network gives for ``n``; of several outputs one for each, in their structure."""
        require_length(n)
        if n % self.length_multiple:
            raise StreamInputError(
                f"length_multiple: a length of {n} samples came; a multiple of {self.length_multiple} was expected; "
                "pad the signal"
            )
        return self._told([table(n) for table in self.tables], 0)

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
        device = self._empty["row.age"].device
        self.dtype = fn(torch.empty(0, dtype=self.dtype, device=device)).dtype
        self.sources = [replace(each, dtype=fn(torch.empty(0, dtype=each.dtype)).dtype) for each in self.sources]
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

    def _count_flush_steps(self) -> int:
        ahead = 0
        for result, table in zip(self.results, self.tables, strict=True):
            for k in range((len(table.values) + 2 * table.period) // self.chunk + 2):
                for n in range(k * self.chunk, (k + 1) * self.chunk + 1):
                    if n % self.length_multiple == 0:
                        steps = -(-(table(n) + result.lag) // result.per_step)
                        ahead = max(ahead, steps - (k + 1) if table(n) > 0 else 0)
        return ahead


def _buffer(name: str) -> str:
    return name.replace(".", "_")


def _same(n: int) -> int:
    return n
