"""What published models do along the way, each as its authors wrote it: in no way of a stream."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import torchstreamer as pts


class Written(nn.Module):
    """A convolution, and what a function makes of it and of the signal."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.conv = nn.Conv1d(2, 3, 3, padding=1)

    def forward(self, x):
        return self.function(self.conv, x)


def in_segments(conv, x, segment=None):
    """As EnCodec encodes: in one segment, if there is no length of them."""
    length = x.shape[-1]
    segment = length if segment is None else segment
    return torch.cat([conv(x[..., offset : offset + segment]) for offset in range(0, length, segment)], -1)


def shifted(conv, x):
    n, y = x.shape[-1], F.pad(conv(x), (0, 3))
    return sum(y[..., end - n : end] for end in range(n, n + 4))


FORMS = {"one segment": in_segments, "a few shifts": shifted}


def joined(stream, x, size):
    pieces = [*(stream(chunk) for chunk in x.split(size, -1)), stream.flush()]
    return torch.cat([piece for piece in pieces if piece is not None], -1)


@pytest.mark.parametrize("name", list(FORMS))
def test_form(name):
    net, x = Written(FORMS[name]).double().eval(), torch.randn(1, 2, 40, dtype=torch.float64)
    stream = pts.create_stream(net, example=x)
    for n in (1, 2, 3, 23, 40):
        for size in (1, 7):
            torch.testing.assert_close(joined(stream, x[..., :n], size), net(x[..., :n]), rtol=1e-10, atol=1e-10)


def test_a_loop_over_segments_is_refused():
    net = Written(lambda conv, x: in_segments(conv, x, 8)).eval()
    with pytest.raises(pts.UnsupportedModuleError, match=r"fixed_length: .*it loops over time in Python"):
        pts.create_stream(net, example=torch.randn(1, 2, 40))
