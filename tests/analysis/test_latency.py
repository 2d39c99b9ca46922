"""Latency: closed forms, and what a stream does when it is fed."""

import math
from fractions import Fraction

import pytest
import torch
from torch import nn

import torchstreamer as pts
from torchstreamer.analysis import latency, receptive_field


def stream_of(*layers):
    return pts.create_stream(nn.Sequential(*layers))


def conv(kernel, **options):
    return nn.Conv1d(1, 1, kernel, **options)


@pytest.mark.parametrize(
    ("layers", "first", "period", "delays"),
    [
        ([conv(1)], 1, (1, 1), [0]),
        ([conv(5)], 5, (1, 1), [4]),
        ([conv(5, padding=2)], 3, (1, 1), [2]),
        ([nn.ZeroPad1d((4, 0)), conv(5)], 1, (1, 1), [0]),
        ([conv(4, stride=4)], 4, (4, 1), [3]),
        ([nn.ConvTranspose1d(1, 1, 4, 2, padding=1)], 1, (1, 2), [0, 1]),
        ([nn.Upsample(scale_factor=3)], 1, (1, 3), [0, 0, 0]),
        ([conv(4, stride=4), nn.ConvTranspose1d(1, 1, 4, 4)], 4, (4, 4), [3, 2, 1, 0]),
        ([conv(3, padding=1), conv(3, padding=1)], 3, (1, 1), [2]),
    ],
)
def test_closed_forms(layers, first, period, delays):
    found = latency(stream_of(*layers))
    assert (found.first_output, found.period, list(found.delays)) == (first, period, delays)
    assert found.lookahead == found.worst == max(delays)
    assert latency(stream_of(*layers), x=torch.randn(1, 1, 80)) == found


@pytest.mark.parametrize("chunk", [1, 3, 4, 64, 160, 441, 480, 512, 1024])
@pytest.mark.parametrize("block", [1, 4, 160, 320, 512])
def test_blocks_that_do_not_divide(block, chunk):
    found = latency(stream_of(conv(block, stride=block), nn.ConvTranspose1d(1, 1, block, block)), chunk)
    assert found.buffering == block - math.gcd(block, chunk)
    assert found.first_chunk == math.ceil(block / chunk) * chunk


def played(stream, chunk, calls):
    """The least number of samples to wait for before a consumer of `chunk` samples a call never runs dry."""
    came = out = missing = 0
    for _ in range(calls):
        came += chunk
        y = stream(torch.zeros(1, 1, chunk))
        out += 0 if y is None else y.shape[-1]
        missing = max(missing, came - out)
    return missing


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 6, 7, 12])
def test_buffering_against_a_player(chunk):
    layers = [conv(7, padding=3), conv(6, stride=6), nn.ConvTranspose1d(1, 1, 6, 6)]
    with torch.no_grad():
        waits = played(stream_of(*layers), chunk, 200)
        least = min(played(stream_of(*layers), n, 200) for n in (6, 12))  # whole blocks wait for the look-ahead alone
    found = latency(stream_of(*layers), chunk)
    # In whole blocks 3 samples of look-ahead keep a block back; the player measures from the start of its first wait.
    backlog = [n - stream_of(*layers).output_length(n, False) for n in range(60, 120)]
    assert waits == min(backlog) + found.buffering
    assert least >= min(backlog)


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 8, 9])
def test_the_worst_wait_in_chunks(chunk):
    layers = [conv(5, padding=2, stride=2), nn.ConvTranspose1d(1, 1, 6, 3, padding=1)]
    found, stream = latency(stream_of(*layers), chunk), stream_of(*layers)
    ins, outs = found.period
    worst, given = 0, 0
    with torch.no_grad():
        for call in range(1, 400):
            y = stream(torch.zeros(1, 1, chunk))
            for i in range(given, given + (0 if y is None else y.shape[-1])):
                if i > 60:
                    worst = max(worst, call * chunk - 1 - i * ins // outs)
                given += 1
    assert found.worst == worst


def test_seconds():
    found = latency(stream_of(conv(320, stride=320)), 480, 16000)
    assert found.seconds(found.first_output) == 0.02
    assert found.buffering == Fraction(160)
    assert "first output after      320 samples = 20 ms" in str(found)
    with pytest.raises(ValueError, match="^no_fs"):
        latency(stream_of(conv(1))).seconds(3)


def test_the_stream_is_left_alone():
    stream = stream_of(conv(3))
    stream(torch.ones(1, 1, 2))
    before = stream.get_state()
    latency(stream, x=torch.randn(1, 1, 40))
    after = stream.get_state()
    assert all(torch.equal(after[key], value) for key, value in before.items())


def test_refusals():
    with pytest.raises(TypeError, match="^invalid_stream: a Conv1d came"):
        latency(conv(3))
    with pytest.raises(ValueError, match="^invalid_chunk"):
        latency(stream_of(conv(3)), 0)
    with pytest.raises(ValueError, match="^too_short"):
        latency(stream_of(conv(9)), x=torch.zeros(1, 1, 12))
    with pytest.raises(ValueError, match="^invalid_input"):
        latency(stream_of(conv(9)), output=1)


def test_measured_with_time_elsewhere_and_several_outputs():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.near, self.far = nn.Conv1d(4, 4, 3, stride=2), nn.Conv1d(4, 4, 9, stride=2)

        def forward(self, x):
            x = x.transpose(1, 2)
            return {"near": self.near(x).transpose(1, 2), "far": self.far(x)}

    x = torch.randn(1, 120, 4)
    stream = pts.create_stream(Heads().eval(), x, 1)
    for output in (0, 1):
        assert latency(stream, 5, x=x, output=output) == latency(stream, 5, output=output)
    assert latency(stream, output=0) != latency(stream, output=1)


def test_outputs_that_come_before_their_place():
    stream = pts.create_stream(nn.Sequential(nn.ReflectionPad1d(4), nn.Conv1d(1, 1, 3)))
    found = latency(stream)  # output o is of the samples o - 4 to o - 2
    assert found.lookahead == found.worst == -2 == receptive_field(stream).right
    assert latency(stream, chunk=5).worst == 2
