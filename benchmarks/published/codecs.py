"""Neural codecs: EnCodec, moshi's Mimi, SNAC, DAC, BigCodec, audiocraft's SEANet, RAVE, SpeechTokenizer."""

# ruff: noqa: E501  (statements are those that the page shows)

from .listing import Model, Package, wrapper

__all__ = ["PACKAGES"]

EINOPS = "einops==0.8.2"

_ENCODEC = Package(
    "encodec",
    ("encodec==0.1.1", EINOPS),
    (
        Model(
            "EnCodec 24 kHz, encoder",
            "from encodec import EncodecModel\nmodel = EncodecModel.encodec_model_24khz(pretrained=False).eval().encoder",
            "torch.randn(1, 1, 9600)",
            read="modules/conv.py, SConv1d: reflected padding, on the right up to a whole frame; modules/lstm.py, SLSTM",
        ),
        Model(
            "EnCodec 24 kHz, decoder",
            "from encodec import EncodecModel\nmodel = EncodecModel.encodec_model_24khz(pretrained=False).eval().decoder",
            "torch.randn(1, 128, 30)",
            read="modules/conv.py, SConvTranspose1d: crops on the right",
        ),
        Model(
            "EnCodec 24 kHz, whole",
            "from encodec import EncodecModel\nmodel = EncodecModel.encodec_model_24khz(pretrained=False).eval()",
            "torch.randn(1, 1, 9600)",
            read="model.py, EncodecModel.forward: no segments, no normalization; cut to the length of the input",
        ),
        Model(
            "EnCodec 48 kHz, encoder",
            "from encodec import EncodecModel\nmodel = EncodecModel.encodec_model_48khz(pretrained=False).eval().encoder",
            "torch.randn(1, 2, 9600)",
            forbidden="group norm over the whole signal",
            read="modules/conv.py: norm='time_group_norm' is nn.GroupNorm(1, channels)",
        ),
        Model(
            "EnCodec, one quantizer",
            "from encodec import EncodecModel\n"
            "model = EncodecModel.encodec_model_24khz(pretrained=False).eval().quantizer.vq.layers[0]",
            "torch.randn(1, 128, 30)",
            forbidden="a loss, the mean over the whole signal, is among the outputs",
            read="quantization/core_vq.py, VectorQuantization.forward; its codes are frame by frame",
        ),
    ),
    stand_ins=("torchaudio", "huggingface_hub"),
)

_MOSHI_SETUP = (
    "from moshi.models import loaders\n"
    "config = {**loaders._mimi_config, 'seanet': {**loaders._seanet_kwargs, 'n_filters': 8}}\n"
    "mimi = loaders.get_mimi(None, config).eval()\n"
)
_MOSHI = Package(
    "moshi",
    ("moshi==0.2.13", EINOPS),
    (
        Model(
            "Mimi of moshi, encoder",
            "model = mimi.encoder",
            "torch.randn(1, 1, 9600)",
            options="length_multiple=960",
            step=960,
            read="modules/conv.py, StreamingConv1d: asserts whole strides; begins with zeros",
        ),
        Model(
            "Mimi of moshi, decoder",
            "model = mimi.decoder",
            "torch.randn(1, 512, 20)",
            read="modules/conv.py, StreamingConvTranspose1d: crops on the right",
        ),
        Model(
            "Mimi of moshi, transformer",
            "model = mimi.encoder_transformer",
            "torch.randn(1, 512, 40)",
            read="modules/transformer.py, StreamingMultiheadAttention: context of 250 frames; modules/rope.py in float32",
            single=True,
        ),
        Model(
            "Mimi of moshi, downsampling",
            "model = mimi.downsample",
            "torch.randn(1, 512, 40)",
            options="length_multiple=2",
            step=2,
            read="modules/resample.py, ConvDownsample1d",
        ),
        Model(
            "Mimi of moshi, upsampling",
            "model = mimi.upsample",
            "torch.randn(1, 512, 20)",
            read="modules/resample.py, ConvTrUpsample1d",
        ),
        Model(
            "Mimi of moshi, audio to codes",
            "import torch\n"
            + wrapper("Encode", "self.mimi = mimi", "return self.mimi.encode(x)", given="mimi")
            + "model = Encode(mimi).eval()",
            "torch.randn(1, 1, 19200)",
            read="models/compression.py, MimiModel.encode: pads to whole frames; codes frame by frame",
            single=True,
        ),
    ),
    setup=_MOSHI_SETUP,
    bare=("moshi", "moshi.models", "moshi.utils"),
    stand_ins=("sphn", "sentencepiece", "bitsandbytes", "safetensors", "huggingface_hub"),
)

