"""Models that pad to whole frames, or crop to them, at the end of the signal: streamed as on the whole."""

import importlib
import math

import pytest
import torch
import torch.nn.functional as F
from feeding import normal
from torch import nn

import torchstreamer as pts
from torchstreamer.graph.exporter_patches import quotients_expanded
from torchstreamer.testing import verify_stream


class Frames(nn.Module):
    """Pads to whole frames, and makes one sample of each."""

    def __init__(self, size, mode="constant", channels=1):
        super().__init__()
        self.size, self.mode = size, mode
        self.conv = nn.Conv1d(channels, 2, size, stride=size)

    def forward(self, x):
        return self.conv(F.pad(x, (0, -x.shape[-1] % self.size), mode=self.mode))


class RoundedUp(Frames):
    def forward(self, x):
        n = x.shape[-1]
        return self.conv(F.pad(x, (0, math.ceil(n / self.size) * self.size - n), mode=self.mode))


class Cropped(Frames):
    def forward(self, x):
        return self.conv(x[..., : x.shape[-1] // self.size * self.size])


class Codec(Frames):
    """As codecs do: pads to whole frames, and gives as many samples as came."""

    def __init__(self, size, mode="constant"):
        super().__init__(size, mode)
        self.back = nn.ConvTranspose1d(2, 1, 2 * size, stride=size, padding=size // 2)

    def forward(self, x):
        return self.back(super().forward(x))[..., : x.shape[-1]]


MODELS = {
    "frames of 40": lambda: Frames(40),
    "frames of 256": lambda: Frames(256),
    "frames of 256, mirrored": lambda: Frames(256, "reflect"),
    "frames of 256, repeated": lambda: Frames(256, "replicate"),
    "frames of 300, by the ceiling": lambda: RoundedUp(300, "reflect"),
    "frames of 300, the rest left out": lambda: Cropped(300),
    "codec with frames of 512": lambda: Codec(512),
    "codec with frames of 512, mirrored": lambda: Codec(512, "reflect"),
    "frames of 48, and of 64 such": lambda: nn.Sequential(Frames(48, "reflect"), Frames(64, "reflect", 2)),
}


@pytest.mark.parametrize("script", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["eager", "script"])
@pytest.mark.parametrize("name", MODELS)
def test_frames_of_any_size(name, script):
    torch.manual_seed(0)
    net = MODELS[name]().double()
    size = 3072 if "such" in name else net.size
    stream = pts.create_stream(net, example=normal(1, 1, 5 * size + 5))
    if script:
        stream = torch.jit.script(stream)
    with torch.no_grad():
        for n in [1, 2, size // 2, size // 2 + 1, size - 1, size, size + 1, 2 * size - 7, 2 * size, 2 * size + 3]:
            x = normal(2, 1, n, seed=n)
            pieces = [*(stream(chunk) for chunk in x.split(size // 3, -1)), stream.flush()]
            pieces = [piece for piece in pieces if piece is not None]
            try:
                expected = net(x)
            except RuntimeError:  # too short to be mirrored, or for a frame
                assert not pieces and stream.output_length(n, True) == 0
            else:
                torch.testing.assert_close(torch.cat(pieces, -1), expected)
                assert stream.output_length(n, True) == expected.shape[-1]


@pytest.mark.sample(long=("constant",))
@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_frames_keep_the_whole_contract(mode):
    verify_stream(Frames(40, mode).double(), normal(1, 1, 130), graph=True, static=True)


@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_frames_within_frames(mode):
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.convs = nn.ModuleList([nn.Conv1d(1, 2, 32, stride=16), nn.Conv1d(2, 1, 16, stride=8)])

        def forward(self, x):
            for conv in self.convs:
                stride = conv.stride[0]
                x = conv(F.pad(x, (stride, -x.shape[-1] % stride), mode=mode))
            return x

    net = Padded().double()
    stream = pts.create_stream(net, example=normal(1, 1, 310))
    with torch.no_grad():
        for n in [*range(200, 330, 9), 400, 401]:
            x = normal(1, 1, n, seed=n)
            pieces = [*(stream(chunk) for chunk in x.split(50, -1)), stream.flush()]
            torch.testing.assert_close(torch.cat([piece for piece in pieces if piece is not None], -1), net(x))


@pytest.mark.parametrize("script", [False, True], ids=["eager", "script"])
@pytest.mark.parametrize("period", [3, 8, 24])
@pytest.mark.parametrize("left", [0, 2])
def test_mirrored_signals_shorter_than_a_frame(left, period, script):
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(2, 3, period, stride=period)

        def forward(self, x):
            return self.conv(F.pad(x, (left, -x.shape[-1] % period), mode="reflect"))

    net = Padded().double()
    stream = pts.create_stream(net, example=normal(1, 2, 50))
    if script:
        stream = torch.jit.script(stream)
    with torch.no_grad():
        for n in range(1, 2 * period + 3):
            x = normal(1, 2, n, seed=n)
            pieces = [*(stream(chunk) for chunk in x.split(2, -1)), stream.flush()]
            pieces = [piece for piece in pieces if piece is not None]
            if n <= max(left, -n % period) or n + left + -n % period < period:
                assert not pieces  # the model refuses it
            else:
                torch.testing.assert_close(torch.cat(pieces, -1), net(x))


class Regrouped(nn.Module):
    """Whole groups of 3 frames, of which a short signal leaves none."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv1d(2, 2, 4, dilation=3, groups=2),
            nn.Conv1d(2, 6, 5, dilation=2),
            nn.Conv1d(6, 3, 2, stride=2, padding=1, dilation=3, padding_mode="replicate"),
            nn.Conv1d(3, 3, 5, stride=3, dilation=2),
        )

    def forward(self, x):
        x = self.layers(x)
        x = x[..., : x.shape[-1] - x.shape[-1] % 3]
        return x.view(x.shape[0], 3, x.shape[-1] // 3, 3).transpose(2, 3).reshape(x.shape[0], 9, -1)


def test_a_condition_on_lengths_may_divide_by_a_size_that_is_0():
    torch.manual_seed(0)
    net = Regrouped().eval().double()
    stream = pts.create_stream(net, example=torch.randn(1, 2, 114).double())
    for n in range(41, 130, 4):
        x = torch.randn(1, 2, n).double()
        pieces = [stream(chunk) for chunk in x.split(7, -1)] + [stream.flush()]
        pieces = [piece for piece in pieces if piece is not None]
        expected = net(x).detach()
        if expected.shape[-1] == 0:
            assert not pieces
        else:
            torch.testing.assert_close(torch.cat(pieces, -1), expected, rtol=0, atol=1e-10)


class FilledUp(Frames):
    """Pads to whole frames, where the last is none."""

    def forward(self, x):
        n = x.shape[-1]
        if n % self.size:
            x = F.pad(x, (0, self.size - n % self.size))
        return self.conv(x)


class FilledAndCropped(Frames):
    """The same, with as many samples as came."""

    def forward(self, x):
        n = x.shape[-1]
        if n % self.size != 0:
            rest = self.size - n % self.size
        else:
            rest = 0
        y = self.conv(F.pad(x, (0, rest))).repeat_interleave(self.size, -1)
        if rest > 0:
            y = y[..., :-rest]
        return y


class WithoutRest(Frames):
    def forward(self, x):
        rest = x.shape[-1] % self.size
        return self.conv(x[..., :-rest] if rest else x)


class ByTwo(nn.Module):
    """Adds up what stands at even and at odd places, with a sample more where their numbers differ."""

    def forward(self, x):
        if x.shape[-1] % 2 != 0:
            x = F.pad(x, (0, 1))
        return x[..., ::2] + F.conv1d(x[..., 1::2], x.new_ones(1, 1, 5), padding=2)


class CroppedIfLonger(Frames):
    """Crops what it makes of whole frames, where it is longer than the signal."""

    def __init__(self, size, wrong=False):
        super().__init__(size)
        self.wrong = wrong

    def forward(self, x):
        n = x.shape[-1]
        y = super().forward(x).repeat_interleave(self.size, -1)
        if y.shape[-1] > n:
            y = y[..., :n]
        elif self.wrong and n > 90_000:
            y = 2 * y
        return y


FILLED = {
    "cropped if longer": lambda: CroppedIfLonger(8),
    "pairs": ByTwo,
    "frames of 8": lambda: FilledUp(8),
    "frames of 8, cropped": lambda: FilledAndCropped(8),
    "frames of 4, and of 3 such": lambda: nn.Sequential(FilledUp(4), FilledAndCropped(3, channels=2)),
    "the rest left out": lambda: WithoutRest(8),
}


@pytest.mark.parametrize("length", [48, pytest.param(49, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", FILLED)
def test_a_branch_that_fills_up_the_last_frame(name, length):
    torch.manual_seed(0)
    net = FILLED[name]().double().eval()
    if name == "the rest left out" and length % 8:
        pytest.skip("captured with a rest, it leaves a frame out where there is none")
    stream = pts.create_stream(net, example=normal(1, 1, length))
    assert all(report.handler for report in pts.is_streamable(net, example=normal(1, 1, length)))
    for n in [*range(1, 30), 47, 48, 49, 2401]:
        x = normal(2, 1, n, seed=n)
        pieces = [
            piece for piece in [*(stream(chunk) for chunk in x.split(5, -1)), stream.flush()] if piece is not None
        ]
        try:
            expected = net(x)
        except RuntimeError:  # too short for a frame
            assert not pieces
        else:
            torch.testing.assert_close(torch.cat(pieces, -1), expected, rtol=0, atol=1e-12)


class Otherwise(FilledUp):
    """Does what ``wrong`` says where the frames are whole, or where they are not, or where there are many."""

    def __init__(self, size, wrong):
        super().__init__(size)
        self.wrong = wrong

    def forward(self, x):
        n = x.shape[-1]
        if n % self.size:
            if self.wrong == "many, filled" and n > 90_000:
                x = x + 1
            x = F.pad(x, (0, -n % self.size + (self.size if self.wrong == "more" else 0)))
        elif self.wrong == "whole" or (self.wrong == "many, whole" and n > 90_000):
            x = 2 * x
        return self.conv(x)


@pytest.mark.parametrize("length", [48, 49])
@pytest.mark.parametrize("wrong", ["whole", "more", "many, filled", "many, whole", "many, exact"])
def test_another_branch_for_whole_frames_is_refused(wrong, length):
    net = (CroppedIfLonger(8, True) if wrong == "many, exact" else Otherwise(8, wrong)).double().eval()
    with pytest.raises(pts.UnsupportedModuleError, match="branch_on_length"):
        pts.create_stream(net, example=normal(1, 1, length))


def test_long_quotients_of_sizes_are_divided_term_by_term(monkeypatch):
    """SymPy's `simplify`, which torch calls, takes half an hour for the lengths of deep codecs."""
    sympy = importlib.import_module("sympy")
    FloorDiv = importlib.import_module("torch.utils._sympy.functions").FloorDiv
    simplified = []
    plain = sympy.simplify
    monkeypatch.setattr(sympy, "simplify", lambda quotient: simplified.append(quotient) or plain(quotient))
    n = sympy.Symbol("n", integer=True, positive=True)
    frames = [FloorDiv(n + i, 7 + i) for i in range(20)]
    for terms in (frames[:2], frames):
        base = sum(6 * (i + 1) * frame for i, frame in enumerate(terms))
        simplified.clear()
        with quotients_expanded():
            found = FloorDiv(base, 4 * n)
        assert (base / 2 in simplified) is (len(terms) == 2)  # what torch makes of short ones stays as it is
        for length in (1, 50, 9999):
            assert found.subs(n, length) == base.subs(n, length) // (4 * length)
    assert sympy.simplify is not plain and sympy.simplify(n) == n  # torch's own again
