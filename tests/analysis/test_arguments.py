"""What does not fit is refused before anything is done: with a code, what came, what was expected and what to do."""

import math

import pytest
import torch
from torch import nn

import torchstreamer as pts
from torchstreamer.analysis import (
    check_causality,
    infer_dependency_matrix,
    latency,
    plot_dependency_matrix,
    plot_latency,
    plot_receptive_field,
    plot_timeline,
    receptive_field,
    split_fixed_chunks,
    split_wav_lens,
    summary,
    trace_error,
)

net = nn.Sequential(nn.Conv1d(4, 4, 3, padding=1), nn.ReLU()).eval()
stream = pts.create_stream(net)
eye = torch.eye(4, dtype=torch.bool)
x = torch.zeros(1, 4, 50)


def infer(**options):
    return infer_dependency_matrix(net, options.pop("seq_shape", (1, 4, 20)), **{"time_dim": 2, **options})


CALLS = {
    "invalid_chunk": [
        lambda: check_causality(eye, 1.5),
        lambda: latency(stream, 0),
        lambda: latency(stream, 1.5),
        lambda: summary(stream, 0),
        lambda: summary(stream, 3, x=torch.zeros(1, 4, 5)),  # rates would be those of other chunks
        lambda: summary(stream, 3, x=(torch.zeros(1, 4, 3), torch.zeros(1, 4, 3))),
        lambda: plot_timeline(stream, 2.0),
        lambda: plot_latency(stream, 160, x=torch.zeros(1, 4, 16)),
        lambda: trace_error(net, stream, x, chunk=0),
    ],
    "invalid_calls": [lambda: summary(stream, calls=0), lambda: plot_latency(stream, calls=0)],
    "invalid_chunks": [lambda: plot_timeline(stream, chunks=0)],
    "invalid_left": [lambda: check_causality(eye, 1, left=-1)],
    "invalid_right": [lambda: check_causality(eye, 1, right=-1)],
    "invalid_fs": [
        lambda: latency(stream, fs=0),
        lambda: summary(stream, fs=-1),
        lambda: plot_timeline(stream, fs=math.nan),
        lambda: plot_latency([0.1], fs=0),
        lambda: plot_receptive_field(stream, fs=0),
    ],
    "invalid_stream": [
        lambda: latency(net),
        lambda: summary(torch.jit.script(stream)),
        lambda: plot_timeline(None),
        lambda: plot_latency(net),
        lambda: trace_error(stream, net, x),
    ],
    "invalid_model": [
        lambda: infer_dependency_matrix(3, (1, 4, 20)),
        lambda: check_causality((eye, eye), 1),
        lambda: receptive_field(3),
    ],
    "invalid_input": [lambda: trace_error(net, stream, x.numpy())],
    "invalid_times": [
        lambda: plot_latency([]),
        lambda: plot_latency([math.nan]),
        lambda: plot_latency([-1.0]),
        lambda: plot_latency("fast"),
    ],
    "invalid_dependencies": [
        lambda: plot_dependency_matrix(torch.ones(3, 3)),
        lambda: plot_dependency_matrix((eye, eye[:3])),
        lambda: plot_dependency_matrix([[True]]),
        lambda: plot_dependency_matrix(eye[:, :0]),
        lambda: check_causality(eye.float(), 1),
    ],
    "invalid_method": [lambda: infer(method="guess"), lambda: receptive_field(net, method="guess")],
    "invalid_in_stride": [lambda: infer(in_stride=0), lambda: infer(in_stride=1.5)],
    "invalid_rounds": [lambda: infer(rounds=0)],
    "invalid_seq_shape": [
        lambda: infer(seq_shape=20),
        lambda: infer(seq_shape="abc"),
        lambda: infer(seq_shape=(1, 0, 4)),
        lambda: infer(seq_shape=(5,)),
    ],
    "invalid_tokens": [lambda: infer(tokens=1)],
    "invalid_dtype": [lambda: infer(dtype=torch.int64)],
    "invalid_field": [lambda: infer(field=(1, 2, 3)), lambda: infer(field=0.5), lambda: infer(field=0)],
    "invalid_time_dim": [
        lambda: infer(time_dim=0),
        lambda: receptive_field(lambda x: x, x, time_dim=7),
        lambda: receptive_field(lambda x: x, torch.tensor(1.0)),
        lambda: receptive_field(lambda x: x, x, time_dim=(-1, -1)),
    ],
    "invalid_length_multiple": [lambda: receptive_field(lambda x: x, x, length_multiple=0)],
    "invalid_chunk_size": [lambda: split_fixed_chunks(x, 0), lambda: split_fixed_chunks(x, 2.0)],
    "invalid_tensor": [lambda: split_fixed_chunks(torch.tensor(1.0), 1)],
    "invalid_chunk_lens": [lambda: split_wav_lens([3, -1], torch.ones(2))],
    "no_seq_shape": [lambda: check_causality(net, 1)],
    "no_fs": [lambda: latency(stream).seconds(1)],
}


@pytest.mark.parametrize(("code", "call"), [(code, call) for code, calls in CALLS.items() for call in calls])
def test_refusals(code, call):
    with pytest.raises((ValueError, TypeError), match=f"^{code}: .+; .+; .+"):
        call()


def test_whole_numbers_of_any_type():
    two = torch.tensor(2)
    assert len(split_fixed_chunks(x, two, 1)) == 2 and latency(stream, two).chunk == 2
    assert plot_timeline(stream, two, chunks=two) is not None
