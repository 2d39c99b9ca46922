"""Speech: SpeechBrain, Silero VAD, pyannote, SpeechTokenizer."""

# ruff: noqa: E501  (statements are those that the page shows)

from .listing import Model, Package, wrapper

__all__ = ["PACKAGES"]

EINOPS = "einops==0.8.2"

_SB_BARE = (
    "speechbrain",
    "speechbrain.nnet",
    "speechbrain.nnet.complex_networks",
    "speechbrain.lobes",
    "speechbrain.lobes.models",
    "speechbrain.lobes.models.transformer",
    "speechbrain.utils",
    "speechbrain.dataio",
    "speechbrain.processing",
)
_SB_SETUP = "import speechbrain.nnet.containers\n"
_CONFORMER = (
    "from speechbrain.lobes.models.transformer.Conformer import ConvolutionModule\n"
    "from speechbrain.utils.dynamic_chunk_training import DynChunkTrainConfig\n"
)
_SPEECHBRAIN = Package(
    "speechbrain",
    ("speechbrain==1.1.2", "hyperpyyaml==1.2.3", "tqdm==4.70.1"),
    (
        Model(
            "TDNN block of SpeechBrain (ECAPA)",
            "from speechbrain.lobes.models.ECAPA_TDNN import TDNNBlock\nmodel = TDNNBlock(16, 16, 5, 2).eval()",
            "torch.randn(1, 16, 80)",
            read="ECAPA_TDNN.py, TDNNBlock; nnet/CNN.py, Conv1d: reflected padding",
        ),
        Model(
            "Res2Net block of SpeechBrain (ECAPA)",
            "from speechbrain.lobes.models.ECAPA_TDNN import Res2NetBlock\nmodel = Res2NetBlock(16, 16, 4, 3, 2).eval()",
            "torch.randn(1, 16, 80)",
            read="ECAPA_TDNN.py, Res2NetBlock: channels in groups, each added to the next",
        ),
        Model(
            "ECAPA-TDNN of SpeechBrain",
            "from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN\n"
            "model = ECAPA_TDNN(20, channels=[16, 16, 16, 16, 48], lin_neurons=16, attention_channels=8,\n"
            "                   res2net_scale=4, se_channels=8).eval()",
            "torch.randn(1, 100, 20)",
            time_dim=1,
            forbidden="mean and deviation over the whole signal",
            read="ECAPA_TDNN.py, SEBlock and AttentiveStatisticsPooling",
        ),
        Model(
            "HiFi-GAN of SpeechBrain",
            "from speechbrain.lobes.models.HifiGAN import HifiganGenerator\n"
            "model = HifiganGenerator(80, 1, '1', [[1, 3, 5], [1, 3, 5]], [3, 7], [16, 16, 4, 4], 64, [8, 8, 2, 2]).eval()",
            "torch.randn(1, 80, 30)",
            read="HifiGAN.py, HifiganGenerator.forward; nnet/CNN.py: reflected padding",
        ),
        Model(
            "Conv-TasNet of SpeechBrain, causal mask",
            "from speechbrain.lobes.models.conv_tasnet import MaskNet\n"
            "model = MaskNet(32, 16, 32, 3, 3, 2, 2, norm_type='cLN', causal=True).eval()",
            "torch.randn(1, 32, 120)",
            read="conv_tasnet.py: Chomp1d, layer norm over channels; reflected padding of nnet/CNN.py",
        ),
        Model(
            "Conv-TasNet of SpeechBrain, encoder",
            "import speechbrain.nnet.CNN\n"
            "from speechbrain.lobes.models.conv_tasnet import Encoder\n"
            "model = Encoder(16, 32).eval()",
            "torch.randn(1, 800)",
            read="conv_tasnet.py, Encoder: a strided convolution",
        ),
        Model(
            "Convolution module of SpeechBrain's Conformer, causal",
            _CONFORMER + "model = ConvolutionModule(32, 15, causal=True).eval()",
            "torch.randn(1, 60, 32)",
            time_dim=1,
            read="Conformer.py, ConvolutionModule: layer norm, gates, depthwise convolution, cut on the right",
        ),
        Model(
            "Convolution module of SpeechBrain's Conformer, in chunks",
            "import torch\n"
            + _CONFORMER
            + wrapper(
                "Chunked",
                "self.module = ConvolutionModule(32, 15)",
                "return self.module(x, dynchunktrain_config=DynChunkTrainConfig(8, 2))",
            )
            + "model = Chunked().eval()",
            "torch.randn(1, 64, 32)",
            time_dim=1,
            read="Conformer.py: unfolded into chunks with their past, padded to whole chunks",
        ),
        Model(
            "GRU of SpeechBrain",
            "from speechbrain.nnet.RNN import GRU\nmodel = GRU(16, input_size=8).eval()",
            "torch.randn(1, 60, 8)",
            time_dim=1,
            select=0,
            read="RNN.py, GRU: nn.GRU; its last state, an output too, is left out",
        ),
        Model(
            "LiGRU of SpeechBrain",
            "from speechbrain.nnet.RNN import LiGRU\nmodel = LiGRU(16, (1, 60, 8)).eval()",
            "torch.randn(1, 60, 8)",
            time_dim=1,
            select=0,
            read="RNN.py, LiGRU_Layer: a loop over time, which is a recurrence, scripted by torch",
        ),
        Model(
            "Fbank of SpeechBrain, STFT",
            "from speechbrain.processing.features import STFT\nmodel = STFT(16000, n_fft=400).eval()",
            "torch.randn(1, 8000)",
            read="processing/features.py, STFT: torch.stft, centred",
        ),
        Model(
            "Deltas of SpeechBrain",
            "from speechbrain.processing.features import Deltas\nmodel = Deltas(20).eval()",
            "torch.randn(1, 60, 20)",
            time_dim=1,
            read="processing/features.py, Deltas: replicate padding, a grouped convolution",
        ),
        Model(
            "Context window of SpeechBrain",
            "from speechbrain.processing.features import ContextWindow\nmodel = ContextWindow(3, 2).eval()",
            "torch.randn(1, 60, 20)",
            time_dim=1,
            read="processing/features.py, ContextWindow: a grouped convolution with an identity",
        ),
        Model(
            "Filterbank of SpeechBrain",
            "from speechbrain.processing.features import Filterbank\nmodel = Filterbank(n_fft=400).eval()",
            "torch.rand(1, 60, 201)",
            time_dim=1,
            forbidden="the maximum of the whole signal bounds the levels from below (top_db)",
            read="processing/features.py, Filterbank._amplitude_to_DB",
        ),
        Model(
            "Sentence norm of SpeechBrain",
            "from speechbrain.nnet.normalization import InstanceNorm1d\nmodel = InstanceNorm1d(input_size=20).eval()",
            "torch.randn(1, 60, 20)",
            time_dim=1,
            read="nnet/normalization.py, InstanceNorm1d: track_running_stats=True, so that in eval its statistics are known",
        ),
        Model(
            "PCEN of SpeechBrain",
            "from speechbrain.nnet.normalization import PCEN\nmodel = PCEN(8, skip_transpose=True).eval()",
            "torch.rand(1, 8, 60)",
            read="nnet/normalization.py, PCEN: an exponential average in a loop over time, begun with the first sample",
        ),
        Model(
            "Complex convolution of SpeechBrain",
            "from speechbrain.nnet.complex_networks.c_CNN import CConv1d\n"
            "model = CConv1d(8, 3, input_shape=(1, 60, 16)).eval()",
            "torch.randn(1, 60, 16)",
            time_dim=1,
            read="complex_networks/c_CNN.py: one convolution with weights put together",
        ),
        Model(
            "Whole Conformer encoder of SpeechBrain",
            "from speechbrain.lobes.models.transformer.Conformer import ConformerEncoder\n"
            "model = ConformerEncoder(2, 32, 64, 4, kernel_size=15, attention_type='regularMHA').eval()",
            "torch.randn(1, 60, 32)",
            time_dim=1,
            forbidden="attention to the whole signal",
            read="Conformer.py, without a mask",
        ),
    ),
    setup=_SB_SETUP,
    bare=_SB_BARE,
    stand_ins=("torchaudio", "huggingface_hub", "sentencepiece", "joblib"),
)

