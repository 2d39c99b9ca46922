"""Encoders of speech of transformers."""

# ruff: noqa: E501  (statements are those that the page shows)

from .listing import Model, Package
from .transformers_audio import REQUIREMENTS, STAND_INS

__all__ = ["PACKAGE"]

_W2V = "from transformers import Wav2Vec2Config, Wav2Vec2Model\n"
_SMALL = "hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128"
_LAYER = "conv_dim=[32] * 7, feat_extract_norm='layer', do_stable_layer_norm=True, conv_bias=True"
_BERT = (
    "from transformers import Wav2Vec2BertConfig, Wav2Vec2BertModel\n"
    "config = Wav2Vec2BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,\n"
    "                            add_adapter=True, output_hidden_size=64)\n"
    "bert = Wav2Vec2BertModel(config).eval()\n"
)
_PARAKEET = (
    "from transformers import ParakeetEncoder, ParakeetEncoderConfig\n"
    "config = ParakeetEncoderConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,\n"
    "                               subsampling_conv_channels=16)\n"
    "parakeet = ParakeetEncoder(config).eval()\n"
)
_NEMOTRON = (
    "from transformers import NemotronAsrStreamingEncoder, NemotronAsrStreamingEncoderConfig\n"
    "config = NemotronAsrStreamingEncoderConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4,\n"
    "                                           intermediate_size=128, subsampling_conv_channels=16)\n"
    "encoder = NemotronAsrStreamingEncoder(config).eval()\n"
)
_GEMMA = (
    "from transformers.models.gemma3n.modeling_gemma3n import Gemma3nAudioEncoder\n"
    "from transformers import Gemma3nAudioConfig\n"
    "config = Gemma3nAudioConfig(hidden_size=64, conf_num_attention_heads=4, conf_num_hidden_layers=2)\n"
    "gemma = Gemma3nAudioEncoder(config).eval()\n"
)
_SEAMLESS = (
    "from transformers import SeamlessM4Tv2Config\n"
    "from transformers.models.seamless_m4t_v2 import modeling_seamless_m4t_v2 as seamless\n"
    "config = SeamlessM4Tv2Config(hidden_size=64, speech_encoder_layers=2, speech_encoder_attention_heads=4,\n"
    "                             speech_encoder_intermediate_size=128)\n"
)
_ATTENTION = "attention to the whole signal"
_GROUP = "group norm over time in the first layer"

