"""Gradients on streams, truncated, full or computed again, and what is said of backward passes that go wrong."""

import gc
import resource

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

import torchstreamer as pts

CUTS = ([24] * 5, [1, 2, 3, 100, 14])


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (
        nn.Conv1d(2, 4, 7, stride=2, padding=3),
        nn.ReLU(),
        pts.Recurrent1d(nn.GRU(4, 4)),
        nn.Conv1d(4, 4, 4, stride=3),
        nn.ConvTranspose1d(4, 4, 6, stride=3),
        pts.Residual1d(nn.Conv1d(4, 4, 3, padding=1)),
    )
    return nn.Sequential(*layers).double().eval()


class Causal(nn.Module):
    """A network with a `forward`, which is captured."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(2, 2, 3, dilation=2**k) for k in range(3))

    def forward(self, x):
        for k, conv in enumerate(self.convs):
            x = x + torch.tanh(conv(nn.functional.pad(x, (2 * 2**k, 0))))
        return x


def gradients(net, loss):
    """Of all parameters."""
    net.zero_grad()
    loss.backward()
    return [parameter.grad.clone() for parameter in net.parameters()]


def joined(pieces):
    return torch.cat([piece for piece in pieces if piece is not None], -1)


def same(one, two):
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-8)


@pytest.mark.parametrize("cuts", CUTS, ids=len)
@pytest.mark.parametrize("every", [1, 2], ids=["all", "every other"])
def test_a_checkpointed_step_has_the_gradients_of_the_plain_one(cuts, every):
    net, x = network(), torch.randn(2, 2, 120, dtype=torch.float64, requires_grad=True)
    expected = gradients(net, (net(x) ** 2).sum())
    to_input, x.grad = x.grad, None
    stream, chunk = pts.create_stream(net), torch.empty(0)
    pieces = []
    for i, part in enumerate(x.split(cuts, -1)):
        if i % every == 0:
            chunk = part.clone()
            pieces.append(pts.checkpoint_step(stream, chunk))
            chunk.detach().fill_(float("nan"))  # the caller's own
        else:
            pieces.append(stream(part))
    pieces.append(pts.checkpoint_step(stream, None, final=True))
    stream(torch.randn(3, 2, 30, dtype=torch.float64))  # another signal before the backward pass
    stands = stream.get_state()
    same(gradients(net, (joined(pieces) ** 2).sum()), expected)
    torch.testing.assert_close(x.grad, to_input, rtol=0, atol=1e-8)
    torch.testing.assert_close(stream.get_state(), stands, rtol=0, atol=0)


def test_a_checkpointed_step_keeps_its_state_alone():
    def kept_by(step):
        numbers = []

        def packed(tensor):
            numbers.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(packed, lambda tensor: tensor):
            step(pts.create_stream(net), x)
        return sum(numbers)

    net = nn.Sequential(nn.Conv1d(2, 16, 3), nn.Tanh(), nn.Conv1d(16, 16, 3), nn.Tanh())
    x = torch.randn(1, 2, 500)
    assert kept_by(lambda stream, x: stream(x)) > 16_000
    assert kept_by(pts.checkpoint_step) <= x.numel()


def test_torchs_own_checkpoint_of_a_step_is_refused():
    net, x = network(), torch.randn(2, 2, 120, dtype=torch.float64)
    stream = pts.create_stream(net)
    pieces = [checkpoint(stream, part, use_reentrant=False) for part in x.split(40, -1)]
    with pytest.raises(pts.StreamStateError, match=r"^checkpointed_step: .*checkpoint_step"):
        joined(pieces).sum().backward()

    def whole(x):
        stream.reset()
        return joined([*(stream(part) for part in x.split(40, -1)), stream.flush()])

    y = checkpoint(whole, x, use_reentrant=False)  # of a whole signal it is good
    same(gradients(net, (y**2).sum()), gradients(net, (net(x) ** 2).sum()))


@pytest.mark.parametrize("captured", [False, True])
def test_a_backward_pass_into_freed_chunks_names_detach_state(captured):
    net = Causal().double() if captured else network()
    x = torch.randn(2, 2, 120, dtype=torch.float64)
    stream = pts.create_stream(net, example=x) if captured else pts.create_stream(net)
    parts = x.split(40, -1)
    stream(parts[0]).sum().backward()
    with pytest.raises(pts.StreamStateError, match=r"^second_backward: .* call detach_state\(\) first"):
        stream(parts[1]).sum().backward()
    for part in parts:  # these are sound
        stream.detach_state()
        stream(part).sum().backward()
    stream.reset()
    for part in parts:
        stream(part).sum().backward(retain_graph=True)
    stream.reset()
    net.zero_grad()
    loss = torch.stack([(y**2).sum() for y in [*map(stream, parts), stream.flush()] if y is not None]).sum()
    same(gradients(net, loss), gradients(net, (net(x) ** 2).sum()))


def test_a_second_backward_of_one_chunk_keeps_torchs_words():
    stream = pts.create_stream(network())
    loss = stream(torch.randn(2, 2, 40, dtype=torch.float64)).sum()
    loss.backward()
    with pytest.raises(RuntimeError, match="a second time"):
        loss.backward()


def test_a_state_without_gradient_needs_no_cut():
    stream = pts.create_stream(nn.Conv1d(2, 2, 3))
    for part in torch.randn(1, 2, 40).split(10, -1):
        stream(part).sum().backward()


def test_what_is_copied_in_place_has_its_gradient():
    class Copied(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(2, 2, 3).double()

        def forward(self, x):
            y = self.conv(x)
            z = torch.zeros_like(y)
            z.copy_(y[:, :1])  # both rows are given it
            return z.sin()

    net, x = Copied(), torch.randn(2, 2, 40, dtype=torch.float64)
    stream = pts.create_stream(net, example=x)
    loss = (joined([*map(stream, x.split(9, -1)), stream.flush()]) ** 2).sum()
    same(gradients(net, loss), gradients(net, (net(x) ** 2).sum()))


@pytest.mark.slow
def test_memory_stays_flat_over_a_thousand_chunks():
    net = Causal()
    stream = pts.create_stream(net, example=torch.randn(1, 2, 40))
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-4)
    seen = []
    for k in range(1001):
        loss = (stream(torch.randn(2, 2, 50)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        stream.detach_state()
        if k % 250 == 0:
            gc.collect()
            tensors = sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())
            seen.append((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, tensors, stream.state_nbytes()))
    assert seen[-1][0] - seen[1][0] < 4096  # KiB
    assert len({(tensors, held) for _, tensors, held in seen[1:]}) == 1
