"""Where branches meet. TorchScript compiles this file."""

# A ModuleList does not tell the type of its modules.
# mypy: disable-error-code="operator, union-attr, assignment"

from typing import List, Optional, Sequence

import torch
from torch import Tensor, nn

from ..core.ring import RingBuffer

__all__ = ["Merge1d"]


class Merge1d(nn.Module):
    """Joins branches by position: sample ``i`` of one with sample ``i`` of the others.

    Branches run ahead of each other; what has no counterpart yet waits in a ring each.

    Args:
        leads: samples to crop from the start of each branch
        merge: ``"add"``, ``"mul"`` or ``"cat"`` (along the channels)
    """

    def __init__(self, leads: Sequence[int], merge: str = "add") -> None:
        super().__init__()
        self.merge = merge
        self.rings = nn.ModuleList([RingBuffer(lead) for lead in leads])

    def forward(self, chunks: List[Optional[Tensor]]) -> Optional[Tensor]:
        """Take a chunk, or ``None``, of every branch; give the merged samples that all branches have."""
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
            return None
        parts: List[Tensor] = []
        for i, ring in enumerate(self.rings):
            x = chunks[i]
            if x is None:
                ring.borrowed = True
                rows = ring.rows()
                part = rows.narrow(1, 0, ready).transpose(1, 2)
                # Autograd may keep the part, and the ring may be written to later.
                parts.append(part.clone() if torch.is_grad_enabled() else part)
                ring.keep_rows(rows, ready)
            elif even:
                parts.append(x)
                if not ring.started():
                    ring.fill(x, 0, 0.0)
            elif ring.held > 4 * x.size(2):
                rows = ring.join_rows(x)
                parts.append(rows.narrow(1, 0, ready).transpose(1, 2))
                ring.keep_rows(rows, ready)
            else:
                window = ring.join(x)
                parts.append(window.narrow(2, 0, ready))
                ring.keep(window, ready)
        if self.merge == "cat":
            return torch.cat(parts, 1)
        y = parts[0]
        for part in parts[1:]:
            y = y * part if self.merge == "mul" else y + part
        return y

    def _hold(self, chunks: List[Optional[Tensor]]) -> None:
        for i, ring in enumerate(self.rings):
            x = chunks[i]
            if x is not None:
                ring.push(x)

    def extra_repr(self) -> str:
        return f"merge={self.merge!r}"