_MODELS = (
    Model(
        "Wav2Vec2 base, feature encoder",
        _W2V + "model = Wav2Vec2Model(Wav2Vec2Config(num_hidden_layers=1, conv_dim=[32] * 7)).eval().feature_extractor",
        "torch.randn(1, 8000)",
        forbidden=_GROUP,
        read="Wav2Vec2GroupNormConvLayer: nn.GroupNorm(num_groups=channels) on [B, C, T]",
    ),
    Model(
        "Wav2Vec2 large, feature encoder",
        _W2V + f"model = Wav2Vec2Model(Wav2Vec2Config({_SMALL}, {_LAYER})).eval().feature_extractor",
        "torch.randn(1, 8000)",
        read="Wav2Vec2LayerNormConvLayer: layer norm over channels",
    ),
    Model(
        "Wav2Vec2, positions by convolution",
        _W2V
        + "model = Wav2Vec2Model(Wav2Vec2Config(num_hidden_layers=1, conv_dim=[32] * 7)).eval().encoder.pos_conv_embed",
        "torch.randn(1, 200, 768)",
        time_dim=1,
        read="Wav2Vec2PositionalConvEmbedding: 128 taps, weight norm, one sample cut off",
    ),
    Model(
        "Wav2Vec2, whole",
        _W2V + f"model = Wav2Vec2Model(Wav2Vec2Config({_SMALL}, {_LAYER})).eval()",
        "torch.randn(1, 16000)",
        forbidden=_ATTENTION,
        read="Wav2Vec2EncoderStableLayerNorm: create_bidirectional_mask",
    ),
    Model(
        "Wav2Vec2, adapter",
        _W2V
        + f"model = Wav2Vec2Model(Wav2Vec2Config({_SMALL}, add_adapter=True, output_hidden_size=64)).eval().adapter",
        "torch.randn(1, 80, 64)",
        time_dim=1,
        read="Wav2Vec2AdapterLayer: strided convolutions and gates",
    ),
    Model(
        "HuBERT, feature encoder",
        "from transformers import HubertConfig, HubertModel\n"
        f"model = HubertModel(HubertConfig({_SMALL}, {_LAYER})).eval().feature_extractor",
        "torch.randn(1, 8000)",
        read="HubertLayerNormConvLayer",
    ),
    Model(
        "HuBERT, whole",
        f"from transformers import HubertConfig, HubertModel\nmodel = HubertModel(HubertConfig({_SMALL})).eval()",
        "torch.randn(1, 16000)",
        forbidden=_GROUP + ", " + _ATTENTION,
        read="HubertGroupNormConvLayer, HubertEncoder",
    ),
    Model(
        "WavLM, feature encoder",
        "from transformers import WavLMConfig, WavLMModel\n"
        f"model = WavLMModel(WavLMConfig({_SMALL}, {_LAYER})).eval().feature_extractor",
        "torch.randn(1, 8000)",
        read="WavLMLayerNormConvLayer",
    ),
    Model(
        "Data2VecAudio, feature encoder",
        "from transformers import Data2VecAudioConfig, Data2VecAudioModel\n"
        f"model = Data2VecAudioModel(Data2VecAudioConfig({_SMALL})).eval().feature_extractor",
        "torch.randn(1, 8000)",
        read="Data2VecAudioConvLayer: layer norm over channels",
    ),
    Model(
        "Data2VecAudio, positions by convolution",
        "from transformers import Data2VecAudioConfig, Data2VecAudioModel\n"
        f"model = Data2VecAudioModel(Data2VecAudioConfig({_SMALL})).eval().encoder.pos_conv_embed",
        "torch.randn(1, 100, 64)",
        time_dim=1,
        read="Data2VecAudioPositionalConvLayer: five convolutions, layer norm without weights",
    ),
    Model(
        "SEW, feature encoder",
        "from transformers import SEWConfig, SEWModel\n"
        f"model = SEWModel(SEWConfig({_SMALL}, feat_extract_norm='layer')).eval().feature_extractor",
        "torch.randn(1, 8000)",
        read="SEWLayerNormConvLayer",
    ),
    Model(
        "Moonshine, streaming, encoder",
        "from transformers.models.moonshine_streaming.modeling_moonshine_streaming import MoonshineStreamingEncoder\n"
        "from transformers import MoonshineStreamingEncoderConfig\n"
        "model = MoonshineStreamingEncoder(MoonshineStreamingEncoderConfig(num_hidden_layers=2)).eval()\n"
        "import torch\n"
        "torch.set_default_dtype(torch.float32)  # its masks are",
        "(torch.randn(1, 16000, dtype=torch.float64), torch.ones(1, 16000, dtype=torch.long))",
        time_dim=(-1, -1),
        step=80,
        options="length_multiple=80",
        read="MoonshineStreamingEncoder: sliding windows, where a mask of padding is given; causal convolutions",
    ),
    Model(
        "Moonshine, streaming, encoder without a mask",
        "from transformers.models.moonshine_streaming.modeling_moonshine_streaming import MoonshineStreamingEncoder\n"
        "from transformers import MoonshineStreamingEncoderConfig\n"
        "model = MoonshineStreamingEncoder(MoonshineStreamingEncoderConfig(num_hidden_layers=2)).eval()",
        "torch.randn(1, 16000)",
        step=80,
        options="length_multiple=80",
        forbidden=_ATTENTION,
        read="MoonshineStreamingEncoder.forward: the windows are applied with a mask of padding alone",
    ),
    Model(
        "Moonshine, streaming, embedder",
        "from transformers.models.moonshine_streaming.modeling_moonshine_streaming import MoonshineStreamingEncoder\n"
        "from transformers import MoonshineStreamingEncoderConfig\n"
        "model = MoonshineStreamingEncoder(MoonshineStreamingEncoderConfig(num_hidden_layers=1)).eval().embedder",
        "torch.randn(1, 8000)",
        step=80,
        options="length_multiple=80",
        read="MoonshineStreamingEncoderEmbedder: frames of 80 samples, causal convolutions",
    ),
    Model(
        "Voxtral realtime, encoder",
        "from transformers import VoxtralRealtimeEncoder, VoxtralRealtimeEncoderConfig\n"
        "config = VoxtralRealtimeEncoderConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2,\n"
        "                                      num_attention_heads=4, head_dim=16, sliding_window=20)\n"
        "model = VoxtralRealtimeEncoder(config).eval()",
        "torch.randn(1, 128, 100)",
        select="last_hidden_state",
        read="VoxtralRealtimeEncoder: causal convolutions, create_sliding_window_causal_mask; norms in float32",
        single=True,
    ),
    Model(
        "Voxtral realtime, embedder",
        "from transformers import VoxtralRealtimeEncoder, VoxtralRealtimeEncoderConfig\n"
        "config = VoxtralRealtimeEncoderConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=4)\n"
        "model = VoxtralRealtimeEncoder(config).eval().embedder",
        "torch.randn(1, 128, 100)",
        read="VoxtralRealtimeEmbedder: two causal convolutions",
    ),
    Model(
        "Whisper, encoder",
        "from transformers import WhisperConfig\n"
        "from transformers.models.whisper.modeling_whisper import WhisperEncoder\n"
        "model = WhisperEncoder(WhisperConfig(d_model=64, encoder_layers=2, encoder_attention_heads=4)).eval()",
        "torch.randn(1, 80, 3000)",
        forbidden=_ATTENTION + ", and one length alone",
        read="WhisperEncoder.forward raises for other lengths than 3000 frames",
    ),
    Model(
        "Parakeet, encoder",
        _PARAKEET + "model = parakeet",
        "torch.randn(1, 400, 80)",
        time_dim=1,
        forbidden=_ATTENTION,
        read="ParakeetEncoder: create_bidirectional_mask, relative positions",
    ),
    Model(
        "Parakeet, subsampling",
        _PARAKEET + "model = parakeet.subsampling",
        "torch.randn(1, 400, 80)",
        time_dim=1,
        read="ParakeetEncoderSubsamplingConv2D: strided convolutions over time and frequency",
    ),
    Model(
        "Parakeet, convolution module",
        _PARAKEET + "model = parakeet.layers[0].conv",
        "torch.randn(1, 60, 64)",
        time_dim=1,
        read="ParakeetEncoderConvolutionModule: depthwise convolution, batch norm",
    ),
    Model(
        "Nemotron ASR streaming, encoder",
        _NEMOTRON + "model = encoder",
        "torch.randn(1, 800, 80)",
        time_dim=1,
        read="NemotronAsrStreamingEncoder: chunked_limited_mask_function, 70 frames back, in chunks of 14",
    ),
    Model(
        "Nemotron ASR streaming, subsampling",
        _NEMOTRON + "model = encoder.subsampling",
        "torch.randn(1, 400, 80)",
        time_dim=1,
        read="NemotronAsrStreamingEncoderSubsamplingConv2D: causal padding of strided convolutions",
    ),
    Model(
        "Nemotron ASR streaming, convolution module",
        _NEMOTRON + "model = encoder.layers[0].conv",
        "torch.randn(1, 60, 64)",
        time_dim=1,
        read="NemotronAsrStreamingEncoderConvolutionModule: causal depthwise convolution, layer norm",
    ),
    Model(
        "Nemotron 3 diarization, audio tower",
        "from transformers import Nemotron3DiarizationAudioConfig\n"
        "from transformers.models.nemotron3_diarization import modeling_nemotron3_diarization as diarization\n"
        "config = Nemotron3DiarizationAudioConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2)\n"
        "model = diarization.Nemotron3DiarizationAudioModel(config).eval()",
        "torch.randn(1, 400, 128)",
        time_dim=1,
        step=8,
        options="length_multiple=8",
        forbidden=_ATTENTION,
        read="Nemotron3DiarizationAudioModel: create_bidirectional_mask",
    ),
    Model(
        "Wav2Vec2-BERT, encoder",
        _BERT + "model = bert.encoder",
        "torch.randn(1, 100, 64)",
        time_dim=1,
        forbidden=_ATTENTION,
        read="Wav2Vec2BertEncoder: no mask of positions",
    ),
    Model(
        "Wav2Vec2-BERT, convolution module",
        _BERT + "model = bert.encoder.layers[0].conv_module",
        "torch.randn(1, 100, 64)",
        time_dim=1,
        read="Wav2Vec2BertConvolutionModule: causal depthwise convolution, layer norm",
    ),
    Model(
        "Gemma 3n, audio encoder",
        _GEMMA + "model = gemma",
        "(torch.randn(1, 200, 128), torch.zeros(1, 200, dtype=torch.bool))",
        time_dim=(1, 1),
        read="Gemma3nAudioAttention: chunks of 12, 13 frames back; Gemma3nAudioCumulativeGroupNorm; norms in float32",
        single=True,
    ),
    Model(
        "Gemma 3n, audio subsampling",
        _GEMMA + "model = gemma.subsample_conv_projection",
        "torch.randn(1, 200, 128)",
        time_dim=1,
        read="Gemma3nAudioSubSampleConvProjection: causal convolutions, cumulative group norm in float32",
        single=True,
    ),
    Model(
        "Gemma 3n, light convolution",
        _GEMMA + "model = gemma.conformer[0].lconv1d",
        "torch.randn(1, 100, 64)",
        time_dim=1,
        read="Gemma3nAudioConformerLightConv1d: causal depthwise convolution; norms in float32",
        single=True,
    ),
    Model(
        "Granite Speech, encoder",
        "from transformers import GraniteSpeechEncoderConfig\n"
        "from transformers.models.granite_speech.modeling_granite_speech import GraniteSpeechCTCEncoder\n"
        "config = GraniteSpeechEncoderConfig(hidden_dim=64, num_layers=2, num_heads=4, context_size=20)\n"
        "model = GraniteSpeechCTCEncoder(config).eval()",
        "torch.randn(1, 100, 160)",
        time_dim=1,
        read="GraniteSpeechConformerAttention: within blocks of context_size; the last one is padded",
    ),
    Model(
        "Granite Speech 5, encoder",
        "from transformers import GraniteSpeech5EncoderConfig\n"
        "from transformers.models.granite_speech5.modeling_granite_speech5 import GraniteSpeech5Encoder\n"
        "config = GraniteSpeech5EncoderConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2,\n"
        "                                     num_attention_heads=4, vocab_size=50, context_size=16)\n"
        "model = GraniteSpeech5Encoder(config).eval()",
        "torch.randn(1, 96, 320)",
        time_dim=1,
        read="GraniteSpeech5EncoderAttention: within blocks of context_size",
    ),
    Model(
        "LASR, subsampling",
        "from transformers import LasrEncoderConfig\n"
        "from transformers.models.lasr.modeling_lasr import LasrEncoderSubsampling\n"
        "model = LasrEncoderSubsampling(LasrEncoderConfig()).eval()",
        "torch.randn(1, 200, 128)",
        time_dim=1,
        read="LasrEncoderSubsampling: dense, two strided convolutions, dense",
    ),
    Model(
        "SeamlessM4T v2, convolution module",
        _SEAMLESS + "model = seamless.SeamlessM4Tv2ConformerConvolutionModule(config).eval()",
        "torch.randn(1, 100, 64)",
        time_dim=1,
        read="SeamlessM4Tv2ConformerConvolutionModule: causal depthwise convolution, layer norm",
    ),
    Model(
        "SeamlessM4T v2, speech encoder",
        _SEAMLESS + "model = seamless.SeamlessM4Tv2ConformerEncoder(config).eval()",
        "(torch.randn(1, 100, 64), torch.ones(1, 100, dtype=torch.long))",
        time_dim=(1, 1),
        forbidden=_ATTENTION + ", of all chunks before",
        read="_apply_chunk_attention: left chunks are bounded by speech_encoder_left_chunk_num = 128",
    ),
    Model(
        "Speech2Text, subsampling",
        "from transformers import Speech2TextConfig\n"
        "from transformers.models.speech_to_text.modeling_speech_to_text import Conv1dSubsampler\n"
        "model = Conv1dSubsampler(Speech2TextConfig()).eval()",
        "torch.randn(1, 200, 80)",
        time_dim=1,
        read="Conv1dSubsampler: two strided convolutions with gates",
    ),
    Model(
        "Perception encoder audio, DAC encoder",
        "from transformers.models.pe_audio.modeling_pe_audio import PeAudioDacEncoder\n"
        "from transformers import DacConfig\n"
        "model = PeAudioDacEncoder(DacConfig(encoder_hidden_size=16)).eval()",
        "torch.randn(1, 1, 10240)",
        read="PeAudioDacEncoder: DAC's convolutions",
    ),
)

PACKAGE = Package("transformers", REQUIREMENTS, _MODELS, stand_ins=STAND_INS)
