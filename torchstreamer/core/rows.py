"""`RowStream`: many live signals of any age, whose pieces of any length run in few batches."""

from contextlib import contextmanager
from typing import Any, Dict, Hashable, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn

from ..errors import StreamInputError, StreamStateError, UnsupportedModuleError
from .describe import describe, dtype_name, is_plain
from .registry import create_stream
from .row_state import RowState
from .row_table import Batch, Row, RowTable, gather, rows_apart
from .state import require_named_tensors, stack_states
from .stream import BaseStream
from .turns import Turn, refuse_shallow_copy

__all__ = ["RowPiece", "RowStream"]

# In which order the parts of a piece run.
_ALIGN, _WHOLE, _TAIL, _END = range(4)

RowInput = Tuple[Hashable, Optional[Tensor], bool, bool]


class RowPiece(NamedTuple):
    """What came out of one row in one step.

    Attributes:
        id: of the signal
        output: the new output samples, ``[C', t']``, or ``None`` if there are none; a row of a batch
        first: whether the signal began in this step
        last: whether it ended
        start: position of the first of them in the output of the whole signal; ``None`` if the row began with a state
            of which nobody told where it stands
    """

    id: Hashable
    output: Optional[Tensor]
    first: bool
    last: bool
    start: Optional[int]


class _Going:
    # A row in a step: where it stands, what came, and what came out.

    __slots__ = ("at", "first", "id", "last", "outputs", "row", "samples", "start")

    def __init__(self, id: Hashable, row: Row, samples: Optional[Tensor], first: bool, last: bool) -> None:
        self.id = id
        self.row = row
        self.samples = samples
        self.first = first
        self.last = last
        self.at = 0  # of the samples, as many are through
        self.start = row.given
        self.outputs: List[Tensor] = []


