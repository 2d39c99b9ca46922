"""What published models leave in their graphs and no output is made of."""

import pytest
import torch
from torch import nn

import torchstreamer as pts


class EmptyCache(nn.Module):
    """Joins a tensor without axes and values with the signal, as torch passes it over."""

    def forward(self, x):
        return torch.cat([torch.tensor([], dtype=x.dtype), 2 * x], dim=-2)


class NormAfterAttention(nn.Module):
    """An operation of several outputs after an attention to all of the signal."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def forward(self, x):
        weights = torch.softmax(torch.matmul(x, x.transpose(1, 2)), -1)
        return self.norm(torch.matmul(weights, x).transpose(1, 2))


def test_nothing_is_joined_with_the_signal():
    x = torch.randn(1, 13, 4)
    stream = pts.create_stream(EmptyCache(), example=x, time_dim=1)
    pieces = [*(stream(chunk) for chunk in x.split(5, 1)), stream.flush()]
    torch.testing.assert_close(torch.cat([piece for piece in pieces if piece is not None], 1), 2 * x)


def test_what_follows_is_refused_for_the_reason_of_what_came_before():
    with pytest.raises(pts.UnsupportedModuleError, match="unbounded_context"):
        pts.create_stream(NormAfterAttention().eval(), example=torch.randn(1, 20, 4), time_dim=1)
