"""Snapshots: stacked, split, refused."""

import pytest
import torch
from torch import nn

import torchstreamer as pts


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 4, 3, padding=1), pts.Residual1d(nn.Conv1d(4, 4, 5)), nn.ConvTranspose1d(4, 2, 4, 2, 1)
    ).double()


def cat(*pieces):
    return torch.cat([piece for piece in pieces if piece is not None], -1)


def test_rows_of_equal_phase_go_on_as_a_batch():
    net = network()
    x = torch.randn(3, 2, 50).double()
    starts = [20, 21, 25]
    ahead, states = [], []
    for row, start in enumerate(starts):
        stream = pts.create_stream(net)
        ahead.append(stream(x[row : row + 1, :, :start]))
        states.append(stream.get_state())
    batch = pts.create_stream(net)
    batch.set_state(pts.stack_states(states))
    y = batch(torch.stack([x[row, :, start : start + 25] for row, start in enumerate(starts)]))
    parts = pts.unstack_state(batch.get_state())
    for row, start in enumerate(starts):
        stream = pts.create_stream(net)
        stream.set_state(parts[row])
        rest = stream(x[row : row + 1, :, start + 25 :], final=True)
        torch.testing.assert_close(cat(ahead[row], y[row : row + 1], rest), net(x[row : row + 1]), rtol=0, atol=1e-12)


def test_unbatched_rows_stack_and_come_back_unbatched():
    net = network()
    x = torch.randn(2, 2, 30).double()
    streams = [pts.create_stream(net), pts.create_stream(net)]
    ahead = [stream(row[:, :11]) for stream, row in zip(streams, x, strict=True)]
    batch = pts.create_stream(net)
    batch.set_state(pts.stack_states([stream.get_state() for stream in streams]))
    y = batch(x[..., 11:20])
    for row, state in enumerate(pts.unstack_state(batch.get_state(), unbatched=True)):
        streams[row].set_state(state)
        rest = streams[row](x[row, :, 20:], final=True)
        torch.testing.assert_close(cat(ahead[row], y[row], rest), net(x)[row], rtol=0, atol=1e-12)


def test_other_phase_is_refused():
    net = network()
    a, b = pts.create_stream(net), pts.create_stream(net)
    a(torch.randn(2, 1).double())
    b(torch.randn(2, 2).double())
    with pytest.raises(pts.StreamInputError, match="^unequal_phase: "):
        pts.stack_states([a.get_state(), b.get_state()])


def test_a_new_stream_does_not_stack_with_one_that_began():
    net = network()
    a, b = pts.create_stream(net), pts.create_stream(net)
    a(torch.randn(2, 9).double())
    with pytest.raises(pts.StreamInputError, match="^(invalid_state: .*signal|unequal_phase: )"):
        pts.stack_states([a.get_state(), b.get_state()])
    with pytest.raises(pts.StreamInputError, match="^invalid_state: no states"):
        pts.stack_states([])


@pytest.mark.parametrize("spoil", ["missing", "signal", "unknown", "shape"])
def test_a_spoilt_state_is_refused_and_nothing_is_written(spoil):
    net = network()
    x = torch.randn(1, 2, 40).double()
    stream = pts.create_stream(net)
    pieces = [stream(x[..., :17])]
    state = stream.get_state()
    if spoil == "missing":
        del state["streams.0.ring.data"]
    elif spoil == "signal":
        del state["@signal"]
    elif spoil == "unknown":
        state["streams.9.ring.data"] = torch.zeros(1, 2, 3)
    else:
        state["streams.0.ring.data"] = torch.zeros(3, 3)
    with pytest.raises(pts.StreamInputError, match="^invalid_state: "):
        stream.set_state(state)
    pieces.append(stream(x[..., 17:], final=True))
    torch.testing.assert_close(cat(*pieces), net(x), rtol=0, atol=1e-12)


def test_a_state_of_another_dtype_is_refused():
    stream = pts.create_stream(network())
    stream(torch.randn(1, 2, 9).double())
    state = stream.get_state()
    with pytest.raises(pts.StreamInputError, match="^invalid_chunk: .*weights are torch.float32"):
        pts.create_stream(network().float()).set_state(state)


def test_a_state_fits_the_script_and_back():
    net = network()
    x = torch.randn(2, 40).double()
    stream, script = pts.create_stream(net), torch.jit.script(pts.create_stream(net))
    first = stream(x[:, :13])
    script.set_state(stream.get_state())
    second = script(x[:, 13:20])
    stream.set_state(script.get_state())
    torch.testing.assert_close(cat(first, second, stream(x[:, 20:], final=True)), net(x[None])[0], rtol=0, atol=1e-12)


def test_state_nbytes_counts_what_is_held():
    stream = pts.create_stream(nn.Conv1d(3, 5, 7))
    assert stream.state_nbytes() == 0
    stream(torch.randn(2, 3, 4))
    assert stream.state_nbytes() == 2 * 3 * 4 * 4
    stream(torch.randn(2, 3, 50))
    assert stream.state_nbytes() == 2 * 3 * 6 * 4


def test_state_is_in_no_state_dict():
    net = network()
    stream = pts.create_stream(net)
    stream(torch.randn(2, 30).double())
    assert sum(value.numel() for value in stream.state_dict().values()) == sum(p.numel() for p in net.parameters())