class RowStream:
    """Many live signals at once, each with an id, through one stream.

    In a step each signal that has anything new brings a piece of any length. Pieces are cut into powers of two of
    ``hop``, and rows that are in the same phase run as one batch. What a row gives is what a stream of its own gives,
    whatever comes in the other rows.

    A step changes all of its rows or, if it raises, none.

    Args:
        net: a network, as for `create_stream`; or a new stream, which belongs to the rows from here on
        prompt: whether outputs come as soon as they can. Otherwise samples wait until there are ``hop`` of them, so
            that rows stay in one phase: that is late by less than ``hop`` samples, and where ``hop`` is large many
            times faster
        options: of `create_stream`, such as ``example=``

    Attributes:
        stream: what runs; not to be called
        prompt: as given
        calls: batches run so far

    Shape:
        - piece: ``[C, t]``, ``t`` from 0 on; of a captured model what its example is without the axis of rows
        - output: ``[C', t']``, likewise

    Raises:
        UnsupportedModuleError: the network cannot be streamed, or has several inputs or outputs

    Example:
        >>> import torch, torchstreamer as pts
        >>> net = torch.nn.Conv1d(1, 1, 3)
        >>> rows = pts.RowStream(net)
        >>> a, b = torch.randn(1, 10), torch.randn(1, 7)
        >>> first = rows.step([("a", a[:, :6], True, False), ("b", b, True, True)])
        >>> [piece.output.shape for piece in first], rows.ids()
        ([torch.Size([1, 4]), torch.Size([1, 5])], ('a',))
        >>> (rest,) = rows.step([("a", a[:, 6:], False, True)])
        >>> rest.start
        4
        >>> torch.testing.assert_close(torch.cat([first[0].output, rest.output], -1), net(a[None])[0])
    """

    def __init__(self, net: nn.Module, prompt: bool = False, **options: Any) -> None:
        if isinstance(net, BaseStream):
            if options:
                raise ValueError(
                    f"invalid_options: a stream came with {', '.join(sorted(options))}; a stream, or a network and "
                    "options of create_stream were expected; pass them to create_stream"
                )
            stream: Any = net
        else:
            stream = create_stream(net, **options)
        layout = stream._row_layout()
        if layout is None:
            raise UnsupportedModuleError(
                "several_signals",
                stream,
                "it takes or gives several signals, or none with rows, so a row has no one piece",
                "give the model one input and one output, for instance side by side in the channels; or stream every "
                "signal with a stream of its own",
            )
        if any(getattr(module, "_elsewhere", False) for module in stream.modules()):
            raise UnsupportedModuleError(
                "compiled_stream",
                stream,
                "it is compiled for batches and chunks of one size, and rows come in any",
                "pass the stream that it was made of, or its network",
            )
        stream.reset()
        for module in stream.modules():
            if hasattr(module, "again"):
                module.again = False  # what a step overwrote could not be put back if it fails
        self.stream: BaseStream = stream
        self.prompt = prompt
        self.calls = 0
        self._hop = stream.hop
        # Axes of rows, and of time in a piece and in an output.
        self._rows_in, time_in, self._rows_out, self._time_out = layout
        self._time = time_in - (self._rows_in < time_in)
        self._given = self._time_out - (0 <= self._rows_out < self._time_out)
        # A model that does not treat the rows of a batch apart gets one at a time.
        self._apart = getattr(stream, "rows", -1) == 1 and hasattr(stream, "beyond")
        self._state = RowState(stream)
        self._new = self._state.phase(), self._state.rows(), self._state.known()
        self._table = RowTable()
        self._signal: Optional[Tensor] = None  # [C, 0], what every piece is like, while there are rows
        self._resident: Optional[Batch] = None  # the batch that the stream holds
        self._dirty = False  # whether the stream has run in this step
        self._turn = Turn()
        self._busy = False

    # ------------------------------------------------------------------ the signals

    def step(self, rows: Iterable[RowInput]) -> List[RowPiece]:
        """Take a piece of each of some signals, and give what comes out of each.

        Args:
            rows: for each signal its id, any hashable value; its next piece ``[C, t]``, or ``None`` for nothing new;
                whether it begins, also under an id that is in use, whose signal is forgotten then; and whether it
                ends, after which its id is unknown

        Returns:
            what came out, in the order of ``rows``

        Raises:
            StreamInputError: ``unknown_id``, a signal that has not begun goes on; ``doubled_id``, an id came twice;
                ``invalid_row``, a row is none; ``invalid_chunk``, a piece does not fit; or what the stream refuses
            StreamStateError: a step runs, of another thread or around this one

        After any error all rows are as they were.
        """
        with self._at_work():
            signal, going = self._accepted(rows)
            self._advance(going)
            changes: Dict[Hashable, Optional[Row]] = {}
            pieces = []
            for each in going:
                row = each.row
                if each.last:
                    changes[each.id] = None
                else:
                    samples = each.samples
                    left = 0 if samples is None else samples.shape[self._time] - each.at
                    row.queue = None
                    if samples is not None and left:
                        # Of its own, since the caller's memory may change, and a long piece need not stay.
                        row.queue = samples.narrow(self._time, each.at, left).clone()
                    changes[each.id] = row
                outputs = each.outputs
                y = None if not outputs else outputs[0] if len(outputs) == 1 else torch.cat(outputs, self._given)
                pieces.append(RowPiece(each.id, y, each.first, each.last, each.start if each.start >= 0 else None))
            self._commit(changes, signal)
            return pieces

    def detach_state(self, id: Optional[Hashable] = None) -> None:
        """Cut the gradient's path into earlier pieces, of one signal or of all.

        Raises:
            StreamInputError: ``unknown_id``
        """
        with self._at_work():
            changes: Dict[Hashable, Optional[Row]] = {}
            for name in list(self._table) if id is None else [id]:
                row = self._known(name).copy()
                batch = row.batch
                if batch is not None and any(tensor.requires_grad for tensor in batch.tensors):
                    # Copies, as a row of a batch keeps all of it.
                    cut = [tensor[row.slot : row.slot + 1].detach().clone() for tensor in batch.packed]
                    row.batch, row.slot = Batch(batch.form, [], batch.known, [name], cut), 0
                row.queue = None if row.queue is None else row.queue.detach()
                changes[name] = row
            self._commit(changes, self._signal)

    # ------------------------------------------------------------------ the rows

    def ids(self) -> Tuple[Hashable, ...]:
        """The ids of all signals that have begun and not ended."""
        return tuple(self._table)

    def get(self, id: Hashable) -> Dict[str, Tensor]:
        """The state of a signal, as ``get_state()`` of a stream of its own gives it.

        Samples that wait for more are in it as ``"@queue"``, ``[1, C, n]``, if there are any, and where it stands
        between multiples of ``hop`` as ``"@came"``, if it does; without these two a stream of its own takes it.

        Raises:
            StreamInputError: ``unknown_id``
        """
        with self._at_work():
            row = self._known(id)
            self._resident, self._dirty = None, True
            if row.batch is None:
                self._state.go_on(*self._new)
            else:
                _, tensors, known = gather([row])
                self._state.go_on(row.batch.form.phase, tensors, known)
            state = self.stream.get_state()
            if row.queue is not None:
                state["@queue"] = row.queue.detach()[None].clone()
            if row.came % self._hop:
                state["@came"] = torch.tensor(row.came % self._hop)
            return state

    def set(self, id: Hashable, state: Dict[str, Tensor], start: Optional[int] = None) -> None:
        """Let a signal, new or not, go on from a state.

        Args:
            id: of the signal
            state: from `get`, here or elsewhere; or one row from ``get_state()`` of a stream of the same network
            start: position of its next output sample, which the state does not say

        Raises:
            StreamInputError: ``invalid_state``; all rows are as they were
        """
        require_named_tensors(state)
        with self._at_work():
            own = dict(state)
            queue, came = own.pop("@queue", None), own.pop("@came", None)
            count = own["@signal"].shape[0] if "@signal" in own and own["@signal"].dim() == 3 else 1
            fits = came is None or (came.dim() == 0 and not came.is_floating_point())
            if count != 1 or not fits or (queue is not None and (queue.dim() == 0 or queue.shape[0] != 1)):
                raise StreamInputError(
                    f"invalid_state: a state of {count} rows came, '@queue' with "
                    f"{'none' if queue is None else describe(queue)}; one row was expected, and [1, C, n]; split it "
                    "with unstack_state, or take it from get(id)"
                )
            # Before the stream is touched: a state that is refused has written nothing, but no batch is there anymore.
            self._resident, self._dirty = None, True
            self.stream.set_state(stack_states([own]))
            like = self.stream._like
            signal = self._signal
            plain = like.dim() == 3 and self._time_out == -1  # others have no chunk as their signal
            for came_here in [like[0] if plain else None, None if queue is None else queue[0]]:
                if came_here is not None:
                    signal = self._fitting(came_here, signal)
            row = Row(came=0 if came is None else int(came), given=-1 if start is None else start)
            if like.dim() == 3:
                row.batch = self._batch([id])
            if queue is not None and queue.numel() > 0:
                row.queue = queue[0].clone()
            self._commit({id: row}, signal)

    def drop(self, id: Hashable) -> None:
        """Forget a signal; nothing more comes out of it.

        Raises:
            StreamInputError: ``unknown_id``
        """
        with self._at_work():
            self._known(id)
            self._commit({id: None}, self._signal)

    def reset(self) -> None:
        """Forget all signals."""
        with self._at_work():
            self._commit({id: None for id in self._table}, None)

    def nbytes_of(self, id: Hashable) -> int:
        """Bytes of the state of a signal, and of its samples that wait.

        Raises:
            StreamInputError: ``unknown_id``
        """
        return self._known(id).nbytes()

    @property
    def nbytes(self) -> int:
        """Bytes of the states of all signals, and of their samples that wait."""
        return sum(row.nbytes() for row in self._table.rows.values())

    def __len__(self) -> int:
        return len(self._table)

    def __contains__(self, id: Hashable) -> bool:
        return id in self._table.rows

    def __repr__(self) -> str:
        return f"RowStream({type(self.stream).__name__}, prompt={self.prompt}, {len(self)} signals)"

    def __copy__(self) -> "RowStream":
        raise refuse_shallow_copy(self)

    # ------------------------------------------------------------------ a step

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        with self._turn:
            if self._busy:  # the thread that has the turn may take it again
                raise StreamStateError(
                    "in_use: a call came while a step of the same rows runs around it; one call at a time was "
                    "expected; let handlers and modules leave the rows alone that they run in"
                )
            self._busy, self._dirty = True, False
            try:
                yield
            except BaseException:
                if self._dirty:
                    self._resident = None
                    self.stream.reset()
                raise
            finally:
                self._busy = False

    def _known(self, id: Hashable) -> Row:
        row = self._table.rows.get(id)
        if row is None:
            raise StreamInputError(
                f"unknown_id: {id!r} came; the id of a signal that has begun and not ended was expected; begin it with "
                "first=True"
            )
        return row

    def _accepted(self, rows: Iterable[RowInput]) -> Tuple[Optional[Tensor], List[_Going]]:
        # What every piece is like, and the rows; nothing is changed.
        signal = self._signal
        time = self._time
        shape, dtype, device = None, None, None  # of the last piece that was looked at
        known = self._table.rows
        going: List[_Going] = []
        seen = set()
        for entry in rows:
            try:
                id, piece, first, last = entry
                seen.add(id)
            except (TypeError, ValueError) as error:
                raise StreamInputError(
                    f"invalid_row: a {type(entry).__name__} came as a row; a tuple of a hashable id, a piece, first "
                    "and last was expected; make it of them"
                ) from error
            if len(seen) == len(going):
                raise StreamInputError(
                    f"doubled_id: {id!r} came twice in one step; one piece of each signal was expected; join the "
                    "pieces, or take two steps"
                )
            row = Row() if first else (known.get(id) or self._known(id)).copy()
            if piece is not None:
                if type(piece) is not Tensor or piece.layout is not torch.strided or piece.is_nested:
                    signal = self._fitting(piece, signal)
                elif piece.shape != shape or piece.dtype is not dtype or piece.device != device:
                    signal = self._fitting(piece, signal)
                    shape, dtype, device = piece.shape, signal.dtype, signal.device
                if row.queue is not None:
                    piece = torch.cat([row.queue, piece], time)
            else:
                piece = row.queue
            going.append(_Going(id, row, piece, bool(first), bool(last)))
        return signal, going

    def _fitting(self, piece: Any, signal: Optional[Tensor]) -> Tensor:
        # What pieces are like, of which this one is; or an error.
        if not isinstance(piece, Tensor):
            raise StreamInputError(
                f"invalid_chunk: a piece is a {type(piece).__name__}; a tensor [C, t], or None, was expected; convert "
                "it with torch.as_tensor"
            )
        if not is_plain(piece):
            raise StreamInputError(
                f"invalid_chunk: a piece came with {describe(piece)}; a dense tensor was expected; convert it with "
                ".to_dense()"
            )
        if signal is None:
            self.stream._check_piece(piece)
            return piece.detach().narrow(self._time, 0, 0).clone()
        if not self._fits(piece, signal):
            shape = [str(n) for n in signal.shape]
            shape[self._time] = "t"
            raise StreamInputError(
                f"invalid_chunk: a piece came with {describe(piece)}; all signals are [{', '.join(shape)}], "
                f"{dtype_name(signal)}, on {signal.device}; convert it"
            )
        return signal

    def _fits(self, piece: Tensor, signal: Tensor) -> bool:
        shape, other, time = piece.shape, signal.shape, self._time
        fits = len(shape) == len(other) and shape[:time] == other[:time] and shape[time + 1 :] == other[time + 1 :]
        return fits and piece.dtype == signal.dtype and piece.device == signal.device

    def _advance(self, going: Sequence[_Going]) -> None:
        # All pieces, part by part; the longest first, so that those of a length meet.
        alike: Dict[Tuple[int, int, bool], List[_Going]] = {}
        time, hop = self._time, self._hop
        for each in going:
            n = 0 if each.samples is None else each.samples.shape[time]
            alike.setdefault((n, each.row.came % hop, each.last), []).append(each)
        parts: Dict[Tuple[int, int], List[_Going]] = {}
        for (n, offset, last), these in alike.items():
            for part in _parts(n, offset, hop, self.prompt, last):
                parts.setdefault(part, []).extend(these)
        for kind, negative in sorted(parts):
            groups: Dict[int, List[_Going]] = {}
            for each in parts[kind, negative]:
                batch = each.row.batch
                if kind != _END or batch is not None:
                    groups.setdefault(0 if batch is None else id(batch.form), []).append(each)
            for group in groups.values():
                self._run_group(group, -negative, kind)

    def _rest(self, each: _Going) -> int:
        return 0 if each.samples is None else each.samples.shape[self._time] - each.at

    def _run_group(self, group: List[_Going], length: int, kind: int) -> None:
        # An end that comes at once for all of them takes no run of its own.
        ends = kind == _END or all(each.last and self._rest(each) == length for each in group)
        if len(group) > 1 and group[0].row.batch is not None:
            group.sort(key=_place)
        for one in [[each] for each in group] if self._apart else [group]:
            self._run(one, length, ends)
        if ends:
            for each in group:
                each.row.batch = None

    def _run(self, group: List[_Going], length: int, ends: bool) -> None:
        self.calls += 1
        x: Optional[Tensor] = None
        if length:
            pieces, time = [], self._time
            for each in group:
                samples = each.samples
                assert samples is not None
                whole = samples.shape[time] == length
                pieces.append(samples if whole else samples.narrow(time, each.at, length))
                each.at += length
                each.row.came += length
            axis = self._rows_in
            x = torch.stack(pieces, axis) if len(pieces) > 1 else pieces[0].unsqueeze(axis)
        first = group[0].row.batch
        if first is None:
            self._dirty = True
            self._state.go_on(*self._new)
        else:
            batch, tensors, known = gather([each.row for each in group])
            self._dirty = True
            if batch is None or batch is not self._resident:
                self._state.go_on(first.form.phase, tensors, known)
        self._resident = None
        y = self.stream(x, final=ends)
        if not ends:
            self._store(group)
        if y is not None:
            n = y.shape[self._time_out]
            for each, row in zip(group, y.unbind(self._rows_out), strict=True):
                each.outputs.append(row)
                if each.row.given >= 0:
                    each.row.given += n

    def _store(self, group: List[_Going]) -> None:
        batch = self._batch([each.id for each in group])
        if any([tensor.requires_grad for tensor in batch.tensors]):
            for each, one in zip(group, rows_apart(batch), strict=True):
                each.row.batch, each.row.slot = one, 0
        else:
            for slot, each in enumerate(group):
                each.row.batch, each.row.slot = batch, slot
            self._resident = batch

    def _batch(self, ids: List[Hashable]) -> Batch:
        # Of what the stream holds now.
        tensors = self._state.rows()
        return Batch(self._table.form(self._state.phase(), tensors), tensors, self._state.known(), ids)

    def _commit(self, changes: Dict[Hashable, Optional[Row]], signal: Optional[Tensor]) -> None:
        self._table.commit(changes)
        self._signal = signal if len(self._table) else None
        if not len(self._table) and self._resident is not None:
            self._resident = None
            self._state.go_on(*self._new)


def _parts(n: int, offset: int, hop: int, prompt: bool, last: bool) -> Iterator[Tuple[int, int]]:
    """In which parts so many samples run: the kind of each, and its length, negative.

    Args:
        n: samples that are there
        offset: samples that came since a multiple of ``hop``
        hop: whole ones are cut into powers of two
        prompt: whether none may wait
        last: whether the signal ends
    """
    if offset and n:
        align = hop - offset
        if n >= align or prompt or last:
            align = min(n, align)
            yield _ALIGN, -align
            n -= align
        else:
            n = 0
    whole = n // hop
    while whole:
        power = 1 << (whole.bit_length() - 1)
        yield _WHOLE, -power * hop
        whole -= power
    if n % hop and (prompt or last):
        yield _TAIL, -(n % hop)
    if last:
        yield _END, 0


def _place(each: _Going) -> Tuple[int, int]:
    return id(each.row.batch), each.row.slot
