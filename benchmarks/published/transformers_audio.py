"""Codecs and vocoders of transformers."""

# ruff: noqa: E501  (statements are those that the page shows)

from .listing import Model, Package

__all__ = ["PACKAGE", "REQUIREMENTS", "STAND_INS"]

STAND_INS = ("torchaudio",)

REQUIREMENTS = (
    "transformers==5.23.0",
    "huggingface_hub==2.4.0",
    "tokenizers==0.23.3",
    "safetensors==0.8.0",
    "regex==2026.11.19",
    "tqdm==4.70.1",
    "httpx2==2.16.2",
    "httpcore2==2.16.2",
    "truststore==0.10.5",
    "h11==0.16.0",
    "anyio==4.16.0",
    "idna==3.20",
    "sniffio==1.3.1",
    "certifi==2026.10.19.post1",
)

_ENCODEC = "from transformers import EncodecConfig, EncodecModel\n"
_MIMI = "from transformers import MimiConfig, MimiModel\n"
_MIMI_SMALL = "MimiModel(MimiConfig(num_hidden_layers=2, num_filters=16, hidden_size=64, intermediate_size=128))"
_DAC = "from transformers import DacConfig, DacModel\n"
_POCKET = "from transformers import PocketTTSAudioTokenizerConfig, PocketTTSAudioTokenizerModel\n"
_VIBE = (
    "from transformers import VibeVoiceAcousticTokenizerConfig, VibeVoiceAcousticTokenizerModel\n"
    "config = VibeVoiceAcousticTokenizerConfig(num_filters=8, depths=(1, 1, 1, 1, 1, 1, 2))\n"
)
_VITS = "from transformers import VitsConfig, VitsModel\nvits = VitsModel(VitsConfig(num_hidden_layers=1, upsample_initial_channel=64)).eval()\n"

