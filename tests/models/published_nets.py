"""Small vocoders and models of speech, laid out as the published packages lay theirs out."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Generator(nn.Module):
    """HiFi-GAN's: [B, 3, T] to [B, 1, 8 T]."""

    def __init__(self) -> None:
        super().__init__()
        self.h = {"sampling_rate": 800}
        self.conv_pre = nn.Conv1d(3, 4, 7, padding=3)
        self.ups = nn.ModuleList([nn.ConvTranspose1d(4, 4, 8, 4, padding=2), nn.ConvTranspose1d(4, 2, 4, 2, padding=1)])
        self.resblocks = nn.ModuleList([nn.Conv1d(4, 4, 3, padding=1), nn.Conv1d(2, 2, 3, padding=1)])
        self.activation_post = nn.Identity()
        self.conv_post = nn.Conv1d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_pre(x)
        for up, block in zip(self.ups, self.resblocks, strict=True):
            x = up(F.leaky_relu(x, 0.1))
            x = x + block(F.leaky_relu(x, 0.1))
        return torch.tanh(self.conv_post(self.activation_post(x)))


class FramesFirst(Generator):
    """As transformers has it: [B, T, 3] to [B, 8 T]."""

    def __init__(self) -> None:
        super().__init__()
        self.config = SimpleNamespace(model_in_dim=3, sampling_rate=800)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(2, 1)).squeeze(1)


class Backbone(nn.Module):
    """Vocos': [B, 3, T] to [B, T, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.norm = nn.Conv1d(3, 4, 7, padding=3), nn.LayerNorm(4)

    def forward(self, x: Tensor, bandwidth_id: Tensor | None = None) -> Tensor:
        y = self.norm(self.embed(x).transpose(1, 2))
        return y if bandwidth_id is None else y * (1 + bandwidth_id)


class Head(nn.Module):
    """[B, T, 4] to [B, 8 T]."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.out(x)
        return y.reshape(y.shape[0], -1)


class Vocos(nn.Module):
    """Its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.feature_extractor, self.backbone, self.head = nn.Identity(), Backbone(), Head()


class DfNet(nn.Module):
    """DeepFilterNet's: it answers the enhanced spectrum and more, and writes into the spectrum that it got."""

    def __init__(self) -> None:
        super().__init__()
        self.freq_bins, self.nb_df = 9, 4
        self.register_buffer("erb_fb", torch.rand(9, 3))
        self.enc = nn.GRU(3 + 8, 5, batch_first=True)
        self.erb_dec, self.df_dec = nn.Linear(5, 9), nn.Linear(5, 8)

    def forward(self, spec: Tensor, erb: Tensor, low: Tensor) -> tuple[Tensor, Tensor]:
        y = self.enc(torch.cat([erb[:, 0], low[:, 0].flatten(2)], -1))[0]
        gains = torch.sigmoid(self.erb_dec(y))
        spec *= gains[:, None, :, :, None]
        return spec, gains


class ConformerLayer(nn.Module):
    """torchaudio's, time first, without its feed-forward layers."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.self_attn = nn.LayerNorm(8), nn.MultiheadAttention(8, 2)
        self.conv = nn.Conv1d(8, 8, 3, padding=1, groups=8)

    def forward(self, x: Tensor, key_padding_mask: Tensor | None, mask: Tensor | None = None) -> Tensor:
        y = self.norm(x)
        x = x + self.self_attn(y, y, y, attn_mask=mask, key_padding_mask=key_padding_mask, need_weights=False)[0]
        return x + F.silu(self.conv(x.permute(1, 2, 0))).permute(2, 0, 1)


class Conformer(nn.Module):
    """[B, T, 8] to [B, T, 8]."""

    def __init__(self) -> None:
        super().__init__()
        self.conformer_layers = nn.ModuleList(ConformerLayer() for _ in range(2))
