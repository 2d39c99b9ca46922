"""Streams that run as C++ inside of this process."""

import copy
import zlib
from typing import Any, Dict, List, Optional

import torch
from torch import Tensor

from ..core.describe import describe, dtype_name
from ..core.fast_attributes import entry
from ..core.lengths import LengthTable
from ..core.row_clock import too_long
from ..core.stream import BaseStream
from ..core.whole_numbers import require_length
from ..errors import StreamInputError
from ..native import written
from .native import NativePlan, about
from .native_build import built
from .native_rows import Library, NetRows

__all__ = ["NativeStream", "geometry_of", "native_stream"]

_MOST = (1 << 31) - 1  # samples of a chunk


class NativeStream(BaseStream):
    """A stream of one signal whose step is a library of C++, for chunks of any size.

    It has the contract of every stream but for these points: no gradients flow, the weights are those of the moment in
    which it was made, outputs come when a ``hop`` is whole, and it stays on the CPU and in its dtype.

    Args:
        library: the library
        geometry: what it computes; see `geometry_of`

    Attributes:
        metadata: what was given to `export`
        sampling_fs: samples per second, or ``None``
        told: what the stream was like that it was made of

    Shape:
        - chunk: ``[B, C, T]`` or ``[C, T]``
        - output: ``[B, C', T']`` or ``[C', T']``
    """

    weight: Tensor
    rows = entry("_modules")

    def __init__(self, library: Library, geometry: Dict[str, Any]) -> None:
        super().__init__()
        self.library = library
        self.geometry = geometry
        self.hop = geometry["hop"]
        self.ratio = (geometry["ratio"][0], geometry["ratio"][1])
        self.channels = geometry["channels"]
        self.out_shape: List[int] = geometry["out_shape"]
        self.outputs = geometry["outputs"]
        self.lag = geometry["lag"]
        self.dtype: torch.dtype = getattr(torch, geometry["dtype"])
        self.length_multiple = geometry["length_multiple"]
        self.min_length = geometry["min_length"]
        self._limit = geometry["longest"]
        self.metadata: Dict[str, Any] = geometry.get("metadata", {})
        self.sampling_fs: Optional[int] = geometry.get("sampling_fs")
        self.told: Dict[str, Any] = geometry.get("told", {})
        self.aliasing = 0
        self.keeps_dtype = True
        self.table = LengthTable(*geometry["lengths"])
        self.most_at_end = geometry["most_at_end"]
        settled = max(self.table.start, -(-self.lag // geometry["outputs"]) * self.hop, self.min_length)
        self.rows = NetRows(library, settled, self.table.period)
        # Says dtype and device.
        self.register_buffer("weight", torch.empty(0, dtype=self.dtype), persistent=False)

    # ------------------------------------------------------------------ the interface

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        """One step on a checked chunk."""
        rows = self.rows
        nets, before = rows.nets, rows.came
        n, chunk = 0, None
        if x is not None:
            x = x.contiguous()
            n, chunk = x.size(2), x.data_ptr()
        if nets is None:
            if x is None:
                return None
            nets = rows.begin(x.size(0))
        batch = nets.size(0)
        length = self._given(before + n) - self._given(before)
        room = length + self.most_at_end if final else length
        y = torch.empty([batch, *self.out_shape, room], dtype=self.dtype)
        found = self.library.run(nets.data_ptr(), batch, chunk, n, final, y.data_ptr(), room)
        if final:
            length = self.table(before + n) - self._given(before)
            y = y[..., :length]
        if found != length:
            raise AssertionError(f"a net gave {found} samples after {before + n}, and not {length}")
        rows.advance(n)
        return y if length > 0 else None

    def _given(self, n: int) -> int:
        # Samples out after so many, before the end.
        given: int = n // self.hop * self.outputs - self.lag
        return given if given > 0 else 0

    @torch.jit.unused
    def output_length(self, n: int, final: bool = True) -> int:
        """Number of samples out after ``n`` samples in; see `BaseStream.output_length`.

        Raises:
            StreamInputError: ``final`` with a length that is no multiple of ``length_multiple``
        """
        require_length(n)
        if n > 0 and final and n % self.length_multiple:
            raise StreamInputError(self._odd_length(n))
        return self.table(max(n, 0)) if final else self._given(max(n, 0))

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        if channels != self.channels:
            raise StreamInputError(
                f"invalid_chunk: a chunk came with {channels} channels; {self.channels} were expected, as those of the "
                "network; reshape it"
            )
        return self.out_shape[0] if len(self.out_shape) == 1 else -1

    def anchor(self) -> Optional[Tensor]:
        """A tensor that says dtype and device."""
        return self.weight

    def extra_repr(self) -> str:
        known = zlib.crc32(repr(sorted(self.geometry.items(), key=str)).encode())
        return f"channels={self.channels}, {self.weight.dtype}, hop={self.hop}, ratio={self.ratio}, net={known:08x}"

    # ------------------------------------------------------------------ what comes

    def _check_signal(self, x: Tensor) -> None:
        self.output_channels(x.size(-2))
        if x.device.type != "cpu" or x.dtype != self.weight.dtype:
            raise StreamInputError(
                f"invalid_chunk: a chunk came with {describe(x)}; {dtype_name(self.weight)} on the cpu was expected, "
                "which the library was built for; convert the chunk with .to()"
            )

    def _check_end(self, came: int, first: bool) -> None:
        total = came + (0 if first else self.rows.came)
        if total % self.length_multiple:
            raise StreamInputError(self._odd_length(total))
        if 0 < total < self.min_length:
            raise StreamInputError(
                f"min_length: the signal ends after {total} samples; {self.min_length} at least were expected; go on, "
                "or call reset(), and give the model itself short signals"
            )

    def _odd_length(self, n: int) -> str:
        return (
            f"length_multiple: the signal ends after {n} samples; a multiple of {self.length_multiple} was expected; "
            "go on to the next multiple, or call reset()"
        )

    def _require_room(self, x: Tensor) -> None:
        if self.rows.oldest + x.size(2) > self._limit:
            if self.rows.nets is None:
                self._like = self._like.new_empty([0])  # as if nothing had come
            raise StreamInputError(too_long(x.size(2), self.rows.oldest, self._limit))

    # ------------------------------------------------------------------ Python only

    def _apply(self, fn: Any, recurse: bool = True) -> "NativeStream":
        moved = fn(self.weight)
        if moved.dtype != self.weight.dtype or moved.device != self.weight.device:
            raise TypeError(
                f"not_movable: {moved.dtype} on {moved.device} was asked for; a library is built for "
                f"{self.weight.dtype} on the cpu; move the stream before it is compiled or exported"
            )
        return self

    def __deepcopy__(self, memo: Dict[int, Any]) -> "NativeStream":
        twin: NativeStream = type(self).__new__(type(self))
        memo[id(self)] = twin
        for name, value in self.__dict__.items():
            twin.__dict__[name] = copy.deepcopy(value, memo)
        return twin

    def __getstate__(self) -> Dict[str, Any]:
        raise TypeError(
            "not_picklable: a stream of a library belongs to this process; keep the stream that it was made of, or "
            "write a file with torchstreamer.export"
        )

    def __prepare_scriptable__(self) -> Any:
        raise TypeError("not_scriptable: a stream of a library does not script; script the stream that it was made of")


def geometry_of(plan: NativePlan, most_at_end: int) -> Dict[str, Any]:
    """What a library computes, as JSON holds it."""
    (result,), (table,) = plan.results, plan.tables
    stream = plan.stream[0]
    return {
        "version": 1,
        "dtype": str(plan.dtype).removeprefix("torch."),
        "channels": plan.channels,
        "out_shape": list(plan.out_shape),
        "outputs": result.per_step,
        "lag": result.lag,
        "hop": stream.hop,
        "ratio": list(stream.ratio),
        "lengths": [table.values, table.start, table.period, table.rise],
        "length_multiple": plan.length_multiple,
        "min_length": plan.min_length,
        "longest": stream._limit,
        "most_at_end": most_at_end,
    }


def native_stream(stream: BaseStream, **options: Any) -> NativeStream:
    """A stream as C++, built by the system's compiler, with the weights of this moment.

    Args:
        stream: the stream, which is left alone
        options: for `StaticStream`, as ``channels`` and ``dtype``

    Raises:
        UnsupportedModuleError: ``not_native``: something in it cannot be written
        RuntimeError: there is no compiler, or it failed
    """
    plan = NativePlan(stream, **options)
    program = plan.program()
    # Nets of one structure share a library, as their weights are not in it.
    source = written(program, "Net", False, about(stream, "Net", program), weights="given", rows=True)
    data = program.weights.data() or bytes(64)
    weights = torch.empty(len(data), dtype=torch.uint8)
    weights.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    geometry = {**geometry_of(plan, program.outputs[0].most_at_end), "net": zlib.crc32(data)}
    return NativeStream(Library(built(source), weights), geometry)
