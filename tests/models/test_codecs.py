"""Streams of codecs: audio to codes to audio, in any chunks, is what the model does to the whole."""

import functools

import pytest
import torch
from published_codecs import DacModel, EncodecModel, MimiModel, MoshiMimi, OldEncodecModel, Snac
from torch import nn

import torchstreamer as pts
from torchstreamer.models import Codec

CODECS = {
    "encodec of transformers": (lambda: EncodecModel(), lambda m: pts.models.encodec(m, bandwidth=2), {"bandwidth": 2}),
    "encodec": (OldEncodecModel, pts.models.encodec, {}),
    "mimi of transformers": (MimiModel, lambda m: pts.models.mimi(m, codebooks=3), {"count": 3}),
    "mimi of moshi": (MoshiMimi, pts.models.mimi, {}),
    "dac of transformers": (lambda: DacModel(False), lambda m: pts.models.dac(m, codebooks=2), {"count": 2}),
    "dac": (lambda: DacModel(True), pts.models.dac, {}),
    "snac": (Snac, pts.models.snac, {}),
}


@functools.cache
def built(name):
    torch.manual_seed(0)
    make, stream, options = CODECS[name]
    model = make().eval().double().requires_grad_(False)
    return model, stream(model), options


@pytest.fixture
def codec():
    # Frames of 8 samples, that see one sample more on either side; each decodes to 12 samples, of which 4 overlap.
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv1d(1, 4, 10, stride=8, padding=1))
    decoder = nn.Sequential(nn.ConvTranspose1d(4, 1, 12, stride=8, padding=2))
    streams = [pts.create_stream(net.double().requires_grad_(False)) for net in (encoder, decoder)]
    return Codec("Small", *streams, 800)


def parts(codes):
    return list(codes) if isinstance(codes, (list, tuple)) else [codes]


def noise(length):
    return torch.randn(1, 1, length, dtype=torch.float64)


@pytest.mark.slow  # captures take seconds
@pytest.mark.parametrize("name", CODECS)
def test_codes_and_audio_are_those_of_the_whole(name):
    model, codec, options = built(name)
    assert (codec.sample_rate_hz, codec.frame_rate_hz) == (800, 50 if name in ("snac", "mimi of moshi") else 100)
    assert codec.latency_ms == codec.latency / 0.8
    x = noise(203)
    expected, audio = model(x, **options)
    came = [codec.encoder(x[..., :50]), codec.encoder(x[..., 50:51]), codec.encoder(x[..., 51:], final=True)]
    for i, whole in enumerate(parts(expected)):
        found = [parts(each)[i] for each in came]
        assert torch.equal(torch.cat([each for each in found if each is not None], -1), whole)
    for sizes in ([203], [7, 90, 1, 1, 1, 103]):
        given = [codec(piece) for piece in x.split(sizes, -1)]
        assert sum(0 if y is None else y.shape[-1] for y in given) >= 203 - codec.latency - codec.hop
        y = torch.cat([each for each in [*given, codec.flush()] if each is not None], -1)
        torch.testing.assert_close(y, audio, rtol=1e-9, atol=1e-9)


def test_says_its_rates(codec):
    # A frame waits for the sample after it; the first sample of a frame, and the two before it, for the next frame.
    assert str(codec).splitlines() == [
        "Small",
        "  encoder: 800 Hz -> 100 Hz, hop 8, latency 8 samples (10 ms)",
        "  decoder: 100 Hz -> 800 Hz, hop 1, latency 1 sample (10 ms)",
        "  codec: 800 Hz -> 800 Hz, hop 8, latency 10 samples (12.5 ms)",
    ]
    assert (codec.hop, codec.names) == (8, ("encoder", "decoder"))


def test_latency_is_what_is_measured(codec):
    x, out, most = noise(400), 0, 0
    for n in range(1, 401):
        y = codec(x[..., n - 1 : n])
        if y is not None:
            most = max(most, n - 1 - out)
            out += y.shape[-1]
    codec.reset()
    assert most == codec.latency


def test_a_state_comes_back(codec):
    x = noise(100)
    codec(x[..., :37])
    state = codec.get_state()
    expected = codec(x[..., 37:], final=True)
    codec(x)
    codec.set_state(state)
    assert torch.equal(codec(x[..., 37:], final=True), expected)
    with pytest.raises(pts.StreamInputError, match="invalid_state"):
        codec.set_state({})


def test_a_chunk_that_does_not_fit_changes_nothing(codec):
    x = noise(100)
    expected = codec(x, final=True)
    first = codec(x[..., :50])
    with pytest.raises(pts.StreamInputError):
        codec(x.expand(1, 2, 100))
    y = torch.cat([each for each in (first, codec(x[..., 50:], final=True)) if each is not None], -1)
    torch.testing.assert_close(y, expected)


def test_the_model_is_left_as_it_was():
    model = EncodecModel()
    model.encoder.append(nn.Dropout())
    with pytest.raises(pts.UnsupportedModuleError, match="training_mode"):
        pts.models.encodec(model)
    assert model.training and model.encoder[-1].training


@pytest.mark.parametrize("name", ["encodec", "mimi", "dac", "snac"])
def test_what_is_no_such_model_is_refused(name):
    with pytest.raises(
        pts.StreamInputError, match=rf"unknown_published_model: models.{name} got a Linear without encoder; .* was"
    ):
        getattr(pts.models, name)(nn.Linear(1, 1))
    with pytest.raises(pts.StreamInputError, match="got a str; "):
        getattr(pts.models, name)("facebook/encodec_24khz")


def test_what_no_stream_can_do_is_refused():
    with pytest.raises(pts.UnsupportedModuleError, match="time_mixing: .* loudness"):
        pts.models.encodec(EncodecModel(normalize=True).eval())
    with pytest.raises(pts.StreamInputError, match="invalid_bandwidth: .* 1, 2, 3"):
        pts.models.encodec(EncodecModel().eval(), bandwidth=7)
    with pytest.raises(pts.UnsupportedModuleError, match="random: NoiseBlock at 'decoder.0' .* without_noise"):
        pts.models.snac(Snac(noise=True).eval())


@pytest.mark.slow
def test_a_decoder_without_its_noise():
    torch.manual_seed(0)
    model = Snac(noise=True).eval().double().requires_grad_(False)
    codec = pts.models.snac(model, without_noise=True)
    quiet = Snac().eval().double()
    quiet.load_state_dict({key.replace("decoder.1", "decoder.0"): value for key, value in model.state_dict().items()})
    x = noise(80)
    torch.testing.assert_close(codec(x, final=True), quiet(x)[1])
