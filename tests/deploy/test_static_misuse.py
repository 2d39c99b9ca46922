"""Static steps that are called wrongly, or planned for what they cannot do."""

from typing import Any

import pytest
import torch
from static_calls import call, flags, normal, played, states_equal, static_of, whole
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer import deploy

# ---------------------------------------------------------------------- calls that do not fit


BAD_CALLS = {
    "rank": (
        lambda c: (c[0][0], *c[1:]),
        "invalid_chunk: a chunk came with shape .*2, 2, 4. was expected|invalid_chunk",
    ),
    "channels": (lambda c: (c[0][:, :1], *c[1:]), "invalid_chunk"),
    "size": (lambda c: (c[0][..., :3], *c[1:]), "invalid_chunk"),
    "rows": (lambda c: (c[0][:1], *c[1:]), "invalid_chunk"),
    "dtype": (lambda c: (c[0].float(), *c[1:]), "invalid_chunk: .*torch.float32.*torch.float64.* was expected"),
    "device": (lambda c: (c[0].to("meta"), *c[1:]), "invalid_chunk: .*on meta.*on cpu was expected"),
    "lengths_dtype": (lambda c: (c[0], c[1].int(), *c[2:]), "invalid_flags: lengths came .*torch.int64"),
    "lengths_shape": (lambda c: (c[0], c[1][:1], *c[2:]), "invalid_flags: lengths came"),
    "first_dtype": (lambda c: (*c[:2], c[2].long(), c[3]), "invalid_flags: first came .*torch.bool"),
    "last_shape": (lambda c: (*c[:3], c[3][None]), "invalid_flags: last came"),
    "too_many": (lambda c: (c[0], torch.tensor([4, 5]), *c[2:]), "invalid_row: row 1 came with lengths=5.* 0 to 4"),
    "odd": (lambda c: (c[0], torch.tensor([3, 4]), *c[2:]), "invalid_row: row 0 came with lengths=3"),
    "negative": (lambda c: (c[0], torch.tensor([4, -1]), c[2], flags(0, 1)), "invalid_row: row 1 came with lengths=-1"),
}


@pytest.mark.parametrize("name", BAD_CALLS)
@pytest.mark.parametrize("begun", [False, True])
def test_calls_that_do_not_fit(net: nn.Module, name: str, begun: bool) -> None:
    static = static_of(net)
    x = normal(2, 2, 4)
    if begun:
        call(static, *((row, True, False) for row in x))
    before = static.get_state()
    change, message = BAD_CALLS[name]
    good = (x, torch.tensor([4, 4]), flags(not begun, not begun), flags(0, 0))
    with pytest.raises(pts.StreamInputError, match=message):
        static(*change(good))
    assert states_equal(static.get_state(), before)
    static(*good)


def test_flags_that_do_not_fit_the_row(net: nn.Module) -> None:
    static = static_of(net, batch=1)
    x = normal(1, 2, 4)
    four, zero = torch.tensor([4]), torch.tensor([0])
    free = "invalid_row: row 0 .*first=True in a free row"
    with pytest.raises(pts.StreamInputError, match=free):
        static(x, four, flags(0), flags(0))
    with pytest.raises(pts.StreamInputError, match=free):
        static(x, zero, flags(0), flags(1))
    static(x, four, flags(1), flags(1))
    assert static.flush_steps > 0
    with pytest.raises(pts.StreamInputError, match="no last=True in a row that has ended"):
        static(x, zero, flags(0), flags(1))
    for _ in range(static.flush_steps):
        static(x, torch.tensor([99]), flags(0), flags(0))  # ignored while it drains
    with pytest.raises(pts.StreamInputError, match=free):
        static(x, four, flags(0), flags(0))


def test_unchecked_calls_are_taken(net: nn.Module) -> None:
    static, checked = static_of(net, validate=False), static_of(net)
    x = normal(2, 2, 4)
    lengths = torch.tensor([4, 4])
    y, start, stop = static(x, lengths, flags(1, 0), flags(0, 0))  # the second row is free
    expected = checked(x, torch.tensor([4, 0]), flags(1, 0), flags(0, 0))
    assert torch.equal(y[0], expected[0][0]) and start[0] == expected[1][0] and stop[0] == expected[2][0]
    assert start[1] == stop[1]


# ---------------------------------------------------------------------- plans that do not fit


@pytest.mark.parametrize("chunk, sizes", [(0, "6"), (1, "6"), (7, "6 and 12"), (17, "12 and 18"), (-6, "6")])
def test_a_chunk_that_is_no_multiple_of_the_hop(chunk: int, sizes: str) -> None:
    stream = pts.create_stream(nn.Sequential(nn.Conv1d(1, 1, 3, stride=2), nn.AvgPool1d(3)))
    with pytest.raises(ValueError, match=f"invalid_chunk_size: chunk={chunk} came; .*hop, 6.* the next are {sizes}$"):
        pts.StaticStream(stream, chunk)


def test_plans_that_do_not_fit(net: nn.Module) -> None:
    stream = pts.create_stream(net)
    with pytest.raises(ValueError, match="invalid_batch"):
        pts.StaticStream(stream, 4, 0)
    with pytest.raises(TypeError, match="invalid_stream: a Sequential came"):
        pts.StaticStream(net, 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="invalid_chunk: 3 channels came"):
        pts.StaticStream(stream, 4, channels=3)
    with pytest.raises(ValueError, match="invalid_dtype: dtype=torch.float32 came; torch.float64"):
        pts.StaticStream(stream, 4, dtype=torch.float32)
    with pytest.raises(ValueError, match="unknown_channels: .*any number of channels.*channels="):
        pts.StaticStream(pts.create_stream(nn.ReLU()), 4)


class Doubled(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class DoubledStream(pts.BaseStream):
    """A handler of a user's own."""

    def __init__(self, net: Doubled) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor, final: bool = False) -> Tensor:  # type: ignore[override]
        return self.net(x)

    def output_length(self, n: int, final: bool = True) -> int:
        return n


class OtherStream(DoubledStream):
    pass


def test_a_stream_without_a_rule_is_refused() -> None:
    made = pts.Sequential1dStream(nn.Sequential(nn.Conv1d(1, 1, 3), pts.Residual1d(nn.Sequential(nn.Conv1d(1, 1, 3)))))
    made.streams[1].stream.streams.append(OtherStream(Doubled()))
    with pytest.raises(pts.UnsupportedModuleError) as caught:
        pts.StaticStream(made, 4)
    error = caught.value
    assert error.code == "no_static_rule" and error.path == "streams.1.stream.streams.1"
    assert "OtherStream at 'streams.1.stream.streams.1'" in str(error) and "static_rule" in error.remedy


def test_a_rule_of_ones_own() -> None:
    @deploy.static_rule(DoubledStream)
    def doubled(plan: deploy.Planner, stream: Any, edge: deploy.Edge) -> deploy.Edge:
        return plan.add(deploy.Call(stream.net), [edge], edge.lag)

    net = nn.Sequential(nn.Conv1d(1, 1, 3)).double()
    stream = pts.Sequential1dStream(net)
    stream.streams.append(DoubledStream(Doubled()))
    x = normal(1, 11)
    torch.testing.assert_close(played(pts.StaticStream(stream, 4), [x])[0], 2 * whole(net, x), rtol=0, atol=1e-12)
