"""Small codecs, laid out as the published packages lay theirs out: the same parts, names, calls and quantizers.

EnCodec (Defossez et al., 2022) as transformers and encodec have it, Mimi (Defossez et al., 2024) as transformers and
moshi have it, DAC (Kumar et al., 2023) and SNAC (Siuzdak et al., 2024)."""

import math
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from dac import DACDecoder, DACEncoder
from moshi_transformer import MoshiTransformer
from seanet import PaddedConv, SEANetDecoder, SEANetEncoder, TrimmedConvTranspose
from torch import Tensor, nn


class Codebook(nn.Module):
    """The nearest entry by the Euclidean distance, in the expanded form that the packages compute."""

    def __init__(self, size: int, channels: int) -> None:
        super().__init__()
        self.register_buffer("embed", torch.randn(size, channels))

    def encode(self, x: Tensor) -> Tensor:
        rows = x.transpose(1, 2).reshape(-1, x.shape[1])
        embed = self.embed.t()
        distances = -(rows.pow(2).sum(1, keepdim=True) - 2 * rows @ embed + embed.pow(2).sum(0, keepdim=True))
        return distances.max(dim=-1).indices.view(x.shape[0], x.shape[2])

    def decode(self, codes: Tensor) -> Tensor:
        return F.embedding(codes, self.embed).transpose(1, 2)


class Residual(nn.Module):
    """Codebooks one after the other, each for what those before it left: codes [K, B, T]."""

    def __init__(self, count: int, size: int, channels: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Codebook(size, channels) for _ in range(count))

    def encode(self, x: Tensor, count: int | None = None) -> Tensor:
        found = []
        for layer in self.layers[: count or len(self.layers)]:
            codes = layer.encode(x)
            x = x - layer.decode(codes)
            found.append(codes)
        return torch.stack(found)

    def decode(self, codes: Tensor) -> Tensor:
        total = torch.tensor(0.0, device=codes.device)
        for layer, each in zip(self.layers, codes, strict=False):
            total = total + layer.decode(each)
        return total


class ByBandwidth(Residual):
    """As EnCodec of transformers has it."""

    def encode(self, x: Tensor, bandwidth: float | None = None) -> Tensor:
        return super().encode(x, len(self.layers) if bandwidth is None else int(bandwidth))


class ByRate(Residual):
    """As the package encodec has it, which also asks for the rate of frames."""

    def encode(self, x: Tensor, frame_rate: int, bandwidth: float | None = None) -> Tensor:
        each = math.log2(self.layers[0].embed.shape[0]) * frame_rate / 1000
        return super().encode(x, None if bandwidth is None else int(max(1, math.floor(bandwidth / each))))


class Memory(nn.Module):
    """The LSTM of EnCodec, with its shortcut: [B, C, T] to [B, C, T]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(2, 0, 1)
        return (self.lstm(x)[0] + x).permute(1, 2, 0)


OPTIONS = {"dimension": 4, "filters": 2, "strides": (2, 4), "causal": True, "kernel_size": 3, "pad_mode": "constant"}


class EncodecModel(nn.Module):
    """As transformers has it: rates in a config, codes [1, B, K, T]."""

    def __init__(self, **config: object) -> None:
        super().__init__()
        self.config = SimpleNamespace(
            sampling_rate=800, frame_rate=100, target_bandwidths=[1, 2, 3], normalize=False, audio_channels=1
        )
        self.config.__dict__.update(config)
        options = {**OPTIONS, "pad_mode": "reflect"}
        self.encoder = nn.Sequential(SEANetEncoder(**options, extra_padding=True), Memory(4))
        self.decoder = nn.Sequential(Memory(4), SEANetDecoder(**options))
        self.quantizer = ByBandwidth(3, 16, 4)

    def forward(self, x: Tensor, bandwidth: float) -> tuple[Tensor, Tensor]:
        codes = self.quantizer.encode(self.encoder(x), bandwidth).transpose(0, 1)
        y = self.decoder(self.quantizer.decode(codes.transpose(0, 1)))
        return codes, y[..., : x.shape[-1]]


class OldEncodecModel(nn.Module):
    """As the package encodec has it: rates and the chosen bandwidth are its own."""

    def __init__(self) -> None:
        super().__init__()
        self.sample_rate, self.frame_rate, self.channels, self.normalize = 800, 100, 1, False
        self.bandwidth, self.target_bandwidths = 0.8, [0.4, 0.8]
        self.encoder = SEANetEncoder(**OPTIONS, extra_padding=True)
        self.decoder = SEANetDecoder(**OPTIONS)
        self.quantizer = ByRate(3, 16, 4)

    def encode(self, x: Tensor) -> Tensor:
        return self.quantizer.encode(self.encoder(x), self.frame_rate, self.bandwidth).transpose(0, 1)

    def decode(self, codes: Tensor) -> Tensor:
        return self.decoder(self.quantizer.decode(codes.transpose(0, 1)))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        codes = self.encode(x)
        return codes, self.decode(codes)[..., : x.shape[-1]]


class Split(nn.Module):
    """Mimi's quantizer: the first codebook by itself, then the others for the same embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.rest = Residual(1, 16, 4), Residual(3, 16, 4)

    def encode(self, x: Tensor, count: int | None = None) -> Tensor:
        count = 4 if count is None else count
        return torch.cat([self.first.encode(x), self.rest.encode(x, count - 1)], 0)

    def decode(self, codes: Tensor) -> Tensor:
        y = self.first.decode(codes[:, :1].transpose(0, 1))
        return y + self.rest.decode(codes[:, 1:].transpose(0, 1))


