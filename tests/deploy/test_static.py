"""The static step: every row is the network on a signal of its own, whatever the other rows do."""

import copy
import io
import os
from typing import Any, Dict, List, Tuple

import pytest
import torch
from as_signal import as_signal
from live_rows import LiveRows
from smallest import SMALLEST
from torch import Tensor, nn
from zoo import ZOO

import torchstreamer as pts
from torchstreamer import deploy
from torchstreamer.deploy.export import FunctionalStep

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
STREAMED = [entry for entry in ZOO if not entry.refused]
# One of each architecture, for lack of time.
MODELS = STREAMED if THOROUGH else SMALLEST

pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")


# ---------------------------------------------------------------------- rows of any age


@pytest.mark.timeout(3600 if THOROUGH else 600)
@pytest.mark.parametrize("entry", MODELS, ids=[entry.name for entry in MODELS])
def test_models(entry: Any) -> None:
    model, shape, multiple = as_signal(entry)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    stream = pts.create_stream(model.double(), example=x, length_multiple=multiple)
    lengths = [entry.shortest + i * multiple for i in (-1, 0, 1)] + [shape[-1], shape[-1] + 7 * multiple]
    moved = 0
    for turns, dtype in ((2, torch.float64), (1, torch.float32)):
        model, stream = model.to(dtype), stream.to(dtype)
        batches = (64, 8) if THOROUGH else (5, 3)
        chunk = stream.hop * turns
        rows = LiveRows(stream, model, chunk, batches, seed=turns, dtype=dtype, multiple=multiple, lengths=lengths)
        rows.run(2000 if THOROUGH else 20 + 30 * turns).compare()
        moved += rows.moved
    assert moved > 0


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


MANY = [
    (small_net, torch.float32, (64,), 2000),
    (Gated, torch.float64, (40, 24), 2000),
    (small_net, torch.float64, (40, 24), 300),
    (Gated, torch.float32, (64,), 300),
]


@pytest.mark.parametrize("make, dtype, batches, steps", MANY)
def test_many_rows_for_many_steps(make: Any, dtype: torch.dtype, batches: Any, steps: int) -> None:
    torch.manual_seed(1)
    net = make().to(dtype)
    stream = pts.create_stream(net)
    rows = LiveRows(stream, net, 4 * stream.hop, batches, seed=3, dtype=dtype).run(2000 if THOROUGH else steps)
    rows.compare(5 * steps)
    assert len(batches) == 1 or rows.moved > 100


# ---------------------------------------------------------------------- one row at a time


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


@pytest.fixture
def net() -> nn.Module:
    return small_net().double()


@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("chunk", [2, 4, 10, 64])
def test_signals_of_any_length(net: nn.Module, batch: int, chunk: int) -> None:
    static = static_of(net, chunk, batch)
    for n in range(0, 30, 7):
        signals = [normal(2, n + b, seed=n + b) for b in range(batch)]
        for x, y in zip(signals, played(static, signals), strict=True):
            if x.shape[-1] < 3:  # too short for reflection
                assert y.shape[-1] == 0
            else:
                torch.testing.assert_close(y, whole(net, x), rtol=0, atol=1e-12)
                assert static.output_length(x.shape[-1]) == y.shape[-1]


def test_an_empty_signal_gives_nothing(net: nn.Module) -> None:
    static = static_of(net)
    x = normal(2, 12)
    pieces = []
    for k in range(3 + static.flush_steps):
        empty = k % (1 + static.flush_steps) == 0
        one, other = call(
            static,
            (x[:, 4 * k : 4 * k + 4], k == 0, k == 2),
            (nothing(static), empty, empty),
        )
        assert other.shape[-1] == 0
        pieces.append(one)
    torch.testing.assert_close(torch.cat(pieces, -1), whole(net, x), rtol=0, atol=1e-12)