_SILERO = Package(
    "silero-vad",
    ("silero-vad==6.2.3", "safetensors==0.8.0"),
    (
        Model(
            "Silero VAD, 16 kHz, with the weights of the wheel",
            "import json, struct, torch\n"
            "from pathlib import Path\n"
            "import numpy as np\n"
            "import silero_vad\n"
            "from safetensors.torch import load_file\n"
            "class Vad(torch.nn.Module):\n"
            "    def __init__(self):\n"
            "        super().__init__()\n"
            "        self.stft = torch.nn.Conv1d(1, 258, 256, 128, bias=False)\n"
            "        self.convs = torch.nn.ModuleList([\n"
            "            torch.nn.Conv1d(a, b, 3, s, 1)\n"
            "            for a, b, s in ((129, 128, 1), (128, 64, 2), (64, 64, 2), (64, 128, 1))\n"
            "        ])\n"
            "        self.lstm = torch.nn.LSTM(128, 128, batch_first=True)\n"
            "        self.final = torch.nn.Linear(128, 1)\n\n"
            "    def forward(self, x):\n"
            "        frames = torch.nn.functional.pad(x, (64, 0)).unfold(-1, 576, 512)\n"
            "        rows = frames.reshape(-1, 1, 576)\n"
            "        rows = torch.nn.functional.pad(rows, (0, 64), mode='reflect')\n"
            "        real, imag = self.stft(rows).chunk(2, 1)\n"
            "        y = (real**2 + imag**2).sqrt()\n"
            "        for conv in self.convs:\n"
            "            y = conv(y).relu()\n"
            "        y, _ = self.lstm(y.reshape(x.shape[0], -1, 128))\n"
            "        return self.final(y.relu()).sigmoid().squeeze(-1)\n\n"
            "weights = load_file(str(Path(silero_vad.__path__[0]) / 'data' / 'silero_vad_16k.safetensors'))\n"
            "model = Vad().eval()\n"
            "named = {'stft.weight': 'stft_conv.weight', 'final.weight': 'final_conv.weight', 'final.bias': 'final_conv.bias'}\n"
            "named.update({f'convs.{i}.{p}': f'conv{i + 1}.{p}' for i in range(4) for p in ('weight', 'bias')})\n"
            "named.update({f'lstm.{p}_l0': f'lstm_cell.{p}' for p in ('weight_ih', 'weight_hh', 'bias_ih', 'bias_hh')})\n"
            "state = {ours: weights[theirs] for ours, theirs in named.items()}\n"
            "state['final.weight'] = state['final.weight'].squeeze(-1)\n"
            "model.load_state_dict(state)",
            "torch.randn(1, 5120)",
            options="length_multiple=512",
            step=512,
            read="tinygrad_model.py: frames of 512 samples with 64 before them, each by itself, then an LSTM forwards",
        ),
    ),
    bare=("silero_vad",),
)

