"""Counts of samples, and tensors, that are given as something else."""

import numpy as np
import pytest
import torch
from torch import nn

import torchstreamer as pts
from torchstreamer import analysis, testing

X = torch.randn(1, 1, 40)
NET = nn.Conv1d(1, 2, 3)


class Mixed(nn.Module):
    def forward(self, x):
        return x.cumsum(-1), x


STREAMS = {
    "layer": NET,
    "chain": nn.Sequential(NET, nn.ReLU()),
    "residual": pts.Residual1d(nn.Conv1d(1, 1, 3, padding=1)),
    "parallel": pts.Parallel1d(NET, NET),
    "upsampling": nn.Upsample(scale_factor=2, mode="linear"),
}

COUNTS = {
    "static chunk": lambda n: pts.StaticStream(pts.create_stream(NET), chunk=n),
    "static batch": lambda n: pts.StaticStream(pts.create_stream(NET), chunk=4, batch=n),
    "static channels": lambda n: pts.StaticStream(pts.create_stream(nn.ReLU()), chunk=4, channels=n),
    "static length": lambda n: pts.StaticStream(pts.create_stream(NET), chunk=4).output_length(n),
    "compiled chunk": lambda n: pts.compile(pts.create_stream(NET), chunk=n, backend="eager"),
    "compiled batch": lambda n: pts.compile(pts.create_stream(NET), chunk=4, batch=n, backend="eager"),
    "exported chunk": lambda n: pts.export(pts.create_stream(NET), "never.pt2", chunk=n),
    "even chunks": lambda n: testing.even_chunks(40, n),
    "length of chunks": lambda n: testing.even_chunks(n, 4),
    "prime chunks": testing.prime_chunks,
    "random chunks": lambda n: testing.random_chunks(n, 0),
    "chunkings": testing.chunkings,
    "pieces": lambda n: list(testing.split_signal(X, (n, 36))),
    "verified multiple": lambda n: testing.verify_stream(NET, (1, 1, 9), length_multiple=n),
    "verified shape": lambda n: testing.verify_stream(NET, (1, 1, n)),
    "trace_error": lambda n: analysis.trace_error(NET, pts.create_stream(NET), X, chunk=n),
    "latency": lambda n: analysis.latency(pts.create_stream(NET), n),
    "summary": lambda n: analysis.summary(pts.create_stream(NET), chunk=n),
    "split_fixed_chunks": lambda n: analysis.split_fixed_chunks(X, n),
    **{f"output_length of {name}": pts.create_stream(net).output_length for name, net in STREAMS.items()},
}


@pytest.mark.parametrize("bad", [4.0, "4", -1, True, [4]])
@pytest.mark.parametrize("name", COUNTS)
def test_what_is_no_count_is_refused(name, bad):
    with pytest.raises((ValueError, TypeError), match="^invalid_[a-z_]+: .*; .*; "):
        COUNTS[name](bad)


@pytest.mark.parametrize("name", ["static chunk", "static batch", "prime chunks", "latency", "output_length of chain"])
def test_whole_numbers_of_other_kinds_are_counts(name):
    for kind in (np.int64, torch.tensor):
        COUNTS[name](kind(4))


def test_lengths_below_0_are_refused_by_scripts_and_captured_models_too():
    captured = pts.create_stream(Mixed(), example=X)
    for stream in (captured, torch.jit.script(captured), torch.jit.script(pts.create_stream(STREAMS["chain"]))):
        with pytest.raises((pts.StreamInputError, torch.jit.Error), match="invalid_length: "):
            stream.output_length(-1)


@pytest.mark.parametrize("bad", [[[1.0, 2.0]], np.zeros((1, 1, 4), np.float32), 3])
def test_chunks_that_are_no_tensors_are_refused(bad):
    static = pts.StaticStream(pts.create_stream(NET), chunk=4)
    yes, n = torch.ones(1, dtype=torch.bool), torch.tensor([4])
    calls = [lambda: static(bad, n, yes, ~yes), lambda: static(X[..., :4], bad, yes, ~yes)]
    calls += [lambda net=net: pts.create_stream(net)(bad) for net in STREAMS.values()]
    calls += [lambda: pts.create_stream(Mixed(), example=X)(bad)]
    for call in calls:
        with pytest.raises(pts.StreamInputError, match="^invalid_chunk: .* is a .*torch.as_tensor"):
            call()


def test_verify_stream_prints_no_arrays():
    for example in (X.tolist(), X.numpy(), 3):
        with pytest.raises(TypeError, match="^invalid_example: ") as caught:
            testing.verify_stream(NET, example)
        assert len(str(caught.value)) < 200
    assert len(str(testing.VerificationError("exact", f"it raised {list(range(9999))}"))) < 2100


def test_the_trace_of_another_network_is_refused():
    other = nn.Sequential(nn.Conv1d(1, 4, 5), nn.ReLU())
    with pytest.raises(pts.StreamInputError, match="^other_network: .*create_stream"):
        analysis.trace_error(other, pts.create_stream(NET), X)