_SNAC = Package(
    "snac",
    ("snac==1.2.1", EINOPS),
    (
        Model(
            "SNAC 24 kHz, encoder",
            "from snac import SNAC\n"
            "net = SNAC(24000, 8, [2, 4, 8, 8], None, 64, [8, 8, 4, 2], None, 4096, 8, [4, 2, 1], True, True)\n"
            "model = net.eval().encoder",
            "torch.randn(1, 1, 8192)",
            read="layers.py, Encoder: convolutions with fixed padding",
        ),
        Model(
            "SNAC 24 kHz, decoder",
            "from snac import SNAC\n"
            "net = SNAC(24000, 8, [2, 4, 8, 8], None, 64, [8, 8, 4, 2], None, 4096, 8, [4, 2, 1], False, True)\n"
            "model = net.eval().decoder",
            "torch.randn(1, 128, 16)",
            read="layers.py, Decoder, with noise=False",
        ),
        Model(
            "SNAC 24 kHz, decoder with noise",
            "from snac import SNAC\n"
            "net = SNAC(24000, 8, [2, 4, 8, 8], None, 64, [8, 8, 4, 2], None, 4096, 8, [4, 2, 1], True, True)\n"
            "model = net.eval().decoder",
            "torch.randn(1, 128, 16)",
            forbidden="chance: NoiseBlock draws noise, so that no two runs are alike",
            read="layers.py, NoiseBlock: torch.randn",
        ),
        Model(
            "SNAC 44 kHz, encoder with local attention",
            "from snac import SNAC\nmodel = SNAC(encoder_dim=8, decoder_dim=64, attn_window_size=4).eval().encoder",
            "torch.randn(1, 1, 7056)",
            options="length_multiple=1764",
            step=1764,
            read="attention.py, LocalMHA: attention within windows; lengths of whole windows alone",
        ),
        Model(
            "SNAC, quantizer",
            "from snac import SNAC\n"
            "net = SNAC(24000, 8, [2, 4, 8, 8], None, 64, [8, 8, 4, 2], None, 4096, 8, [4, 2, 1], False, True)\n"
            "model = net.eval().quantizer",
            "torch.randn(1, 128, 16)",
            options="length_multiple=4",
            step=4,
            read="vq.py: averages over strides, nearest entries, repeats",
        ),
        Model(
            "SNAC 24 kHz, whole",
            "from snac import SNAC\n"
            "net = SNAC(24000, 8, [2, 4, 8, 8], None, 64, [8, 8, 4, 2], None, 4096, 8, [4, 2, 1], False, True)\n"
            "model = net.eval()",
            "torch.randn(1, 1, 8192)",
            read="snac.py, SNAC.forward: pads to whole frames, cuts to the length of the input",
        ),
    ),
    stand_ins=("huggingface_hub",),
)

_DAC_STANDS = ("audiotools", "librosa", "julius", "soundfile")
_DAC = Package(
    "descript-audio-codec",
    ("descript-audio-codec==1.0.0", EINOPS, "tqdm==4.70.1"),
    (
        Model(
            "DAC 44.1 kHz, encoder",
            "from dac.model.dac import DAC\nmodel = DAC(encoder_dim=8, decoder_dim=64).eval().encoder",
            "torch.randn(1, 1, 10240)",
            read="model/dac.py, Encoder: convolutions with fixed padding",
        ),
        Model(
            "DAC 44.1 kHz, decoder",
            "from dac.model.dac import DAC\nmodel = DAC(encoder_dim=8, decoder_dim=64).eval().decoder",
            "torch.randn(1, 128, 20)",
            read="model/dac.py, Decoder",
        ),
        Model(
            "DAC 16 kHz, encoder",
            "from dac.model.dac import DAC\nmodel = DAC(8, [2, 4, 5, 8], None, 64, [8, 5, 4, 2]).eval().encoder",
            "torch.randn(1, 1, 6400)",
            read="model/dac.py, Encoder",
        ),
        Model(
            "DAC, audio to codes",
            "import torch\n"
            "from dac.model.dac import DAC\n"
            + wrapper("Encode", "self.dac = dac", "return self.dac.encode(x)[1]", given="dac")
            + "model = Encode(DAC(encoder_dim=8, decoder_dim=64).eval()).eval()",
            "torch.randn(1, 1, 10240)",
            read="model/dac.py, DAC.encode; nn/quantize.py: nearest entries, frame by frame",
        ),
        Model(
            "DAC, whole",
            "from dac.model.dac import DAC\nmodel = DAC(encoder_dim=8, decoder_dim=64).eval()",
            "torch.randn(1, 1, 10240)",
            forbidden="losses, means over the whole signal, are among the outputs",
            read="model/dac.py, DAC.forward gives vq/commitment_loss; the audio is streamable",
        ),
    ),
    bare=("dac", "dac.model"),
    stand_ins=_DAC_STANDS,
)