_TOKENIZER = Package(
    "speechtokenizer",
    ("speechtokenizer==1.0.1", EINOPS),
    (
        Model(
            "SpeechTokenizer, decoder",
            "from speechtokenizer.modules.seanet import SEANetDecoder\n"
            "model = SEANetDecoder(n_filters=8, dimension=64, ratios=[8, 5, 4, 2], lstm=2).eval()",
            "torch.randn(1, 64, 24)",
            read="modules/seanet.py, SEANetDecoder; modules/conv.py",
        ),
        Model(
            "SpeechTokenizer, encoder",
            "from speechtokenizer.modules.seanet import SEANetEncoder\n"
            "model = SEANetEncoder(n_filters=8, dimension=64, ratios=[8, 5, 4, 2], lstm=2, bidirectional=True).eval()",
            "torch.randn(1, 1, 6400)",
            forbidden="LSTM in both directions over time",
            read="modules/seanet.py: bidirectional=True in the published configuration",
        ),
    ),
    bare=("speechtokenizer",),
)

_PYANNOTE = Package(
    "pyannote-audio",
    ("pyannote-audio==4.0.7", "asteroid-filterbanks==0.4.0"),
    (
        Model(
            "SincNet of pyannote",
            "from pyannote.audio.models.blocks.sincnet import SincNet\nmodel = SincNet(stride=10).eval()",
            "torch.randn(1, 1, 16000)",
            forbidden="instance norm over the whole signal",
            read="models/blocks/sincnet.py: nn.InstanceNorm1d",
        ),
    ),
    bare=(
        "pyannote",
        "pyannote.audio",
        "pyannote.audio.models",
        "pyannote.audio.models.blocks",
        "pyannote.audio.utils",
    ),
)

PACKAGES = (_SPEECHBRAIN, _SILERO, _TOKENIZER, _PYANNOTE)