_CODECS = (
    Model(
        "EnCodec 24 kHz, encoder",
        _ENCODEC + "model = EncodecModel(EncodecConfig()).eval().encoder",
        "torch.randn(1, 1, 9600)",
        read="EncodecConv1d pads by reflection on the left, and on the right up to whole frames; EncodecLSTM runs forwards",
    ),
    Model(
        "EnCodec 24 kHz, decoder",
        _ENCODEC + "model = EncodecModel(EncodecConfig()).eval().decoder",
        "torch.randn(1, 128, 30)",
        read="EncodecConvTranspose1d crops on the right alone",
    ),
    Model(
        "EnCodec 32 kHz (MusicGen), encoder",
        _ENCODEC
        + "config = EncodecConfig(use_causal_conv=False, upsampling_ratios=[8, 5, 4, 4], num_filters=8)\n"
        + "model = EncodecModel(config).eval().encoder",
        "torch.randn(1, 1, 12800)",
        read="EncodecConv1d pads on both sides, by amounts that the length alone decides",
    ),
    Model(
        "EnCodec 32 kHz (MusicGen), decoder",
        _ENCODEC
        + "config = EncodecConfig(use_causal_conv=False, upsampling_ratios=[8, 5, 4, 4], num_filters=8)\n"
        + "model = EncodecModel(config).eval().decoder",
        "torch.randn(1, 128, 24)",
        read="EncodecConvTranspose1d crops on both sides",
    ),
    Model(
        "EnCodec 48 kHz, encoder",
        _ENCODEC
        + "config = EncodecConfig(audio_channels=2, norm_type='time_group_norm', use_causal_conv=False)\n"
        + "model = EncodecModel(config).eval().encoder",
        "torch.randn(1, 2, 9600)",
        forbidden="group norm over the whole signal",
        read="EncodecConv1d: nn.GroupNorm(1, out_channels) on [B, C, T]",
    ),
    Model(
        "EnCodec 24 kHz, whole",
        _ENCODEC + "model = EncodecModel(EncodecConfig()).eval()",
        "torch.randn(1, 1, 9600)",
        read="EncodecModel.forward: the mask of padding is of ones; the decoder's output is cut to the length of the input",
    ),
    Model(
        "Mimi, encoder",
        _MIMI + "model = MimiModel(MimiConfig(num_filters=8, num_hidden_layers=2)).eval().encoder",
        "torch.randn(1, 1, 19200)",
        read="MimiEncoderModel: causal convolutions, causal attention to 250 frames, a strided convolution",
    ),
    Model(
        "Mimi, decoder",
        _MIMI + "model = MimiModel(MimiConfig(num_filters=8, num_hidden_layers=2)).eval().decoder",
        "torch.randn(1, 512, 10)",
        read="MimiDecoderModel: the same in reverse",
    ),
    Model(
        "Mimi, SEANet encoder",
        _MIMI + "model = MimiModel(MimiConfig(num_filters=8, num_hidden_layers=2)).eval().encoder.encoder_seanet",
        "torch.randn(1, 1, 9600)",
        read="MimiConv1d: the right padding is a function of the length",
    ),
    Model(
        "Mimi, SEANet decoder",
        _MIMI + "model = MimiModel(MimiConfig(num_filters=8, num_hidden_layers=2)).eval().decoder.decoder_seanet",
        "torch.randn(1, 512, 20)",
        read="MimiConvTranspose1d crops on the right",
    ),
    Model(
        "Mimi, transformer",
        _MIMI + "model = MimiModel(MimiConfig(num_filters=8, num_hidden_layers=2)).eval().encoder.encoder_transformer",
        "torch.randn(1, 40, 512)",
        time_dim=1,
        read="create_sliding_window_causal_mask; rotary positions, whose tables are in float32",
        single=True,
    ),
    Model(
        "Mimi, quantizer",
        _MIMI
        + "import torch\n"
        + "class Codes(torch.nn.Module):\n"
        + "    def __init__(self, quantizer):\n"
        + "        super().__init__()\n"
        + "        self.quantizer = quantizer\n\n"
        + "    def forward(self, x):\n"
        + "        return self.quantizer.encode(x, 8).transpose(0, 1)\n\n"
        + "model = Codes(MimiModel(MimiConfig(num_filters=8, num_hidden_layers=2)).eval().quantizer).eval()",
        "torch.randn(1, 512, 12)",
        read="MimiSplitResidualVectorQuantizer.encode: the nearest entry, frame by frame",
    ),
    Model(
        "Pocket TTS, tokenizer's encoder",
        _POCKET + "model = PocketTTSAudioTokenizerModel(PocketTTSAudioTokenizerConfig(num_filters=8)).eval().encoder",
        "torch.randn(1, 1, 19200)",
        read="PocketTTSAudioTokenizerEncoderModel, of Mimi's kind",
    ),
    Model(
        "Pocket TTS, tokenizer's decoder",
        _POCKET + "model = PocketTTSAudioTokenizerModel(PocketTTSAudioTokenizerConfig(num_filters=8)).eval().decoder",
        "torch.randn(1, 512, 10)",
        read="PocketTTSAudioTokenizerDecoderModel, of Mimi's kind",
    ),
    Model(
        "DAC, encoder",
        _DAC + "model = DacModel(DacConfig(encoder_hidden_size=8)).eval().encoder",
        "torch.randn(1, 1, 10240)",
        read="DacEncoder: convolutions with fixed padding",
    ),
    Model(
        "DAC, decoder",
        _DAC + "model = DacModel(DacConfig(encoder_hidden_size=8, decoder_hidden_size=64)).eval().decoder",
        "torch.randn(1, 128, 24)",
        read="DacDecoder; DacResidualUnit crops its shortcut by half of the difference, which is none",
    ),
    Model(
        "DAC, quantizer",
        _DAC + "model = DacModel(DacConfig(encoder_hidden_size=8)).eval().quantizer",
        "torch.randn(1, 128, 24)",
        forbidden="losses, means over the whole signal, are among the outputs",
        read="DacVectorQuantize: F.mse_loss; all other outputs are frame by frame",
    ),
    Model(
        "Descript audio codec in X-Codec, semantic encoder",
        "from transformers.models.xcodec.modeling_xcodec import SemanticEncoder\n"
        "from transformers import XcodecConfig\n"
        "model = SemanticEncoder(XcodecConfig()).eval()",
        "torch.randn(1, 768, 40)",
        read="SemanticEncoder: convolutions",
    ),
    Model(
        "X-Codec 2, acoustic encoder",
        "from transformers.models.xcodec2.modeling_xcodec2 import Xcodec2Encoder\n"
        "from transformers import Xcodec2Config\n"
        "model = Xcodec2Encoder(Xcodec2Config()).eval()",
        "torch.randn(1, 1, 6400)",
        read="Xcodec2Encoder: convolutions, and resamplers of 12 taps around each activation",
    ),
    Model(
        "VibeVoice, tokenizer's encoder",
        _VIBE + "model = VibeVoiceAcousticTokenizerModel(config).eval().encoder",
        "torch.randn(1, 1, 32000)",
        read="VibeVoiceAcousticTokenizerCausalConv1d pads on the left; the norm casts to float32",
        single=True,
    ),
    Model(
        "VibeVoice, tokenizer's decoder",
        _VIBE + "model = VibeVoiceAcousticTokenizerModel(config).eval().decoder",
        "torch.randn(1, 64, 10)",
        read="VibeVoiceAcousticTokenizerCausalConvTranspose1d crops on the right; the norm casts to float32",
        single=True,
    ),
)

