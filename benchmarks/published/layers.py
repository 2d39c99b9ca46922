"""Attention, recurrences and quantizers: x-transformers, local-attention, conformer, mambapy and others."""

# ruff: noqa: E501  (statements are those that the page shows)

from .listing import Model, Package

__all__ = ["PACKAGES"]

EINOPS = "einops==0.8.2"

_X_SETUP = "from x_transformers.x_transformers import Decoder, Encoder\n"
_X = Package(
    "x-transformers",
    ("x-transformers==2.31.10", "torch-einops-utils==0.2.0", EINOPS, "einx==0.4.3", "frozendict==2.5.1"),
    (
        Model(
            "x-transformers, decoder",
            "model = Decoder(dim=32, depth=2, heads=4, attn_dim_head=8).eval()",
            "torch.randn(1, 40, 32)",
            time_dim=1,
            forbidden="attention to all of the past",
            read="attend.py: a causal mask",
        ),
        Model(
            "x-transformers, encoder",
            "model = Encoder(dim=32, depth=2, heads=4, attn_dim_head=8).eval()",
            "torch.randn(1, 40, 32)",
            time_dim=1,
            forbidden="attention to the whole signal",
            read="attend.py: no mask",
        ),
        Model(
            "x-transformers, decoder with a context given",
            "model = Decoder(dim=32, depth=2, heads=4, attn_dim_head=8).eval()",
            "torch.randn(1, 40, 32)",
            time_dim=1,
            options="context=pts.Context(None, max_length=64)",
            read="the same, exact for signals of up to 64 samples",
        ),
        Model(
            "x-transformers, feed forward",
            "from x_transformers.x_transformers import FeedForward\nmodel = FeedForward(32, glu=True).eval()",
            "torch.randn(1, 40, 32)",
            time_dim=1,
            read="FeedForward: sample by sample",
        ),
    ),
    setup=_X_SETUP,
    bare=("x_transformers",),
    stand_ins=("loguru",),
)

_LOCAL = Package(
    "local-attention",
    ("local-attention==1.11.2", "hyper-connections==0.4.7", EINOPS),
    (
        Model(
            "Local attention",
            "from local_attention.local_attention import LocalAttention\n"
            "model = LocalAttention(dim=16, window_size=8, causal=True, look_backward=1, autopad=True).eval()",
            "(torch.randn(1, 2, 64, 16), torch.randn(1, 2, 64, 16), torch.randn(1, 2, 64, 16))",
            time_dim=(2, 2, 2),
            read="local_attention.py: buckets of 8, the one before; padded to whole buckets",
        ),
        Model(
            "Local attention, multi-head",
            "from local_attention.transformer import LocalMHA\n"
            "model = LocalMHA(dim=32, window_size=8, heads=4, dim_head=8, causal=True).eval()",
            "torch.randn(1, 64, 32)",
            time_dim=1,
            read="transformer.py, LocalMHA: the same with projections",
        ),
    ),
    bare=("local_attention",),
)

_CONFORMER = Package(
    "conformer",
    ("conformer==0.3.2", EINOPS),
    (
        Model(
            "Conformer of conformer, convolution module",
            "from conformer.conformer import ConformerConvModule\n"
            "model = ConformerConvModule(32, causal=False, kernel_size=15).eval()",
            "torch.randn(1, 60, 32)",
            time_dim=1,
            read="conformer.py: depthwise convolution, batch norm",
        ),
        Model(
            "Conformer of conformer, causal convolution module",
            "from conformer.conformer import ConformerConvModule\n"
            "model = ConformerConvModule(32, causal=True, kernel_size=15).eval()",
            "torch.randn(1, 60, 32)",
            time_dim=1,
            read="conformer.py: padding on the left",
        ),
        Model(
            "Conformer of conformer",
            "from conformer.conformer import Conformer\n"
            "model = Conformer(32, depth=2, dim_head=8, heads=4, conv_kernel_size=15).eval()",
            "torch.randn(1, 60, 32)",
            time_dim=1,
            forbidden="attention to the whole signal",
            read="conformer.py, Attention",
        ),
        Model(
            "Conformer of conformer, with a context given",
            "from conformer.conformer import Conformer\n"
            "model = Conformer(32, depth=2, dim_head=8, heads=4, conv_kernel_size=15, conv_causal=True).eval()",
            "torch.randn(1, 60, 32)",
            time_dim=1,
            forbidden="attention to the whole signal",
            read="conformer.py, Attention",
        ),
    ),
)

