"""Features and resamplers: nnAudio, torchlibrosa, julius, torchaudio."""

# ruff: noqa: E501  (statements are those that the page shows)

from .listing import Model, Package

__all__ = ["PACKAGES"]


def _call(package: str, name: str, call: str) -> str:
    return (
        "import torch\n"
        f"from {package} import {name}\n"
        "class Call(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        f"        return {call}\n\n"
        "model = Call().eval()"
    )


_NNAUDIO = Package(
    "nnAudio",
    ("nnAudio==0.3.4",),
    (
        Model(
            "STFT of nnAudio",
            "from nnAudio.features.stft import STFT\n"
            "model = STFT(n_fft=256, hop_length=64, output_format='Magnitude', verbose=False).eval()",
            "torch.randn(1, 4096)",
            read="features/stft.py: reflected padding, two convolutions",
        ),
        Model(
            "STFT of nnAudio, not centred",
            "from nnAudio.features.stft import STFT\n"
            "model = STFT(n_fft=256, hop_length=64, center=False, output_format='Complex', verbose=False).eval()",
            "torch.randn(1, 4096)",
            read="features/stft.py",
        ),
        Model(
            "Mel spectrogram of nnAudio",
            "from nnAudio.features.mel import MelSpectrogram\n"
            "model = MelSpectrogram(sr=16000, n_fft=256, hop_length=64, n_mels=40, verbose=False).eval()",
            "torch.randn(1, 4096)",
            read="features/mel.py: STFT and a matrix",
        ),
        Model(
            "MFCC of nnAudio",
            "from nnAudio.features.mel import MFCC\n"
            "model = MFCC(sr=16000, n_mfcc=13, n_fft=256, hop_length=64, n_mels=40, verbose=False).eval()",
            "torch.randn(1, 4096)",
            forbidden="the maximum of the whole signal bounds the levels from below (top_db)",
            read="features/mel.py, _power_to_db: max over the whole spectrogram",
        ),
        Model(
            "CQT of nnAudio",
            "from nnAudio.features.cqt import CQT1992v2\n"
            "model = CQT1992v2(sr=8000, hop_length=128, fmin=110, n_bins=36, verbose=False).eval()",
            "torch.randn(1, 8000)",
            read="features/cqt.py, CQT1992v2: reflected padding, two convolutions",
        ),
        Model(
            "CQT of nnAudio by octaves",
            "from nnAudio.features.cqt import CQT2010v2\n"
            "model = CQT2010v2(sr=8000, hop_length=128, fmin=110, n_bins=36, verbose=False).eval()",
            "torch.randn(1, 8192)",
            read="features/cqt.py, CQT2010v2: downsampled by two, octave by octave, padded by reflection each time",
        ),
        Model(
            "Gammatonegram of nnAudio",
            "from nnAudio.features.gammatone import Gammatonegram\n"
            "model = Gammatonegram(sr=16000, n_fft=256, hop_length=64, n_bins=32, verbose=False).eval()",
            "torch.randn(1, 4096)",
            read="features/gammatone.py: STFT and a matrix",
        ),
        Model(
            "Inverse STFT of nnAudio",
            "from nnAudio.features.stft import iSTFT\nmodel = iSTFT(n_fft=256, hop_length=64, verbose=False).eval()",
            "torch.randn(1, 256, 40, 2)",
            time_dim=2,
            read="features/stft.py, iSTFT: overlap-add by fold, divided by the window's sums; onesided=False needs all bins",
        ),
    ),
    bare=("nnAudio", "nnAudio.features"),
    stand_ins=("librosa",),
)

