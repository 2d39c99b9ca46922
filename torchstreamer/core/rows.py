"""`RowStream`: many live signals of any age, whose pieces of any length run in few batches."""

from contextlib import contextmanager
from typing import Any, Dict, Hashable, Iterable, Iterator, List, Optional, Tuple, Type

import torch
from torch import Tensor, nn

from ..errors import StreamInputError
from .describe import describe
from .row_pieces import RowInput, RowPiece, stream_for_rows
from .row_runner import RowRunner
from .row_steady import SteadyRows
from .row_table import Batch, DetachedRows, Row, RowTable
from .state import require_named_tensors, stack_states
from .stream import BaseStream
from .turns import SoleTurn, refuse_shallow_copy

__all__ = ["RowPiece", "RowStream"]

# Signals as they stood, and what all their pieces are like.
Standing = Tuple[Dict[Hashable, Optional[Row]], Optional[Tensor]]


class RowStream:
    """Many live signals at once, each with an id, through one stream.

    In a step each signal that has anything new brings a piece of any length. Rows that are in the same phase and bring
    as much run as one batch; pieces of many lengths are cut into powers of two of ``hop`` for that. What a row gives is
    what a stream of its own gives, whatever comes in the other rows.

    A step changes all of its rows or, if it raises, none. Deep copies and pickles have the rows too, detached.

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
        stream = stream_for_rows(net, options)
        self.stream: BaseStream = stream
        self.prompt = prompt
        self._hop = stream.hop
        self._table = RowTable()
        self._runner = RowRunner(stream, self._table, prompt)
        self._layout = self._runner.layout
        self._steady = SteadyRows(self._runner)
        self._signal: Optional[Tensor] = None  # [C, 0], what every piece is like, while there are rows
        self._turn = SoleTurn(
            "a step of the same rows", "let handlers and modules leave the rows alone that they run in"
        )

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
            StreamInputError: ``unknown_id``, a signal that has not begun goes on; ``doubled_ids``, an id came twice;
                ``invalid_row``, a row is none; ``invalid_chunk``, a piece does not fit; or what the stream refuses
            StreamStateError: a step runs, of another thread or around this one

        After any error all rows are as they were.
        """
        with self._at_work():
            rows, runner = list(rows), self._runner
            steady = self._steady.step(rows, self._signal) if rows else None
            if steady is not None:
                return steady
            signal, going = self._layout.accepted(rows, self._table, self._signal)
            try:
                runner.advance(going)
            except Exception:
                if not runner.carried:
                    raise
                # A row that nobody wants ran along, and may be to blame: once more without any.
                runner.fail()
                signal, going = self._layout.accepted(rows, self._table, self._signal)
                runner.advance_alone(going)
            changes: Dict[Hashable, Optional[Row]] = {}
            found = []
            for each in going:
                row = each.row
                if each.last:
                    changes[each.id] = None
                else:
                    samples = each.samples
                    left = each.n - each.at
                    row.queue = None
                    if samples is not None and left:
                        # Of its own, since the caller's memory may change, and a long piece need not stay.
                        row.queue = samples.narrow(self._layout.time, each.at, left).clone()
                    changes[each.id] = row
                outputs = each.outputs
                y = None if not outputs else outputs[0] if len(outputs) == 1 else torch.cat(outputs, self._layout.given)
                found.append(RowPiece(each.id, y, each.first, each.last, each.start if each.start >= 0 else None))
            self._commit(changes, signal)
            return found

    def detach_state(self, id: Optional[Hashable] = None) -> None:
        """Cut the gradient's path into earlier pieces, of one signal or of all.

        Raises:
            StreamInputError: ``unknown_id``
        """
        with self._at_work():
            if id is None:
                self.stream._backward.cut(False)
            changes: Dict[Hashable, Optional[Row]] = {}
            for name in list(self._table) if id is None else [id]:
                row = self._table.known(name).copy()
                batch = row.batch
                if batch is not None and any(tensor.requires_grad for tensor in batch.tensors):
                    # Copies, as a row of a batch keeps all of it.
                    cut = [tensor[row.slot : row.slot + 1].detach().clone() for tensor in batch.packed]
                    row.batch, row.slot = Batch(batch.form, [], batch.known, [name], cut), 0
                row.queue = None if row.queue is None else row.queue.detach()
                changes[name] = row
            self._commit(changes, self._signal)

    def standing(self, ids: Iterable[Hashable]) -> Standing:
        """How some signals stand, for `back_to`, if a step of theirs here is part of something larger that may fail."""
        self._runner.share()
        found = [(id, self._table.rows.get(id)) for id in ids]
        return {id: None if row is None else row.copy() for id, row in found}, self._signal

    def back_to(self, standing: Standing) -> None:
        """Let signals stand as they did when `standing` was called; no other call may have changed them."""
        with self._at_work():
            self._commit(*standing)

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
            row = self._table.known(id)
            self._runner.take_up([row])
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
            self._runner.let_go()
            self._runner.dirty = True
            self.stream.set_state(stack_states([own]))
            like = self.stream._like
            signal = self._signal
            plain = like.dim() == 3 and self._layout.plain  # others have no chunk as their signal
            for came_here in [like[0] if plain else None, None if queue is None else queue[0]]:
                if came_here is not None:
                    signal = self._layout.fitting(came_here, signal)
            row = Row(came=0 if came is None else int(came), given=-1 if start is None else start)
            if like.dim() == 3:
                row.batch = self._runner.held([id])
            if queue is not None and queue.numel() > 0:
                row.queue = queue[0].clone()
            self._commit({id: row}, signal)

    def start_of(self, id: Hashable) -> int:
        """Position of the next output sample of a signal, -1 where that is not known.

        Raises:
            StreamInputError: ``unknown_id``
        """
        return self._table.known(id).given

    def drop(self, id: Hashable) -> None:
        """Forget a signal; nothing more comes out of it.

        Raises:
            StreamInputError: ``unknown_id``
        """
        with self._at_work():
            self._table.known(id)
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
        return self._table.known(id).nbytes()

    @property
    def calls(self) -> int:
        """Batches run so far."""
        return self._runner.calls

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

    def __reduce__(self) -> Tuple[Any, ...]:
        # Deep copies and pickles have the rows too, detached, and what the stream holds of them only there.
        with self._at_work():
            rows = self._table.detached()
            self._runner.let_go()
            self.stream.reset()
            return _rebuilt, (type(self), self.stream, self.prompt, self._signal, rows)

    # ------------------------------------------------------------------ a step

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        with self._turn:
            self._runner.begin()
            try:
                yield
            except BaseException:
                self._runner.fail()
                raise

    def _commit(self, changes: Dict[Hashable, Optional[Row]], signal: Optional[Tensor]) -> None:
        self._table.commit(changes)
        self._signal = signal if len(self._table) else None
        self._runner.done()


def _rebuilt(
    kind: Type[RowStream], stream: BaseStream, prompt: bool, signal: Optional[Tensor], rows: DetachedRows
) -> RowStream:
    found = kind(stream, prompt)
    found._commit(found._table.attached(rows), signal)
    return found