class MimiHalf(nn.Module):
    """Mimi's encoder or decoder as transformers has it, which answers a structure of outputs."""

    def __init__(self, answers: str, *layers: nn.Module) -> None:
        super().__init__()
        self.answers, self.layers = answers, nn.Sequential(*layers)

    def forward(self, x: Tensor) -> SimpleNamespace:
        return SimpleNamespace(**{self.answers: self.layers(x), "past_key_values": None})


class MimiModel(nn.Module):
    """As transformers has it: rates in a config."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(sampling_rate=800, frame_rate=100, audio_channels=1)
        self.encoder = MimiHalf("latents", SEANetEncoder(**OPTIONS, extra_padding=True), MoshiTransformer(4, 2, 1, 5))
        self.decoder = MimiHalf("audio_values", MoshiTransformer(4, 2, 1, 5), SEANetDecoder(**OPTIONS))
        self.quantizer = Split()

    def encode(self, x: Tensor, count: int | None = None) -> Tensor:
        return self.quantizer.encode(self.encoder(x).latents, count).transpose(0, 1)

    def forward(self, x: Tensor, count: int | None = None) -> tuple[Tensor, Tensor]:
        codes = self.encode(x, count)
        return codes, self.decoder(self.quantizer.decode(codes)).audio_values[..., : x.shape[-1]]


class Listed(nn.Module):
    """A module whose answer is a list."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> list[Tensor]:
        return [self.net(x)]


class Resampled(nn.Module):
    """Half or twice as many frames, by a convolution."""

    learnt = True

    def __init__(self, name: str) -> None:
        super().__init__()
        conv = PaddedConv(4, 4, 4, 2, causal=True) if name == "conv" else TrimmedConvTranspose(4, 4, 4, 2, causal=True)
        self.name = name
        self.add_module(name, conv)

    def forward(self, x: Tensor) -> Tensor:
        rows = len(x)
        y = getattr(self, self.name)(x)
        return y.reshape(rows, 4, -1)


class RowsFirst(Split):
    """The same as the package moshi has it: the codes are [B, K, T]."""

    def encode(self, x: Tensor, count: int | None = None) -> Tensor:
        return super().encode(x, count).transpose(0, 1)


class MoshiMimi(nn.Module):
    """As the package moshi has it: it pads to whole frames, its transformers answer lists, and it resamples."""

    def __init__(self) -> None:
        super().__init__()
        self.sample_rate, self.frame_rate, self.channels, self.frame_size = 800, 50, 1, 16
        self.encoder, self.encoder_transformer = SEANetEncoder(**OPTIONS), Listed(MoshiTransformer(4, 2, 1, 5))
        self.decoder, self.decoder_transformer = SEANetDecoder(**OPTIONS), Listed(MoshiTransformer(4, 2, 1, 5))
        self.downsample, self.upsample = Resampled("conv"), Resampled("convtr")
        self.quantizer = RowsFirst()

    def encode(self, x: Tensor) -> Tensor:
        x = F.pad(x, (0, math.ceil(x.shape[-1] / 16) * 16 - x.shape[-1]))
        (y,) = self.encoder_transformer(self.encoder(x))
        return self.quantizer.encode(self.downsample(y))

    def decode(self, codes: Tensor) -> Tensor:
        (y,) = self.decoder_transformer(self.upsample(self.quantizer.decode(codes)))
        return self.decoder(y)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        codes = self.encode(x)
        return codes, self.decode(codes)[..., : x.shape[-1]]


