"""Peers that stream attention: SpeechBrain's Conformer and moshi's transformer, with only what they need of themselves.

Both come from PyPI, each into a folder of its own, with nothing that they depend on. Their packages import much that
attention does not need, such as torchaudio, so empty packages stand for those that would.
"""

import importlib
import logging
import sys
from types import ModuleType
from typing import Any

import torch
from peers import MOSHI, folder_of
from torch import Tensor, nn

__all__ = ["MoshiTransformer", "SpeechBrainConformer"]

SPEECHBRAIN, EINOPS = "speechbrain==1.1.2", "einops==0.8.1"


def _bare(name: str, folder: Any) -> ModuleType:
    # A package whose __init__ is not run.
    package = ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package
    parent, _, last = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], last, package)
    return package


def _speechbrain() -> tuple[ModuleType, ModuleType]:
    if "speechbrain" not in sys.modules:
        folder = folder_of(SPEECHBRAIN, "speechbrain") / "speechbrain"
        for part in ("", "nnet", "lobes", "lobes/models", "lobes/models/transformer", "utils", "dataio"):
            _bare(".".join(["speechbrain", *filter(None, part.split("/"))]), folder / part)
        # Of these it needs one function each, the second for other kinds of attention.
        logger, dataio = ModuleType("speechbrain.utils.logger"), ModuleType("speechbrain.dataio.dataio")
        logger.get_logger = logging.getLogger  # type: ignore[attr-defined]
        dataio.length_to_mask = None  # type: ignore[attr-defined]
        sys.modules[logger.__name__], sys.modules[dataio.__name__] = logger, dataio
    chunks = importlib.import_module("speechbrain.utils.dynamic_chunk_training")
    return importlib.import_module("speechbrain.lobes.models.transformer.Conformer"), chunks


def chunk_mask(x: Tensor, chunk: int, left: int) -> Tensor:
    """SpeechBrain's mask of chunks, of its `make_transformer_src_mask`, whose file imports all of SpeechBrain."""
    t = x.shape[1]
    step = torch.arange(t, device=x.device)
    last = torch.arange(chunk, chunk * (t // chunk + 2), chunk, device=x.device).repeat_interleave(chunk)[:t]
    mask = step.unsqueeze(0) >= last.unsqueeze(1)
    return mask + (step.unsqueeze(0) < (last - chunk * (left + 1)).unsqueeze(1))


class SpeechBrainConformer(nn.Module):
    """SpeechBrain's encoder, offline under its mask, ``[B, C, T]``; `streaming` gives its own streaming forward.

    Args:
        width, heads, layers, kernel: of the encoder
        chunk: frames per chunk
        left: chunks before the present one that a query sees
    """

    def __init__(self, width: int, heads: int, layers: int, kernel: int, chunk: int, left: int) -> None:
        super().__init__()
        conformer, chunks = _speechbrain()
        self.config = chunks.DynChunkTrainConfig(chunk, left)
        self.encoder = conformer.ConformerEncoder(
            layers, width, 4 * width, heads, kernel_size=kernel, attention_type="regularMHA"
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        mask = chunk_mask(x, self.config.chunk_size, self.config.left_context_size)
        return self.encoder(x, src_mask=mask, dynchunktrain_config=self.config)[0].transpose(1, 2)

    def streaming(self) -> Any:
        """A function of chunks ``[B, C, chunk]``."""
        context = self.encoder.make_streaming_context(self.config)
        return lambda x: self.encoder.forward_streaming(x.transpose(1, 2), context)[0].transpose(1, 2)


def _moshi() -> tuple[ModuleType, ModuleType]:
    einops = str(folder_of(EINOPS, "einops"))
    if einops not in sys.path:
        sys.path.append(einops)
    folder = folder_of(MOSHI, "moshi") / "moshi"
    for part in ("", ".modules", ".utils"):
        if f"moshi_peer{part}" not in sys.modules:
            _bare(f"moshi_peer{part}", folder / part[1:])
    return importlib.import_module("moshi_peer.modules.transformer"), importlib.import_module(
        "moshi_peer.utils.compile"
    )


class MoshiTransformer(nn.Module):
    """The transformer of moshi and Mimi, offline under its mask, ``[B, C, T]``; `streaming` gives its own streaming.

    Args:
        width, heads, layers: of the transformer
        context: frames that a query sees, its own included
    """

    def __init__(self, width: int, heads: int, layers: int, context: int) -> None:
        super().__init__()
        transformer, compiling = _moshi()
        self.no_compile = compiling.no_compile
        self.transformer = transformer.StreamingTransformer(
            d_model=width,
            num_heads=heads,
            num_layers=layers,
            dim_feedforward=4 * width,
            causal=True,
            context=context,
            positional_embedding="rope",
            layer_scale=0.01,
        )

    def forward(self, x: Tensor) -> Tensor:
        with self.no_compile():
            return self.transformer(x.transpose(1, 2)).transpose(1, 2)

    def streaming(self) -> Any:
        """A function of chunks ``[1, C, t]``; it keeps its state in the module."""
        self.transformer.streaming_forever(1)
        return self.forward