# What it needs of librosa, for windows as long as their frames.
_PAD_CENTER = (
    "import types, librosa, scipy.signal\n"
    "librosa.util = types.SimpleNamespace(pad_center=lambda data, size, **options: data, normalize=lambda data, **options: data)\n"
    "librosa.filters = types.SimpleNamespace(get_window=scipy.signal.get_window)\n"
)
_TORCHLIBROSA = Package(
    "torchlibrosa",
    ("torchlibrosa==0.1.0",),
    (
        Model(
            "Spectrogram of torchlibrosa",
            "from torchlibrosa.stft import STFT\nmodel = STFT(n_fft=256, hop_length=64, center=False).eval()",
            "torch.randn(1, 4096)",
            read="stft.py, STFT: two convolutions, transposed to [B, 1, T, F]",
        ),
        Model(
            "Inverse STFT of torchlibrosa",
            "import torch\n"
            "from torchlibrosa.stft import ISTFT\n"
            "class Inverse(torch.nn.Module):\n"
            "    def __init__(self):\n"
            "        super().__init__()\n"
            "        self.istft = ISTFT(n_fft=256, hop_length=64)\n\n"
            "    def forward(self, real, imag):\n"
            "        return self.istft(real, imag, None)\n\n"
            "model = Inverse().eval()",
            "(torch.randn(1, 1, 40, 129), torch.randn(1, 1, 40, 129))",
            time_dim=(2, 2),
            read="stft.py, ISTFT: convolutions, overlap-add by fold, divided by the window's sums of the length",
        ),
    ),
    setup=_PAD_CENTER,
    stand_ins=("librosa",),
)

_JULIUS = Package(
    "julius",
    ("julius==0.2.8",),
    tuple(
        Model(
            f"Resampler of julius, {old}:{new}",
            f"import julius\nmodel = julius.ResampleFrac({old}, {new}).eval()",
            "torch.randn(1, 1, 2205)",
            read="resample.py, ResampleFrac.forward: replicate padding, cropped to floor(new * T / old)",
        )
        for old, new in ((1, 2), (2, 1), (3, 2), (441, 160))
    )
    + (
        Model(
            "Low-pass filter of julius",
            "import julius\nmodel = julius.LowPassFilter(0.1, fft=False).eval()",
            "torch.randn(1, 1, 800)",
            read="lowpass.py: replicate padding, a convolution",
        ),
        Model(
            "High-pass filter of julius",
            "import julius\nmodel = julius.HighPassFilter(0.1, fft=False).eval()",
            "torch.randn(1, 1, 800)",
            read="filters.py: the signal less its low-pass",
        ),
        Model(
            "Split into bands of julius",
            "import julius\nmodel = julius.SplitBands(16000, n_bands=4, fft=False).eval()",
            "torch.randn(1, 1, 1600)",
            read="bands.py: differences of low-passes",
        ),
        Model(
            "Convolution by FFT of julius",
            "import julius\nmodel = julius.FFTConv1d(4, 4, 129).eval()",
            "torch.randn(1, 4, 4000)",
            read="fftconv.py: unfolded into blocks, which are filtered by FFT and added: a convolution",
        ),
    ),
)

