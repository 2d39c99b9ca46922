"""Every operation on a StreamTensor against a list of rows: the same rows, or the plain result."""

from random import Random

import model_axes  # noqa: F401  # the operations enter themselves
import model_pointwise  # noqa: F401
import model_reductions  # noqa: F401
import model_rows  # noqa: F401
import model_time  # noqa: F401
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from row_model import CHAINS, OPERATIONS, Axes, Row
from torch.overrides import TorchFunctionMode

import torchstreamer as pts

# The functions of torch that the algebra promises to follow.
PROMISED = """
__getitem__ narrow select index_select unbind split chunk tensor_split flip roll repeat tile repeat_interleave expand
cat concat concatenate stack vstack hstack dstack permute transpose transpose_ swapaxes movedim unsqueeze unsqueeze_
squeeze flatten unflatten ravel view reshape gather scatter scatter_ take_along_dim index_fill take masked_select where
masked_fill frexp sum mean max min amax amin aminmax prod any all var std logsumexp argmax argmin norm
linalg_vector_norm nansum nanmean count_nonzero median quantile sort topk kthvalue cumsum softmax log_softmax softmin
linear matmul relu gelu dropout clamp clone detach contiguous to float type zeros_like lerp maximum diff pad einsum
unfold
"""


@st.composite
def pieces(draw):
    """Rows, and a tensor of them with the axes in any order and nan where there is padding."""
    count, channels = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    lengths = draw(st.lists(st.integers(0, 5), min_size=count, max_size=count))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    rows = []
    for number, length in enumerate(lengths):
        first = draw(st.booleans())
        start = draw(st.sampled_from([None, 0, 7]))
        data = torch.randn(channels, length, generator=generator, dtype=torch.float64)
        rows.append(Row(f"r{number}", first, draw(st.booleans()), start, data))
    width = max(lengths) + draw(st.integers(0, 2))
    data = torch.full((count, channels, width), torch.nan, dtype=torch.float64)
    for row, its in zip(data, rows, strict=True):
        row[:, : its.data.shape[-1]] = its.data
    order = draw(st.permutations(range(3)))
    x = pts.stream_tensor(
        data.permute(order).contiguous(),
        ids=[row.id for row in rows],
        first=[row.first for row in rows],
        last=[row.last for row in rows],
        start=[row.start for row in rows],
        lengths=lengths,
        batch_dim=order.index(0),
        time_dim=order.index(2),
    )
    return rows, x


def axes_of(x):
    (channels,) = {0, 1, 2} - {x.batch_axis, x.time_axis}
    return Axes(x.batch_axis, channels, x.time_axis)


def check_rows(y, rows):
    assert type(y) is pts.StreamTensor
    assert y.ids == tuple(row.id for row in rows)
    assert y.first == tuple(row.first for row in rows)
    assert y.last == tuple(row.last for row in rows)
    assert y.start == tuple(row.start for row in rows)
    assert y.lengths == tuple(row.data.shape[-1] for row in rows)
    if y.batch_axis is not None:
        assert y.shape[y.batch_axis] == len(rows)
    for piece, row in zip(y.unbatch(), rows, strict=True):
        assert piece.ids == (row.id,)
        data = piece.tensor().movedim(piece.time_axis, -1)
        torch.testing.assert_close(data, row.data, equal_nan=True)


def check(name, rng, rows, x):
    axes, width = axes_of(x), x.shape[x.time_axis]
    plain = x.tensor().clone()
    trial = OPERATIONS[name](rng, rows, width)
    for call in trial.calls:
        expected = None
        try:
            if trial.rows is None and trial.pieces is None and trial.reduced is None:
                expected = call(plain.clone(), axes)
        except (IndexError, RuntimeError) as error:  # too small for it: so it is with row data
            with pytest.raises(type(error)):
                call(x, axes)
            continue
        y = call(x, axes)
        if trial.rows is not None:
            check_rows(y, trial.rows)
        elif trial.pieces is not None:
            assert len(y) == len(trial.pieces)
            for part, its in zip(y, trial.pieces, strict=True):
                check_rows(part, its)
        elif trial.reduced is not None:
            assert type(y) is torch.Tensor
            batch = int(axes.b > axes.c) if y.dim() == 2 else 0
            torch.testing.assert_close(y.movedim(batch, 0), torch.stack(trial.reduced), equal_nan=True)
        else:
            assert type(y) is torch.Tensor
            torch.testing.assert_close(y, expected, equal_nan=True)
        torch.testing.assert_close(x.tensor(), plain, equal_nan=True)
    check_rows(x, rows)  # nothing was changed


@pytest.mark.filterwarnings("ignore:var\\(\\):UserWarning", "ignore:std\\(\\):UserWarning")
@pytest.mark.parametrize("name", OPERATIONS)
@settings(max_examples=max(settings.default.max_examples // 8, 5))
@given(pieces(), st.randoms(use_true_random=False))
def test_an_operation_gives_the_rows_of_the_model(name, drawn, rng):
    check(name, rng, *drawn)


@settings(max_examples=2 * settings.default.max_examples)
@given(pieces(), st.lists(st.sampled_from(sorted(CHAINS)), min_size=2, max_size=4), st.randoms(use_true_random=False))
def test_operations_follow_each_other(drawn, names, rng):
    rows, x = drawn
    for name in names:
        trial = OPERATIONS[name](rng, rows, x.shape[x.time_axis])
        x = rng.choice(trial.calls)(x, axes_of(x))
        rows = trial.rows
        check_rows(x, rows)
        if not rows:
            break


class Seen(TorchFunctionMode):
    """Names of the functions that are called with row data."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if pts.StreamTensor in types:
            self.names.add(func.__name__)
        return func(*args, **(kwargs or {}))


def test_every_promised_operation_is_tried():
    rows = [Row(name, True, False, 0, torch.randn(2, 4, dtype=torch.float64)) for name in "abc"]
    seen = Seen()
    for order in ((0, 1, 2), (1, 0, 2), (1, 2, 0)):
        x = pts.stream_tensor([row.data for row in rows], ids="abc", first=True).permute(order)
        for trial in OPERATIONS.values():
            for call in trial(Random(0), rows, 4).calls:
                with seen:
                    call(x, axes_of(x))
    missing = set(PROMISED.split()) - seen.names
    assert not missing
