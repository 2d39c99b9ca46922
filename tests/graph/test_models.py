"""Published architectures stream exactly as they are, or are refused with the reason."""

import copy
import io
import os
import re
import sys
import warnings
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from feeding import (
    Input,
    T,
    check_lengths,
    chunks_of,
    compare,
    create_arguments,
    even_cuts,
    feed,
    joined,
    normal,
    offline,
    random_cuts,
    time_axes,
    whole,
)

import torchstreamer as pts
from torchstreamer.testing import verify_stream

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from as_signal import as_signal, times_of
from smallest import SMALLEST
from zoo import ZOO

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
STREAMED = [entry for entry in ZOO if not entry.refused]
REFUSED = [entry for entry in ZOO if entry.refused]
# Those with a layout of their own; each architecture is verified in full below.
OWN_LAYOUT = [entry for entry in STREAMED if entry.time_dim != -1 or entry.output_time_dim != -1]
PORTED = [entry for entry in STREAMED if isinstance(entry.time_dim, tuple)]
VARIANTS = ("wavenet_mel_speaker", "seanet_encoder_causal", "seanet_decoder", "deepspeech2_lookahead", "space_to_depth")
# One of each architecture, for lack of time; `seanet` has both paddings, one in its encoder, one in its decoder.
VERIFIED = SMALLEST + STREAMED if THOROUGH else [entry for entry in SMALLEST if entry.name not in VARIANTS]

# Both are said by torch: of the older weight_norm, and of scripts.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:`torch.jit"),
]


def named(entries):
    return pytest.mark.parametrize("entry", entries, ids=[entry.name for entry in entries])


def inputs_of(entry, rows=2):
    """The entry's inputs with their layouts and rates."""
    examples = entry.inputs()
    first = examples[0].shape[times_of(entry)[0]]
    found = []
    for x, time in zip(examples, times_of(entry), strict=True):
        shape = [rows, *x.shape[1:]]
        if time is not None:
            shape[time % x.dim()] = T
        found.append(Input(tuple(shape), Fraction(1 if time is None else x.shape[time], 1 if time is None else first)))
    return found


def stream_of(entry, model, rows=2):
    length = entry.inputs()[0].shape[times_of(entry)[0]]
    return pts.create_stream(
        model, **create_arguments(inputs_of(entry, rows), length), length_multiple=entry.length_multiple
    )


# ---------------------------------------------------------------------- every rule of the contract


@pytest.mark.sample(
    "tcn",
    rest=7,
    long=(
        "wavenet",
        "demucs",
        "wave_unet",
        "unet_linear",
        "conv_tasnet",
        "resnet1d",
        "melgan",
        "quartznet",
        "dac_decoder",
        "seanet_decoder_causal",
        "seanet_encoder",
        "subpixel_upsampler",
        "wav2letter",
    ),
)
@named(VERIFIED)
def test_every_rule(entry):
    model, shape, multiple = as_signal(entry)
    # TorchScript's optimizer takes longest; scripts below and those of all layers are run with it.
    with torch.jit.optimized_execution(THOROUGH):
        verify_stream(
            model,
            shape,
            graph=True,
            length_multiple=multiple,
            static=True,
            dtypes=[torch.float64, torch.float32],
            tolerances={torch.float32: 1e-4},
        )


# ---------------------------------------------------------------------- in the model's own layout


@pytest.mark.slow
@named(STREAMED if THOROUGH else OWN_LAYOUT)
def test_in_its_own_layout(entry):
    model = entry.make().double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pristine = stream_of(entry, model)
    stream, inputs = copy.deepcopy(pristine), inputs_of(entry)
    typical, step = entry.inputs()[0].shape[times_of(entry)[0]], entry.length_multiple
    axes = time_axes(model, inputs, typical, 24 * step)
    lengths = {step, entry.shortest, typical + 3 * step}
    for n in sorted(lengths | {entry.shortest + step, typical} if THOROUGH else lengths):
        xs = whole(inputs, n, seed=n)
        expected = offline(model, xs)
        with torch.no_grad():
            for size in (1, 17):
                calls = chunks_of(xs, inputs, even_cuts(xs, inputs, size))
                pieces = feed(stream, calls)
                compare(joined(pieces, axes), expected, axes)
                check_lengths(stream, pieces, calls, inputs, axes)
            # Every input at its own pace; forked in the middle into another stream, and both go on.
            calls = chunks_of(xs, inputs, random_cuts(xs, inputs, seed=n))
            half = len(calls) // 2
            begun = feed(stream, calls[:half], final=False)
            other = copy.deepcopy(pristine)
            other.set_state(saved_and_loaded(stream.get_state()))
            for one in (stream, other):
                compare(joined(begun + feed(one, calls[half:]), axes), expected, axes)
    after = model.state_dict()
    assert list(after) == list(before) and all(torch.equal(after[name], value) for name, value in before.items())
    assert not any("ring" in name or "came" in name for name in stream.state_dict())


