"""`compile`: a stream whose steady-state step is compiled."""

import copy
from typing import Any, Dict, List, Optional

import torch
from torch import Tensor

from ..core.fast_attributes import entry
from ..core.stream import BaseStream
from ..core.telling import ProgressCallback, Telling
from ..core.turns import in_use
from .backends import Program, available
from .chunks import check_one_signal, check_step, input_channels
from .kernels import rounds
from .search import FORMS, Candidate, Search
from .steady import Phase, SteadyStep, fresh, held_by, phase_of, put

__all__ = ["Candidate", "CompiledStream", "compile"]

# What rounding may make of a step, relative to the scale.
_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}


class CompiledStream(BaseStream):
    """A stream whose step on chunks of the planned size is compiled; made by `compile`.

    Other chunks, the start and the end take the stream's own step, on the same state. Behind a chunk of another size
    that goes on until the state has the planned shape again.

    Args:
        stream: the stream, which this owns
        chunk: samples per compiled step
        batch: rows
        dtype: of the input
        steady: the planned state
        program: the compiled step, ``None`` for the stream's own
        candidates: what was tried; the first is used

    Attributes:
        candidates: what was tried, the fastest first

    Shape:
        - chunk: ``[batch, C, T]``, or ``[C, T]`` where ``batch`` is 1, for the compiled step; any other is as right
        - output: as of the stream
    """

    _elsewhere = True

    stream = entry("_modules")

    def __init__(
        self,
        stream: BaseStream,
        chunk: int,
        batch: int,
        dtype: torch.dtype,
        steady: SteadyStep,
        program: Optional[Program],
        candidates: List[Candidate],
    ) -> None:
        super().__init__()
        self.stream = stream
        self.chunk = chunk
        self.batch = batch
        self.dtype = dtype
        self.device = steady.x.device
        self._shape = steady.x.shape
        self._single = steady.x.shape[1:]
        self.hop = stream.hop
        self.ratio = stream.ratio
        self.aliasing = stream.aliasing if program is None else 2
        self.keeps_dtype = stream.keeps_dtype
        self.candidates = candidates
        self._plan: Phase = steady.phase
        self._program = program
        self._layout = stream._layout_code()
        self._states: Optional[List[Tensor]] = None  # what the memories hold, while the compiled step has it

    # ------------------------------------------------------------------ the interface

    def forward(self, x: Optional[Tensor], final: bool = False) -> Optional[Tensor]:
        """Take a chunk and give every output that no later input can change; see `BaseStream.forward`."""
        states, program = self._states, self._program
        if states is None or program is None or final or self._failed or type(x) is not Tensor:
            return self._run_alone(x, final)
        if x.dtype != self.dtype or x.device != self.device or x.layout is not torch.strided or x.is_nested:
            return self._run_alone(x, final)
        # In the compiled state only what fits as it is goes this way; all else, as what is wrong, the general one.
        if x.shape != (self._single if self._unbatched else self._shape):
            return self._run_alone(x, final)
        # Straight into the instance: nn.Module's assignment would cost as much as a small layer.
        entries = self.__dict__
        lock = entries["_turn"].lock
        if not lock.acquire(False):
            raise in_use()
        try:
            if entries["_states"] is not states:  # another thread was here in between
                return self._run(x, final)
            entries["_failed"] = True
            if self._unbatched:
                y, entries["_states"] = program.run(x[None].contiguous(), states)
                y = y[0]
            else:
                y, entries["_states"] = program.run(x.contiguous(), states)
            entries["_failed"] = False
            return y
        finally:
            lock.release()

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is not None and not final and x.size(2) == self.chunk and x.size(0) == self.batch:
            program = self._program
            if program is not None and x.dtype == self.dtype and x.device == self.device:
                if self._states is None and phase_of(self.stream) == self._plan:
                    # Memory of its own: a ring's may be written to by the general step.
                    self._states = program.pack(held_by(self.stream))
                if self._states is not None:
                    y, self._states = program.run(x.contiguous(), self._states)
                    return y
        self._settle()
        return self.stream.step(x, final)

    @torch.jit.unused
    def output_length(self, n: int, final: bool = True) -> int:
        """Number of samples out after ``n`` samples in; see `BaseStream.output_length`."""
        return self.stream.output_length(n, final)

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        return self.stream.output_channels(channels)

    def anchor(self) -> Optional[Tensor]:
        """A weight that says dtype and device."""
        return self.stream.anchor()

    def get_state(self) -> Dict[str, Tensor]:
        """A copy of everything the stream remembers; see `BaseStream.get_state`."""
        with self._turn:
            self._settle()
            return super().get_state()

    def detach_state(self) -> None:
        """Cut the gradient's path into earlier chunks."""
        with self._turn:
            self._settle()
            super().detach_state()

    def state_nbytes(self) -> int:
        """Bytes of the samples that the stream holds now."""
        with self._turn:
            self._settle()
            return super().state_nbytes()

    def refresh_weights(self) -> None:
        """Nothing: the weights are frozen."""

    # ------------------------------------------------------------------ inside

    def _settle(self) -> None:
        # Give the memories back what the compiled step has.
        if self._states is not None and self._program is not None:
            kept = self._program.unpack(self._states)
            put(self.stream, self._plan, [state.clone() for state in kept])
            self._states = None

    def _check_signal(self, x: Tensor) -> None:
        self.stream._check_signal(x)

    def _check_end(self, came: int, first: bool) -> None:
        self.stream._check_end(came, first)

    def _require_room(self, x: Tensor) -> None:
        stream: Any = self.stream
        if stream.rows.nets is None and x.size(2) > self._limit:
            self._like = self._like.new_empty([0])  # as if nothing had come
        stream._require_room(x)

    def _clear(self) -> None:
        super()._clear()
        self._states = None

    def _load_state(self, name: str, state: Dict[str, Tensor], device: torch.device) -> None:
        super()._load_state(name, state, device)
        self._states = None

    def _apply(self, fn: Any, recurse: bool = True) -> "CompiledStream":
        self._settle()
        return super()._apply(fn, recurse)  # type: ignore[no-untyped-call]

    def __deepcopy__(self, memo: Dict[int, Any]) -> "CompiledStream":
        self._settle()
        twin: CompiledStream = type(self).__new__(type(self))
        memo[id(self)] = twin
        shared = ("_program", "candidates")  # a program keeps nothing from call to call
        for name, value in self.__dict__.items():
            twin.__dict__[name] = value if name in shared else copy.deepcopy(value, memo)
        return twin

    def __getstate__(self) -> Dict[str, Any]:
        raise TypeError(
            "not_picklable: a compiled stream belongs to the machine that compiled it; keep the stream that it was "
            "made of, or write a file with torchstreamer.export"
        )

    def __prepare_scriptable__(self) -> Any:
        raise TypeError("not_scriptable: a compiled stream does not script; script the stream that it was made of")

    def extra_repr(self) -> str:
        return f"chunk={self.chunk}, batch={self.batch}, {self.candidates[0]}"


