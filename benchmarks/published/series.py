"""Models of time series, biosignals and amplifiers: pytorch-tcn, tsai, braindecode, neural-amp-modeler."""

# ruff: noqa: E501  (statements are those that the page shows)

from .listing import Model, Package

__all__ = ["PACKAGES"]

EINOPS = "einops==0.8.2"

_TCN = Package(
    "pytorch-tcn",
    ("pytorch-tcn==1.2.3",),
    (
        Model(
            "TCN of pytorch-tcn, causal",
            "from pytorch_tcn import TCN\nmodel = TCN(8, [16, 16, 16]).eval()",
            "torch.randn(1, 8, 120)",
            read="tcn.py, TemporalBlock; pad.py: causal padding, without the buffers of inference",
        ),
        Model(
            "TCN of pytorch-tcn, centred",
            "from pytorch_tcn import TCN\nmodel = TCN(8, [16, 16, 16], causal=False).eval()",
            "torch.randn(1, 8, 120)",
            read="tcn.py; pad.py: padding on both sides",
        ),
        Model(
            "TCN of pytorch-tcn, gates, skips, layer norm",
            "from pytorch_tcn import TCN\n"
            "model = TCN(8, [16, 16, 16], use_gate=True, use_skip_connections=True, use_norm='layer_norm').eval()",
            "torch.randn(1, 8, 120)",
            read="tcn.py: layer norm over channels",
        ),
        Model(
            "TCN of pytorch-tcn, layout NLC",
            "from pytorch_tcn import TCN\nmodel = TCN(8, [16, 16], input_shape='NLC').eval()",
            "torch.randn(1, 120, 8)",
            time_dim=1,
            read="tcn.py: transposed at both ends",
        ),
        Model(
            "Transposed convolution of pytorch-tcn, causal",
            "from pytorch_tcn import TemporalConvTranspose1d\n"
            "model = TemporalConvTranspose1d(8, 8, kernel_size=4, stride=2, causal=True).eval()",
            "torch.randn(1, 8, 60)",
            read="conv.py: crops on the right",
        ),
    ),
)

# What it reads of fastai and matplotlib when it is imported and built.
_TSAI_SETUP = (
    "import types, matplotlib.pyplot\n"
    "from fastcore.basics import defaults\n"
    "defaults.use_cuda = False\n"
    "matplotlib.pyplot.gcf = lambda: types.SimpleNamespace(get_dpi=lambda: 100)\n"
)
_TSAI = Package(
    "tsai",
    ("tsai==1.0.1", "fastcore==1.8.16", "fastai==2.8.7"),
    (
        Model(
            "TCN of tsai, its convolutions",
            "from tsai.models.TCN import TemporalConvNet\nmodel = TemporalConvNet(3, [16, 16, 16], ks=5).eval()",
            "torch.randn(1, 3, 120)",
            read="TCN.py, TemporalConvNet: padding on both sides, Chomp1d on the right",
        ),
        Model(
            "TCN of tsai, as published",
            "from tsai.models.TCN import TCN\nmodel = TCN(3, 2, layers=[16, 16]).eval()",
            "torch.randn(1, 3, 120)",
            forbidden="mean over the whole signal",
            read="TCN.py: GAP1d",
        ),
        Model(
            "InceptionTime of tsai, its block",
            "from tsai.models.InceptionTime import InceptionBlock\nmodel = InceptionBlock(3, 8).eval()",
            "torch.randn(1, 3, 120)",
            read="InceptionTime.py, InceptionBlock: convolutions, a max pool of three",
        ),
        Model(
            "ResNet of tsai, its block",
            "from tsai.models.ResNet import ResBlock\nmodel = ResBlock(3, 16).eval()",
            "torch.randn(1, 3, 120)",
            read="ResNet.py, ResBlock",
        ),
        Model(
            "LSTM of tsai",
            "from tsai.models.RNN import LSTM\nmodel = LSTM(3, 2, hidden_size=16).eval()",
            "torch.randn(1, 3, 60)",
            forbidden="the last sample of the whole signal alone is used",
            read="RNN.py: output[:, -1]",
        ),
    ),
    setup=_TSAI_SETUP,
    bare=("tsai", "tsai.models", "fastai"),
    stand_ins=(
        "fastai.basics",
        "fastai.callback",
        "fastai.data",
        "fastai.learner",
        "fastai.losses",
        "fastai.metrics",
        "fastai.optimizer",
        "fastai.vision",
        "fastdownload",
        "fastprogress",
        "fasttransform",
        "plum",
        "PIL",
        "torchvision",
        "requests",
        "joblib",
        "matplotlib",
        "tqdm",
        "pandas",
        "IPython",
        "sklearn",
        "psutil",
        "imblearn",
        "pyts",
        "fastai.tabular",
        "spacy",
    ),
)

