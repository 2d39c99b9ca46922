"""Graph streams with several inputs or outputs, or other layouts than ``[B, C, T]``. TorchScript compiles this file."""

# A ModuleList does not tell the type of its modules.
# mypy: disable-error-code="operator, union-attr, arg-type, call-overload, misc"

from typing import Any, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.jit import is_scripting
from torch.utils import _pytree as pytree

from ..core.describe import describe
from ..core.row_clock import RowClock, too_long
from ..core.stream import BaseStream
from ..core.tracing import plain_inference
from ..core.turns import in_use
from ..core.whole_numbers import require_length
from ..errors import StreamInputError
from .graph_stream import GraphStream
from .input import Port
from .signature import Structure, scripted_class

__all__ = ["PortedGraphStream"]


class PortedGraphStream(GraphStream):
    """Stream of a model whose inputs and outputs are not one signal ``[B, C, T]`` each.

    ``stream(*chunks, final=False)`` takes a chunk, or ``None``, of every input, each in the layout of the example, and
    gives the model's own structure of outputs, with ``None`` where nothing comes out. A static input is given with the
    first call of a signal and left out, or ``None``, from then on. Inputs of one signal may come at their own pace;
    they must have lengths that fit each other when it ends.

    Args:
        nodes: the parts, in order
        slots: values between them
        ports: the inputs
        outputs: slots of the outputs, -1 for one that is always ``None``
        axes: time axis and batch axis of each output; -1 for none
        structure: of the outputs
        hop: input period after which the state repeats its shape, in samples of the first streamed input
        ratio: samples of the first output per sample of the first streamed input
        like: an empty tensor of the input's dtype and device
        length_multiple: what the length of the first streamed input must be a multiple of
    """

    __jit_ignored_attributes__ = [*GraphStream.__jit_ignored_attributes__, "gives"]

    like: Tensor
    outputs: List[int]
    time_axes: List[int]
    row_axes: List[int]
    gives: List[Tuple[List[int], torch.dtype]]

    def __init__(
        self,
        nodes: Sequence[nn.Module],
        slots: int,
        ports: Sequence[Port],
        outputs: Sequence[int],
        axes: Sequence[Tuple[int, int]],
        structure: pytree.TreeSpec,
        hop: int,
        ratio: Tuple[int, int],
        like: Tensor,
        length_multiple: int = 1,
        longest: int = -1,
    ) -> None:
        super().__init__(nodes, slots, outputs[0], (-1, -1), hop, ratio, like, length_multiple, longest=longest)
        self.ports = nn.ModuleList(ports)
        self.outputs = list(outputs)
        self.time_axes = [time for time, _ in axes]
        self.row_axes = [rows for _, rows in axes]
        self.structure = Structure(structure)
        # Of each output its sizes, entries per row where rows stand, and its dtype.
        self.gives = []
        self.first = next(i for i, port in enumerate(ports) if not port.static)

    # ------------------------------------------------------------------ the interface

    def forward(self, *chunks: Any, final: bool = False) -> Any:
        """Take a chunk of every input, and give every output that no later input can change.

        Args:
            chunks: for each input its next chunk, or ``None`` for nothing new; inputs left out count as ``None``
            final: whether the signal ends here

        Returns:
            the model's structure of outputs, with ``None`` where nothing comes out

        Raises:
            StreamInputError: a chunk does not fit, a static input is missing or came again, or the inputs end at
                lengths that do not fit each other; the stream is as it was
            StreamStateError: an earlier call failed half-way
        """
        given: List[Any] = list(chunks)
        if len(given) > 0 and isinstance(given[-1], bool):
            final = given.pop()
        return self.structure.filled(self.leaves(given, final))

    def leaves(self, chunks: Sequence[Optional[Tensor]], final: bool) -> List[Optional[Tensor]]:
        """What a call gives, in a list, without the structure."""
        given: List[Any] = list(chunks)
        if len(given) > len(self.ports):
            raise StreamInputError(
                f"invalid_chunk: {len(given)} chunks came; the model takes {len(self.ports)} inputs; leave out the "
                "others"
            )
        given += [None] * (len(self.ports) - len(given))
        for x in given:
            if x is not None and not isinstance(x, Tensor):
                raise StreamInputError(
                    f"invalid_chunk: a chunk is a {type(x).__name__}; a tensor, or None, was expected; convert it with "
                    "torch.as_tensor"
                )
        if torch.compiler.is_compiling():
            return self._advance(given, final)  # a lock cannot be traced
        lock = self._turn.lock
        if not lock.acquire(False):
            raise in_use()
        try:
            return self._advance(given, final)
        finally:
            lock.release()

    def lengths(self, n: int, final: bool) -> List[int]:
        """The length of each output, in a list, without the structure."""
        return self._lengths(n, final)

    def flush(self) -> Any:
        """End the signal: the same as a call with ``None`` for every input and ``final=True``."""
        return self.forward(final=True)

    def output_length(self, n: int, final: bool = True) -> Any:
        """Number of samples out after ``n`` samples of the first streamed input, and as many of the others as belong
        to them; in the model's structure of outputs."""
        return self.structure.filled(self._lengths(n, final))

    # ------------------------------------------------------------------ inside

    def _advance(self, chunks: List[Optional[Tensor]], final: bool) -> List[Optional[Tensor]]:
        self._ensure_sound()
        plain = plain_inference()
        if not is_scripting():
            if not plain:
                self._enter(self._like.dim() == 1)
        given = self._accepted(chunks, final)
        if plain:
            self._note_mode()
        rows = self._like.size(0) if self._like.dim() == 3 else 0
        if self._limit >= 0:
            self._make_room(given)
        self._failed = True
        units = self._units()
        inner: List[Optional[Tensor]] = []
        for _ in range(self.slots):
            inner.append(None)
        for i, port in enumerate(self.ports):
            x = given[i]
            if port.static:
                if x is not None:
                    port.hold(x, rows)
                if port.kept.started():
                    inner[i] = port.held()
            elif x is not None:
                port.came.value += x.size(port.time)
                inner[i] = x
                if i == self.first and self.min_length > 1:
                    self.early.value = min(self.early.value + x.size(port.time), self.min_length)
        came = self._units() - units
        for node in self.nodes:
            node.run(inner, came, final)
            for i in node.spent:
                inner[i] = None
        self._wind_back()
        self.beyond.value = (self.beyond.value + came) % self.length_multiple
        ys: List[Optional[Tensor]] = []
        for k, i in enumerate(self.outputs):
            y: Optional[Tensor] = None
            if i >= 0:
                found = inner[i]
                if found is not None and found.size(self.time_axes[k]) > 0:
                    y = found.clone()
                    if self._unbatched and self.row_axes[k] >= 0:
                        y = y.squeeze(self.row_axes[k])
                    if not is_scripting():
                        if not plain:
                            self._leave(y)
            ys.append(y)
        if final:
            self.reset()
        self._failed = False
        return ys

    def _make_room(self, given: List[Optional[Tensor]]) -> None:
        # Refuse a signal that is too long before anything is written, and count its samples.
        if hasattr(self, "came"):
            clock: RowClock = self.came
            new = not clock.started()
            before = 0 if new else int(clock.count().max().item())
            wound = 0  # samples of the first streamed input by which counts were wound back
            for i, port in enumerate(self.ports):
                came = int(port.came.value)
                if i == self.first:
                    wound = before - came
                if came > 0:
                    new = False
            arrived = 0
            for i, port in enumerate(self.ports):
                x = given[i]
                if x is not None and not port.static:
                    t = x.size(port.time)
                    total = int(port.came.value + wound * port.p // port.q)
                    longest = int(port.length(self._limit))
                    if total + t > longest:
                        if new:
                            self._clear()
                        raise StreamInputError(too_long(t, total, longest))
                    if i == self.first:
                        arrived = t
            if arrived > 0:
                if not clock.started():
                    clock.begin(self._like)
                clock.advance(arrived)

    def _accepted(self, chunks: List[Optional[Tensor]], final: bool) -> List[Optional[Tensor]]:
        """The chunks, checked, with their batch axes; nothing is written before all are found good."""
        begins = self._like.dim() == 1
        rows = -1 if begins else self._like.size(0)
        alone = self._unbatched
        known = not begins
        present = False
        for x in chunks:
            present = present or x is not None
        for i, port in enumerate(self.ports):
            x = chunks[i]
            if x is None and port.static and begins and present:
                raise StreamInputError(
                    f"static_input: the static input '{port.name}' is missing; it was expected with the first call of "
                    f"a signal, {port.describe(-1, False)}; pass it with the first chunk"
                )
            if x is not None:
                if port.static and not begins:
                    raise StreamInputError(
                        f"static_input: the static input '{port.name}' came again; it was expected with the first call "
                        "of a signal only; leave it out, or end the signal with flush() or reset()"
                    )
                port.check(x, rows, alone, not known)
                if port.rows >= 0:
                    alone = port.unbatched(x)
                    rows = 1 if alone else x.size(port.rows)
                    known = True
        self._check_lengths(chunks, final)
        given: List[Optional[Tensor]] = []
        came = False
        for i, port in enumerate(self.ports):
            x = chunks[i]
            kept: Optional[Tensor] = None
            if x is not None:
                came = True
                whole = port.batched(x)
                if port.static or whole.size(port.time) > 0:
                    # Autograd may keep it, and the caller may overwrite it.
                    kept = whole.clone() if torch.is_grad_enabled() else whole
            given.append(kept)
        if begins and came:
            self._set_rank(alone)
            self._like = self.like.new_empty([max(rows, 1), 1, 0])
        return given

    def _check_lengths(self, chunks: List[Optional[Tensor]], final: bool) -> None:
        if not final:
            return
        totals: List[int] = []
        new = 0
        for i, port in enumerate(self.ports):
            x = chunks[i]
            total = port.came.value
            if x is not None and not port.static:
                before = 1 if port.unbatched(x) and port.rows < port.time else 0
                total += x.size(port.time - before)
            totals.append(total)
            if i == self.first:
                new = int(total - port.came.value)
        first = totals[self.first]
        if first % self.length_multiple != 0:  # wound back by multiples
            raise StreamInputError(self._odd_length(first))
        early = self.early.value + new
        if self.min_length > 1 and 0 < early < self.min_length:
            raise StreamInputError(self._short_length(early))
        for i, port in enumerate(self.ports):
            total = totals[i]
            # Counts that were wound back may be below 0.
            units = first * port.p + port.c
            fits = port.static or (units % port.q == 0 and (port.length(first) == total or units // port.q == total))
            if not fits and (first > 0 or total > 0):
                raise StreamInputError(
                    f"unequal_lengths: the signal ends with {total} samples of '{port.name}' (counted from a common "
                    f"period) for {first} of the first input; {port.length(first)} were expected; feed the rest first, "
                    "or call reset()"
                )

    def _units(self) -> int:
        """Samples of the first streamed input up to which all inputs have come."""
        least = -1
        for port in self.ports:
            if not port.static:
                units = port.units(port.came.value)
                least = units if least < 0 else min(least, units)
        return max(least, 0)

    def _wind_back(self) -> None:
        # Counts repeat, so that the state's phase does.
        period = self.hop
        turns = self._units() // period - 1
        if turns > 0:
            for other in self.ports:
                if not other.static:
                    other.came.value -= turns * period * other.p // other.q

    def _lengths(self, n: int, final: bool) -> List[int]:
        require_length(n)
        if final and n % self.length_multiple != 0:
            raise StreamInputError(self._odd_length(n))
        lengths: List[int] = []
        for _ in range(self.slots):
            lengths.append(0)
        for i, port in enumerate(self.ports):
            if not port.static:
                lengths[i] = port.length(max(n, 0)) if n > 0 else 0
        for node in self.nodes:
            node.count(lengths, max(n, 0), final)
        found: List[int] = []
        for i in self.outputs:
            found.append(lengths[i] if i >= 0 else 0)
        return found

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        raise StreamInputError(
            "invalid_chunk: a part of a container takes one signal [B, C, T]; this model has other inputs or outputs; "
            "stream the whole network with an example"
        )

    def output_channels(self, channels: int) -> int:
        return -1

    def anchor(self) -> Optional[Tensor]:
        """An empty tensor that says dtype and device."""
        return self.like

    def _row_layout(self) -> Optional[Tuple[int, int, int, int]]:
        port: Any = self.ports[0]
        single = len(self.ports) == 1 and len(self.outputs) == 1 and self.structure.spec.is_leaf()
        if not single or port.static or min(port.rows, self.row_axes[0], self.time_axes[0]) < 0:
            return None
        return port.rows, port.time, self.row_axes[0], self.time_axes[0]

    def _check_piece(self, x: Tensor) -> None:
        port = self.ports[0]
        if not port.unbatched(x):
            raise StreamInputError(
                f"invalid_chunk: a piece came with {describe(x)}; {port.describe(1, True)} was expected; give every "
                "row a piece of its own, without a batch axis"
            )
        port.check(x, 1, True, True)

    def __prepare_scriptable__(self) -> BaseStream:
        twin = super().__prepare_scriptable__()
        twin.__class__ = scripted_class(type(self), [port.name for port in self.ports], self.structure.spec)
        return twin
