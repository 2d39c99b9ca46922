"""Enhancers and separators: denoiser, demucs, asteroid, DeepFilterNet, Open-Unmix, resemble-enhance."""

# ruff: noqa: E501  (statements are those that the page shows)

from .listing import Model, Package

__all__ = ["PACKAGES"]

EINOPS = "einops==0.8.2"

_DENOISER = Package(
    "denoiser",
    ("denoiser==0.1.5",),
    (
        Model(
            "Demucs denoiser, not normalized",
            "from denoiser.demucs import Demucs\nmodel = Demucs(hidden=16, normalize=False).eval()",
            "torch.randn(1, 1, 8000)",
            read="demucs.py: valid_length of the length, resampling by 4, skips cut to the length, LSTM forwards",
        ),
        Model(
            "Demucs denoiser, not normalized, without resampling",
            "from denoiser.demucs import Demucs\nmodel = Demucs(hidden=16, normalize=False, resample=1).eval()",
            "torch.randn(1, 1, 4000)",
            read="demucs.py, the same with resample=1",
        ),
        Model(
            "Demucs denoiser, as published",
            "from denoiser.demucs import Demucs\nmodel = Demucs(hidden=16).eval()",
            "torch.randn(1, 1, 8000)",
            forbidden="divided by the deviation of the whole signal",
            read="demucs.py, Demucs.forward: mono.std(dim=-1)",
        ),
        Model(
            "Resampling by 2 of the denoiser, up",
            "import torch\n"
            "from denoiser.resample import upsample2\n"
            "class Up(torch.nn.Module):\n"
            "    def forward(self, x):\n"
            "        return upsample2(x)\n\n"
            "model = Up().eval()",
            "torch.randn(1, 1, 400)",
            read="resample.py: convolution with a windowed sinc, interleaved with the signal",
        ),
        Model(
            "Resampling by 2 of the denoiser, down",
            "import torch\n"
            "from denoiser.resample import downsample2\n"
            "class Down(torch.nn.Module):\n"
            "    def forward(self, x):\n"
            "        return downsample2(x)\n\n"
            "model = Down().eval()",
            "torch.randn(1, 1, 400)",
            read="resample.py: odd lengths are padded by one",
        ),
    ),
    bare=("denoiser",),
)

_DEMUCS_SETUP = "from demucs.demucs import Demucs\nfrom demucs.hdemucs import HDemucs\n"
_DEMUCS = Package(
    "demucs",
    ("demucs==4.1.0", "julius==0.2.8", EINOPS),
    (
        Model(
            "Demucs v3, without norms, attention, LSTM and resampling",
            "model = Demucs(['a', 'b'], channels=8, depth=3, norm_starts=9, dconv_mode=0, normalize=False,\n"
            "               resample=False).eval()",
            "torch.randn(1, 2, 2048)",
            options="length_multiple=64",
            step=64,
            read="demucs.py, Demucs.forward: pads to valid_length on both sides, on the left by as much as the remainder of "
            "the length says; center_trim of skips and output",
        ),
        Model(
            "Demucs v3, without norms, attention and LSTM, resampled",
            "model = Demucs(['a', 'b'], channels=8, depth=3, norm_starts=9, dconv_mode=0, normalize=False).eval()",
            "torch.randn(1, 2, 2048)",
            options="length_multiple=32",
            step=32,
            read="demucs.py: julius.resample_frac by 1:2 and 2:1 around",
        ),
        Model(
            "Demucs v3, as published",
            "model = Demucs(['a', 'b'], channels=8, depth=5).eval()",
            "torch.randn(1, 2, 8192)",
            forbidden="deviation of the whole signal, LSTM in both directions, attention to the whole signal",
            read="demucs.py: normalize=True, dconv_lstm, dconv_attn",
        ),
        Model(
            "Hybrid Demucs",
            "model = HDemucs(['a', 'b'], channels=8, depth=4, nfft=512, dconv_mode=0).eval()",
            "torch.randn(1, 2, 8192)",
            forbidden="mean and deviation over the whole spectrogram",
            read="hdemucs.py, HDemucs.forward: x.mean(dim=(1, 2, 3))",
        ),
    ),
    setup=_DEMUCS_SETUP,
    bare=("demucs",),
    stand_ins=("diffq", "openunmix", "dora", "omegaconf", "hydra", "lameenc"),
)

