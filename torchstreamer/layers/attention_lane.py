"""The steady step of attention on one row of a batch, in Python: as few operations as there can be."""

from typing import Any, Dict, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.ring import RingBuffer

__all__ = ["Lane"]

# Places in memory of which views are kept at most: a view takes half a kilobyte.
MOST_PLACES = 256


class Lane:
    """Attention on memory as it stands: projections are written where keys and values stay, each row after its query.

    A step of one sample takes some fifty microseconds, of which making the views of memory would be ten. Memory is
    written from the same places on again and again, so they are kept. A copy starts without them.
    """

    __slots__ = ("data", "dtype", "turned", "views", "weight", "where")

    def __init__(self) -> None:
        self.data: Optional[Tensor] = None
        self.dtype: Optional[torch.dtype] = None
        self.views: Dict[int, Tuple[Tensor, ...]] = {}
        self.weight: Optional[Tensor] = None
        self.turned: Any = None
        self.where = 0  # address of the weight's values

    def __reduce__(self) -> Tuple[Any, ...]:
        return Lane, ()

    def takes(self, ring: RingBuffer, x: Tensor, weight: Tensor) -> bool:
        """Whether it serves samples ``[t, C]`` of the ring's period, and this weight of the projections."""
        data = ring.data
        if data is not self.data:
            self.data, self.dtype, self.views = data, data.dtype, {}
        return x.dtype is self.dtype and weight.dtype is self.dtype

    def attend(self, body: Any, ring: RingBuffer, x: Tensor, t: int, mask: Optional[Tensor]) -> Tensor:
        """The weighted values ``[1, H, t, D]`` of samples ``[t, C]``, which `takes` has let in, and which are kept.

        Args:
            body: an `AttentionBody` with a lead
            ring: its keys and values, in the steady state
            x: the samples
            t: their number
            mask: what is added to scores, ``[t, n]``, or ``None``
        """
        first = ring.reserve(t)
        data = ring.data
        if data is not self.data:
            self.data, self.dtype, self.views = data, data.dtype, {}
        views = self.views.get(first)
        if views is None:
            views = self._views(body, ring, data, first, t)
        row, q, k, v = views
        weight: Tensor = body.in_weight
        if weight is not self.weight or weight.data_ptr() != self.where:
            self.weight, self.turned, self.where = weight, weight.t(), weight.data_ptr()
        if body.in_bias is None:
            torch.mm(x, self.turned, out=row)
        else:
            torch.addmm(body.in_bias, x, self.turned, out=row)
        return F.scaled_dot_product_attention(q, k, v, mask, 0.0, False, scale=body.scale)

    def guarded(self, body: Any, ring: RingBuffer, t: int, i: Tensor, j: Tensor, mask: Tensor) -> Tensor:
        """The weighted values ``[t, H·D]`` again, ``nan`` where a key that is seen is not finite, and only there.

        Args:
            body: as for `attend`, which was called last; so are ``ring`` and ``t``
            i: positions of the queries
            j: of the keys
            mask: ``[1, t, n]``, ``True`` where a query sees a key
        """
        n = ring.held + t
        row = self._views(body, ring, ring.data, ring.begin - t, t)[0]
        kv = ring.data.narrow(1, ring.begin - t, n)
        return body.attend(row.narrow(1, 0, body.width).unsqueeze(0), kv, i, j, mask).squeeze(0)

    def _views(self, body: Any, ring: RingBuffer, data: Tensor, first: int, t: int) -> Tuple[Tensor, ...]:
        heads, dim, width, n = body.kv_heads, body.dim, ring.lead + data.size(2), ring.held + t
        start = (first + ring.held) * width
        row = data.as_strided([t, width], [width, 1], start)
        if heads == body.heads:
            q = data.as_strided([1, heads, t, dim], [0, dim, width, 1], start)
        else:
            # Heads that share keys are queries of one head.
            group = body.heads // heads
            q = data.as_strided([1, heads, group, dim], [0, group * dim, dim, 1], start)
        place = first * width + ring.lead
        size, stride = [1, heads, n, dim], [0, dim, width, 1]
        views = row, q, data.as_strided(size, stride, place), data.as_strided(size, stride, place + heads * dim)
        if ring.room <= MOST_PLACES * t:
            self.views[first] = views
        return views
