"""How modules of sound are made: with arguments of the right kind, and on a device without values."""

import inspect
from typing import Any, Callable, Dict, Tuple

import pytest
import torch
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer import audio
from torchstreamer.audio import (
    DCT,
    FIR,
    ISTFT,
    MFCC,
    PCEN,
    STFT,
    Deltas,
    DynamicRange,
    Fade,
    Gain,
    KaldiFbank,
    Level,
    LFilter,
    Logarithm,
    LogMel,
    Loudness,
    Magnitude,
    MelScale,
    MelSpectrogram,
    Preemphasis,
    RemoveDC,
    Resample,
    SOSFilter,
    Spectral1d,
    Spectrogram,
    Standardize,
    biquad,
    butterworth,
    hz_to_mel,
    k_weighting,
    mel_filters,
    mel_to_hz,
    resample,
)

small: Dict[str, Any] = {"n_fft": 32, "hop_length": 8, "n_mels": 6}

# Every class and function of the room, with arguments that suit it, and the shape of a signal.
MADE: Dict[Callable[..., Any], Tuple[Callable[[], Any], Tuple[int, ...]]] = {
    DCT: (lambda: {"bins": 6, "coefficients": 4}, (1, 6, 10)),
    Deltas: (lambda: {"win_length": 5}, (1, 3, 30)),
    DynamicRange: (lambda: {"range": 1.0, "maximum": "running"}, (1, 2, 10)),
    FIR: (lambda: {"taps": [0.1, 0.2, 0.3] * 40}, (1, 1, 300)),
    Fade: (lambda: {"in_length": 3, "out_length": 4}, (1, 1, 30)),
    Gain: (lambda: {"gain_db": 3.0}, (1, 1, 30)),
    ISTFT: (lambda: {"n_fft": 16, "hop_length": 4}, (1, 18, 20)),
    KaldiFbank: (lambda: {"sample_rate": 1000, "n_mels": 6}, (1, 1, 200)),
    LFilter: (lambda: {"b": [0.3, 0.2], "a": [1.0, -0.5]}, (1, 1, 100)),
    Level: (lambda: {"kind": "rms", "length": 20}, (1, 1, 100)),
    LogMel: (lambda: {"mels": MelSpectrogram(16000, **small), "logarithm": Logarithm()}, (1, 1, 200)),
    Logarithm: (lambda: {"unit": "ln"}, (1, 1, 10)),
    Loudness: (lambda: {"fs": 8000}, (1, 1, 9000)),
    MFCC: (lambda: {"sample_rate": 16000, "n_mfcc": 4, **small}, (1, 1, 200)),
    Magnitude: (lambda: {"power": 1.0}, (1, 4, 20)),
    MelScale: (lambda: {"n_fft": 16, "sample_rate": 16000, "n_mels": 5}, (1, 9, 10)),
    MelSpectrogram: (lambda: {"sample_rate": 16000, **small}, (1, 1, 200)),
    PCEN: (lambda: {"channels": 3}, (1, 3, 30)),
    Preemphasis: (lambda: {"coefficient": 0.9}, (1, 1, 30)),
    RemoveDC: (lambda: {"fs": 1000}, (1, 1, 30)),
    Resample: (lambda: {"source_fs": 3, "target_fs": 2}, (1, 1, 100)),
    SOSFilter: (lambda: {"sos": butterworth("lowpass", 100, 20)}, (1, 1, 100)),
    STFT: (lambda: {"n_fft": 16, "hop_length": 4}, (1, 1, 80)),
    Spectral1d: (lambda: {"net": nn.Identity(), "n_fft": 16, "hop_length": 4}, (1, 1, 80)),
    Spectrogram: (lambda: {"n_fft": 32}, (1, 1, 100)),
    Standardize: (lambda: {"mean": [0.0, 1.0], "deviation": 2.0}, (1, 2, 10)),
    biquad: (lambda: {"kind": "lowpass", "fs": 100, "frequency_hz": 20}, ()),
    butterworth: (lambda: {"kind": "lowpass", "fs": 100, "frequency_hz": 20}, ()),
    hz_to_mel: (lambda: {"hz": 100.0}, ()),
    k_weighting: (lambda: {"fs": 48000}, ()),
    mel_filters: (lambda: {"bins": 33, "sample_rate": 8000, "n_mels": 5}, ()),
    mel_to_hz: (lambda: {"mel": 3.0}, ()),
}
MODULES = [made for made in MADE if isinstance(made, type)]


def test_the_table_is_whole():
    files = {"Microphone", "PcmFormat", "PcmReader", "PcmWriter", "SoundReader", "SoundWriter", "Speaker"}
    room = {getattr(audio, name) for name in audio.__all__ if name not in files}
    streams = {each for each in room if isinstance(each, type) and issubclass(each, pts.BaseStream)}
    assert room - streams - {resample} == set(MADE)


@pytest.mark.parametrize("made", MADE, ids=lambda made: made.__name__)
def test_arguments_of_a_wrong_kind(made):
    suitable = MADE[made][0]
    for name, parameter in inspect.signature(made).parameters.items():
        kind = str(parameter.annotation)
        wrong = [object()]
        wrong += [] if "Any" in kind else ["loud"] if "str" not in kind else [3] if "float" not in kind else []
        wrong += [] if "Optional" in kind or "None" in kind or "Any" in kind else [None]
        wrong += [2.5] if "int" in kind and "float" not in kind else []
        if parameter.kind is inspect.Parameter.VAR_KEYWORD or "typing.Any" == kind:
            continue
        for value in wrong:
            with pytest.raises(ValueError, match=r"^[a-z]\w*: .+; .*expected"):
                made(**{**suitable(), name: value})


@pytest.mark.parametrize("way", ["to_empty", "assign"])
@pytest.mark.parametrize("made", MODULES, ids=lambda made: made.__name__)
def test_made_without_values(made, way):
    suitable, shape = MADE[made]
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    whole = made(**suitable()).eval()
    with torch.device("meta"):
        net = made(**suitable()).eval()
    if way == "to_empty":
        net = net.to_empty(device="cpu")
    net.load_state_dict(whole.state_dict(), assign=way == "assign")
    torch.testing.assert_close(net(x), whole(x), rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(net.double()(x.double()), whole.double()(x.double()), rtol=0, atol=0, equal_nan=True)


def test_tables_need_values():
    with torch.device("meta"):
        window: Tensor = torch.ones(16)
        for make in (lambda: STFT(16, 4, window=window), lambda: FIR(window), lambda: Gain(window)):
            with pytest.raises(ValueError, match="^no_values: "):
                make()