_VQ = Package(
    "vector-quantize-pytorch",
    ("vector-quantize-pytorch==1.32.0", EINOPS, "einx==0.4.3", "frozendict==2.5.1"),
    (
        Model(
            "Vector quantizer, codes",
            "from vector_quantize_pytorch.vector_quantize_pytorch import VectorQuantize\n"
            "import torch\n"
            "class Codes(torch.nn.Module):\n"
            "    def __init__(self):\n"
            "        super().__init__()\n"
            "        self.vq = VectorQuantize(dim=16, codebook_size=32)\n\n"
            "    def forward(self, x):\n"
            "        quantized, indices, _ = self.vq(x)\n"
            "        return quantized, indices\n\n"
            "model = Codes().eval()",
            "torch.randn(1, 40, 16)",
            time_dim=1,
            read="vector_quantize_pytorch.py: the nearest entry, frame by frame",
        ),
        Model(
            "Residual vector quantizer, codes",
            "from vector_quantize_pytorch.residual_vq import ResidualVQ\n"
            "import torch\n"
            "class Codes(torch.nn.Module):\n"
            "    def __init__(self):\n"
            "        super().__init__()\n"
            "        self.vq = ResidualVQ(dim=16, codebook_size=32, num_quantizers=3)\n\n"
            "    def forward(self, x):\n"
            "        quantized, indices, _ = self.vq(x)\n"
            "        return quantized, indices\n\n"
            "model = Codes().eval()",
            "torch.randn(1, 40, 16)",
            time_dim=1,
            read="residual_vq.py: quantizers one after the other",
        ),
        Model(
            "Finite scalar quantizer",
            "from vector_quantize_pytorch.finite_scalar_quantization import FSQ\nmodel = FSQ([8, 5, 5, 5], dim=16).eval()",
            "torch.randn(1, 40, 16)",
            time_dim=1,
            read="finite_scalar_quantization.py: rounds each value; casts to float32",
            single=True,
        ),
        Model(
            "Lookup-free quantizer",
            "from vector_quantize_pytorch.lookup_free_quantization import LFQ\n"
            "model = LFQ(dim=8, codebook_size=256).eval()",
            "torch.randn(1, 40, 8)",
            time_dim=1,
            select=(0, 1),
            read="lookup_free_quantization.py: signs; the loss, a constant in eval, is left out",
        ),
    ),
    bare=("vector_quantize_pytorch",),
    stand_ins=("loguru",),
)

_MAMBAPY = Package(
    "mambapy",
    ("mambapy==1.2.0",),
    (
        Model(
            "Mamba of mambapy, sequential",
            "from mambapy.mamba import Mamba, MambaConfig\n"
            "model = Mamba(MambaConfig(d_model=16, n_layers=2, d_state=4, pscan=False)).eval()",
            "torch.randn(1, 32, 16)",
            time_dim=1,
            read="mamba.py, selective_scan_seq: a loop over time, which is a recurrence",
        ),
        Model(
            "Mamba of mambapy, parallel scan",
            "from mambapy.mamba import Mamba, MambaConfig\n"
            "model = Mamba(MambaConfig(d_model=16, n_layers=1, d_state=4)).eval()",
            "torch.randn(1, 32, 16)",
            time_dim=1,
            read="pscan.py: the same recurrence by a scan that writes in place, padded to a power of two",
        ),
    ),
)

_MINGRU = Package(
    "minGRU-pytorch",
    ("minGRU-pytorch==0.2.1", EINOPS),
    (
        Model(
            "minGRU",
            "from minGRU_pytorch.minGRU import minGRU\nmodel = minGRU(dim=16).eval()",
            "torch.randn(1, 40, 16)",
            time_dim=1,
            read="minGRU.py, heinsen_associative_scan_log: cumsum and logcumsumexp; one sample alone takes another branch",
        ),
        Model(
            "minLSTM",
            "from minGRU_pytorch.minLSTM import minLSTM\nmodel = minLSTM(dim=16).eval()",
            "torch.randn(1, 40, 16)",
            time_dim=1,
            read="minLSTM.py, the same",
        ),
        Model(
            "minLM, causal convolution",
            "from minGRU_pytorch.minLM import CausalDepthWiseConv1d\nmodel = CausalDepthWiseConv1d(16, 3).eval()",
            "torch.randn(1, 40, 16)",
            time_dim=1,
            read="minLM.py: padding on the left",
        ),
    ),
    bare=("minGRU_pytorch",),
    stand_ins=("x_transformers", "accelerate"),
)

PACKAGES = (_X, _LOCAL, _CONFORMER, _VQ, _MAMBAPY, _MINGRU)
