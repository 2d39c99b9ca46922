"""Streams of vocoders and models of speech, under their names: what the model gives for the whole."""

import pytest
import torch
import torch.nn.functional as F
from published_nets import Conformer, DfNet, FramesFirst, Generator, Vocos
from torch import nn

import torchstreamer as pts
from torchstreamer.models import SileroVad

NAMES = ["vocos", "hifigan", "bigvgan", "deepfilternet", "silero_vad", "conformer"]


def joined(stream, signals, dim, given):
    pieces = [each.split([7, 1, each.shape[dim] - 8], dim) for each in signals]
    found = [stream(*chunks, final=i == 2) for i, chunks in enumerate(zip(*pieces, strict=True))]
    return torch.cat([y for y in found if y is not None], given)


def noise(*shape):
    return torch.randn(*shape, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def of(net):
    return net.double().eval().requires_grad_(False)


@pytest.mark.slow  # captures take seconds
@pytest.mark.parametrize("name", ["hifigan", "frames first", "bigvgan", "vocos"])
def test_a_vocoder_gives_its_audio(name):
    net = of({"hifigan": Generator, "frames first": FramesFirst, "bigvgan": Generator, "vocos": Vocos}[name]())
    mel = noise(1, 3, 40)
    if name == "vocos":
        streams, expected = pts.models.vocos(net, 1, 800), net.head(2 * net.backbone(mel))[:, None]
    elif name == "frames first":
        streams, expected = pts.models.hifigan(net), net(mel.transpose(1, 2))[:, None]
    else:
        streams, expected = getattr(pts.models, name)(net), net(mel)
    (stream,) = [getattr(streams, each) for each in streams.names]
    torch.testing.assert_close(joined(stream, [mel], -1, -1), expected, rtol=1e-9, atol=1e-9)
    assert (streams.sample_rate_hz, streams.frame_rate_hz) == (800, 100)
    assert streams.rates[streams.names[0]].latency >= 3


@pytest.mark.slow
def test_an_enhancer_gives_its_spectra():
    net = of(DfNet())
    signals = [noise(1, 1, 30, 9, 2), noise(1, 1, 30, 3), noise(1, 1, 30, 4, 2)]
    streams = pts.models.deepfilternet(net, 800)
    expected = net(signals[0].clone(), *signals[1:])[0]
    torch.testing.assert_close(joined(streams.enhancer, signals, 2, 2), expected, rtol=1e-9, atol=1e-9)
    assert streams.frame_rate_hz == 100


@pytest.mark.slow
def test_a_conformer_sees_its_context():
    net, context = of(Conformer()), pts.Context(left=5, right=1)
    streams, x = pts.models.conformer(net, context, frame_rate_hz=25), noise(1, 40, 8)
    at = torch.arange(40)
    hidden = (at < at[:, None] - 5) | (at > at[:, None] + 1)
    expected = x.transpose(0, 1)
    for layer in net.conformer_layers:
        expected = layer(expected, None, hidden)
    torch.testing.assert_close(joined(streams.encoder, [x], 1, 1), expected.transpose(0, 1), rtol=1e-9, atol=1e-9)
    assert streams.rates["encoder"].latency_ms == 160  # two layers, each a frame of attention and one of convolution


class Silero(nn.Module):
    """The weights of a small detector, by the names of the package."""

    def __init__(self):
        super().__init__()
        shapes = {"stft.forward_basis_buffer": (10, 1, 8), "decoder.decoder.2.weight": (1, 3, 1)}
        shapes |= {f"encoder.{i}.reparam_conv.weight": (3, 5 if i == 0 else 3, 3) for i in range(4)}
        shapes |= {f"encoder.{i}.reparam_conv.bias": (3,) for i in range(4)}
        shapes |= {"decoder.rnn.weight_ih": (12, 3), "decoder.rnn.weight_hh": (12, 3), "decoder.decoder.2.bias": (1,)}
        shapes |= {"decoder.rnn.bias_ih": (12,), "decoder.rnn.bias_hh": (12,)}
        self.weights = {name: torch.randn(shape) for name, shape in shapes.items()}
        self.stft, self.encoder, self.decoder = nn.Identity(), nn.Identity(), nn.Identity()

    def state_dict(self):
        return self.weights


def test_a_detector_is_what_its_definition_says():
    part = Silero()
    weights = {name: value.double() for name, value in part.weights.items()}
    net, x = SileroVad(part.weights).double(), noise(1, 1, 70)
    state, found, before = (torch.zeros(1, 3).double(),) * 2, [], torch.zeros(1, 1, 2).double()
    cell = nn.LSTMCell(3, 3).double()
    cell.load_state_dict({name: weights[f"decoder.rnn.{name}"] for name in cell.state_dict()})
    for window in x[..., :64].split(16, -1):
        y = F.pad(torch.cat([before, window], -1), (0, 2), mode="reflect")
        spectrum = F.conv1d(y, weights["stft.forward_basis_buffer"], stride=4)
        y = (spectrum[:, :5] ** 2 + spectrum[:, 5:] ** 2).sqrt()
        for i, stride in enumerate((1, 2, 2, 1)):
            own = (weights[f"encoder.{i}.reparam_conv.{kind}"] for kind in ("weight", "bias"))
            y = F.conv1d(y, *own, stride=stride, padding=1).relu()
        state = cell(y[..., 0], state)
        last = weights["decoder.decoder.2.weight"], weights["decoder.decoder.2.bias"]
        found.append(torch.sigmoid(F.conv1d(state[0].relu()[..., None], *last)))
        before = window[..., -2:]
    torch.testing.assert_close(net(x), torch.cat(found, -1))


@pytest.mark.slow
def test_a_detector_streams():
    model = nn.Module()
    model._model = Silero()
    streams, x = pts.models.silero_vad(model), torch.randn(1, 1, 200)
    expected = SileroVad(model._model.weights)(x)
    torch.testing.assert_close(joined(streams.vad, [x], -1, -1), expected)
    assert (streams.frame_rate_hz, streams.rates["vad"].hop) == (1000, 16)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_such_model_is_refused(name):
    options = {"context": pts.Context(left=4)} if name == "conformer" else {}
    with pytest.raises(pts.StreamInputError, match=rf"unknown_published_model: models.{name} got a Linear without "):
        getattr(pts.models, name)(nn.Linear(1, 1), **options)


def test_a_rate_that_no_detector_has_is_refused():
    with pytest.raises(pts.StreamInputError, match="invalid_sample_rate: .* 16000 or 8000"):
        pts.models.silero_vad(nn.Linear(1, 1), 44100)
