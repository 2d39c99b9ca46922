"""A recorded step rewritten for Inductor: the same numbers, in fewer calls of libraries."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx
from torch.fx.experimental.proxy_tensor import make_fx

from torchstreamer.deploy.fusible import fusible

CONVOLUTION, ADDMM = torch.ops.aten.convolution.default, torch.ops.aten.addmm.default


def recorded(run, *args: Tensor) -> fx.GraphModule:
    return make_fx(run)(*args)


def count(graph: fx.GraphModule, target) -> int:
    return sum(node.target is target for node in graph.graph.nodes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "dilation"), [(1, 1, 1), (5, 1, 1), (3, 2, 1), (4, 3, 2), (1, 2, 1)])
def test_a_depthwise_convolution_is_a_sum(kernel, stride, dilation, biased, dtype):
    weight, bias = torch.randn(6, 1, kernel, dtype=dtype), torch.randn(6, dtype=dtype) if biased else None
    x = torch.randn(2, 6, 19, dtype=dtype)
    graph = recorded(lambda x: F.conv1d(x, weight, bias, stride, 0, dilation, 6), x)
    new = fusible(graph)
    assert count(graph, CONVOLUTION) == 1 and count(new, CONVOLUTION) == 0
    torch.testing.assert_close(new(x), graph(x), rtol=1e-5 if dtype == torch.float32 else 1e-12, atol=1e-6)


@pytest.mark.parametrize(
    ("groups", "out", "kernel", "padding", "length", "dtype"),
    [
        (1, 6, 3, 0, 19, torch.float32),
        (3, 6, 3, 0, 19, torch.float32),
        (6, 12, 3, 0, 19, torch.float32),
        (6, 6, 3, 1, 19, torch.float32),
        (6, 6, 65, 0, 99, torch.float32),
        (6, 6, 3, 0, 19, torch.bfloat16),
    ],
    ids=["full", "groups", "multiplier", "padding", "many taps", "half"],
)
def test_other_convolutions_stay(groups, out, kernel, padding, length, dtype):
    weight = torch.randn(out, 6 // groups, kernel, dtype=dtype)
    graph = recorded(lambda x: F.conv1d(x, weight, None, 1, padding, 1, groups), torch.randn(1, 6, length, dtype=dtype))
    assert count(fusible(graph), CONVOLUTION) == 1


def test_transposed_and_2d_stay():
    one, two = torch.randn(6, 1, 3), torch.randn(6, 1, 3, 3)
    for run, x in [
        (lambda x: F.conv_transpose1d(x, one, groups=6), torch.randn(1, 6, 9)),
        (lambda x: F.conv2d(x, two, groups=6), torch.randn(1, 6, 9, 9)),
    ]:
        assert count(fusible(recorded(run, x)), CONVOLUTION) == 1


def test_a_bias_is_added_apart():
    weight, bias = torch.randn(7, 5), torch.randn(5)
    graph = recorded(lambda x: torch.addmm(bias, x, weight).relu(), torch.randn(3, 7))
    scaled = recorded(lambda x: torch.addmm(bias, x, weight, beta=0.5), torch.randn(3, 7))
    x = torch.randn(3, 7)
    assert count(fusible(graph), ADDMM) == 0 and count(fusible(scaled), ADDMM) == 1
    torch.testing.assert_close(fusible(graph)(x), graph(x))
    column = torch.randn(3, 1)
    graph = recorded(lambda x: torch.addmm(column, x, weight), x)
    torch.testing.assert_close(fusible(graph)(x), graph(x))


def test_weights_are_shared():
    weight, bias = torch.randn(7, 5), torch.randn(5)
    graph = recorded(lambda x: torch.addmm(bias, x, weight), torch.randn(3, 7))
    new = fusible(graph)
    places, shared = ({value.data_ptr() for value in module.state_dict().values()} for module in (graph, new))
    assert len(places) == 2 and shared == places
