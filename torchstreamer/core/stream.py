"""`BaseStream`, the contract of every stream.

TorchScript compiles this file, so it uses no postponed annotations and no keyword-only arguments, and raises where
Python would rather catch.
"""

from typing import Any, Iterator, List, Optional, Tuple

import torch
from torch import Tensor
from torch.compiler import is_compiling
from torch.jit import is_scripting

from ..errors import StreamError, StreamInputError
from .axes import Axes
from .describe import describe, dtype_name, is_plain
from .lengths import LinearLength
from .memory import Memory
from .printing import described
from .reach import Reach, offline_length, settled_length
from .remembering import Remembering
from .script_copy import script_copy
from .tracing import autocasting, inference_mode, plain_inference, recorded_form
from .turns import in_use, stays_in_eval
from .user_forward import adopt_forward, inherited_step, scripted_class
from .whole_numbers import require_length

__all__ = ["BaseStream"]


class BaseStream(Remembering):
    r"""A network that takes its input in pieces.

    Let ``net`` be the module in its eval form and ``x_1 … x_k`` any split of ``x`` along time. Then

    .. code-block:: text

        cat([stream(x_1), …, stream(x_k, final=True)]) == net(x)                (exact; Nones left out)
        samples out after n samples in == stream.output_length(n, final=False)  (prompt)

    A custom handler overrides ``__init__`` and ``forward(x, final)``, and keeps what it must remember in `RingBuffer`
    attributes; then ``reset``, snapshots, stacking, device moves and scripting work without further code. It gets
    chunks in the rank in which they came. If its ``x`` is annotated ``Optional[Tensor]`` it is also called with
    ``None`` at the end of a signal when nothing new reached it; otherwise never. It states its `Reach`, what an output
    reads, from which ``hop``, ``ratio``, ``output_length``, fields and latency follow; or it sets ``hop`` and
    ``ratio`` and defines ``output_length(n, final)`` itself.

    The built-in handlers override ``step(x, final)`` instead: chunks there are always ``[B, C, T]`` with ``T > 0`` or
    ``None``, checked once by the outermost stream.

    Args:
        reach: what an output reads of the input, where that is known

    Attributes:
        reach: what an output reads of the input, or ``None``
        hop: the input period after which the state repeats its shape, in samples
        ratio: outputs per inputs, a pair of integers without a common factor

    Shape:
        - chunk: ``[B, C, T]``, or ``[C, T]``, which means ``net(x[None])[0]``; ``T`` may be 0
        - output: ``[B, C', T']`` or ``[C', T']``, or ``None`` when nothing comes out
    """

    # Whether the output of `step` is memory that nobody else sees, and that may be written to. A class that overrides
    # `step` or `forward` says so anew.
    fresh: bool = False

    # Scripts take the numbers alone.
    __jit_ignored_attributes__ = ["reach", "axes", "_turn", "_known", "_backward"]

    # What the last chunk was, if a chunk like it needs no other checks than that it is like it.
    _known: Optional[Tuple[Any, ...]] = None

    # How the module itself lays out its signals, where that is otherwise than `[B, C, T]`.
    axes: Optional[Axes] = None

    reach: Optional[Reach]
    hop: int
    ratio: Tuple[int, int]
    aliasing: int

    def __init__(self, reach: Optional[Reach] = None) -> None:
        super().__init__()
        self.reach = reach
        self._reach_numbers = (0, 1, 0, 0, 1) if reach is None else reach.numbers  # with p = 0 if they are not known
        self.hop = 1 if reach is None else reach.hop
        self.ratio = (1, 1) if reach is None else reach.ratio
        # What the output of `step` may share memory with: 0 nothing, 1 its input, 2 the state.
        self.aliasing = 2
        # Whether the output has the dtype of the input, so that a weight after this stream tells what must come in.
        self.keeps_dtype = False
        self._inferred = False  # the last chunk came in inference mode
        self._limit = -1  # the longest signal, if there is one
        self._trains = False  # it has a training mode

    # ------------------------------------------------------------------ the interface

    def forward(self, x: Optional[Tensor], final: bool = False) -> Optional[Tensor]:
        """Take a chunk and give every output that no later input can change.

        Args:
            x: the next chunk, ``[B, C, T]`` or ``[C, T]``, or ``None`` for nothing new
            final: whether the signal ends here; the stream gives all that is left and is as new

        Returns:
            the new output samples, or ``None`` if there are none

        Raises:
            StreamInputError: the chunk does not fit; the stream is as it was
            StreamStateError: an earlier call failed half-way, or a call of another thread runs
        """
        if not is_scripting():
            if self._inside:
                return inherited_step(self, x, final)
            return self._run_alone(x, final)
        return self._run(x, final)

    @torch.jit.export
    def flush(self) -> Optional[Tensor]:
        """End the signal: the same as ``stream(None, final=True)``."""
        if not is_scripting():
            return self._run_alone(None, True)
        return self._run(None, True)

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        """Number of samples out after ``n`` samples in.

        Args:
            n: input length, in samples
            final: whether the signal ends there; if so, the length of ``net(x)``, or 0 where ``net`` refuses ``x``
        """
        require_length(n)
        length = self.length(n)
        # An output that is settled need not exist: a crop may take it.
        return length if final else min(settled_length(self._reach_numbers, n), length)

    def length(self, n: int) -> int:
        """Number of samples of ``net(x)`` for ``n`` samples of ``x``; a handler overrides it where `Reach` is wrong."""
        if self._reach_numbers[0] == 0:
            raise StreamError(
                "no_output_length: this handler states no reach and does not define output_length(n, final); state the "
                "reach, or define it"
            )
        return offline_length(self._reach_numbers, n)

    # ------------------------------------------------------------------ for containers

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        """One step on a checked chunk ``[B, C, T]``. Built-in handlers override this; containers call it."""
        raise StreamError("no_forward: this handler defines neither forward(x, final) nor step(x, final); define one")

    def own_input(self) -> None:
        """Chunks come to `step` in memory that nobody else sees; it may be written to while gradients are off."""

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in, -1 if not known.

        Raises:
            StreamInputError: the handler does not take this number of channels
        """
        return -1

    # ------------------------------------------------------------------ for analysis, in Python only

    def lines(self) -> Optional[Tuple[LinearLength, LinearLength]]:
        """`output_length` before the end and at the end, where both are one rounded line; else ``None``."""
        own = type(self)
        derived = own.output_length is BaseStream.output_length and own.length is BaseStream.length
        return self.reach.lines() if derived and self.reach is not None else None

    def taps(self, n: int, m: int) -> Iterator[Tensor]:
        """Which inputs the outputs are computed from, of a whole signal; a handler overrides it where not all count.

        Args:
            n: length of the signal
            m: length of the output

        Yields:
            positions ``[m]``: output ``i`` depends on the inputs at place ``i`` of all of them; one outside of the
            signal, such as -1, stands for none
        """
        if self.reach is None:
            raise StreamError("no_reach: this handler states no reach; pass it to BaseStream.__init__")
        return self.reach.taps(m)

    def output_dtype(self, dtype: torch.dtype) -> torch.dtype:
        """The dtype of the output, for a dtype of the input; a handler overrides it where they differ."""
        return dtype

    def multiply_adds(self, came: int, given: int) -> Optional[int]:
        """Multiply-adds of one row for so many samples in and out; ``None`` where they are to be counted."""
        return None

    # ------------------------------------------------------------------ for rows, in Python only

    def _row_layout(self) -> Optional[Tuple[int, int, int, int]]:
        # Axes of rows and of time of a chunk, and of the output; `None` if those are not one signal each. A model may
        # give more axes than it takes; then time is the last all the same.
        return 0, 2, 0, -1

    def _check_piece(self, x: Tensor) -> None:
        # Refuse a piece of a row, which has no axis of rows.
        if x.dim() != 2:
            raise StreamInputError(
                f"invalid_chunk: a piece came with {describe(x)}; [C, t] was expected; give every row a piece of its "
                "own, without a batch axis"
            )
        self._check_signal(x[None])

    # ------------------------------------------------------------------ inside

    def _run(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if self._failed:
            self._ensure_sound()
        first = self._like.dim() == 1
        plain = plain_inference()
        if not is_scripting():
            if not plain:
                self._enter(first)
        if x is not None:
            x = self._accept(x)
            if self._limit >= 0 and x is not None:
                self._require_room(x)
        if final:
            self._check_end(0 if x is None else x.size(2), first)
        if plain:
            self._note_mode()
        self._failed = True
        if is_scripting():
            y = self.step(x, final)
        else:
            y = self._step_or_forget(x, final, first)
        out: Optional[Tensor] = None
        if y is not None and y.size(-1) > 0:
            y = y.clone() if self.aliasing != 0 else y.contiguous()
            out = y.squeeze(0) if self._unbatched else y
            if self._line:
                out = out.squeeze(0)
            if not is_scripting():
                if not plain:
                    self._leave(out)
        if final:
            self.reset()
        self._failed = False
        return out

    @torch.jit.unused
    def _enter(self, first: bool) -> None:
        if torch.is_grad_enabled() and not is_compiling():
            self._backward.enter(first)

    @torch.jit.unused
    def _leave(self, y: Tensor) -> None:
        if y.requires_grad and not is_compiling():
            self._backward.leave(y)

    @torch.jit.unused
    def _run_alone(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if is_compiling():
            return self._run(x, final)  # a lock cannot be traced
        lock = self._turn.lock
        if not lock.acquire(False):
            raise in_use()
        try:
            known = self._known
            if known is None or final or not isinstance(x, Tensor) or x.is_nested:
                return self._run_first(x, final)
            like, shape, dtype, device, layout, inferred = known
            if (
                x.shape != shape
                or x.dtype is not dtype
                or x.device != device
                or x.layout is not layout
                or torch.is_grad_enabled()
                or torch.is_inference_mode_enabled() is not inferred
                or self._buffers["_like"] is not like
                or self._failed
                or recorded_form()
            ):
                return self._run_first(x, final)
            # `_run`, on a chunk like the last one.
            x = x.unsqueeze(0) if self._unbatched else x
            if self._limit >= 0:
                self._require_room(x)
            own = self.__dict__
            own["_failed"] = True
            y = self.step(x, False)
            if y is not None:
                if y.size(-1) > 0:
                    y = y.clone() if self.aliasing != 0 else y.contiguous()
                    y = y.squeeze(0) if self._unbatched else y
                else:
                    y = None
            own["_failed"] = False
            return y
        finally:
            lock.release()

    @torch.jit.unused
    def _run_first(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        self._known = None
        own = type(self)._run is BaseStream._run and type(self)._accept is BaseStream._accept
        known: Any = None
        if own and not final and isinstance(x, Tensor) and not x.is_nested and not torch.is_grad_enabled():
            shape = x.shape
            if len(shape) > 1 and shape[-1] > 0:
                known = (shape, x.dtype, x.device, x.layout, torch.is_inference_mode_enabled())
        y = self._run(x, final)
        if known is not None:  # no call of torch from here on, which might fail with the state changed
            self._known = (self._buffers["_like"], *known)
        return y

    def _check_end(self, came: int, first: bool) -> None:
        # A stream that takes only some lengths refuses here to end a signal, before anything is written.
        pass

    def _require_room(self, x: Tensor) -> None:
        # Refuse a chunk that makes a signal too long, before anything is written; only with a `_limit`.
        pass

    def _note_mode(self) -> None:
        # Memory made in inference mode cannot be written to once that is over.
        inferred = inference_mode(self._like)
        if not inferred and (self._inferred or self._like.is_inference()):
            for _, m in self.named_modules():
                if hasattr(m, "_seal_memory"):
                    m._seal_memory()
            self._like = self._like.clone()
        if inferred != self._inferred:
            self._inferred = inferred

    @torch.jit.unused
    def _step_or_forget(self, x: Optional[Tensor], final: bool, first: bool) -> Optional[Tensor]:
        try:
            return self.step(x, final)
        except StreamInputError:
            # A part refused the first chunk of a signal: nothing came before, so a new stream is as it was.
            if first:
                self.reset()
            raise

    def _accept(self, x: Tensor) -> Optional[Tensor]:
        if not is_scripting():
            if not isinstance(x, Tensor):
                raise StreamInputError(
                    f"invalid_chunk: the chunk is a {type(x).__name__}; a tensor [B, C, T] or [C, T] was expected; "
                    "convert it with torch.as_tensor"
                )
        like = self._like
        line = self._takes_line and x.dim() == 1 and (self._line or like.dim() == 1)
        if line and is_plain(x):
            x = x.unsqueeze(0)
        if like.dim() == 1:
            self._begin(x)
            self._line = line
        else:
            fits = x.layout == torch.strided and not x.is_nested and x.dim() == (2 if self._unbatched else 3)
            fits = fits and line == self._line and x.dtype == like.dtype and x.device == like.device
            fits = fits and x.size(-2) == like.size(1) and (self._unbatched or x.size(0) == like.size(0))
            if not fits:
                expected = f"[{like.size(1)}, T]" if self._unbatched else f"[{like.size(0)}, {like.size(1)}, T]"
                expected = "[T]" if self._line else expected
                came = describe(x[0] if line else x)
                raise StreamInputError(
                    f"invalid_chunk: a chunk came with {came}; the signal goes on with {expected}, "
                    f"{dtype_name(like)}, on {like.device}; end it with flush() or reset() before another one"
                )
        if x.size(-1) == 0:
            return None
        if torch.is_grad_enabled():
            x = x.clone()  # autograd may keep it, and the caller may overwrite it
        return x.unsqueeze(0) if self._unbatched else x

    def _begin(self, x: Tensor) -> None:
        if not is_plain(x):
            raise StreamInputError(
                f"invalid_chunk: a chunk came with {describe(x)}; a dense tensor [B, C, T] or [C, T] was expected; "
                "convert it with .to_dense()"
            )
        if x.dim() != 2 and x.dim() != 3:
            raise StreamInputError(
                f"invalid_chunk: a chunk came with {describe(x)}; [B, C, T] or [C, T] was expected; reshape it"
            )
        self._check_signal(x)
        self._set_rank(x.dim() == 2)
        self._like = x.detach().new_empty([1 if x.dim() == 2 else x.size(0), x.size(-2), 0])

    def _set_rank(self, unbatched: bool) -> None:
        if not is_scripting():
            self._set_rank_of_all(unbatched)
            return
        for _, m in self.named_modules():
            if hasattr(m, "_unbatched"):
                m._unbatched = unbatched
            if hasattr(m, "handle"):  # whose memories hold tensors in the rank that it gets
                for _, memory in m.named_modules():
                    if hasattr(memory, "_rank_two"):
                        memory._rank_two = unbatched

    @torch.jit.unused
    def _set_rank_of_all(self, unbatched: bool) -> None:
        # The same, for every new signal: asking a module for what it does not have costs more than all else here.
        waiting: List[Tuple[Any, bool]] = [(self, False)]
        while waiting:
            m, handled = waiting.pop()
            own = m.__dict__
            if isinstance(m, torch.jit.ScriptModule):  # which keeps its attributes elsewhere
                handled = handled or hasattr(m, "handle")
                if hasattr(m, "_unbatched"):
                    m._unbatched = unbatched
                if handled and hasattr(m, "_rank_two"):
                    m._rank_two = unbatched
            else:
                handled = handled or "handle" in own or hasattr(type(m), "handle")
                if "_unbatched" in own:
                    own["_unbatched"] = unbatched
                if handled and "_rank_two" in own:
                    own["_rank_two"] = unbatched
            for child in m._modules.values():
                if child is not None:
                    waiting.append((child, handled))

    def _check_signal(self, x: Tensor) -> None:
        self.output_channels(x.size(-2))
        self._check_anchor(x)

    def _check_anchor(self, x: Tensor) -> None:
        anchor = self.anchor()
        if anchor is not None:
            if x.device != anchor.device or (x.dtype != anchor.dtype and not autocasting(x)):
                raise StreamInputError(
                    f"invalid_chunk: a chunk came with {describe(x)}; the weights are {dtype_name(anchor)} on "
                    f"{anchor.device}; convert the chunk or the stream with .to()"
                )

    # ------------------------------------------------------------------ Python only

    def train(self, mode: bool = True) -> "BaseStream":
        """Go into training mode, or with ``False`` into eval mode, as ``eval()`` does.

        That is for streams made with ``create_stream(net, training="frozen")``: in training mode their dropout is
        random. Any other stream stays in the eval form that it was made in, and ``train()`` warns. The network that the
        stream was made from stays in its mode.
        """
        if mode and not self._trains:
            stays_in_eval(self)
            return self
        for part in self.modules():  # others may be the network's own
            if isinstance(part, BaseStream) or hasattr(part, "begins_in_training"):
                part.training = mode
        return self

    def __str__(self) -> str:
        return described(self)

    def __setattr__(self, name: str, value: Any) -> None:
        # nn.Module searches all its tables first.
        if name == "_failed" or name == "_inside" or name == "_known":
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Let a handler that overrides ``forward`` stand in containers, which call ``step``."""
        super().__init_subclass__(**kwargs)
        if ("forward" in cls.__dict__ or "step" in cls.__dict__) and "fresh" not in cls.__dict__:
            cls.fresh = False
        if "forward" in cls.__dict__ and "step" not in cls.__dict__:
            adopt_forward(cls)

    def __prepare_scriptable__(self) -> "BaseStream":
        # `torch.jit.script` gets a copy with empty memories, so that the script and the original share weights alone.
        twin = script_copy(self, (BaseStream, Memory))
        twin._layout_code()
        twin._clear()
        twin._failed = False
        if hasattr(twin, "handle"):
            twin.__class__ = scripted_class(type(twin), BaseStream.forward)
        return twin
