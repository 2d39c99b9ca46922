"""Vocoders: Vocos, BigVGAN, the HiFi-GANs of Matcha-TTS and Coqui, MelGAN, Parallel WaveGAN, UnivNet."""

# ruff: noqa: E501  (statements are those that the page shows)

from .listing import Model, Package, wrapper

__all__ = ["PACKAGES"]

EINOPS = "einops==0.8.2"

_VOCOS = Package(
    "vocos",
    ("vocos==0.1.0", EINOPS),
    (
        Model(
            "Vocos, backbone",
            "from vocos.models import VocosBackbone\nmodel = VocosBackbone(100, 64, 128, 2).eval()",
            "torch.randn(1, 100, 40)",
            read="models.py, VocosBackbone: convolutions, layer norms over channels; gives [B, T, C]",
        ),
        Model(
            "Vocos, backbone of residual blocks",
            "from vocos.models import VocosResNetBackbone\nmodel = VocosResNetBackbone(100, 64, 2).eval()",
            "torch.randn(1, 100, 60)",
            read="models.py, VocosResNetBackbone",
        ),
        Model(
            "Vocos, head, padding 'same'",
            "from vocos.heads import ISTFTHead\nmodel = ISTFTHead(64, 256, 64, padding='same').eval()",
            "torch.randn(1, 24, 64)",
            time_dim=1,
            read="spectral_ops.py, ISTFT: overlap-add by fold, divided by an envelope of the length alone; an assert on it",
        ),
        Model(
            "Vocos, head, padding 'center'",
            "from vocos.heads import ISTFTHead\nmodel = ISTFTHead(64, 256, 64, padding='center').eval()",
            "torch.randn(1, 24, 64)",
            time_dim=1,
            read="spectral_ops.py, ISTFT: torch.istft",
        ),
        Model(
            "Vocos, whole decoder",
            "import torch\n"
            "from vocos.heads import ISTFTHead\n"
            "from vocos.models import VocosBackbone\n"
            "model = torch.nn.Sequential(VocosBackbone(100, 64, 128, 2), ISTFTHead(64, 256, 64, 'same')).eval()",
            "torch.randn(1, 100, 40)",
            read="pretrained.py, Vocos.decode: backbone, then head",
        ),
        Model(
            "Vocos, MDCT head",
            "import scipy.signal\n"
            "scipy.signal.cosine = scipy.signal.windows.cosine\n"
            "from vocos.heads import IMDCTSymExpHead\nmodel = IMDCTSymExpHead(64, 256, padding='same').eval()",
            "torch.randn(1, 24, 64)",
            time_dim=1,
            read="spectral_ops.py, IMDCT: a transform per frame, overlap-add by fold",
        ),
    ),
    bare=("vocos",),
    stand_ins=("torchaudio", "encodec", "huggingface_hub"),
)

_BIGVGAN_SETUP = (
    "import huggingface_hub\n"
    "class Hub:\n"
    "    def __init_subclass__(cls, **options):\n"
    "        pass\n\n"
    "huggingface_hub.PyTorchModelHubMixin = Hub\n"
    "from bigvgan.bigvgan import BigVGAN\n"
    "from bigvgan.env import AttrDict\n"
    "options = AttrDict(num_mels=100, upsample_rates=[4, 4, 2, 2], upsample_kernel_sizes=[8, 8, 4, 4],\n"
    "                   upsample_initial_channel=64, resblock='1', resblock_kernel_sizes=[3, 7, 11],\n"
    "                   resblock_dilation_sizes=[[1, 3, 5], [1, 3, 5], [1, 3, 5]], activation='snakebeta',\n"
    "                   snake_logscale=True, use_tanh_at_final=False, use_bias_at_final=False)\n"
)
_BIGVGAN = Package(
    "bigvgan",
    ("bigvgan==2.4.1", "tqdm==4.70.1"),
    (
        Model(
            "BigVGAN v2",
            "model = BigVGAN(options).eval()",
            "torch.randn(1, 100, 24)",
            read="bigvgan.py; alias_free_activation/torch/resample.py: replicate padding, crops by constants",
        ),
        Model(
            "BigVGAN v2, anti-aliased activation",
            "model = BigVGAN(options).eval().resblocks[0].activations[0]",
            "torch.randn(1, 32, 80)",
            read="alias_free_activation/torch/act.py: up, snake, down",
        ),
        Model(
            "BigVGAN, one AMP block",
            "model = BigVGAN(options).eval().resblocks[0]",
            "torch.randn(1, 32, 120)",
            read="bigvgan.py, AMPBlock1",
        ),
    ),
    setup=_BIGVGAN_SETUP,
    bare=("bigvgan",),
    stand_ins=("librosa", "huggingface_hub", "scipy.io.wavfile", "torchaudio", "nnAudio", "pesq", "auraloss"),
)

