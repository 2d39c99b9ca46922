"""Where branches meet. TorchScript compiles this file."""

# A ModuleList does not tell the type of its modules.
# mypy: disable-error-code="operator, union-attr, assignment"

from typing import List, Optional, Sequence

import torch
from torch import Tensor, nn

from ..core.fast_attributes import entry
from ..core.ring import RingBuffer
from ..core.tracing import plain_inference

__all__ = ["Align1d", "Merge1d"]


class Align1d(nn.Module):
    """Meets branches by position: sample ``i`` of one with sample ``i`` of the others.

    Branches run ahead of each other; what has no counterpart yet waits in a ring each.

    Args:
        leads: samples to crop from the start of each branch
    """

    rings = entry("_modules")

    def __init__(self, leads: Sequence[int]) -> None:
        super().__init__()
        self.rings = nn.ModuleList([RingBuffer(lead) for lead in leads])

    def forward(self, chunks: List[Optional[Tensor]]) -> List[Tensor]:
        """Take a chunk ``[B, C, T]``, or ``None``, of every branch; give the samples that all branches have, of each.

        The list is empty if there are none.
        """
        return self._parts(chunks)

    def empty(self) -> bool:
        """Whether nothing waits, nor is left to crop, of branches of which something came already."""
        for ring in self.rings:
            if ring.held > 0 or ring.skip > 0 or not ring.started():
                return False
        return True

    def _parts(self, chunks: List[Optional[Tensor]]) -> List[Tensor]:
        parts: List[Tensor] = []
        ready = -1
        even = True  # nothing waits, and as many samples came from every branch
        for i, ring in enumerate(self.rings):
            x = chunks[i]
            balance = ring.held - ring.skip
            even = even and balance == 0 and ring.skip == 0 and x is not None
            if x is not None:
                balance += x.size(2)
            even = even and (ready < 0 or balance == ready)
            ready = balance if i == 0 else min(ready, balance)
        if ready <= 0:
            self._hold(chunks)
            return parts
        for i, ring in enumerate(self.rings):
            x = chunks[i]
            if x is None:
                ring.borrowed = True
                part = ring.rows().narrow(1, 0, ready).transpose(1, 2)
                # Autograd may keep the part, and the ring may be written to later.
                parts.append(part.clone() if torch.is_grad_enabled() else part)
                ring.forget(ready)
            elif even:
                parts.append(x)
                if not ring.started():
                    ring.fill(x, 0, 0.0)
            elif ring.held > 4 * x.size(2) or x.transpose(1, 2).is_contiguous():
                n = ring.held - ring.skip + x.size(2)
                rows = ring.extend(x, plain_inference())
                parts.append(rows.narrow(1, ring.begin, ready).transpose(1, 2))
                ring.retain(rows, ring.begin + ready, n - ready)
            else:
                window = ring.join(x)
                parts.append(window.narrow(2, 0, ready))
                ring.keep(window, ready)
        return parts

    def _hold(self, chunks: List[Optional[Tensor]]) -> None:
        for i, ring in enumerate(self.rings):
            x = chunks[i]
            if x is not None:
                ring.push(x)


class Merge1d(Align1d):
    """Joins branches by position.

    Args:
        leads: samples to crop from the start of each branch
        merge: ``"add"``, ``"mul"`` or ``"cat"`` (along the channels)
    """

    __constants__ = ["merge"]

    def __init__(self, leads: Sequence[int], merge: str = "add") -> None:
        super().__init__(leads)
        self.merge = merge

    def forward(self, chunks: List[Optional[Tensor]]) -> Optional[Tensor]:  # type: ignore[override]
        """Take a chunk, or ``None``, of every branch; give the merged samples that all branches have."""
        if self.merge == "add" and len(chunks) == 2:
            one = chunks[0]
            two = chunks[1]
            if one is not None and two is not None:
                y = self._added(one, two)
                if y is not None:
                    return y
        parts = self._parts(chunks)
        if len(parts) == 0:
            return None
        if self.merge == "cat":
            return torch.cat(parts, 1)
        y = parts[0]
        for part in parts[1:]:
            y = y * part if self.merge == "mul" else y + part
        return y

    def _added(self, one: Tensor, two: Tensor) -> Optional[Tensor]:
        """The sum where the second chunk is as long as what is ready and the first is ahead of it, or the reverse: what
        is held is added by itself, so that no chunk is copied to be joined to it. ``None`` in other cases."""
        first = self.rings[0]
        second = self.rings[-1]
        if first.skip + second.skip > 0 or torch.is_grad_enabled() or one.dtype != two.dtype:
            return None
        if not first.started() or not second.started() or one.size(0) != two.size(0) or one.size(1) != two.size(1):
            return None
        if second.held == 0 and first.held > 0 and one.size(2) >= two.size(2) > first.held:
            return first.add_after(one, two)
        if first.held == 0 and second.held > 0 and two.size(2) >= one.size(2) > second.held:
            return second.add_after(two, one)
        return None

    def extra_repr(self) -> str:
        return f"merge={self.merge!r}"
