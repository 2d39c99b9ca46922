"""What a fixed step takes: its size, its channels, and what may come in a call."""

from typing import Any, Dict, List, Mapping, Optional, Tuple

import torch
from torch import Tensor

from ..core.describe import describe, dtype_name, is_plain
from ..core.frozen import random_parts
from ..core.state import require_named_tensors, require_plain
from ..core.stream import BaseStream
from ..core.whole_numbers import as_index
from ..errors import StreamInputError, UnsupportedModuleError
from ..graph.several import PortedGraphStream
from .exported_file import possible_row

__all__ = ["check_call", "check_one_signal", "check_state", "check_step", "check_stream", "input_channels"]

# The most channels that are tried, where a stream does not say how many it takes.
_CHANNELS = 8192


def check_stream(stream: object) -> None:
    """Refuse what is no stream."""
    if not isinstance(stream, BaseStream):
        raise TypeError(
            f"invalid_stream: a {type(stream).__name__} came; a stream was expected; make it with "
            "pts.create_stream(net)"
        )
    for part in random_parts(stream):
        if part.training:
            raise UnsupportedModuleError(
                "training_mode",
                part,
                "it draws random numbers at every call, and what is made for deployment computes the eval form",
                "call stream.eval() first",
            ).within(stream)


def check_step(stream: BaseStream, chunk: int, batch: int) -> Tuple[int, int]:
    """Chunk and batch as integers; refuse what is no stream, a chunk size at which the state does not repeat its shape,
    and no rows."""
    check_stream(stream)
    size = as_index(chunk)
    if size is None or size < 1 or size % stream.hop:
        below = max(size or 0, 0) // stream.hop * stream.hop
        sizes = [str(size) for size in (below, below + stream.hop) if size > 0]
        raise ValueError(
            f"invalid_chunk_size: chunk={chunk!r} came; a multiple of the stream's hop, {stream.hop}, was expected; "
            f"the next are {' and '.join(sizes)}"
        )
    rows = as_index(batch)
    if rows is None or rows < 1:
        raise ValueError(f"invalid_batch: batch={batch!r} came; at least 1 row was expected; pass the rows you need")
    return size, rows


def check_one_signal(stream: BaseStream) -> None:
    """Refuse a model with several inputs or outputs, or other layouts."""
    if not isinstance(stream, PortedGraphStream):
        return
    inputs: Any = stream.ports
    static = [repr(port.name) for port in inputs if port.static]
    has = f"the static input {' and '.join(static)}" if static else "other inputs, outputs or layouts"
    raise UnsupportedModuleError(
        "several_signals",
        stream,
        "in a compiled step: one signal [B, C, T] is expected in, and one with rows first and time last out; this "
        f"model has {has}",
        "use StaticStream, which takes them; or wrap the model in a module that lays its inputs side by side in the "
        "channels, time last",
    )


def input_channels(stream: BaseStream) -> int:
    """The channels that a stream takes.

    Raises:
        ValueError: it takes any number
    """
    taken: List[int] = []
    for channels in range(1, _CHANNELS + 1):
        try:
            stream.output_channels(channels)
        except StreamInputError:
            continue
        taken.append(channels)
        if len(taken) > 1:
            raise ValueError(
                "unknown_channels: the stream takes any number of channels; the number was expected; pass channels="
            )
    if not taken:
        raise ValueError("unknown_channels: the number of channels could not be found out; pass channels=")
    return taken[0]


