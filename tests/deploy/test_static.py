"""The static step: every row is the network on a signal of its own, whatever the other rows do."""

import os
from typing import Any

import pytest
import torch
from as_signal import as_signal
from smallest import SMALLEST
from static_calls import Gated, call, flags, normal, nothing, played, small_net, static_of, whole
from torch import nn
from zoo import ZOO

import torchstreamer as pts
from torchstreamer.testing.live_rows import LiveRows

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
STREAMED = [entry for entry in ZOO if not entry.refused]
# One of each architecture, for lack of time.
MODELS = STREAMED if THOROUGH else SMALLEST

pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")


# ---------------------------------------------------------------------- rows of any age


@pytest.mark.sample("wavenet", "hifigan", "tcn", "demucs", rest=3)
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


MANY = [
    (small_net, torch.float32, (64,), 2000),
    (Gated, torch.float64, (40, 24), 1000),
    (small_net, torch.float64, (40, 24), 300),
    (Gated, torch.float32, (64,), 300),
]


@pytest.mark.sample(
    "small_net-dtype2-batches2-300", "Gated-dtype3-batches3-300", long=("small_net-dtype0-batches0-2000",)
)
@pytest.mark.parametrize("make, dtype, batches, steps", MANY)
def test_many_rows_for_many_steps(make: Any, dtype: torch.dtype, batches: Any, steps: int) -> None:
    torch.manual_seed(1)
    net = make().to(dtype)
    stream = pts.create_stream(net)
    rows = LiveRows(stream, net, 4 * stream.hop, batches, seed=3, dtype=dtype).run(2000 if THOROUGH else steps)
    rows.compare(5 * steps)
    assert len(batches) == 1 or rows.moved > 100


# ---------------------------------------------------------------------- one row at a time


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