def saved_and_loaded(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.optimized
@pytest.mark.sample(
    "deepspeech2",
    long=(
        "wavenet_mel",
        "wave_unet_same",
        "wavenet_local",
        "wavenet_local_speaker",
        "tcn_channels_last",
    ),
)
@named(PORTED + [entry for entry in STREAMED if entry.name in ("deepspeech2", "tcn_channels_last", "wave_unet_same")])
def test_scripted_in_its_own_layout(entry):
    model = entry.make().double()
    stream, inputs = stream_of(entry, model), inputs_of(entry)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit")  # a FutureWarning from torch 2.15 on
        script = torch.jit.script(stream)
        file = io.BytesIO()
        torch.jit.save(script, file)
        file.seek(0)
        loaded = torch.jit.load(file)
    n = entry.inputs()[0].shape[times_of(entry)[0]]
    axes = time_axes(model, inputs, n, 24 * entry.length_multiple)
    xs = whole(inputs, n)
    calls = chunks_of(xs, inputs, random_cuts(xs, inputs, seed=3))
    half = len(calls) // 2
    with torch.no_grad():
        expected = model(*xs)
        begun = feed(script, calls[:half], final=False)
        stream.set_state(script.get_state())
        loaded.set_state(stream.get_state())
        for one in (script, stream, loaded):
            compare(joined(begun + feed(one, calls[half:]), axes), expected, axes)
            assert one.output_length(n) == stream.output_length(n)
        with pytest.raises(torch.jit.Error, match="invalid_chunk"):
            script(*(x[None] for x in xs))
        compare(joined(feed(script, calls), axes), expected, axes)


# ---------------------------------------------------------------------- several inputs


def entry_of(name):
    return next(entry for entry in ZOO if entry.name == name)


@pytest.fixture(scope="module")
def conditioned():
    """A WaveNet that is conditioned on frames of 8 samples, and its stream."""
    entry = entry_of("wavenet_mel")
    model = entry.make().double()
    return model, stream_of(entry, model)


def test_inputs_come_at_their_own_pace(conditioned):
    model, stream = conditioned
    x, mel = normal(2, 1, 96), normal(2, 4, 12, seed=1)
    with torch.no_grad():
        expected = model(x, mel)
        # All of one, then all of the other.
        assert stream(x) is None and stream(None, None) is None
        first = stream(None, mel[..., :10])
        rest = stream(None, mel[..., 10:], final=True)
        compare([torch.cat([first, rest], -1)], [expected], [-1])
        assert stream(None, mel) is None and stream(x[..., :0]) is None
        compare([torch.cat([y for y in (stream(x), stream.flush()) if y is not None], -1)], [expected], [-1])
    stream.reset()


def test_lengths_that_do_not_fit(conditioned):
    model, stream = conditioned
    x, mel = normal(2, 1, 96), normal(2, 4, 12, seed=1)
    with torch.no_grad():
        begun = [stream(x[..., :90], mel)]
        for chunks in ((), (x[..., 90:95],), (normal(2, 1, 14),), (x[..., 90:], mel[..., :1])):
            with pytest.raises(pts.StreamInputError, match="unequal_lengths|length_multiple"):
                stream(*chunks, final=True)
        y = torch.cat([part for part in [*begun, stream(x[..., 90:], final=True)] if part is not None], -1)
        compare([y], [model(x, mel)], [-1])
        with pytest.raises(pts.StreamInputError, match="length_multiple"):
            stream(x[..., :95], mel, final=True)
        with pytest.raises(pts.StreamInputError, match="unequal_lengths"):
            stream(None, mel, final=True)
        assert stream.flush() is None
    with pytest.raises(pts.StreamInputError, match="length_multiple"):
        stream.output_length(95)
    assert stream.output_length(96) == 96


def test_chunks_that_do_not_fit(conditioned):
    model, stream = conditioned
    x, mel = normal(2, 1, 96), normal(2, 4, 12, seed=1)
    with torch.no_grad():
        expected = model(x, mel)
        for first in (True, False):
            pieces = [] if first else [stream(x[..., :48], mel[..., :3])]
            for bad in (
                (x[:, :0], mel),  # no channels
                (x, mel[:, :3]),
                (x, mel.float()),
                (x[0, 0], mel),
                (x, mel[:1]),  # another number of rows
                (x[0], mel),  # one of the two without rows
                (x, mel, mel),
                (x, [1.0, 2.0]),
                (x[None], mel),
            ):
                with pytest.raises(pts.StreamInputError, match="invalid_chunk"):
                    stream(*bad)
            rest = (x, mel) if first else (x[..., 48:], mel[..., 3:])
            pieces.append(stream(*rest, final=True))
            compare([torch.cat([y for y in pieces if y is not None], -1)], [expected], [-1])


def test_without_rows(conditioned):
    model, stream = conditioned
    x, mel = normal(1, 1, 96), normal(1, 4, 12, seed=1)
    with torch.no_grad():
        pieces = [stream(x[0, :, :50], mel[0, :, :5]), stream(x[0, :, 50:], mel[0, :, 5:]), stream.flush()]
        y = torch.cat([piece for piece in pieces if piece is not None], -1)
        compare([y], [model(x, mel)[0]], [-1])


def test_a_static_input_comes_with_the_first_call():
    entry = entry_of("wavenet_local_speaker")
    model = entry.make().double()
    stream = stream_of(entry, model)
    x, mel, speaker = normal(2, 1, 60), normal(2, 4, 60, seed=1), normal(2, 3, seed=2)
    with torch.no_grad():
        expected = model(x, mel, speaker)
        for _turn in range(2):
            for late in ((x, mel), (x,), (None, mel, None)):
                with pytest.raises(pts.StreamInputError, match="static_input: .* is missing"):
                    stream(*late)
            with pytest.raises(pts.StreamInputError, match="invalid_chunk"):
                stream(x, mel, speaker[:, :2])
            given = speaker.clone()
            pieces = [stream(x[..., :20], None, given)]
            given.zero_()  # the caller may overwrite it
            with pytest.raises(pts.StreamInputError, match="static_input: .* came again"):
                stream(x[..., 20:], mel, speaker)
            pieces += [stream(None, mel[..., :30]), stream(x[..., 20:], mel[..., 30:], None), stream.flush()]
            y = torch.cat([piece for piece in pieces if piece is not None], -1)
            compare([y], [expected], [-1])
            # Alone, before the signal: then it may not come again.
            assert stream(None, None, speaker) is None
            compare([stream(x, mel, final=True)], [expected], [-1])
            stream(x[..., :9], mel[..., :9], -speaker)
            stream.reset()


def test_states_stack(conditioned):
    model, stream = conditioned
    x, mel = normal(2, 1, 96), normal(2, 4, 12, seed=1)
    with torch.no_grad():
        states = []
        for row in (slice(0, 1), slice(1, 2)):
            stream(x[row, :, :40], mel[row, :, :7])
            states.append(stream.get_state())
            stream.reset()
        stream.set_state(pts.stack_states(states))
        together = stream(x[..., 40:], mel[..., 7:], final=True)
        stream(x[..., :40], mel[..., :7])
        one = pts.unstack_state(stream.get_state())[1]
        expected = stream(x[..., 40:], mel[..., 7:], final=True)
        compare([together], [expected], [-1])
        stream.set_state(one)
        compare([stream(x[1:, :, 40:], mel[1:, :, 7:], final=True)], [expected[1:]], [-1])


# ---------------------------------------------------------------------- refused


@named(REFUSED)
def test_refused(entry):
    model = entry.make()
    with pytest.raises(pts.UnsupportedModuleError, match=entry.refused) as caught:
        stream_of(entry, model.double())
    error = caught.value
    assert re.search(r"\(at (squeeze_excite|conv_tasnet|demucs)\.py, line \d+: .+\)", str(error)), str(error)
    assert error.module is model.get_submodule(error.path)
    assert (error.path == "") == (entry.name == "demucs_normalized")
    assert "statistics of the whole signal" in error.reason or "averages over time" in error.reason
    assert "cumulative" in error.remedy


@pytest.mark.sample(rest=3)
@named([entry for entry in STREAMED if entry.length_multiple > 1 and len(entry.inputs()) == 1])
def test_without_length_multiple(entry):
    """Refused when it is made, or exact for every length at which the model works."""
    model = entry.make().double()
    inputs = inputs_of(entry)
    n = entry.inputs()[0].shape[-1]
    try:
        stream = pts.create_stream(model, **create_arguments(inputs, n))
    except pts.UnsupportedModuleError as error:
        assert "length_multiple=" in str(error) or error.remedy, str(error)
        return
    axes = time_axes(model, inputs, n, 24 * entry.length_multiple)
    for m in range(n, n + entry.length_multiple):
        xs = whole(inputs, m)
        with torch.no_grad():
            pieces = feed(stream, chunks_of(xs, inputs, even_cuts(xs, inputs, 29)))
        compare(joined(pieces, axes), offline(model, xs), axes)
