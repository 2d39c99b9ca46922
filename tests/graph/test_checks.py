"""Checks of values are left out, and said; what is another branch for short signals is filled in, or a least length."""

import sys
import warnings

import pytest
import torch
import torch.nn.functional as F
import user_code
from test_numbers import joined
from torch import nn

import torchstreamer as pts


class Checked(nn.Module):
    def forward(self, x):
        return user_code.checked(x.data) * 2


class Branched(nn.Module):
    def forward(self, x):
        if x.max() > 1:
            x = x / x.max()
        return x


class Tried(nn.Module):
    """What a function of the file gives, in which pytest writes no assert anew."""

    def __init__(self, way):
        super().__init__()
        self.way = way

    def forward(self, x):
        return getattr(user_code, self.way)(x) * 2


class Detour(nn.Module):
    """Another branch for signals of less than 12 samples, at half the rate."""

    def forward(self, x):
        x = x[..., ::2]
        return x * 2 if x.shape[-1] < 6 else F.pad(x, (1, 0))


class Mirrored(nn.Module):
    """Reflect padding at two rates, on both sides, of signals of any length."""

    def __init__(self):
        super().__init__()
        self.one, self.other = nn.Conv1d(1, 2, 7), nn.Conv1d(2, 2, 8, stride=3)

    def forward(self, x):
        x = self.one(user_code.pad1d(x, (3, 3), "reflect"))
        extra = user_code.extra_padding(x, 8, 3, 5)
        return self.other(user_code.pad1d(x, (3, 2 + extra), "reflect"))


def signal(n):
    return torch.randn(1, 1, n, dtype=torch.float64)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="frames tell lines alone, and one of them asks twice")
def test_checks_of_values_are_left_out_and_told():
    stream = pts.create_stream(Checked(), example=signal(30))
    x = signal(17)
    torch.testing.assert_close(joined(stream, x, 5), x * 2)
    told = [str(each) for each in pts.is_streamable(Checked(), example=signal(30)) if "left out" in str(each)]
    assert len(told) == 4 and "user_code.py" in told[0] and "assert torch.isfinite(x).all()" in told[0]


@pytest.mark.parametrize(
    "way",
    [
        "assert_caught",
        "raise_caught",
        "assert_suppressed",
        "assert_left_by_a_handler",
        "assert_left_at_the_end",
    ],
)
@pytest.mark.parametrize("loud", [1, 10])
def test_a_check_whose_error_is_caught_is_a_branch(way, loud):
    with pytest.raises(pts.UnsupportedModuleError, match=r"data_dependent: .*branch .*user_code\.py, line"):
        pts.create_stream(Tried(way), example=loud * signal(30).clamp(-0.9, 0.9))


def test_a_check_whose_error_is_raised_again_is_left_out():
    x = signal(17)
    torch.testing.assert_close(joined(pts.create_stream(Tried("assert_raised_again"), example=x), x, 5), x * 2)


def test_a_branch_on_values_is_refused_with_its_line():
    with pytest.raises(pts.UnsupportedModuleError, match=r"data_dependent: .*if x\.max\(\) > 1"):
        pts.create_stream(Branched(), example=signal(30))


@pytest.mark.parametrize("given", [1, 20])
def test_a_branch_below_a_length_is_a_least_length(given):
    net = Detour()
    stream = pts.create_stream(net, example=signal(30), min_length=given)
    least = max(given, 11)
    assert stream.min_length == least
    x = signal(least + 3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit")
        script = torch.jit.script(stream)
    for each, error in ((stream, pts.StreamInputError), (script, torch.jit.Error)):
        assert each(x[..., : least - 1]) is None
        with pytest.raises(error, match=f"min_length: the signal ends after {least - 1} samples"):
            each.flush()
        y = torch.cat([each(x[..., least - 1 :], final=True)], -1)  # nothing is lost
        torch.testing.assert_close(y, net(x))


def test_rows_and_files_say_that_a_signal_is_too_short(tmp_path):
    stream = pts.create_stream(Detour(), example=signal(30))
    step = pts.StaticStream(stream, chunk=4, batch=1)
    flag, x = torch.tensor([True]), signal(4)
    with pytest.raises(pts.StreamInputError, match=r"invalid_row: .*a signal of at least 11 samples \(min_length\)"):
        step(x, torch.tensor([4]), flag, flag)
    runner = pts.load(pts.export(stream, tmp_path / "step.onnx", chunk=4))
    with pytest.raises(pts.StreamInputError, match="min_length: the signal ends after 4 samples; 11 at least"):
        runner(x, final=True)
    whole = signal(15)
    torch.testing.assert_close(runner(whole, final=True), Detour()(whole))


def test_what_is_too_short_to_be_mirrored_is_filled():
    net = Mirrored().double()
    stream = pts.create_stream(net, example=signal(50))
    assert stream.min_length == 1
    assert all(report.handler is not None for report in pts.is_streamable(net, example=signal(50)))
    step = pts.StaticStream(stream, chunk=6, batch=1)
    with torch.no_grad():
        for n in (*range(1, 12), 50):
            x = signal(n)
            torch.testing.assert_close(joined(stream, x, 4), net(x))
            steps = (n + 5) // 6
            pieces = []
            for i in range(steps + step.flush_steps):
                part = F.pad(x[..., 6 * i : 6 * i + 6], (0, 6))[..., :6]
                size = torch.tensor([max(min(n - 6 * i, 6), 0)])
                y, start, stop = step(part, size, torch.tensor([i == 0]), torch.tensor([i == steps - 1]))
                pieces.append(y[..., int(start[0]) : int(stop[0])])
            torch.testing.assert_close(torch.cat(pieces, -1), net(x))
            step.reset()
