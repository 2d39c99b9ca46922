"""Branches side by side. TorchScript compiles the streams of this file."""

# A ModuleList does not tell the type of its modules.
# mypy: disable-error-code="operator, union-attr"

import math
from typing import List, Optional, Sequence

import torch
from torch import Tensor, nn

from ..core.registry import create_stream, require_plain
from ..core.stream import BaseStream
from ..core.whole_numbers import require_length
from ..errors import StreamError, StreamInputError, UnsupportedModuleError
from ..layers.merge import Merge1d
from .composite import CompositeStream

__all__ = ["Parallel1d", "Parallel1dStream"]


def works_in_place(net: nn.Module) -> bool:
    """Whether a module of the network may write to its input: one that says so, or one that is not known."""
    known = ("torch.nn.", "torchstreamer.")
    return any(
        getattr(module, "inplace", False) or not type(module).__module__.startswith(known) for module in net.modules()
    )


class Parallel1d(nn.Module):
    """Several networks on the same input, their outputs merged.

    Where the outputs differ in length, the longer ones are cropped to the shortest: of ``p`` surplus samples, ``p //
    2`` on the left and the rest on the right, as `Residual1d` crops.

    Args:
        branches: the networks, at least one
        merge: ``"add"``, ``"mul"`` or ``"cat"`` (along the channels)

    Shape:
        - input: ``[B, C, T]``
        - output: ``[B, C', T']``; ``T'`` is the length of the shortest output

    Raises:
        ValueError: no branches, or another ``merge``

    Example:
        >>> import torch, torchstreamer as pts
        >>> net = pts.Parallel1d(torch.nn.Conv1d(2, 4, 3), torch.nn.Conv1d(2, 4, 7), merge="cat")
        >>> net(torch.randn(1, 2, 20)).shape
        torch.Size([1, 8, 14])
    """

    def __init__(self, *branches: nn.Module, merge: str = "add") -> None:
        super().__init__()
        if merge not in ("add", "mul", "cat"):
            raise ValueError(
                f"invalid_merge: merge={merge!r} came; 'add', 'mul' or 'cat' was expected; use one of these"
            )
        if not branches:
            raise ValueError("invalid_branches: no branches came; at least one module was expected; pass the networks")
        self.branches = nn.ModuleList(branches)
        self.merge = merge

    def forward(self, x: Tensor) -> Tensor:
        """The merged outputs."""
        outputs = [branch(x.clone() if works_in_place(branch) else x) for branch in self.branches]
        length = min(y.shape[-1] for y in outputs)
        outputs = [y.narrow(-1, (y.shape[-1] - length) // 2, length) for y in outputs]
        if self.merge == "cat":
            return torch.cat(outputs, -2)
        result = outputs[0]
        for y in outputs[1:]:
            result = result * y if self.merge == "mul" else result + y
        return result

    def extra_repr(self) -> str:
        return f"merge={self.merge!r}"


class Parallel1dStream(CompositeStream):
    """Stream of a `Parallel1d`: its branches, met by position.

    Args:
        net: the network; its branches must have equal ratios, and surpluses that crop the same on the left whatever
            the length of the signal

    Raises:
        UnsupportedModuleError: a branch cannot be streamed, or the branches cannot be aligned
    """

    def __init__(self, net: Parallel1d) -> None:
        require_plain(net, Parallel1d)
        try:
            streams = [create_stream(branch) for branch in net.branches]
        except UnsupportedModuleError as error:
            raise error.within(net) from None
        super().__init__(streams)
        self.hop = math.lcm(*(stream.hop for stream in streams))
        self.ratio = streams[0].ratio
        if any(stream.ratio != self.ratio for stream in streams):
            ratios = ", ".join(f"{stream.ratio[0]}/{stream.ratio[1]}" for stream in streams)
            raise UnsupportedModuleError(
                "invalid_parallel_ratio",
                net,
                f"its branches give {ratios} samples per sample",
                "give every branch the same total stride",
            )
        self.leads = left_crops(net, streams, self.hop)
        self.merge = Merge1d(self.leads, net.merge)
        self.aliasing = 2 if len(streams) == 1 else 0
        self.keeps_dtype = all(stream.keeps_dtype for stream in streams)
        for stream in streams:
            self.bound_by(stream)

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        chunks: List[Optional[Tensor]] = []
        for stream in self.streams:
            chunks.append(stream.step(x, final))
        return self.merge(chunks)

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        """Number of samples out after ``n`` samples in; see `BaseStream.output_length`."""
        require_length(n)
        shortest = -1
        for i, stream in enumerate(self.streams):
            length = stream.output_length(n, final)
            if not final or length == 0:
                length = max(length - self.leads[i], 0)
            shortest = length if shortest < 0 else min(shortest, length)
        return shortest

    def output_channels(self, channels: int) -> int:
        """Channels out for channels in."""
        total = 0
        widest = 1
        known = True
        for stream in self.streams:
            out = stream.output_channels(channels)
            known = known and out >= 0
            total += out
            if out > 1 and widest > 1 and out != widest and self.merge.merge != "cat":
                raise StreamInputError(
                    f"invalid_chunk: for {channels} channels the branches give {widest} and {out} channels; equal "
                    "numbers were expected; check the network"
                )
            widest = max(widest, out)
        if not known:
            return -1
        return total if self.merge.merge == "cat" else widest


def left_crops(net: nn.Module, streams: Sequence[BaseStream], hop: int) -> List[int]:
    """Samples to crop from the start of each branch, so that the shortest decides.

    Raises:
        UnsupportedModuleError: the crops depend on the length of the signal, or a branch does not tell its length
    """
    try:
        n = 1
        while any(stream.output_length(n, True) == 0 for stream in streams):
            n *= 2
            if n > 1 << 40:
                raise UnsupportedModuleError("empty_branch", net, "a branch never gives a sample", "remove the branch")
        crops = None
        for length in range(n, n + 2 * hop + 1):
            lengths = [stream.output_length(length, True) for stream in streams]
            found = [(own - min(lengths)) // 2 for own in lengths]
            if crops is not None and found != crops:
                raise UnsupportedModuleError(
                    "varying_crop",
                    net,
                    f"how much is cropped on the left depends on the length of the signal ({crops} or {found} samples)",
                    "choose strides, kernels and padding for which the branches differ by a constant length",
                )
            crops = found
    except StreamError as error:
        if isinstance(error, UnsupportedModuleError):
            raise
        raise UnsupportedModuleError(
            "no_output_length",
            net,
            "a handler inside does not define output_length(n, final), which aligns branches",
            "define it",
        ) from None
    assert crops is not None
    return crops
