"""The stream of a captured graph. TorchScript compiles this file."""

# A ModuleList does not tell the type of its modules.
# mypy: disable-error-code="operator, union-attr"

from typing import Any, Iterator, List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.jit import is_scripting

from ..core.counter import Counter
from ..core.fast_attributes import entry
from ..core.row_clock import RowClock
from ..core.stream import BaseStream
from ..core.tracing import recording
from ..core.whole_numbers import require_length
from ..errors import StreamInputError

__all__ = ["GraphStream"]


class GraphStream(BaseStream):
    """Stream of any exportable model; `create_stream` makes it from an example.

    The model's operations run in segments of operations that treat every sample alone, between streams that remember
    samples. Chunks are ``[B, C, T]`` or ``[C, T]``.

    Args:
        nodes: the parts, in order
        slots: values between them
        result: slot of the output
        channels: channels in and out
        hop: input period after which the state repeats its shape
        ratio: outputs per inputs
        like: an empty tensor of the input's dtype and device
        length_multiple: what the total length must be a multiple of
        fresh: whether the output shares memory with nothing else
        keeps_dtype: whether the output has the dtype of the input
        rows: number of rows, -1 for any
        longest: the longest signal, -1 for any

    Shape:
        - chunk: ``[B, C, T]`` or ``[C, T]``
        - output: as the model gives it, with time last

    Example:
        >>> import torch, torchstreamer as pts
        >>> class Block(torch.nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.conv = torch.nn.Conv1d(4, 4, 5, padding=2)
        ...     def forward(self, x):
        ...         return x + torch.tanh(self.conv(x))
        >>> net, x = Block(), torch.randn(1, 4, 20)
        >>> stream = pts.create_stream(net, example=x)
        >>> y = torch.cat([stream(x[..., :9]), stream(x[..., 9:], final=True)], dim=-1)
        >>> torch.testing.assert_close(y, net(x))
    """

    __jit_ignored_attributes__ = [*BaseStream.__jit_ignored_attributes__, "node_names"]

    like: Tensor
    nodes = entry("_modules")
    beyond = entry("_modules")
    early = entry("_modules")

    def __init__(
        self,
        nodes: Sequence[nn.Module],
        slots: int,
        result: int,
        channels: Tuple[int, int],
        hop: int,
        ratio: Tuple[int, int],
        like: Tensor,
        length_multiple: int = 1,
        fresh: bool = False,
        keeps_dtype: bool = False,
        rows: int = -1,
        longest: int = -1,
    ) -> None:
        super().__init__()
        self.nodes = nn.ModuleList(nodes)
        self.node_names = [str(i) for i in range(len(nodes))]  # as the model calls them, where that is known
        self.slots = slots
        self.result = result
        self.in_channels, self.out_channels = channels
        self.hop = hop
        self.ratio = ratio
        self.register_buffer("like", like, persistent=False)
        self.length_multiple = length_multiple
        self.rows = rows
        self.aliasing = 0 if fresh else 2
        self.keeps_dtype = keeps_dtype
        self.min_length = 1  # the shortest signal for which it is exact
        self.beyond = Counter()  # samples after the last whole multiple
        self.early = Counter()  # samples of the signal, as far as a shortest signal asks for them
        self._limit = longest
        if longest >= 0:
            self.came = RowClock(1, endless=True)  # samples of the signal; others need none

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        came = 0 if x is None else x.size(2)
        if x is not None and self._limit >= 0:
            self._count(x)
        if self.min_length > 1:
            self._count_early(came, final)
        chunks: List[Optional[Tensor]] = []
        for _ in range(self.slots):
            chunks.append(None)
        chunks[0] = x
        for node in self.nodes:
            node.run(chunks, came, final)
            for i in node.spent:
                chunks[i] = None
        self.beyond.value = (self.beyond.value + came) % self.length_multiple
        y = chunks[self.result]
        if y is not None and self._limit >= 0:
            y = self._within(y)
        return y

    def _count_early(self, came: int, final: bool) -> None:
        total = min(self.early.value + came, self.min_length)
        if final and 0 < total < self.min_length:
            raise StreamInputError(self._short_length(total))
        self.early.value = total

    def _short_length(self, n: int) -> str:
        return (
            f"min_length: the signal ends after {n} samples; the model takes another branch for so few, and "
            f"{self.min_length} at least were expected; go on, or call reset(), and give the model itself short signals"
        )

    def _require_room(self, x: Tensor) -> None:
        if hasattr(self, "came"):
            if not self.came.started() and x.size(2) > self._limit:
                self._like = self._like.new_empty([0])  # as if nothing had come
            self.came.require_room(x.size(2), self._limit)

    def _count(self, x: Tensor) -> None:
        if hasattr(self, "came"):
            if not self.came.started():
                self.came.begin(x)
            self.came.advance(x.size(2))

    def _within(self, y: Tensor) -> Tensor:
        # A recorded step can refuse nothing: it gives nan beyond the longest signal.
        if not is_scripting():
            if recording() and y.is_floating_point():
                over = self.came.count() > self._limit
                fold = y.size(0) // over.size(0)
                over = over.repeat_interleave(fold) if fold > 1 else over
                return y.masked_fill(over.reshape([-1] + [1 for _ in range(y.dim() - 1)]), float("nan"))
        return y

    def leaves(self, chunks: Sequence[Optional[Tensor]], final: bool) -> List[Optional[Tensor]]:
        """What a call gives, in a list."""
        return [self(chunks[0], final=final)]

    def lengths(self, n: int, final: bool) -> List[int]:
        """The length of each output, in a list."""
        return [self.output_length(n, final)]

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        """Number of samples out after ``n`` samples in; see `BaseStream.output_length`.

        Raises:
            StreamInputError: ``final`` with a length that is no multiple of ``length_multiple``
        """
        require_length(n)
        if final and n % self.length_multiple != 0:
            raise StreamInputError(self._odd_length(n))
        lengths: List[int] = []
        for _ in range(self.slots):
            lengths.append(0)
        lengths[0] = max(n, 0)
        for node in self.nodes:
            node.count(lengths, max(n, 0), final)
        return lengths[self.result]

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        if channels != self.in_channels and channels != -1:
            raise StreamInputError(
                f"invalid_chunk: {channels} channels came; the model was captured with {self.in_channels}; check the "
                "axes, a chunk is [B, C, T] or [C, T]"
            )
        return self.out_channels

    def anchor(self) -> Optional[Tensor]:
        """A weight of the input's dtype, or an empty tensor that says dtype and device."""
        for node in self.nodes:
            if hasattr(node, "stream"):
                weight = node.stream.anchor()
                if weight is not None:
                    if weight.dtype == self.like.dtype:
                        return weight
        return self.like

    def _check_signal(self, x: Tensor) -> None:
        self.output_channels(x.size(-2))
        if self.rows == 1 and x.dim() == 3 and x.size(0) != 1:
            raise StreamInputError(
                f"invalid_chunk: {x.size(0)} rows came; the model does not treat the rows of a batch apart, so one "
                "row was expected; stream every row with a stream of its own"
            )
        self._check_anchor(x)

    def _check_end(self, came: int, first: bool) -> None:
        total = self.beyond.value + came
        if total % self.length_multiple != 0:
            if first:
                self._clear()
            raise StreamInputError(self._odd_length(total))
        if self.min_length > 1 and 0 < self.early.value + came < self.min_length:
            if first:
                self._clear()
            raise StreamInputError(self._short_length(self.early.value + came))

    def _odd_length(self, n: int) -> str:
        return (
            f"length_multiple: the signal ends {n % self.length_multiple} samples after a multiple of "
            f"{self.length_multiple}; a total length that is a multiple was expected; go on to the next multiple, or "
            "call reset()"
        )

    def named_parts(self) -> Iterator[Tuple[str, Any]]:
        """The streams, and what stands between them, by name."""
        for name, node in zip(self.node_names, self.nodes, strict=True):
            yield name, getattr(node, "stream", type(node).__name__.removesuffix("Node"))

    def extra_repr(self) -> str:
        text = f"hop={self.hop}, ratio={self.ratio}"
        text += f", length_multiple={self.length_multiple}" if self.length_multiple > 1 else ""
        return text + (f", min_length={self.min_length}" if self.min_length > 1 else "")