_VOCODERS = (
    Model(
        "HiFi-GAN of SpeechT5",
        "from transformers import SpeechT5HifiGan, SpeechT5HifiGanConfig\n"
        "model = SpeechT5HifiGan(SpeechT5HifiGanConfig(upsample_initial_channel=64)).eval()",
        "torch.randn(1, 24, 80)",
        time_dim=1,
        read="SpeechT5HifiGan: transposed convolutions, sums of residual blocks",
    ),
    Model(
        "HiFi-GAN of FastSpeech2Conformer",
        "from transformers import FastSpeech2ConformerHifiGan, FastSpeech2ConformerHifiGanConfig\n"
        "model = FastSpeech2ConformerHifiGan(FastSpeech2ConformerHifiGanConfig(upsample_initial_channel=64)).eval()",
        "torch.randn(1, 24, 80)",
        time_dim=1,
        read="FastSpeech2ConformerHifiGan, the same",
    ),
    Model(
        "HiFi-GAN of SeamlessM4T v2",
        "from transformers.models.seamless_m4t_v2.modeling_seamless_m4t_v2 import SeamlessM4Tv2HifiGan\n"
        "from transformers import SeamlessM4Tv2Config\n"
        "model = SeamlessM4Tv2HifiGan(SeamlessM4Tv2Config(upsample_initial_channel=64)).eval()",
        "torch.randn(1, 1792, 20)",
        read="SeamlessM4Tv2HifiGan: convolutions and transposed ones",
    ),
    Model(
        "HiFi-GAN of VITS",
        _VITS + "model = vits.decoder",
        "torch.randn(1, 192, 24)",
        read="VitsHifiGan, without a speaker",
    ),
    Model(
        "VITS, flow",
        _VITS + "model = vits.flow",
        "(torch.randn(1, 192, 60), torch.ones(1, 1, 60))",
        time_dim=(-1, -1),
        forbidden="the sum of log determinants over the whole signal is among the outputs",
        read="VitsResidualCouplingLayer: torch.sum(log_stddev, [1, 2])",
    ),
    Model(
        "VITS, duration predictor's convolutions",
        _VITS + "model = vits.duration_predictor.conv_dds",
        "(torch.randn(1, 192, 60), torch.ones(1, 1, 60))",
        time_dim=(-1, -1),
        read="VitsDilatedDepthSeparableConv: depthwise convolutions, layer norm over channels",
    ),
    Model(
        "VITS, text encoder",
        _VITS + "model = vits.text_encoder.encoder",
        "(torch.randn(1, 30, 192), torch.ones(1, 30, 1))",
        time_dim=(1, 1),
        forbidden="attention to the whole signal",
        read="VitsEncoder: no mask of positions",
    ),
    Model(
        "UnivNet",
        "from transformers import UnivNetConfig, UnivNetModel\nmodel = UnivNetModel(UnivNetConfig()).eval()",
        "(torch.randn(1, 24, 100), torch.randn(1, 24, 64))",
        time_dim=(1, 1),
        read="UnivNetLvcBlock: kernels predicted per frame, unfolded windows; padding by reflection; the noise is given",
    ),
    Model(
        "SpeechT5, postnet",
        "from transformers import SpeechT5Config\n"
        "from transformers.models.speecht5.modeling_speecht5 import SpeechT5SpeechDecoderPostnet\n"
        "model = SpeechT5SpeechDecoderPostnet(SpeechT5Config()).eval().layers[0]",
        "torch.randn(1, 80, 60)",
        read="SpeechT5BatchNormConvLayer: convolution, batch norm, tanh",
    ),
    Model(
        "FastSpeech2Conformer, postnet",
        "from transformers import FastSpeech2ConformerConfig\n"
        "from transformers.models.fastspeech2_conformer.modeling_fastspeech2_conformer import (\n"
        "    FastSpeech2ConformerSpeechDecoderPostnet,\n"
        ")\n"
        "model = FastSpeech2ConformerSpeechDecoderPostnet(FastSpeech2ConformerConfig()).eval()",
        "torch.randn(1, 60, 384)",
        time_dim=1,
        read="Linear, then five convolutions with batch norm; gives what comes before and after",
    ),
    Model(
        "FastSpeech2Conformer, variance predictor",
        "from transformers import FastSpeech2ConformerConfig\n"
        "from transformers.models.fastspeech2_conformer.modeling_fastspeech2_conformer import (\n"
        "    FastSpeech2ConformerVariancePredictor,\n"
        ")\n"
        "model = FastSpeech2ConformerVariancePredictor(FastSpeech2ConformerConfig(), num_chans=64).eval()",
        "torch.randn(1, 60, 384)",
        time_dim=1,
        read="convolutions, layer norm over channels, a linear layer",
    ),
)

PACKAGE = Package("transformers", REQUIREMENTS, _CODECS + _VOCODERS, stand_ins=STAND_INS)
