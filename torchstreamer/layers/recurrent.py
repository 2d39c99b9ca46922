"""`RecurrentStream`, the family of all layers that carry a state along time.

TorchScript compiles this file, so it uses no postponed annotations.
"""

# A submodule's methods are not known to the type checker.
# mypy: disable-error-code="operator"

from typing import List, Optional, Sequence, Tuple

import torch
from torch import Tensor, nn
from torch.jit import is_scripting

from ..core.cell import Cell
from ..core.fast_attributes import entry
from ..core.reach import Reach
from ..core.stream import BaseStream
from ..errors import StreamError, StreamInputError

__all__ = ["ModuleRecurrenceStream", "RecurrentStream"]


class RecurrentStream(BaseStream):
    r"""A recurrence over time: as many outputs as inputs, each computed from the input and from what a state carries.

    .. code-block:: text

        state_0 = initial(x)
        y_1, state_1 = advance(x_1, state_0)
        y_2, state_2 = advance(x_2, state_1)        (any split of x along time: the same y, the same last state)

    A subclass gives `initial` and `advance`; eager step, script, snapshots, static rows, compilation, export and
    receptive field follow from them. Both see chunks ``[B, C, t]`` with ``t > 0``, whatever the rank of the caller's.
    They decide by shapes and dtypes, not by values, and write to nothing that they were given.

    Args:
        in_channels: channels in, -1 for any
        out_channels: channels out, -1 for as many as come in
        names: of the state's tensors, in the entries of a saved state; numbers unless they are given

    Shape:
        - input: ``[B, C, T]`` or ``[C, T]``
        - output: ``[B, C', T]`` or ``[C', T]``

    Example:
        >>> import torch, torchstreamer as pts
        >>> class Smooth(torch.nn.Module):
        ...     def forward(self, x):
        ...         return SmoothStream(self)(x, final=True)
        >>> class SmoothStream(pts.RecurrentStream):
        ...     def __init__(self, net):
        ...         super().__init__(names=["mean"])
        ...     def initial(self, x):
        ...         return [torch.zeros_like(x[:, :, 0])]
        ...     def advance(self, x, state):
        ...         mean, ys = state[0], []
        ...         for sample in x.unbind(2):
        ...             mean = 0.9 * mean + 0.1 * sample
        ...             ys.append(mean)
        ...         return torch.stack(ys, 2), [mean]
        >>> stream = SmoothStream(Smooth())
        >>> stream(torch.ones(1, 2)), stream(torch.ones(1, 1))
        (tensor([[0.1000, 0.1900]]), tensor([[0.2710]]))
    """

    _sample: Tensor
    memory = entry("_modules")

    def __init__(self, in_channels: int = -1, out_channels: int = -1, names: Sequence[str] = ()) -> None:
        super().__init__(Reach.recurrence())
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.memory = Cell(names)
        # Of a weight's dtype and device, in a script, which cannot look for one, and moves its buffers alone.
        self.register_buffer("_sample", torch.empty(0), persistent=False)
        self._weighs = False  # whether there is a weight

    def initial(self, x: Tensor) -> List[Tensor]:
        """The state before the first sample, ``[B, …]`` each, for the rows of a chunk.

        It may depend on the chunk's shape, dtype and device, on parameters, and on the first sample, ``x[:, :, 0]``;
        how many samples the chunk has, and which come later, is the caller's choice.
        """
        raise NotImplementedError("a RecurrentStream gives initial(x)")

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        """The outputs ``[B, C', t]`` of a chunk, and the state after it: as many tensors, of the same shapes."""
        raise NotImplementedError("a RecurrentStream gives advance(x, state)")

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        if x is None:
            return None
        if not self.memory.started():
            self.memory.keep(self.initial(x))
        y, state = self.advance(x, self.memory.rows())
        if y.dim() != 3 or y.size(0) != x.size(0) or y.size(2) != x.size(2):
            raise StreamError(
                f"invalid_output: for a chunk {list(x.size())} `advance` gave {list(y.size())}; as many rows and "
                "samples were expected, [B, C, t]; check the axes"
            )
        self.memory.keep(state)
        return y

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        if channels != -1 and self.in_channels != -1 and channels != self.in_channels:
            raise StreamInputError(
                f"invalid_chunk: {channels} channels came; {self.in_channels} were expected by a recurrence; check the "
                "axes, a chunk is [B, C, T] or [C, T]"
            )
        return channels if self.out_channels == -1 else self.out_channels

    def anchor(self) -> Optional[Tensor]:
        """The first weight says dtype and device."""
        if is_scripting():
            return self._sample if self._weighs else None
        return self._first_weight()

    @torch.jit.unused
    def _first_weight(self) -> Optional[Tensor]:
        return next((weight for weight in self.parameters() if weight.is_floating_point()), None)

    def __prepare_scriptable__(self) -> BaseStream:
        twin = super().__prepare_scriptable__()
        weight = self.anchor()
        twin._weighs = weight is not None
        if weight is not None:
            twin._sample = weight.detach().new_empty([0])
        return twin


class ModuleRecurrenceStream(RecurrentStream):
    """A recurrence of which the module itself gives `initial` and `advance`, for its own forward.

    Args:
        net: the module
        in_channels: as for `RecurrentStream`
        out_channels: the same
        names: the same
    """

    net = entry("_modules")

    def __init__(
        self, net: nn.Module, in_channels: int = -1, out_channels: int = -1, names: Sequence[str] = ()
    ) -> None:
        super().__init__(in_channels, out_channels, names)
        self.net = net

    def initial(self, x: Tensor) -> List[Tensor]:
        """What the module begins with."""
        return self.net.initial(x)

    def advance(self, x: Tensor, state: List[Tensor]) -> Tuple[Tensor, List[Tensor]]:
        """What the module makes of a chunk, and its state after it."""
        return self.net.advance(x, state)
