"""Recurrent and windowed sequence models of transformers, on embedded tokens."""

# ruff: noqa: E501  (statements are those that the page shows)

from .listing import Model, Package, wrapper
from .transformers_audio import REQUIREMENTS, STAND_INS

__all__ = ["PACKAGE"]

_EMBEDDED = "import torch\n" + wrapper(
    "Embedded",
    "self.model = model",
    "return self.model(inputs_embeds=x, use_cache=False).last_hidden_state",
    given="model",
)
_MAMBA = (
    "from transformers import MambaConfig, MambaModel\n"
    "config = MambaConfig(vocab_size=100, hidden_size=64, state_size=8, num_hidden_layers=2)\n"
    "mamba = MambaModel(config).eval()\n"
)
_MAMBA2 = (
    "from transformers import Mamba2Config, Mamba2Model\n"
    "config = Mamba2Config(vocab_size=100, hidden_size=64, state_size=16, num_hidden_layers=2, num_heads=8, head_dim=16,\n"
    "                      n_groups=2, chunk_size=16)\n"
    "mamba = Mamba2Model(config).eval()\n"
)
_SMALL = "vocab_size=100, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4"

_MODELS = (
    Model(
        "Mamba, mixer",
        _MAMBA + "model = mamba.layers[0].mixer",
        "torch.randn(1, 30, 64)",
        time_dim=1,
        read="MambaMixer.slow_forward: causal convolution cut to the length, a loop over time, which is a recurrence",
        single=True,
    ),
    Model(
        "Mamba, whole",
        _EMBEDDED + _MAMBA + "model = Embedded(mamba).eval()",
        "torch.randn(1, 30, 64)",
        time_dim=1,
        read="MambaModel: mixers and RMS norms, in float32",
        single=True,
    ),
    Model(
        "Mamba 2, mixer",
        _MAMBA2 + "model = mamba.layers[0].mixer",
        "torch.randn(1, 48, 64)",
        time_dim=1,
        read="Mamba2Mixer.torch_forward: chunks of 16, states passed from chunk to chunk, a recurrence written as a scan",
        single=True,
    ),
    Model(
        "Falcon Mamba, mixer",
        "from transformers import FalconMambaConfig, FalconMambaModel\n"
        "config = FalconMambaConfig(vocab_size=100, hidden_size=64, state_size=8, num_hidden_layers=2)\n"
        "model = FalconMambaModel(config).eval().layers[0].mixer",
        "torch.randn(1, 30, 64)",
        time_dim=1,
        read="FalconMambaMixer.slow_forward, of Mamba's kind",
        single=True,
    ),
    Model(
        "RWKV, whole",
        _EMBEDDED
        + "from transformers import RwkvConfig, RwkvModel\n"
        + "config = RwkvConfig(vocab_size=100, hidden_size=64, num_hidden_layers=2)\n"
        + "model = Embedded(RwkvModel(config).eval()).eval()",
        "torch.randn(1, 30, 64)",
        time_dim=1,
        read="rwkv_linear_attention_cpu: a loop over time with three states; a shift by one",
        single=True,
    ),
    Model(
        "RecurrentGemma, recurrent block",
        "from transformers import RecurrentGemmaConfig\n"
        "from transformers.models.recurrent_gemma.modeling_recurrent_gemma import RecurrentGemmaRglru\n"
        "config = RecurrentGemmaConfig(vocab_size=100, hidden_size=64, lru_width=64, num_attention_heads=4)\n"
        "import torch\n"
        + wrapper(
            "Anew",
            "self.scan = RecurrentGemmaRglru(config)",
            "self.scan.recurrent_states = None",
            "return self.scan(x, positions)",
            takes="x, positions",
        )
        + "model = Anew().eval()\n"
        "for weight in model.parameters():  # which are empty before they are loaded\n"
        "    torch.nn.init.normal_(weight, std=0.1)",
        "(torch.randn(1, 30, 64), torch.arange(30)[None])",
        time_dim=(1, 1),
        read="RecurrentGemmaRglru._rnn_scan: a loop over time, begun anew; positions come as an input, for the reset",
        single=True,
    ),
    Model(
        "Mistral, sliding window",
        _EMBEDDED
        + "from transformers import MistralConfig, MistralModel\n"
        + f"config = MistralConfig({_SMALL}, num_key_value_heads=2, sliding_window=8)\n"
        + "model = Embedded(MistralModel(config).eval()).eval()",
        "torch.randn(1, 40, 64)",
        time_dim=1,
        read="create_sliding_window_causal_mask, rotary positions; norms in float32",
        single=True,
    ),
    Model(
        "Mistral, no window",
        _EMBEDDED
        + "from transformers import MistralConfig, MistralModel\n"
        + f"config = MistralConfig({_SMALL}, num_key_value_heads=2, sliding_window=None)\n"
        + "model = Embedded(MistralModel(config).eval()).eval()",
        "torch.randn(1, 40, 64)",
        time_dim=1,
        forbidden="attention to all of the past",
        read="create_causal_mask",
    ),
    Model(
        "Kyutai speech to text, transformer",
        _EMBEDDED
        + "from transformers import KyutaiSpeechToTextConfig\n"
        + "from transformers.models.kyutai_speech_to_text.modeling_kyutai_speech_to_text import (\n"
        + "    KyutaiSpeechToTextModel,\n"
        + ")\n"
        + "config = KyutaiSpeechToTextConfig(vocab_size=100, codebook_vocab_size=50, hidden_size=64, ffn_dim=128,\n"
        + "                                  num_hidden_layers=2, num_attention_heads=4, sliding_window=8,\n"
        + "                                  num_codebooks=4, audio_bos_token_id=48, audio_pad_token_id=49,\n"
        + "                                  bos_token_id=1)\n"
        + "model = Embedded(KyutaiSpeechToTextModel(config).eval()).eval()",
        "torch.randn(1, 40, 64)",
        time_dim=1,
        forbidden="attention to all of the past",
        read="KyutaiSpeechToTextModel.forward: create_causal_mask, whatever sliding_window says; norms in float32",
        single=True,
    ),
    Model(
        "PatchTSMixer, patches",
        "from transformers import PatchTSMixerConfig\n"
        "from transformers.models.patchtsmixer.modeling_patchtsmixer import PatchTSMixerPatchify\n"
        "model = PatchTSMixerPatchify(PatchTSMixerConfig(context_length=64, patch_length=8, patch_stride=8)).eval()",
        "torch.randn(1, 64, 3)",
        time_dim=1,
        forbidden="one length alone",
        read="PatchTSMixerPatchify.forward raises for another length than context_length",
    ),
)

PACKAGE = Package("transformers", REQUIREMENTS, _MODELS, stand_ins=STAND_INS)