def compile(
    stream: BaseStream,
    chunk: int,
    batch: int = 1,
    backend: str = "auto",
    autotune: bool = True,
    channels: Optional[int] = None,
    dtype: Optional[torch.dtype] = None,
    tolerance: Optional[float] = None,
    time_limit_s: Optional[float] = None,
    progress: Optional[ProgressCallback] = None,
) -> CompiledStream:
    """A stream that computes chunks of one size with a compiled step.

    The step is recorded from the stream in its steady state, compiled in several ways, each compared with the stream's
    own step and timed on this machine; the fastest is kept. It has the contract of every stream but for two points: no
    gradients flow, and the weights are those of this moment.

    Args:
        stream: the stream, from `create_stream`; it is left alone
        chunk: samples per step, a multiple of ``stream.hop``
        batch: rows
        backend: ``"auto"`` tries all that promise anything on the device; ``"native"`` (C++ written for this network,
            built by the system's compiler), ``"aot"`` (AOTInductor), ``"inductor"`` and ``"onnx"`` (ONNX Runtime, where
            installed) on a CPU, ``"cudagraph"`` on a GPU, ``"eager"`` the recorded graph as it is, ``"stream"`` the
            stream's own step, which long chunks may be best served with
        autotune: whether the compilers try kernels out too, and on a GPU fuse them, which makes short chunks much
            faster, and takes minutes for a large network
        channels: channels in, where the stream takes any
        dtype: of the input, where the stream takes any
        tolerance: largest difference from the stream's own step, relative to the scale; 1e-4 in float32, 1e-9 in
            float64, 0.01 in float16 and where a GPU may round float32 to TF32, 0.05 in bfloat16
        time_limit_s: seconds after which no other way is begun; the one at work is finished, and the best so far is
            kept. Where none works yet, others are tried until one does. ``None`` has all tried
        progress: is told every way when it begins, and what came of it, as ``progress(stage, done, total)``; see
            `ProgressCallback`

    Returns:
        the compiled stream; ``candidates`` tells what was tried and what was left out, and its ``repr`` what was chosen

    Raises:
        UnsupportedModuleError: a handler cannot be recorded, or its state does not come to repeat its shape, or C++ was
            asked for and a layer cannot be written (``not_native``)
        ValueError: ``chunk``, ``backend`` or ``time_limit_s`` does not fit
        RuntimeError: no candidate works here; the message tells why

    Example:
        >>> import torch, torchstreamer as pts
        >>> net = torch.nn.Sequential(torch.nn.Conv1d(1, 4, 3), torch.nn.Tanh()).eval()
        >>> stream = pts.compile(pts.create_stream(net), chunk=4, backend="eager")
        >>> x = torch.randn(1, 22)
        >>> pieces = [stream(chunk) for chunk in x.split(4, dim=-1)] + [stream.flush()]
        >>> y = torch.cat([piece for piece in pieces if piece is not None], dim=-1)
        >>> torch.testing.assert_close(y, net(x))
    """
    chunk, batch = check_step(stream, chunk, batch)
    check_one_signal(stream)
    if time_limit_s is not None and not (isinstance(time_limit_s, (int, float)) and time_limit_s >= 0):
        raise ValueError(
            f"invalid_time_limit: time_limit_s={time_limit_s!r} came; seconds from 0 on were expected; leave it out to "
            "have every way tried"
        )
    if backend != "auto" and backend not in FORMS:
        raise ValueError(
            f"invalid_backend: backend={backend!r} came; one of {', '.join(map(repr, ['auto', *FORMS]))} was "
            "expected; use 'auto' to have them tried"
        )
    telling = Telling(f"compile({type(stream).__name__}, chunk={chunk})", progress)
    own = fresh(stream)
    anchor = own.anchor()
    device = anchor.device if anchor is not None else torch.device("cpu")
    if backend == "native" and device.type != "cpu":
        raise ValueError(
            f"invalid_backend: backend='native' came for a stream on {device}; one on the cpu was expected; move it, "
            "or use 'cudagraph'"
        )
    dtype = dtype or (anchor.dtype if anchor is not None else torch.get_default_dtype())
    shape = [batch, channels or input_channels(own), chunk]
    x = torch.zeros(shape, dtype=dtype, device=device)
    if tolerance is None:
        rounded = any(rounds(what, device, dtype) for what in ("convolutions", "products"))
        tolerance = _TOLERANCES.get(torch.float16 if rounded else dtype, 1e-4)
    search = Search(tolerance, autotune, telling, time_limit_s)
    telling.begin("bringing the stream into its steady state")
    steady = SteadyStep(fresh(own), x)
    # The stream's own step first: it is made already, so that something works when the time is over.
    search.run(steady, ["stream", *available(device)] if backend == "auto" else [backend])
    candidates = search.candidates
    if candidates[0].reason:
        raise RuntimeError("no_backend: no way to compile the step works here: " + "; ".join(map(str, candidates)))
    compiled = CompiledStream(search.native or own, chunk, batch, dtype, steady, search.program, candidates)
    if search.native is not None:
        compiled._limit = search.native._limit  # which other streams see to themselves
    telling.end()
    return compiled