_AUDIOCRAFT_SETUP = "from audiocraft.modules.seanet import SEANetDecoder, SEANetEncoder\n"
_AUDIOCRAFT = Package(
    "audiocraft",
    ("audiocraft==1.3.0", EINOPS),
    (
        Model(
            "SEANet of audiocraft, causal encoder with LSTM",
            "model = SEANetEncoder(causal=True, n_filters=8, lstm=2, norm='weight_norm').eval()",
            "torch.randn(1, 1, 9600)",
            read="modules/conv.py, StreamableConv1d; modules/lstm.py",
        ),
        Model(
            "SEANet of audiocraft, encoder",
            "model = SEANetEncoder(causal=False, n_filters=8, norm='weight_norm').eval()",
            "torch.randn(1, 1, 9600)",
            read="modules/conv.py: padding on both sides, by a function of the length",
        ),
        Model(
            "SEANet of audiocraft, decoder",
            "model = SEANetDecoder(causal=False, n_filters=8, norm='weight_norm').eval()",
            "torch.randn(1, 128, 24)",
            read="modules/conv.py, StreamableConvTranspose1d: crops on both sides",
        ),
    ),
    setup=_AUDIOCRAFT_SETUP,
    bare=("audiocraft", "audiocraft.modules"),
    stand_ins=("torchaudio", "xformers", "flashy", "omegaconf"),
)

_AUDIOSEAL_SETUP = (
    "from audioseal.libs.moshi.modules.seanet import SEANetDecoder, SEANetEncoder, SEANetEncoderKeepDimension\n"
    "options = dict(channels=1, dimension=128, n_filters=8, n_residual_layers=1, ratios=[8, 5, 4, 2],\n"
    "               norm='none', pad_mode='constant', true_skip=True, lstm=2)\n"
)
_AUDIOSEAL = Package(
    "audioseal",
    ("audioseal==0.2.0", EINOPS),
    (
        Model(
            "AudioSeal, streaming generator's encoder",
            "model = SEANetEncoder(causal=True, **options).eval()",
            "torch.randn(1, 1, 9600)",
            read="libs/moshi/modules/seanet.py; cards/audioseal_wm_streaming.yaml",
        ),
        Model(
            "AudioSeal, generator's encoder",
            "model = SEANetEncoder(causal=False, **options).eval()",
            "torch.randn(1, 1, 9600)",
            read="libs/moshi/modules/conv.py: padding on both sides",
        ),
        Model(
            "AudioSeal, streaming generator's decoder",
            "model = SEANetDecoder(causal=True, **options).eval()",
            "torch.randn(1, 128, 24)",
            read="libs/moshi/modules/seanet.py",
        ),
        Model(
            "AudioSeal, streaming detector",
            "import torch\n"
            "from audioseal.models import AudioSealDetector\n"
            "encoder = SEANetEncoderKeepDimension(causal=True, output_dim=32, **options)\n"
            "model = AudioSealDetector(encoder, nbits=16).eval().detector",
            "torch.randn(1, 1, 9600)",
            read="models.py: encoder, one transposed convolution by the hop, a convolution of one tap",
        ),
        Model(
            "AudioSeal, whole generator",
            "import torch\n"
            "from audioseal.models import AudioSealWM, MsgProcessor\n"
            + wrapper(
                "Generator",
                "self.model = model",
                "return self.model(x, message=message)",
                given="model",
                takes="x, message",
            )
            + "model = AudioSealWM(SEANetEncoder(causal=True, **options), SEANetDecoder(causal=True, **options),\n"
            "                    MsgProcessor(16, 128))\n"
            "model = Generator(model).eval()",
            "(torch.randn(1, 1, 9600), torch.ones(1, 16, dtype=torch.long))",
            time_dim=(-1, None),
            read="models.py, AudioSealWM.forward: encoder, message, decoder, cut to the length",
        ),
    ),
    setup=_AUDIOSEAL_SETUP,
    bare=("audioseal",),
    stand_ins=("omegaconf",),
)

