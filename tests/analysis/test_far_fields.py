"""Receptive fields of long periods, and of handlers without a rule whose taps lie far apart."""

from typing import Optional

import pytest
import torch
from torch import nn

import torchstreamer as pts
from torchstreamer.analysis import receptive_field, symbolic
from torchstreamer.audio import DynamicRange, Resample


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(1, 2, 3, padding=1), nn.Conv1d(2, 2, 5, padding=2, padding_mode="reflect")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x)
        return torch.cat([y, self.second(y) * torch.sigmoid(y)], 1)[..., 1:]


@pytest.mark.parametrize(
    ("net", "example"),
    [
        (nn.Conv1d(1, 1, 3, padding=1, dilation=4, stride=2), None),
        (nn.Sequential(Resample(3, 2), nn.Conv1d(1, 1, 3, padding=1), Resample(2, 3)), None),
        (nn.Sequential(nn.Conv1d(1, 1, 4, 2), nn.ConvTranspose1d(1, 1, 4, 2)), None),
        (pts.Parallel1d(pts.Residual1d(nn.Conv1d(1, 1, 5, padding=2)), nn.Conv1d(1, 1, 8)), None),
        (nn.Sequential(DynamicRange(1.0, "running"), nn.Conv1d(1, 1, 3)), None),
        pytest.param(Two(), torch.randn(1, 1, 50), marks=pytest.mark.slow),
    ],
)
def test_ends_are_those_of_the_mask(net, example, monkeypatch):
    stream = pts.create_stream(net, example)
    expected = receptive_field(stream)
    monkeypatch.setattr(symbolic, "_LARGEST", 0)
    assert receptive_field(stream) == expected


def test_fields_of_long_periods():
    net = Resample(44100, 48001)
    field = receptive_field(net)
    places = torch.arange(48001) * 44100 // 48001
    reach = pts.create_stream(net).reach
    assert field.period == (44100, 48001)
    for i in (0, 1, 7, 30000, 48000):
        assert field.phases[i] == (int(places[i]) - reach.oldest(i), reach.newest(i) - int(places[i]))
    around = receptive_field(nn.Sequential(nn.Conv1d(1, 1, 3, padding=1), net, nn.Conv1d(1, 1, 2)))
    for i in (0, 1, 7, 30000, 48000):
        assert around.phases[i] == (int(places[i]) - reach.oldest(i) + 1, reach.newest(i + 1) + 1 - int(places[i]))
    with pytest.raises(ValueError, match="no_field: a period of 50000 outputs"):  # most of them read nothing
        receptive_field(nn.Sequential(nn.ConvTranspose1d(1, 1, 2, 50000)))


class Echo(pts.BaseStream):
    """Each sample, and what came, or came out, so many samples before it."""

    def __init__(self, distance: int, fed_back: bool = False, ring: bool = True) -> None:
        super().__init__()
        self.distance = distance
        self.fed_back = fed_back
        self.ring = pts.RingBuffer() if ring else None
        self.line: Optional[torch.Tensor] = None

    def reset(self) -> None:
        super().reset()
        self.line = None

    def output_length(self, n: int, final: bool = True) -> int:
        return n

    def step(self, x: Optional[torch.Tensor], final: bool) -> Optional[torch.Tensor]:
        if x is None:
            return None
        line = x.new_zeros(x.size(0), x.size(1), 0) if self.line is None else self.line
        if self.ring is not None and self.ring.started():
            line = self.ring.window()
        line = nn.functional.pad(line, [self.distance - line.size(2), 0])
        if self.fed_back:
            for sample in x.split(1, -1):
                line = torch.cat([line, sample + line[..., -self.distance :][..., :1]], -1)
        else:
            line = torch.cat([line, x], -1)
        y = line[..., self.distance :] if self.fed_back else x + line[..., : x.size(2)]
        if self.ring is not None:
            self.ring.append(line[..., self.distance :])
            self.ring.drop(max(self.ring.length() - self.distance, 0))
        else:
            self.line = line[..., -self.distance :]
        return y


def test_far_taps_are_found():
    field = receptive_field(Echo(20))  # twelve more than half of the first signal that is tried
    assert field.phases == ((20, 0),) and field.certain
    field = receptive_field(Echo(9, fed_back=True))
    assert field.phases == ((float("inf"), 0),) and field.certain


@pytest.mark.parametrize("handler", [Echo(1500), Echo(20, ring=False)], ids=["far", "elsewhere"])
def test_what_cannot_be_known_is_said(handler):
    field = receptive_field(handler)
    assert not field.certain and "more may" in str(field)
