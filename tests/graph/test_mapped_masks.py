"""Masks that `torch.vmap` makes of functions of positions, as those of transformers; and what is asked of masks."""

from typing import Any, Callable, Optional

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import torchstreamer as pts

Mask = Callable[..., Tensor]


def in_chunks(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """As NeMo's streaming encoders see: chunks of 3 and the two before."""
    apart = torch.div(q, 3, rounding_mode="trunc") - torch.div(k, 3, rounding_mode="trunc")
    return (apart >= 0) & (apart <= 2)


def with_a_scalar(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    seen = q.new_ones((), dtype=torch.bool)
    return seen & in_chunks(b, h, q, k).to(seen.device) & (k > q - torch.tensor(5))


def by_a_table(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    table = torch.tensor([True, False, True])
    return in_chunks(b, h, q, k) & table[(q - k).clamp(0, 2)]


def by_a_vector(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return in_chunks(b, h, q, k) & (q - k < torch.tensor([4, 5])).any()


def by_the_number_of_axes(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return in_chunks(b, h, q, k) & (q - k < (5 if q.dim() == 0 else 2))


class Attending(nn.Module):
    """[B, T, 8] to the same, with a mask; what sees nothing is left out first."""

    def __init__(self, mask: Mask, leaves_out: Optional[str] = None) -> None:
        super().__init__()
        self.mask = mask
        self.leaves_out = leaves_out
        self.q, self.k, self.v = (nn.Linear(8, 8) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        rows, length, _ = x.shape
        function = self.mask
        for dims in ((None, None, None, 0), (None, None, 0, None), (None, 0, None, None), (0, None, None, None)):
            function = torch.vmap(function, in_dims=dims, out_dims=0)
        at = torch.arange(length)
        mask = function(torch.arange(rows), torch.arange(1), at, at + 0)
        if self.leaves_out == "all":
            x = x.masked_fill((~mask).all(-1).transpose(1, 2), 0.0)
        elif self.leaves_out == "any":
            x = x * mask.any(dim=-1).transpose(1, 2)
        q, k, v = (layer(x)[:, None] for layer in (self.q, self.k, self.v))
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)[:, 0]


def difference(net: nn.Module, stream: Any) -> float:
    worst = 0.0
    for n in (1, 4, 37):
        x = torch.randn(2, n, 8, dtype=torch.float64)
        with torch.no_grad():
            pieces = [*(stream(chunk) for chunk in x.split(5, 1)), stream.flush()]
            y = torch.cat([piece for piece in pieces if piece is not None], 1)
            worst = max(worst, float((y - net(x)).abs().max()))
    return worst


@pytest.mark.parametrize("leaves_out", [None, "all", "any"])
@pytest.mark.parametrize("mask", [in_chunks, with_a_scalar])
def test_mapped_masks(mask: Mask, leaves_out: Optional[str]) -> None:
    net = Attending(mask, leaves_out).double().eval()
    stream = pts.create_stream(net, example=torch.randn(1, 30, 8, dtype=torch.float64), time_dim=1)
    assert difference(net, stream) < 1e-10


@pytest.mark.parametrize("mask", [by_a_table, by_a_vector, by_the_number_of_axes])
def test_other_mapped_functions_are_exact_or_refused(mask: Mask) -> None:
    net = Attending(mask).double().eval()
    try:
        stream = pts.create_stream(net, example=torch.randn(1, 30, 8, dtype=torch.float64), time_dim=1)
    except pts.UnsupportedModuleError:
        return
    assert difference(net, stream) < 1e-10


def blind(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
    return in_chunks(b, h, q, k) & (q % 3 > 0)


@pytest.mark.parametrize("leaves_out", ["all", "any"])
def test_a_query_that_sees_nothing_is_no_constant(leaves_out: str) -> None:
    net = Attending(blind, leaves_out).double().eval()
    with pytest.raises(pts.UnsupportedModuleError):
        pts.create_stream(net, example=torch.randn(1, 30, 8, dtype=torch.float64), time_dim=1)