class CosineCodebook(nn.Module):
    """DAC's: projected to few channels, and the nearest entry by direction. Gives losses too."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.in_proj, self.out_proj = nn.Conv1d(channels, 3, 1), nn.Conv1d(3, channels, 1)
        self.codebook = nn.Embedding(16, 3)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.stride > 1:
            z = F.avg_pool1d(z, self.stride, self.stride)
        latents = self.in_proj(z)
        rows, book = F.normalize(latents.transpose(1, 2).reshape(-1, 3)), F.normalize(self.codebook.weight)
        distances = rows.pow(2).sum(1, keepdim=True) - 2 * rows @ book.t() + book.pow(2).sum(1, keepdim=True).t()
        codes = (-distances).max(1)[1].view(z.shape[0], -1)
        found = self.codebook(codes).transpose(1, 2)
        loss = F.mse_loss(latents, found.detach())
        found = self.out_proj(latents + (found - latents).detach())
        return found.repeat_interleave(self.stride, dim=-1) if self.stride > 1 else found, codes, loss

    def from_codes(self, codes: Tensor) -> Tensor:
        return self.out_proj(self.codebook(codes).transpose(1, 2)).repeat_interleave(self.stride, dim=-1)


class CosineResidual(nn.Module):
    """DAC's quantizer: its answer begins with the embeddings and the codes [B, K, T]."""

    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        self.quantizers = nn.ModuleList(CosineCodebook(channels) for _ in range(count))

    def forward(self, z: Tensor, count: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        total, loss, codes = torch.zeros_like(z), 0, []
        for quantizer in self.quantizers[: count or len(self.quantizers)]:
            found, each, one = quantizer(z)
            total, z, loss = total + found, z - found, loss + one
            codes.append(each)
        return total, torch.stack(codes, 1), loss

    def from_codes(self, codes: Tensor) -> tuple[Tensor, Tensor]:
        found = sum(each.from_codes(codes[:, i]) for i, each in enumerate(self.quantizers[: codes.shape[1]]))
        return found, codes


class DacModel(nn.Module):
    """As transformers has it, or, ``padded``, as descript-audio-codec has it, which pads to whole frames."""

    def __init__(self, padded: bool) -> None:
        super().__init__()
        self.encoder, self.decoder = DACEncoder(2, (2, 4), 4, (1, 3)), DACDecoder(4, 8, (4, 2), (1, 3))
        self.quantizer = CosineResidual(4, 3)
        if padded:
            self.sample_rate, self.hop_length, self.preprocess = 800, 8, self._padded
        else:
            self.config = SimpleNamespace(sampling_rate=800, hop_length=8)

    @staticmethod
    def _padded(x: Tensor, sample_rate: int | None) -> Tensor:
        return F.pad(x, (0, math.ceil(x.shape[-1] / 8) * 8 - x.shape[-1]))

    def forward(self, x: Tensor, count: int | None = None) -> tuple[Tensor, Tensor]:
        whole = self.preprocess(x, None) if hasattr(self, "preprocess") else x
        codes = self.quantizer(self.encoder(whole), count)[1]
        return codes, self.decoder(self.quantizer.from_codes(codes)[0])[..., : x.shape[-1]]


class NoiseBlock(nn.Module):
    """Noise, drawn anew in every run."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x[:, :1])


class Strided(nn.Module):
    """SNAC's quantizer: each codebook at a rate of its own."""

    def __init__(self, channels: int, strides: tuple[int, ...]) -> None:
        super().__init__()
        self.quantizers = nn.ModuleList(CosineCodebook(channels, stride) for stride in strides)

    def forward(self, z: Tensor) -> tuple[Tensor, list[Tensor]]:
        total, codes = torch.zeros_like(z), []
        for quantizer in self.quantizers:
            found, each, _ = quantizer(z)
            total, z = total + found, z - found
            codes.append(each)
        return total, codes

    def from_codes(self, codes: list[Tensor]) -> Tensor:
        return sum(quantizer.from_codes(each) for quantizer, each in zip(self.quantizers, codes, strict=True))


class Snac(nn.Module):
    """As the package snac has it: a list of codes [B, T], the slowest first."""

    def __init__(self, noise: bool = False) -> None:
        super().__init__()
        self.sampling_rate, self.hop_length, self.vq_strides, self.attn_window_size = 800, 8, [2, 1], None
        self.encoder = DACEncoder(2, (2, 4), 4, (1, 3))
        self.decoder = nn.Sequential(*([NoiseBlock()] if noise else []), DACDecoder(4, 8, (4, 2), (1, 3)))
        self.quantizer = Strided(4, (2, 1))

    def preprocess(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, math.ceil(x.shape[-1] / 16) * 16 - x.shape[-1]))

    def encode(self, x: Tensor) -> list[Tensor]:
        return self.quantizer(self.encoder(self.preprocess(x)))[1]

    def decode(self, codes: list[Tensor]) -> Tensor:
        return self.decoder(self.quantizer.from_codes(codes))

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        codes = self.encode(x)
        return codes, self.decode(codes)[..., : x.shape[-1]]