def check_call(
    x: Optional[Tensor],
    lengths: Tensor,
    first: Tensor,
    last: Tensor,
    age: Tensor,
    left: Tensor,
    channels: int,
    chunk: int,
    dtype: torch.dtype,
    length_multiple: int,
    longest: int = -1,
    shortest: int = 1,
) -> None:
    """Refuse a call of a static step that does not fit.

    Args:
        x, lengths, first, last: what came; without ``x`` it is checked elsewhere
        age, left: of each row, the steps since its signal began and those until it is free, -1 while it goes on
        channels, chunk, dtype, length_multiple: what the step takes
        longest: samples of the longest signal, -1 for any
        shortest: samples of the shortest signal that is not empty

    Raises:
        StreamInputError: a shape, a dtype or a device is another, or a row's flags do not fit its state
    """
    batch, device = age.size(0), age.device
    shape = [batch, channels, chunk]
    for name, value in (("x", x), ("lengths", lengths), ("first", first), ("last", last)):
        if value is None and name == "x":
            continue
        if not isinstance(value, Tensor):
            raise StreamInputError(
                f"invalid_chunk: {name} is a {type(value).__name__}; a tensor was expected; convert it with "
                "torch.as_tensor"
            )
        if not is_plain(value):
            raise StreamInputError(
                f"invalid_chunk: {name} came with {describe(value)}; a dense tensor was expected; convert it"
            )
    if x is not None and (list(x.shape) != shape or x.dtype != dtype or x.device != device):
        raise StreamInputError(
            f"invalid_chunk: a chunk came with shape {list(x.shape)}, {dtype_name(x)}, on {x.device}; {shape}, "
            f"{dtype}, on {device} was expected; fill rows that bring less with anything"
        )
    kinds = (("lengths", lengths, torch.int64), ("first", first, torch.bool), ("last", last, torch.bool))
    for name, flags, kind in kinds:
        if list(flags.shape) != [batch] or flags.dtype != kind or flags.device != device:
            raise StreamInputError(
                f"invalid_flags: {name} came with shape {list(flags.shape)}, {dtype_name(flags)}, on {flags.device}; "
                f"[{batch}], {kind}, on {device} was expected; pass one entry per row"
            )
    age = torch.where(first, torch.zeros_like(left), age)
    live = first | (left < 0)
    total = age * chunk + lengths
    wrong = {
        f"0 to {chunk} samples, or {chunk} or 0 of a row whose signal goes on": live
        & torch.where(last, (lengths < 0) | (lengths > chunk), (lengths != 0) & (lengths != chunk)),
        "first=True in a free row that brings samples or ends": (left == 0) & ~live & (last | (lengths != 0)),
        f"an end at a multiple of {length_multiple} samples": live & last & (total % length_multiple != 0),
        "no last=True in a row that has ended": (left > 0) & ~live & last,
    }
    if longest >= 0:
        wrong[f"a signal of up to {longest} samples (signal_too_long)"] = live & (total > longest)
    if shortest > 1:
        wrong[f"a signal of at least {shortest} samples (min_length)"] = live & last & (total > 0) & (total < shortest)
    for expected, rows in wrong.items():
        if bool(rows.any()):
            b = int(rows.nonzero()[0])
            raise StreamInputError(
                f"invalid_row: row {b} came with lengths={int(lengths[b])}, first={bool(first[b])}, "
                f"last={bool(last[b])}; {expected} was expected; check the row's flags, or reset([{b}])"
            )


def check_state(
    state: Dict[str, Tensor], empty: Mapping[str, Tensor], rows: int, chunk: int, flush_steps: int, length_multiple: int
) -> None:
    """Refuse a state of rows that a static step does not give.

    Args:
        state: what came
        empty: the state of the step in which no row is taken
        rows: how many rows are to take it
        chunk, flush_steps, length_multiple: of the step

    Raises:
        StreamInputError: names, shapes or dtypes are others, or the clocks of a row do not belong together
    """
    require_named_tensors(state)
    require_plain(state)
    if set(state) != set(empty):
        raise StreamInputError(
            f"invalid_state: a state with {len(state)} entries came; the {len(empty)} entries of this plan were "
            "expected; take it from a StaticStream of the same stream and chunk with get_state()"
        )
    for name, mine in empty.items():
        expected = [rows, *mine.shape[1:]]
        if list(state[name].shape) != expected or state[name].dtype != mine.dtype:
            raise StreamInputError(
                f"invalid_state: '{name}' has shape {list(state[name].shape)}, {dtype_name(state[name])}; "
                f"{expected}, {dtype_name(mine)} was expected; take it with get_state() of as many rows"
            )
    clocks = (state[name].tolist() for name in ("row.age", "row.total", "row.left"))
    for row, (age, total, left) in enumerate(zip(*clocks, strict=True)):
        if not possible_row(age, total, left, chunk, flush_steps, length_multiple):
            raise StreamInputError(
                f"invalid_state: row {row} of the state came with row.age={age}, row.total={total} and "
                f"row.left={left}; numbers that belong together, of up to 2^50 samples, were expected; take the state "
                "with get_state()"
            )