_MATCHA = Package(
    "matcha-tts",
    ("matcha-tts==0.0.7.2", EINOPS),
    (
        Model(
            "HiFi-GAN v1 of Matcha-TTS",
            "from matcha.hifigan.config import v1\n"
            "from matcha.hifigan.env import AttrDict\n"
            "from matcha.hifigan.models import Generator\n"
            "model = Generator(AttrDict({**v1, 'upsample_initial_channel': 64})).eval()",
            "torch.randn(1, 80, 30)",
            read="hifigan/models.py, Generator",
        ),
        Model(
            "Matcha-TTS, duration predictor",
            "from matcha.models.components.text_encoder import DurationPredictor\n"
            "model = DurationPredictor(64, 64, 3, 0.1).eval()",
            "(torch.randn(1, 64, 60), torch.ones(1, 1, 60))",
            time_dim=(-1, -1),
            read="text_encoder.py, DurationPredictor: convolutions, layer norm over channels, a mask that comes in",
        ),
        Model(
            "Matcha-TTS, residual block of the decoder",
            "from matcha.models.components.decoder import Block1D\nmodel = Block1D(64, 64).eval()",
            "(torch.randn(1, 64, 60), torch.ones(1, 1, 60))",
            time_dim=(-1, -1),
            forbidden="group norm over the whole signal",
            read="decoder.py, Block1D: nn.GroupNorm on [B, C, T]",
        ),
    ),
    bare=("matcha", "matcha.models", "matcha.models.components", "matcha.hifigan"),
    stand_ins=("diffusers", "conformer", "librosa", "lightning", "matcha.utils"),
)

_COQUI = Package(
    "coqui-tts",
    ("coqui-tts==0.28.0",),
    (
        Model(
            "HiFi-GAN of Coqui TTS",
            "from TTS.vocoder.models.hifigan_generator import HifiganGenerator\n"
            "model = HifiganGenerator(80, 1, '1', [[1, 3, 5], [1, 3, 5]], [3, 7], [16, 16, 4, 4], 64, [8, 8, 2, 2]).eval()",
            "torch.randn(1, 80, 30)",
            read="hifigan_generator.py, HifiganGenerator.forward",
        ),
        Model(
            "MelGAN of Coqui TTS",
            "from TTS.vocoder.models.melgan_generator import MelganGenerator\n"
            "model = MelganGenerator(base_channels=64).eval()",
            "torch.randn(1, 80, 30)",
            read="melgan_generator.py: reflected padding of convolutions",
        ),
        Model(
            "Multi-band MelGAN of Coqui TTS, bands",
            "from TTS.vocoder.models.melgan_generator import MelganGenerator\n"
            "model = MelganGenerator(80, 4, base_channels=64, upsample_factors=(2, 8, 2, 2)).eval()",
            "torch.randn(1, 80, 30)",
            read="multiband_melgan_generator.py: MelGAN with four outputs",
        ),
        Model(
            "PQMF of Coqui TTS, synthesis",
            "import torch\n"
            "from TTS.vocoder.layers.pqmf import PQMF\n"
            + wrapper("Synthesis", "self.pqmf = PQMF()", "return self.pqmf.synthesis(x)")
            + "model = Synthesis().eval()",
            "torch.randn(1, 4, 200)",
            read="pqmf.py: transposed convolution by an identity, then a convolution",
        ),
        Model(
            "Parallel WaveGAN of Coqui TTS, residual block",
            "from TTS.vocoder.layers.parallel_wavegan import ResidualBlock\n"
            "model = ResidualBlock(3, 64, 128, 64, 80, dilation=4).eval()",
            "(torch.randn(1, 64, 200), torch.randn(1, 80, 200))",
            time_dim=(-1, -1),
            read="parallel_wavegan.py, ResidualBlock: dilated convolution, gates, two outputs",
        ),
        Model(
            "UnivNet of Coqui TTS, LVC block",
            "from TTS.vocoder.layers.lvc_block import LVCBlock\n"
            "model = LVCBlock(16, 80, 4, 3, cond_hop_length=4, kpnet_hidden_channels=32).eval()",
            "(torch.randn(1, 16, 20), torch.randn(1, 80, 20))",
            time_dim=(-1, -1),
            read="lvc_block.py: kernels predicted per frame, unfolded windows",
        ),
    ),
    bare=("TTS", "TTS.vocoder", "TTS.vocoder.models", "TTS.vocoder.layers", "TTS.utils"),
    stand_ins=("trainer", "coqpit", "fsspec", "librosa", "TTS.utils.io", "TTS.utils.audio"),
)

_WAVEGRAD = Package(
    "wavegrad",
    ("wavegrad==0.1.5",),
    (
        Model(
            "WaveGrad, downsampling block",
            "from wavegrad.model import DBlock\nmodel = DBlock(8, 16, 4).eval()",
            "torch.randn(1, 8, 160)",
            options="length_multiple=4",
            step=4,
            read="model.py, DBlock: F.interpolate to a size, nearest, by a factor; convolutions",
        ),
    ),
    bare=("wavegrad",),
)

PACKAGES = (_VOCOS, _BIGVGAN, _MATCHA, _COQUI, _WAVEGRAD)