_ASTEROID = Package(
    "asteroid",
    ("asteroid==0.7.0", "asteroid-filterbanks==0.4.0"),
    (
        Model(
            "Conv-TasNet of asteroid, causal",
            "from asteroid.models.conv_tasnet import ConvTasNet\n"
            "model = ConvTasNet(2, n_blocks=4, n_repeats=2, n_filters=64, bn_chan=32, hid_chan=64, skip_chan=32,\n"
            "                   norm_type='cLN', causal=True).eval()",
            "torch.randn(1, 1, 1600)",
            read="base_models.py: the output is padded to the input's length; norms.py, ChanLN; _Chop1d",
        ),
        Model(
            "Conv-TasNet of asteroid, cumulative norm",
            "from asteroid.models.conv_tasnet import ConvTasNet\n"
            "model = ConvTasNet(2, n_blocks=4, n_repeats=2, n_filters=64, bn_chan=32, hid_chan=64, skip_chan=32,\n"
            "                   norm_type='cgLN', causal=True).eval()",
            "torch.randn(1, 1, 1600)",
            read="norms.py, CumLN: cumsum over time, divided by counts",
        ),
        Model(
            "Conv-TasNet of asteroid, batch norm",
            "from asteroid.models.conv_tasnet import ConvTasNet\n"
            "model = ConvTasNet(2, n_blocks=4, n_repeats=2, n_filters=64, bn_chan=32, hid_chan=64, skip_chan=32,\n"
            "                   norm_type='bN').eval()",
            "torch.randn(1, 1, 1600)",
            read="norms.py, BatchNorm",
        ),
        Model(
            "Conv-TasNet of asteroid, as published",
            "from asteroid.models.conv_tasnet import ConvTasNet\n"
            "model = ConvTasNet(2, n_blocks=4, n_repeats=2, n_filters=64, bn_chan=32, hid_chan=64, skip_chan=32).eval()",
            "torch.randn(1, 1, 1600)",
            forbidden="layer norm over the whole signal (gLN)",
            read="norms.py, GlobLN",
        ),
        Model(
            "LSTM-TasNet of asteroid, forwards",
            "from asteroid.models.lstm_tasnet import LSTMTasNet\n"
            "model = LSTMTasNet(2, n_layers=2, hid_size=32, bidirectional=False).eval()",
            "torch.randn(1, 1, 1600)",
            read="recurrent.py, LSTMMasker: LSTMs that run forwards, with skips",
        ),
        Model(
            "LSTM-TasNet of asteroid, as published",
            "from asteroid.models.lstm_tasnet import LSTMTasNet\nmodel = LSTMTasNet(2, n_layers=2, hid_size=32).eval()",
            "torch.randn(1, 1, 1600)",
            forbidden="LSTM in both directions over time",
            read="lstm_tasnet.py: bidirectional=True",
        ),
        Model(
            "DPRNN-TasNet of asteroid",
            "from asteroid.models.dprnn_tasnet import DPRNNTasNet\n"
            "model = DPRNNTasNet(2, n_repeats=2, n_filters=32, bn_chan=16, hid_size=16, chunk_size=20).eval()",
            "torch.randn(1, 1, 1600)",
            forbidden="layer norm over the whole signal (gLN), RNN in both directions over chunks",
            read="recurrent.py, DPRNNBlock",
        ),
        Model(
            "Filterbank of asteroid, encoder",
            "from asteroid_filterbanks import make_enc_dec\n"
            "model = make_enc_dec('free', n_filters=32, kernel_size=16, stride=8)[0].eval()",
            "torch.randn(1, 1, 800)",
            read="enc_dec.py, Encoder: a strided convolution with weights from the filterbank",
        ),
        Model(
            "Filterbank of asteroid, STFT",
            "from asteroid_filterbanks import make_enc_dec\n"
            "model = make_enc_dec('stft', n_filters=64, kernel_size=64, stride=32)[0].eval()",
            "torch.randn(1, 1, 1600)",
            read="enc_dec.py, Encoder; stft_fb.py: weights computed from a window",
        ),
        Model(
            "Filterbank of asteroid, STFT decoder",
            "from asteroid_filterbanks import make_enc_dec\n"
            "model = make_enc_dec('stft', n_filters=64, kernel_size=64, stride=32)[1].eval()",
            "torch.randn(1, 66, 40)",
            read="enc_dec.py, Decoder: a transposed convolution with weights from the filterbank",
        ),
    ),
    bare=("asteroid", "asteroid.models", "asteroid.engine", "asteroid.dsp"),
    stand_ins=("huggingface_hub", "requests", "librosa", "soundfile", "pytorch_lightning", "asteroid.utils.hub_utils"),
)