def test_the_end_may_come_without_samples(net: nn.Module) -> None:
    static = static_of(net, batch=1)
    x = normal(2, 8)
    pieces = call(static, (x[:, :4], True, False)) + call(static, (x[:, 4:], False, False))
    pieces += call(static, (nothing(static), False, True))
    for _ in range(static.flush_steps):
        pieces += call(static, (nothing(static), False, False))
    torch.testing.assert_close(torch.cat(pieces, -1), whole(net, x), rtol=0, atol=1e-12)


def test_a_start_without_samples_forgets_the_old_signal(net: nn.Module) -> None:
    static = static_of(net, batch=1)
    call(static, (normal(2, 4, seed=9), True, False))
    x = normal(2, 8)
    assert call(static, (nothing(static), True, False))[0].shape[-1] == 0
    assert call(static, (nothing(static), False, False))[0].shape[-1] == 0
    pieces = call(static, (x[:, :4], False, False)) + call(static, (x[:, 4:], False, True))
    for _ in range(static.flush_steps):
        pieces += call(static, (nothing(static), False, False))
    torch.testing.assert_close(torch.cat(pieces, -1), whole(net, x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("old", ["live", "resting", "draining", "poisoned"])
def test_a_start_over_another_signal(net: nn.Module, old: str) -> None:
    static = static_of(net, batch=1)
    piece = normal(2, 4, seed=9)
    if old == "poisoned":
        piece[:] = float("nan")
    call(static, (piece, True, False))
    call(static, (piece, False, old == "draining"))
    if old == "resting":
        call(static, (nothing(static), False, False))
    x = normal(2, 7)
    torch.testing.assert_close(played(static, [x])[0], whole(net, x), rtol=0, atol=1e-12)


def test_a_resting_row_stays_as_it_was(net: nn.Module) -> None:
    static = static_of(net, batch=3)
    x = normal(3, 2, 8)
    call(static, *((row[:, :4], True, False) for row in x))
    for free in (True, False):
        before = static.get_state([1])
        for k in range(3):
            again = (normal(2, 4, seed=k), free, False)
            assert call(static, again, (nothing(static), False, False), again)[1].shape[-1] == 0
        after = static.get_state([1])
        assert all(torch.equal(after[name], value) for name, value in before.items())
    # A free row rests too.
    static.reset([1])
    before = static.get_state([1])
    call(static, again, (nothing(static), False, False), again)
    assert all(torch.equal(static.get_state([1])[name], value) for name, value in before.items())


def test_nan_stays_in_its_row(net: nn.Module) -> None:
    static, clean = static_of(net, batch=3), static_of(net, batch=3)
    x = normal(3, 2, 12)
    bad = x.clone()
    bad[1, :, 3] = float("nan")
    bad[1, :, 7] = float("inf")
    found, expected = played(static, list(bad)), played(clean, list(x))
    for b in (0, 2):
        assert torch.equal(found[b], expected[b])
    assert found[1].isnan().any()
    # The row is as good as new for the next signal.
    assert torch.equal(played(static, list(x))[1], expected[1])


def test_rows_do_not_depend_on_each_other(net: nn.Module) -> None:
    static, alone = static_of(net, batch=3), static_of(net, batch=3)
    x = normal(2, 9)
    others = [normal(2, n, seed=n) for n in (17, 4)]
    first = played(static, [others[0], x, others[1]])[1]
    second = played(alone, [nothing(alone), x, nothing(alone)])[1]
    assert torch.equal(first, second)


@pytest.mark.parametrize("chunk", [2, 6, 22])
def test_flush_steps_are_enough_and_tight(net: nn.Module, chunk: int) -> None:
    static = static_of(net, chunk, 1)
    latest = 0
    for n in range(0, 70):
        x = normal(2, n)
        for k in range(0, n // chunk + 1):
            last = (k + 1) * chunk >= n
            piece = x[:, k * chunk : (k + 1) * chunk]
            call(static, (piece, k == 0, last))
            if last:
                break
        for k in range(1, static.flush_steps + 1):
            latest = max(latest, k if call(static, (nothing(static), False, False))[0].shape[-1] > 0 else 0)
        assert int(static.get_state()["row.left"][0]) == 0
    assert latest == static.flush_steps


def test_outputs_never_change(net: nn.Module) -> None:
    for module in (net, nn.Identity(), nn.ZeroPad1d((-1, 0))):
        static = static_of(module, 4, 1, channels=2, dtype=torch.float64)
        x = normal(1, 2, 4)
        kept = x.clone()
        one = torch.tensor([4])
        y, start, stop = static(x, one, flags(1), flags(0))
        assert torch.equal(x, kept)
        before = y.clone(), start.clone(), stop.clone()
        x.fill_(7.0)
        static(x, one, flags(0), flags(1))
        static(x, one, flags(1), flags(0))
        for now, then in zip((y, start, stop), before, strict=True):
            assert torch.equal(now, then)


# ---------------------------------------------------------------------- states


def states_equal(one: Dict[str, Tensor], other: Dict[str, Tensor]) -> bool:
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_rows_move_through_a_file(net: nn.Module) -> None:
    here, there = static_of(net, batch=3), static_of(net, batch=2)
    x = normal(2, 16)
    other = normal(2, 4, seed=1)
    pieces = [call(here, (other, True, False), (other, True, False), (x[:, :4], True, False))[2]]
    pieces.append(call(here, (other, False, False), (other, True, False), (x[:, 4:8], False, False))[2])
    file = io.BytesIO()
    torch.save(here.get_state([2, 0]), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert all(value.shape[0] == 2 for value in state.values())
    there.set_state(torch.tensor([1, 0]), state)
    assert states_equal(there.get_state([1]), here.get_state([2]))
    pieces.append(call(there, (nothing(there), False, False), (x[:, 8:12], False, False))[1])
    pieces.append(call(there, (other, True, False), (x[:, 12:], False, True))[1])
    for _ in range(there.flush_steps):
        pieces.append(call(there, (nothing(there), False, False), (nothing(there), False, False))[1])
    torch.testing.assert_close(torch.cat(pieces, -1), whole(net, x), rtol=0, atol=1e-12)


def test_states_are_copies(net: nn.Module) -> None:
    static = static_of(net)
    x = normal(2, 2, 8)
    call(static, *((row[:, :4], True, False) for row in x))
    state = static.get_state()
    kept = {name: value.clone() for name, value in state.items()}
    call(static, *((row[:, 4:], False, False) for row in x))
    assert states_equal(state, kept)
    static.set_state(None, state)
    for value in state.values():
        value.fill_(3)
    assert states_equal(static.get_state(), kept)
    assert not any("row" in name or "ring" in name for name in static.state_dict())


def test_reset_frees_rows(net: nn.Module) -> None:
    static = static_of(net)
    fresh = static.get_state()
    call(static, *((row, True, False) for row in normal(2, 2, 4)))
    before = static.get_state([1])
    static.reset([0])
    assert states_equal(static.get_state([0]), {name: value[:1] for name, value in fresh.items()})
    assert states_equal(static.get_state([1]), before)
    static.reset([])
    assert states_equal(static.get_state([1]), before)
    static.reset()
    assert states_equal(static.get_state(), fresh) and states_equal(static.init_state(), fresh)


@pytest.mark.parametrize("rows", [[2], [-1], [0, 7], [True, False], torch.tensor([False, True]), [0.0]])
def test_rows_that_do_not_exist(net: nn.Module, rows: Any) -> None:
    static = static_of(net)
    call(static, *((row, True, False) for row in normal(2, 2, 4)))
    before = static.get_state()
    for use in (static.reset, static.get_state, lambda rows: static.set_state(rows, static.get_state([0]))):
        with pytest.raises(pts.StreamInputError, match="invalid_rows"):
            use(rows)
    assert states_equal(static.get_state(), before)


def test_states_that_do_not_fit(net: nn.Module) -> None:
    static = static_of(net)
    call(static, *((row, True, False) for row in normal(2, 2, 4)))
    before = static.get_state()
    ring = next(name for name in before if name.startswith("ring"))
    good = static.get_state([0])
    for bad in (
        {name: value for name, value in good.items() if name != ring},
        {**good, "more": torch.zeros(1)},
        static.get_state(),  # of two rows
        {**good, ring: good[ring].float()},
        {**good, ring: good[ring][..., :-1]},
        static_of(nn.Conv1d(2, 3, 9).double()).get_state([0]),
    ):
        with pytest.raises(pts.StreamInputError, match="invalid_state"):
            static.set_state([1], bad)
    assert states_equal(static.get_state(), before)


def test_a_deep_copy_goes_on_by_itself(net: nn.Module) -> None:
    static = static_of(net, batch=1)
    x = normal(2, 8)
    begun = call(static, (x[:, :4], True, False))
    twin = copy.deepcopy(static)
    for one in (static, twin):
        pieces = begun + call(one, (x[:, 4:], False, True))
        for _ in range(one.flush_steps):
            pieces += call(one, (nothing(one), False, False))
        torch.testing.assert_close(torch.cat(pieces, -1), whole(net, x), rtol=0, atol=1e-12)


# ---------------------------------------------------------------------- the step as a function


def test_the_functional_step_leaves_its_state_alone(net: nn.Module) -> None:
    static = static_of(net)
    x = normal(2, 2, 12)
    lengths, off = torch.tensor([4, 4]), flags(0, 0)
    state = static.init_state()
    pieces: List[Tensor] = []
    for k in range(3 + static.flush_steps):
        kept = {name: value.clone() for name, value in state.items()}
        chunk = x[..., 4 * k : 4 * k + 4] if k < 3 else torch.full([2, 2, 4], float("nan"), dtype=torch.float64)
        first, last = (flags(1, 1) if k == 0 else off), (flags(1, 1) if k == 2 else off)
        following, y, start, stop = static.step(state, chunk, lengths, first, last)
        assert states_equal(state, kept) and list(following) == list(state)
        again, twice, _, _ = static.step(state, chunk, lengths, first, last)
        assert states_equal(again, following) and torch.equal(
            y[:, :, start[0] : stop[0]], twice[:, :, start[0] : stop[0]]
        )
        pieces.append(y[:, :, start[0] : stop[0]])
        state = following
    torch.testing.assert_close(torch.cat(pieces, -1), net(x).detach(), rtol=0, atol=1e-12)
    assert states_equal(static.get_state(), static.init_state())  # its own state is another


@pytest.mark.parametrize("make", [small_net, Gated])
def test_the_functional_step_exports(make: Any) -> None:
    net = make().double()
    static = static_of(net, 4, 2, validate=False)
    step = FunctionalStep(static)
    program = torch.export.export(step, step.example(), strict=False).module()
    x = normal(2, 2, 10)
    pieces: List[List[Tensor]] = [[], []]
    states = list(static.init_state().values())
    for k in range(3 + static.flush_steps):
        chunk = torch.zeros(2, 2, 4, dtype=torch.float64)
        piece = x[..., 4 * k : 4 * k + 4]
        chunk[..., : piece.shape[-1]] = piece
        given = chunk, torch.full([2], piece.shape[-1]), flags(k == 0, k == 0), flags(k == 2, k == 2)
        y, start, stop, *states = program(*given, *states)
        for b in range(2):
            pieces[b].append(y[b, :, start[b] : stop[b]])
    y = torch.stack([torch.cat(row, -1) for row in pieces])
    torch.testing.assert_close(y, net(x).detach(), rtol=0, atol=1e-12)


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
