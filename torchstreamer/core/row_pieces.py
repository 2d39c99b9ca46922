"""What comes in a row and goes out of it in a step, and in which parts it runs."""

from typing import Any, Dict, Hashable, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

import torch
from torch import Tensor, nn

from ..errors import StreamInputError, UnsupportedModuleError
from .describe import describe, dtype_name, is_plain
from .registry import create_stream
from .row_table import Row, RowTable
from .stream import BaseStream

__all__ = [
    "ALIGN",
    "END",
    "TAIL",
    "WHOLE",
    "Going",
    "PieceLayout",
    "RowInput",
    "RowPiece",
    "few_lengths",
    "named",
    "parts_of",
    "stream_for_rows",
]

# In which order the parts of a piece run.
ALIGN, WHOLE, TAIL, END = range(4)

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


class Going:
    """A row in a step: where it stands, what came, and what came out."""

    __slots__ = ("at", "first", "id", "last", "n", "outputs", "row", "samples", "start")

    def __init__(self, id: Hashable, row: Row, samples: Optional[Tensor], n: int, first: bool, last: bool) -> None:
        self.id = id
        self.row = row
        self.samples = samples
        self.n = n  # how many they are
        self.first = first
        self.last = last
        self.at = 0  # of the samples, as many are through
        self.start = row.given
        self.outputs: List[Tensor] = []


class PieceLayout:
    """How a piece of a row and an output of it lie in a chunk of the stream and its output.

    Args:
        stream: whose pieces these are

    Attributes:
        rows: axis of rows of a chunk
        time: axis of time of a piece, which has none of rows
        rows_out: axis of rows of an output of the stream
        time_out: its axis of time
        given: axis of time of what a row gives
        plain: whether chunks are ``[B, C, T]``
    """

    def __init__(self, stream: BaseStream) -> None:
        layout = stream._row_layout()
        assert layout is not None
        self.stream = stream
        self.rows, time, self.rows_out, self.time_out = layout
        self.time = time - (self.rows < time)
        self.given = self.time_out - (0 <= self.rows_out < self.time_out)
        self.plain = self.time_out == -1

    def accepted(
        self, rows: Iterable[RowInput], table: RowTable, signal: Optional[Tensor]
    ) -> Tuple[Optional[Tensor], List[Going]]:
        """What every piece is like, and the rows of a step; nothing is changed."""
        time = self.time
        shape, dtype, device = None, None, None  # of the last piece that was looked at
        channels = -1  # and how many it has, if it is [C, t]
        known = table.rows
        going: List[Going] = []
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
                    f"doubled_ids: {id!r} came twice in one step; one piece of each signal was expected; join the "
                    "pieces, or take two steps"
                )
            row = Row() if first else (known.get(id) or table.known(id)).copy()
            if piece is not None:
                if type(piece) is not Tensor or piece.layout is not torch.strided or piece.is_nested:
                    signal = self.fitting(piece, signal)
                    piece = piece.as_subclass(Tensor)  # what a subclass does with it is no part of a stream
                elif (
                    piece.dtype is not dtype
                    or piece.device != device
                    or (piece.shape != shape and (piece.dim() != 2 or piece.shape[0] != channels))
                ):
                    signal = self.fitting(piece, signal)
                    shape, dtype, device = piece.shape, signal.dtype, signal.device
                    channels = piece.shape[0] if time == 1 and len(shape) == 2 else -1
                if row.queue is not None:
                    piece = torch.cat([row.queue, piece], time)
            else:
                piece = row.queue
            n = 0 if piece is None else piece.shape[time]
            going.append(Going(id, row, piece, n, bool(first), bool(last)))
        return signal, going

    def fitting(self, piece: Any, signal: Optional[Tensor]) -> Tensor:
        """What pieces are like, ``[C, 0]``, of which this one is.

        Args:
            piece: whatever came
            signal: what the pieces before it are like, if any came

        Raises:
            StreamInputError: ``invalid_chunk``
        """
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
            return piece.detach().narrow(self.time, 0, 0).clone()
        if not self.fits(piece, signal):
            shape = [str(n) for n in signal.shape]
            shape[self.time] = "t"
            raise StreamInputError(
                f"invalid_chunk: a piece came with {describe(piece)}; all signals are [{', '.join(shape)}], "
                f"{dtype_name(signal)}, on {signal.device}; convert it"
            )
        return signal

    def fits(self, piece: Tensor, signal: Tensor) -> bool:
        """Whether a piece is like the others."""
        shape, other, time = piece.shape, signal.shape, self.time
        fits = len(shape) == len(other) and shape[:time] == other[:time] and shape[time + 1 :] == other[time + 1 :]
        return fits and piece.dtype == signal.dtype and piece.device == signal.device


def named(seats: Sequence[Optional[Going]]) -> str:
    """The signals of a batch, for those who read an error."""
    ids = [repr(each.id) for each in seats if each is not None]
    more = f" and {len(ids) - 4} more" if len(ids) > 5 else ""
    return "signal " + ids[0] if len(ids) == 1 else "one of the signals " + ", ".join(ids[: 4 if more else 5]) + more


def few_lengths(lengths: Set[int]) -> bool:
    """Whether cutting rows of these lengths, in hops, into powers of two makes no fewer batches."""
    bits = 0
    for n in lengths:
        bits |= n
    return len(lengths) <= bits.bit_count()


def parts_of(
    n: int, offset: int, hop: int, prompt: bool, last: bool, cut: bool = True, few: bool = False
) -> Iterator[Tuple[int, int]]:
    """In which parts so many samples run: the kind of each, and its length, negative.

    Args:
        n: samples that are there
        offset: samples that came since a multiple of ``hop``
        hop: whole ones are cut into powers of two
        prompt: whether none may wait
        last: whether the signal ends
        cut: whether whole hops are cut at all
        few: whether few signals end, so that it is best to run the end of each as a whole
    """
    if last and few and n:
        yield TAIL, -n
        yield END, 0
        return
    if offset and n:
        align = hop - offset
        if n >= align or prompt or last:
            align = min(n, align)
            yield ALIGN, -align
            n -= align
        else:
            n = 0
    whole = n // hop
    while whole:
        power = 1 << (whole.bit_length() - 1) if cut else whole
        yield WHOLE, -power * hop
        whole -= power
    if n % hop and (prompt or last):
        yield TAIL, -(n % hop)
    if last:
        yield END, 0


def stream_for_rows(net: nn.Module, options: Dict[str, Any]) -> BaseStream:
    """The stream of a network, or a stream, in which rows may run; new.

    Raises:
        UnsupportedModuleError, ValueError: as `RowStream` does
    """
    if isinstance(net, BaseStream):
        if options:
            raise ValueError(
                f"invalid_options: a stream came with {', '.join(sorted(options))}; a stream, or a network and "
                "options of create_stream were expected; pass them to create_stream"
            )
        stream: Any = net
    else:
        stream = create_stream(net, **options)
    if stream._row_layout() is None:
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
        if getattr(module, "again", False):
            # What a step overwrites could not be put back if it fails.
            module.again, module.undone = False, True
    return stream
