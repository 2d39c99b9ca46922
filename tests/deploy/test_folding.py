"""Constants of a recorded step."""

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from torchstreamer.deploy.folding import fold_constants

WEIGHT = torch.tensor([1.0, -2.0, 3.0])


def folded(step):
    """The step with its constants folded, and whether it gives what it gave."""
    x = torch.tensor([0.5, 1.5, -1.0])
    expected = step(x)
    graph = make_fx(step)(x)
    fold_constants(graph)
    for _ in range(2):
        torch.testing.assert_close(graph(x.clone()), expected)
    return graph


def test_what_weights_alone_decide_is_folded():
    graph = folded(lambda x: x * torch.exp(WEIGHT).abs() + torch.stack(WEIGHT.split(1)).sum())
    assert [node.target.__name__ for node in graph.graph.nodes if node.op == "call_function"] == [
        "mul.Tensor",
        "add.Tensor",
    ]


def test_what_is_written_in_place_is_not():
    def step(x):
        total = WEIGHT * 2
        total[1:].add_(x[1:])  # by way of a view
        return total * 1

    assert "add_" in folded(step).code


def test_outputs_are_new_each_time():
    graph = folded(lambda x: (WEIGHT.exp().clone(), x + 1))
    x = torch.zeros(3)
    first = graph(x)[0].mul_(100)
    assert not torch.equal(graph(x)[0], first)


def test_noise_is_not_folded():
    graph = make_fx(lambda x: x + torch.rand_like(WEIGHT))(torch.zeros(3))
    fold_constants(graph)
    assert not torch.equal(graph(torch.zeros(3)), graph(torch.zeros(3)))
