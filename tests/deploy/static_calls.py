"""Small networks as static steps, and rows fed by hand; `Gated` is captured, `small_net` is not."""

from typing import Any, Dict, List, Tuple

import torch
from torch import Tensor, nn

import torchstreamer as pts


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 4, 4, stride=2, padding=2, padding_mode="reflect"),
        nn.PReLU(4),
        pts.Residual1d(nn.Sequential(nn.ELU(), nn.Conv1d(4, 4, 3, padding=2, dilation=2))),
        nn.ConvTranspose1d(4, 3, 6, stride=3, padding=1),
    ).eval()


class Gated(nn.Module):
    """A graph: dilated layers with gates and skips."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(2, 3, 3, padding=1), nn.Conv1d(3, 2, 1)
        self.layers = nn.ModuleList(nn.Conv1d(3, 6, 2, dilation=2**i) for i in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        skip = x
        for layer in self.layers:
            a, b = layer(nn.functional.pad(x, (layer.dilation[0], 0))).chunk(2, 1)
            x = x + torch.tanh(a) * torch.sigmoid(b)
            skip = skip + x
        return self.last(skip)


def flags(*values: int) -> Tensor:
    return torch.tensor(values, dtype=torch.bool)


def static_of(net: nn.Module, chunk: int = 4, batch: int = 2, **options: Any) -> pts.StaticStream:
    return pts.StaticStream(pts.create_stream(net), chunk, batch, **options)


def whole(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x[None])[0]


def call(static: Any, *rows: Tuple[Tensor, bool, bool], fill: float = float("nan")) -> List[Tensor]:
    """One step; of every row the samples ``[C, n]``, first and last come, and the valid outputs go."""
    x = torch.full([static.batch, static.channels, static.chunk], fill, dtype=static.dtype)
    for b, (piece, _, _) in enumerate(rows):
        x[b, :, : piece.shape[-1]] = piece
    lengths = torch.tensor([piece.shape[-1] for piece, _, _ in rows])
    y, start, stop = static(x, lengths, flags(*(first for _, first, _ in rows)), flags(*(last for _, _, last in rows)))
    return [y[b, ..., start[b] : stop[b]].clone() for b in range(static.batch)]


def played(static: Any, signals: List[Tensor]) -> List[Tensor]:
    """All rows start at once, each with its own signal."""
    chunk, pieces = static.chunk, [[] for _ in signals]  # type: ignore[var-annotated]
    ends = [max(-(-x.shape[-1] // chunk), 1) for x in signals]
    for k in range(max(ends) + static.flush_steps):
        rows = []
        for x, end in zip(signals, ends, strict=True):
            rows.append((x[:, k * chunk : (k + 1) * chunk], k == 0, k == end - 1))
        for b, y in enumerate(call(static, *rows)):
            pieces[b].append(y)
    return [torch.cat(row, -1) for row in pieces]


def nothing(static: Any) -> Tensor:
    return torch.zeros(static.channels, 0, dtype=static.dtype)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def states_equal(one: Dict[str, Tensor], other: Dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)