# Filters are designed by SciPy instead of mne, and filtered by the Python files of torchaudio.
_BRAIN_SETUP = (
    "import docstring_inheritance, mne.filter, mne.utils, scipy.signal, torchaudio._extension, torchaudio.functional\n"
    "def create_filter(data, sfreq, l_freq, h_freq, **options):\n"
    "    return scipy.signal.firwin(129, [l_freq, h_freq], pass_zero=False, fs=sfreq)\n\n"
    "mne.filter.create_filter = create_filter\n"
    "mne.filter._check_coefficients = lambda coefficients: None\n"
    "mne.utils._soft_import = lambda *names, **options: False\n"
    "docstring_inheritance.NumpyDocstringInheritanceInitMeta = type\n"
    "torchaudio._extension._IS_TORCHAUDIO_EXT_AVAILABLE = False\n"
    "from torchaudio.functional import filtering, functional\n"
    "vars(torchaudio.functional).update(\n"
    "    fftconvolve=functional.fftconvolve, filtfilt=filtering.filtfilt, lfilter=filtering.lfilter\n"
    ")\n"
    "import braindecode.modules\n"
    "from braindecode.modules import layers\n"
    "for name in ('Chomp1d', 'Ensure4d', 'SqueezeFinalOutput'):\n"
    "    setattr(braindecode.modules, name, getattr(layers, name))\n"
)
_BRAIN = Package(
    "braindecode",
    ("braindecode==1.8.1", "torchaudio==2.11.0", EINOPS),
    (
        Model(
            "TCN of braindecode, temporal block",
            "from braindecode.models.tcn import _TemporalBlock\nmodel = _TemporalBlock(8, 16, 5, 1, 2, 8, 0.1).eval()",
            "torch.randn(1, 8, 100)",
            read="tcn.py, _TemporalBlock: padding on both sides, Chomp1d on the right",
        ),
        Model(
            "TCN of braindecode",
            "from braindecode.models.tcn import TCN\nmodel = TCN(8, 4, n_blocks=3, n_filters=16).eval()",
            "torch.randn(1, 8, 200)",
            read="tcn.py, TCN: the first min_len - 1 outputs are dropped; an assert on the length",
        ),
        Model(
            "Causal convolution of braindecode",
            "from braindecode.modules.convolution import CausalConv1d\nmodel = CausalConv1d(8, 8, 5, dilation=2).eval()",
            "torch.randn(1, 8, 100)",
            read="modules/convolution.py: padding on both sides, cropped on the right",
        ),
        Model(
            "Filter bank of braindecode, FIR",
            "from braindecode.modules.filter import FilterBankLayer\n"
            "model = FilterBankLayer(4, 100.0, [(4, 8), (8, 12)], method='fir').eval()",
            "torch.randn(1, 4, 400)",
            read="modules/filter.py: FIR filters of each band, by convolution",
        ),
        Model(
            "emg2qwerty, TDS encoder",
            "from braindecode.modules.blocks import TDSConvEncoder\nmodel = TDSConvEncoder(64, [8, 8], 9).eval()",
            "torch.randn(100, 1, 64)",
            time_dim=0,
            read="TDSConvEncoder: convolutions over time without padding, layer norms over features, on [T, B, C]",
        ),
        Model(
            "Statistics layer of braindecode",
            "from braindecode.modules.stats import StatLayer\n"
            "import torch\n"
            "model = StatLayer(torch.mean, dim=-1).eval()",
            "torch.randn(1, 4, 100)",
            forbidden="mean over the whole signal",
            read="StatLayer: torch.mean over time",
        ),
    ),
    setup=_BRAIN_SETUP,
    bare=(
        "braindecode",
        "braindecode.models",
        "braindecode.modules",
        "torchaudio",
        "torchaudio.functional",
        "torchaudio._internal",
    ),
    stand_ins=(
        "torchaudio._extension",
        "torchaudio._internal.module_utils",
        "pandas",
        "h5py",
        "mne",
        "torchinfo",
        "docstring_inheritance",
        "linear_attention_transformer",
        "skorch",
        "sklearn",
        "huggingface_hub",
    ),
)

_NAM = Package(
    "neural-amp-modeler",
    ("neural-amp-modeler==0.13.0",),
    tuple(
        Model(
            f"Neural Amp Modeler, WaveNet of {channels} channels",
            "from nam.models.wavenet import WaveNet\n"
            "import copy\n"
            "layers = dict(condition_size=1, kernel_size=3, activation='Tanh', gated=False)\n"
            "config = dict(layers_configs=[\n"
            f"    dict(layers, input_size=1, channels={channels},\n"
            f"         dilations=[1, 2, 4, 8, 16, 32], head=dict(out_channels={channels // 2}, kernel_size=1, bias=False)),\n"
            f"    dict(layers, input_size={channels}, channels={channels // 2},\n"
            "         dilations=[1, 2, 4, 8], head=dict(out_channels=1, kernel_size=1, bias=True)),\n"
            "], head_scale=0.02)\n"
            "model = WaveNet.init_from_config(config).eval()._net",
            "torch.randn(1, 1, 1200)",
            read="wavenet/_wavenet.py: dilated convolutions without padding, outputs cropped on the left and added",
        )
        for channels in (8, 16)
    )
    + (
        Model(
            "Neural Amp Modeler, LSTM",
            "from nam.models.recurrent import LSTM\nmodel = LSTM(8, num_layers=1).eval()._core",
            "torch.randn(1, 200, 1)",
            time_dim=1,
            select=0,
            read="recurrent.py: nn.LSTM along time; its last state, an output too, is left out",
        ),
        Model(
            "Neural Amp Modeler, convolutional network",
            "from nam.models.conv_net import ConvNet\n"
            "model = ConvNet.init_from_config(dict(channels=8, dilations=[1, 2, 4, 8], batchnorm=True,\n"
            "                                      activation='Tanh')).eval()._net",
            "torch.randn(1, 400)",
            read="conv_net.py: dilated convolutions without padding, batch norm",
        ),
        Model(
            "Neural Amp Modeler, linear model",
            "from nam.models.linear import Linear\nmodel = Linear(64).eval()._net",
            "torch.randn(1, 1, 400)",
            read="linear.py: one convolution",
        ),
    ),
    bare=("nam.train",),
    stand_ins=("librosa", "wavio", "tqdm", "pytorch_lightning", "auraloss", "sounddevice", "matplotlib"),
)

PACKAGES = (_TCN, _TSAI, _BRAIN, _NAM)