_DF_SETUP = (
    "import sys, types\n"
    "import numpy as np\n"
    "logger = types.SimpleNamespace(**{name: lambda *args, **kwargs: None for name in ('warning', 'info', 'debug', 'log')})\n"
    "logger.level = lambda name: types.SimpleNamespace(no=30)\n"
    "sys.modules['loguru'] = types.SimpleNamespace(logger=logger)\n"
    "sys.modules['libdf'] = libdf = types.ModuleType('libdf')\n"
    "libdf.DF, libdf.unit_norm_init = object, lambda n: np.linspace(0.001, 0.0001, n).astype('float32')\n"
    "from df.config import config\n"
    "config.use_defaults()\n"
    "from df.modules import erb_fb\n"
    "import df.modules\n"
    "df.modules.get_device = lambda: 'cpu'\n"
    "widths = np.array([2] * 8 + [4] * 8 + [10] * 8 + [44] * 7 + [45])\n"
)
_DEEPFILTERNET = Package(
    "DeepFilterNet",
    ("DeepFilterNet==0.5.6",),
    tuple(
        Model(
            f"DeepFilterNet{version}",
            f"from df import deepfilternet{version} as module\n"
            + options
            + "bands, inverse = erb_fb(widths, 48000), erb_fb(widths, 48000, inverse=True)\n"
            + "model = module.DfNet(bands, inverse).eval()",
            "(torch.randn(1, 1, 40, 481, 2), torch.randn(1, 1, 40, 32), torch.randn(1, 1, 40, 96, 2))",
            time_dim=(2, 2, 2),
            read=f"deepfilternet{version}.py, DfNet.forward: convolutions over time and bands, GRUs forwards, filters of 5 frames",
        )
        for version, options in (
            ("2", "config.set('DF_OUTPUT_LAYER', 'groupedlinear', str, 'deepfilternet')\n"),
            ("3", ""),
        )
    )
    + (
        Model(
            "DeepFilterNet3, encoder",
            "from df.deepfilternet3 import Encoder\nmodel = Encoder().eval()",
            "(torch.randn(1, 1, 40, 32), torch.randn(1, 2, 40, 96))",
            time_dim=(2, 2),
            read="deepfilternet3.py, Encoder",
        ),
        Model(
            "DeepFilterNet, squeezed GRU",
            "from df.modules import SqueezedGRU_S\nmodel = SqueezedGRU_S(64, 32, 64, linear_groups=8).eval()",
            "torch.randn(1, 40, 64)",
            time_dim=1,
            select=0,
            read="modules.py, SqueezedGRU_S: grouped linear layers by einsum, a GRU; its last state is left out",
        ),
        Model(
            "DeepFilterNet, deep filter",
            "from df.multiframe import DF\nmodel = DF(num_freqs=16, frame_size=5, lookahead=2).eval()",
            "(torch.randn(1, 1, 40, 33, 2), torch.randn(1, 5, 40, 16, 2))",
            time_dim=(2, 2),
            read="multiframe.py, DF: padded, complex, unfolded over time",
        ),
    ),
    bare=("df",),
    stand_ins=("icecream", "git"),
    setup=_DF_SETUP,
)

_UNMIX = Package(
    "openunmix",
    ("openunmix==1.3.0",),
    (
        Model(
            "Open-Unmix, forwards",
            "from openunmix.model import OpenUnmix\nmodel = OpenUnmix(65, 2, 32, 2, unidirectional=True).eval()",
            "torch.rand(1, 2, 65, 40)",
            read="model.py, OpenUnmix: linear layers, batch norm over flattened frames, LSTM forwards",
        ),
        Model(
            "Open-Unmix, as published",
            "from openunmix.model import OpenUnmix\nmodel = OpenUnmix(65, 2, 32, 2).eval()",
            "torch.rand(1, 2, 65, 40)",
            forbidden="LSTM in both directions over time",
            read="model.py: bidirectional=not unidirectional",
        ),
        Model(
            "Open-Unmix, STFT",
            "from openunmix.transforms import TorchSTFT\nmodel = TorchSTFT(256, 64, center=True).eval()",
            "torch.randn(1, 2, 4096)",
            read="transforms.py: torch.stft, view_as_real",
        ),
    ),
    bare=("openunmix",),
    stand_ins=("torchaudio",),
)

PACKAGES = (_DENOISER, _DEMUCS, _ASTEROID, _DEEPFILTERNET, _UNMIX)
