"""All blocks with recurrences or attention as models of one signal, [B, C, T] to [B, D, T'], and edges of contexts."""

from dataclasses import dataclass
from typing import Callable, Optional

import torch
from as_signal import as_signal
from gemma_audio import GemmaAudioEncoder
from linear_recurrences import QRNN, RGLRU, SRU, DiagonalStateSpace, MinGRU
from mamba import MambaLayer
from moshi_transformer import MoshiTransformer
from realtime_encoders import MoonshineEncoder, VoxtralEncoder
from recurrent_zoo import RECURRENT
from streaming_conformers import ChunkConformer, FastConformer
from torch import Tensor, nn
from wenet_conformer import WeNetConformer
from zipformer import Zipformer

import torchstreamer as pts

LONGEST = 45_000  # frames, in tables of relative positions


class WeNet(nn.Module):
    """WeNet's layers on [B, C, T], whose mask of chunks `whole` makes in its loop, and a context says to the stream."""

    def __init__(self, longest: int = LONGEST) -> None:
        super().__init__()
        self.net = WeNetConformer(max_len=longest)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.mT).mT

    def whole(self, x: Tensor) -> Tensor:
        """With the mask."""
        self.net.decoding_chunk_size, self.net.num_left_chunks = 4, 2
        y = self(x)
        self.net.decoding_chunk_size, self.net.num_left_chunks = 0, -1
        return y


@dataclass(frozen=True)
class Block:
    """A model.

    `module()`: the model in eval mode, always with the same weights.
    `shape`: [B, C, T] of an example.
    `captured`: whether it needs an example to be streamed.
    `context`: of attention that has no mask.
    `multiple`: lengths must be multiples of this.
    `shortest`: the shortest length for which the model gives anything.
    """

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, int, int]
    captured: bool = True
    context: Optional[pts.Context] = None
    multiple: int = 1
    shortest: int = 1

    def module(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        """The model."""
        torch.manual_seed(0)
        return self.make().to(dtype).eval()

    def signal(self, length: int, batch: int = 1, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
        """A random signal."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(batch, self.shape[1], length, generator=generator, dtype=torch.float64).to(dtype)

    def stream(self, net: nn.Module) -> pts.BaseStream:
        """A stream of the model."""
        if not self.captured:
            return pts.create_stream(net)
        dtype = next(net.parameters()).dtype
        keywords = {} if self.context is None else {"context": self.context}
        example = self.signal(self.shape[2], dtype=dtype)
        return pts.create_stream(net, example=example, length_multiple=self.multiple, **keywords)


def offline(net: nn.Module) -> Callable[[Tensor], Tensor]:
    """What a stream of the model must equal."""
    return net.whole if isinstance(net, WeNet) else net


def _recurrent(entry) -> Block:
    _, shape, multiple = as_signal(entry)
    shortest = entry.shortest if entry.name != "silero" else 16
    return Block(entry.name, lambda: as_signal(entry)[0], shape, multiple=multiple, shortest=shortest)


def _fast(size: tuple[int, int], style: str = "chunked_limited") -> Callable[[], nn.Module]:
    return lambda: FastConformer(att_context_size=size, style=style, longest=LONGEST)


BLOCKS = [
    Block("gru", lambda: pts.Recurrent1d(nn.GRU(3, 4, 2)), (2, 3, 30), captured=False),
    Block("lstm", lambda: pts.Recurrent1d(nn.LSTM(3, 4, 2)), (2, 3, 30), captured=False),
    *[_recurrent(entry) for entry in RECURRENT],
    Block("sru", lambda: SRU(4), (2, 4, 30)),
    Block("qrnn", lambda: QRNN(4, 5), (2, 4, 30)),
    Block("min_gru", lambda: MinGRU(4, 5), (2, 4, 30)),
    Block("rg_lru", lambda: RGLRU(4, 6), (2, 4, 30)),
    Block("state_space", lambda: DiagonalStateSpace(4, 3, paired=True), (2, 4, 30)),
    Block("mamba", lambda: MambaLayer(4, states=3), (2, 4, 30)),
    Block(
        "emformer",
        lambda: pts.Emformer1d(8, 2, 16, 2, 4, left_context_length=4, right_context_length=1, max_memory_size=2),
        (2, 8, 30),
        captured=False,
    ),
    Block("moshi", MoshiTransformer, (2, 8, 40)),
    Block("moonshine", MoonshineEncoder, (2, 1, 400)),
    Block("voxtral", VoxtralEncoder, (2, 5, 60)),
    Block("speechbrain", ChunkConformer, (2, 8, 40)),
    Block("fastconformer", _fast((4, 1)), (2, 5, 120)),
    Block("fastconformer_regular", _fast((4, 2), "regular"), (2, 5, 120)),
    Block("zipformer", lambda: Zipformer(longest=LONGEST), (2, 8, 40)),
    Block("wenet", WeNet, (2, 8, 40), context=pts.Context.chunks(4, 2)),
    Block("gemma", GemmaAudioEncoder, (2, 5, 160)),
]

# No key before the own one or the own chunk; more keys after a query than before it.
EDGES = [
    Block("moshi_own_key", lambda: MoshiTransformer(context=1), (2, 8, 40)),
    Block("moonshine_right_beyond_left", lambda: MoonshineEncoder(windows=((1, 1), (2, 6))), (2, 1, 400)),
    Block("speechbrain_no_left", lambda: ChunkConformer(left=0), (2, 8, 40)),
    Block("fastconformer_no_left", _fast((0, 3)), (2, 5, 120)),
    Block("fastconformer_right_beyond_left", _fast((1, 3), "regular"), (2, 5, 160)),
    Block("zipformer_no_left", lambda: Zipformer(left=0, longest=LONGEST), (2, 8, 40)),
]