# Its compiled part is left out: what it has in Python is taken.
_TORCHAUDIO_SETUP = "import torchaudio._extension\ntorchaudio._extension._IS_TORCHAUDIO_EXT_AVAILABLE = False\n"
_TORCHAUDIO = Package(
    "torchaudio",
    ("torchaudio==2.11.0",),
    (
        Model(
            "Resampler of torchaudio, 2:1",
            _call("torchaudio.functional", "functional as F", "F.resample(x, 2, 1)"),
            "torch.randn(1, 2000)",
            read="functional.py, _apply_sinc_resample_kernel: padded, strided, cropped to ceil(new * T / old)",
        ),
        Model(
            "Resampler of torchaudio, 441:160",
            _call("torchaudio.functional", "functional as F", "F.resample(x, 44100, 16000)"),
            "torch.randn(1, 4410)",
            read="functional.py, the same",
        ),
        Model(
            "Resampler of torchaudio, 160:441",
            _call("torchaudio.functional", "functional as F", "F.resample(x, 16000, 44100)"),
            "torch.randn(1, 1600)",
            read="functional.py, the same",
        ),
        Model(
            "Spectrogram of torchaudio",
            "import torch\n"
            "from torchaudio.functional import functional as F\n"
            "class Spectrogram(torch.nn.Module):\n"
            "    def __init__(self):\n"
            "        super().__init__()\n"
            "        self.register_buffer('window', torch.hann_window(400))\n\n"
            "    def forward(self, x):\n"
            "        return F.spectrogram(x, 0, self.window, 400, 160, 400, 2.0, False)\n\n"
            "model = Spectrogram().eval()",
            "torch.randn(1, 8000)",
            read="functional.py, spectrogram: torch.stft, centred",
        ),
        Model(
            "Decibels of torchaudio, with top_db",
            _call("torchaudio.functional", "functional as F", "F.amplitude_to_DB(x.abs(), 10.0, 1e-10, 0.0, 80.0)"),
            "torch.rand(1, 1, 40, 60)",
            forbidden="the maximum of the whole signal bounds the levels from below (top_db)",
            read="functional.py, amplitude_to_DB",
        ),
        Model(
            "Deltas of torchaudio",
            _call("torchaudio.functional", "functional as F", "F.compute_deltas(x)"),
            "torch.randn(1, 40, 60)",
            read="functional.py, compute_deltas: replicate padding, a convolution",
        ),
        Model(
            "Sliding mean and variance of torchaudio",
            _call("torchaudio.functional", "functional as F", "F.sliding_window_cmn(x, 60, 20, True, True)"),
            "torch.randn(1, 120, 20)",
            time_dim=1,
            read="functional.py, sliding_window_cmn: a loop over frames with a window that is shifted at both ends",
        ),
        Model(
            "Conv-TasNet of torchaudio",
            "from torchaudio.models.conv_tasnet import ConvTasNet\n"
            "model = ConvTasNet(enc_num_feats=32, msk_num_feats=16, msk_num_hidden_feats=32, msk_num_layers=3,\n"
            "                   msk_num_stacks=1).eval()",
            "torch.randn(1, 1, 1600)",
            forbidden="layer norm over the whole signal (gLN)",
            read="models/conv_tasnet.py: nn.GroupNorm(1, …) on [B, C, T]",
        ),
        Model(
            "Wav2Letter of torchaudio",
            "from torchaudio.models.wav2letter import Wav2Letter\nmodel = Wav2Letter(10, 'mfcc', 13).eval()",
            "torch.randn(1, 13, 200)",
            read="models/wav2letter.py: convolutions with padding, log-softmax over classes",
        ),
        Model(
            "Conformer of torchaudio, convolution module",
            "from torchaudio.models.conformer import _ConvolutionModule\nmodel = _ConvolutionModule(32, 32, 15).eval()",
            "torch.randn(1, 100, 32)",
            time_dim=1,
            read="models/conformer.py: depthwise convolution, batch norm",
        ),
        Model(
            "Conformer of torchaudio",
            "from torchaudio.models.conformer import Conformer\nmodel = Conformer(32, 4, 64, 2, 15).eval()",
            "(torch.randn(1, 100, 32), torch.tensor([100]))",
            time_dim=(1, None),
            forbidden="attention to the whole signal",
            read="models/conformer.py",
        ),
        Model(
            "DeepSpeech of torchaudio",
            "from torchaudio.models.deepspeech import DeepSpeech\nmodel = DeepSpeech(20, 32, 10).eval()",
            "torch.randn(1, 1, 60, 20)",
            time_dim=2,
            forbidden="RNN in both directions over time",
            read="models/deepspeech.py: bidirectional=True",
        ),
        Model(
            "WaveRNN of torchaudio, mel network",
            "from torchaudio.models.wavernn import MelResNet\nmodel = MelResNet(4, 20, 16, 16, 5).eval()",
            "torch.randn(1, 20, 60)",
            read="models/wavernn.py, MelResNet: convolutions and batch norm",
        ),
        Model(
            "WaveRNN of torchaudio, upsampling",
            "from torchaudio.models.wavernn import UpsampleNetwork\n"
            "model = UpsampleNetwork([4, 4], 2, 20, 16, 16, 5).eval()",
            "torch.randn(1, 20, 60)",
            read="models/wavernn.py, UpsampleNetwork: repeats and convolutions in two dimensions, cropped by constants",
        ),
    ),
    setup=_TORCHAUDIO_SETUP,
    bare=("torchaudio", "torchaudio.models", "torchaudio.functional", "torchaudio._internal"),
    stand_ins=("torchaudio._extension", "torchaudio._internal.module_utils"),
)

PACKAGES = (_NNAUDIO, _TORCHLIBROSA, _JULIUS, _TORCHAUDIO)