# `scipy.signal.kaiser` was moved since, and arrays of one value are no numbers any more.
_RAVE_SETUP = (
    "import scipy.signal\n"
    "scipy.signal.kaiser = scipy.signal.windows.kaiser\n"
    "import cached_conv as cc\n"
    "from rave import blocks, pqmf\n"
    "fmin = pqmf.fmin\n"
    "pqmf.fmin = lambda loss, start, **options: fmin(lambda at: loss(float(at[0])), start, **options)\n"
    "firwin = pqmf.firwin\n"
    "pqmf.firwin = lambda *args, nyq, **options: firwin(*args, fs=2 * nyq, **options)\n"
)
_RAVE = Package(
    "acids-rave",
    ("acids-rave==2.3.1", "cached-conv==2.5.0", EINOPS),
    (
        Model(
            "RAVE, PQMF analysis",
            "import torch\n"
            + wrapper("Analysis", "self.pqmf = pqmf", "return self.pqmf(x)", given="pqmf")
            + "model = Analysis(pqmf.PQMF(100, 16)).eval()",
            "torch.randn(1, 1, 4096)",
            options="length_multiple=16",
            step=16,
            read="pqmf.py, polyphase_forward: reshaped into phases, a convolution; every second sample is negated",
        ),
        Model(
            "RAVE, PQMF synthesis",
            "import torch\n"
            + wrapper("Synthesis", "self.pqmf = pqmf", "return self.pqmf.inverse(x)", given="pqmf")
            + "model = Synthesis(pqmf.PQMF(100, 16)).eval()",
            "torch.randn(1, 16, 256)",
            read="pqmf.py, polyphase_inverse: every second sample is negated, a convolution, flips of channels, interleaving",
        ),
        Model(
            "RAVE, encoder",
            "model = blocks.EncoderV2(16, 16, [4, 4, 4, 2], 16, 1, 3, [[1, 3, 9], [1, 3, 9], [1, 3, 9], [1, 3]]).eval()",
            "torch.randn(1, 16, 1024)",
            read="blocks.py, EncoderV2: convolutions and residual dilated units",
        ),
        Model(
            "RAVE, generator",
            "model = blocks.GeneratorV2(16, [4, 4, 4, 2], 16, 3, [[1, 3, 9], [1, 3, 9], [1, 3, 9], [1, 3]],\n"
            "                           data_size=16).eval()",
            "torch.randn(1, 16, 32)",
            read="blocks.py, GeneratorV2: transposed convolutions and residual dilated units",
        ),
    ),
    setup=_RAVE_SETUP,
    bare=("rave",),
    stand_ins=("gin", "pytorch_lightning", "librosa", "torchaudio", "nn_tilde", "lmdb", "udls", "GPUtil", "sklearn"),
)

_BIGCODEC = Package(
    "bigcodec",
    ("bigcodec==0.0.3", EINOPS),
    (
        Model(
            "BigCodec, encoder",
            "from bigcodec.modules import CodecEncoder\nmodel = CodecEncoder(ngf=4, use_rnn=True).eval()",
            "torch.randn(1, 1, 3200)",
            read="modules.py, CodecEncoder: convolutions, activations between resamplers, an LSTM that runs forwards",
        ),
        Model(
            "BigCodec, residual LSTM",
            "from bigcodec.modules import ResLSTM\nmodel = ResLSTM(64, 2, skip=True).eval()",
            "torch.randn(1, 64, 60)",
            read="modules.py, ResLSTM",
        ),
    ),
    bare=("bigcodec",),
    stand_ins=("huggingface_hub", "torchaudio"),
)

PACKAGES = (_ENCODEC, _MOSHI, _SNAC, _DAC, _AUDIOCRAFT, _AUDIOSEAL, _RAVE, _BIGCODEC)
