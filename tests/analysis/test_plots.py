"""Pictures: what is drawn is what is so; axes, units and titles are there."""

import re
import sys

import matplotlib
import pytest
import torch
from matplotlib import pyplot as plt
from torch import nn

import torchstreamer as pts
from torchstreamer.analysis import (
    infer_dependency_matrix,
    latency,
    plot_context,
    plot_dependency_matrix,
    plot_latency,
    plot_receptive_field,
    plot_timeline,
    receptive_field,
)

matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


def drawn(figure, tmp_path):
    figure.savefig(tmp_path / "picture.png", dpi=60)
    figure.savefig(tmp_path / "picture.svg")
    assert (tmp_path / "picture.png").stat().st_size > 1000
    ax = figure.axes[0]
    assert ax.get_title() and ax.get_xlabel() and ax.get_ylabel()
    return ax


@pytest.mark.parametrize("shape", [(12, 12), (30, 7), (3, 40), (200, 100), (1, 1)])
def test_dependency_matrix(shape, tmp_path):
    deps = torch.rand(shape, generator=torch.Generator().manual_seed(0)) < 0.3
    ax = drawn(plot_dependency_matrix(deps), tmp_path)
    values = torch.as_tensor(ax.collections[0].get_array().reshape(shape[1], shape[0]).astype(int))
    assert torch.equal(values.T == 2, deps)  # outputs upward, inputs to the right
    assert ax.get_xlim() == (-0.5, shape[0] - 0.5) and ax.get_ylim() == (-0.5, shape[1] - 0.5)
    assert not ax.yaxis_inverted()


@pytest.mark.filterwarnings("error")
def test_pictures_of_little_and_of_much(tmp_path):
    """Ticks are whole numbers, titles are not cut off, nothing lies outside, and cells do not drown in their edges."""
    stream = pts.create_stream(nn.Conv1d(1, 1, 12))
    wide = plot_receptive_field(nn.Conv1d(1, 1, 1001, padding=500))
    figures = [plot_dependency_matrix(torch.ones(shape, dtype=torch.bool)) for shape in [(1, 1), (2, 99), (900, 2)]]
    figures += [plot_timeline(stream, 1, chunks=1, fs=8000), plot_timeline(stream, 1, chunks=999), wide]
    for figure in figures:
        ax = drawn(figure, tmp_path)
        limits = sorted(ax.get_ylim())
        assert all(tick == int(tick) for tick in ax.get_yticks() if limits[0] <= tick <= limits[1])
        box = ax.title.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.width and ax.get_window_extent().height > 8
        assert all(ax.get_xlim()[0] <= text.get_position()[0] <= ax.get_xlim()[1] for text in ax.texts)
    bars = [patch for patch in wide.axes[0].patches if patch.get_linewidth() == 0]
    assert [patch.get_width() for patch in bars] == [501, 500]


def test_dependency_bounds(tmp_path):
    lower, upper = torch.eye(9, dtype=torch.bool), torch.ones(9, 9, dtype=torch.bool)
    ax = drawn(plot_dependency_matrix((lower, upper)), tmp_path)
    values = torch.as_tensor(ax.collections[0].get_array().reshape(9, 9).astype(int))
    assert torch.equal(values == 2, lower) and bool((values[~lower] == 1).all())
    assert len(ax.patches) == 72  # hatched


def test_the_published_way_to_use_it(tmp_path):
    deps = infer_dependency_matrix(lambda x: x.cumsum(1), (1, 20, 3), in_stride=2)
    figure = plot_dependency_matrix(deps)
    assert isinstance(figure, matplotlib.figure.Figure)
    assert figure.number in plt.get_fignums()  # plt.show() shows it
    drawn(figure, tmp_path)


def test_receptive_field(tmp_path):
    net = nn.Sequential(nn.Conv1d(1, 1, 3, dilation=4), nn.ConvTranspose1d(1, 1, 3, 2))
    ax = drawn(plot_receptive_field(net, fs=8000), tmp_path)
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["0", "1"]
    cells = {}
    for patch in ax.patches:
        if patch.get_width() == 1 and patch.get_edgecolor()[:3] == (1.0, 1.0, 1.0):
            row = round(patch.get_y() + patch.get_height() / 2)
            cells.setdefault(row, set()).add(round(patch.get_x() + 0.5))
    # Output 2 i is of samples i and i - 1 of the first layer, 2 i + 1 of i; that looks 0, 4 and 8 ahead.
    assert cells == {0: {-1, 0, 3, 4, 7, 8}, 1: {0, 4, 8}}


@pytest.mark.parametrize(
    "field",
    [
        receptive_field(nn.Conv1d(1, 1, 5, stride=2)),
        receptive_field(lambda x: x.roll(3, -1), torch.zeros(1, 1, 40)),
        receptive_field(nn.ConvTranspose1d(1, 1, 2, 100)),
    ],
)
def test_receptive_fields_that_are_known(field, tmp_path):
    drawn(plot_receptive_field(field), tmp_path)


def test_measured_receptive_field(tmp_path):
    ax = drawn(plot_receptive_field(lambda x: x.roll(3, -1), torch.zeros(1, 1, 40)), tmp_path)
    assert "3 back, -3 ahead" in ax.get_title()


def test_unbounded_fields_are_refused():
    with pytest.raises(ValueError, match="^unbounded_field"):
        plot_receptive_field(lambda x: x.cumsum(-1), torch.zeros(1, 1, 40), longest=40)


@pytest.mark.parametrize("chunk", [1, 16, 50])
def test_timeline(chunk, tmp_path):
    stream = pts.create_stream(nn.Sequential(nn.Conv1d(1, 1, 9, stride=2, padding=4), nn.ConvTranspose1d(1, 1, 4, 2)))
    ax = drawn(plot_timeline(stream, chunk, chunks=12, fs=16000), tmp_path)
    steps = next(line for line in ax.lines if line.get_label() == "out after each call")
    assert list(steps.get_xdata()) == [chunk * i for i in range(13)]
    assert list(steps.get_ydata()) == [stream.output_length(chunk * i, False) for i in range(13)]
    end = stream.output_length(12 * chunk, True)
    assert any(f"flush(): {end - steps.get_ydata()[-1]} more" == line.get_label() for line in ax.lines)
    assert any(f"start-up\n{latency(stream, chunk).first_chunk} samples" == text.get_text() for text in ax.texts)


def test_timeline_of_what_waits_for_nothing(tmp_path):
    drawn(plot_timeline(pts.create_stream(nn.ReLU())), tmp_path)


def test_latency_of_given_times(tmp_path):
    times = [0.001] * 98 + [0.002, 0.5]
    ax = drawn(plot_latency(times, 160, fs=16000), tmp_path)
    told = [text.get_text() for text in ax.get_legend().get_texts()]
    assert told == ["median 1 ms", "99 of 100 below 500 ms", "a chunk lasts 10 ms"]
    assert sum(patch.get_height() for patch in ax.patches) == 100  # every call is in a bar


def test_latency_of_a_stream(tmp_path):
    stream = pts.create_stream(nn.Conv1d(2, 2, 5))
    stream(torch.randn(1, 2, 3))
    before = stream.get_state()
    ax = drawn(plot_latency(stream, 16, calls=40), tmp_path)
    assert "16 samples (40 calls)" in ax.get_title()
    assert sum(patch.get_height() for patch in ax.patches) == 40
    assert all(torch.equal(value, before[key]) for key, value in stream.get_state().items())


def test_refusals():
    with pytest.raises(ValueError, match="^invalid_dependencies"):
        plot_dependency_matrix(torch.zeros(3, 3))
    with pytest.raises(ValueError, match="^invalid_times"):
        plot_latency([])
    with pytest.raises(ValueError, match="^invalid_chunks"):
        plot_timeline(pts.create_stream(nn.ReLU()), chunks=0)


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for name in [name for name in sys.modules if name.startswith("matplotlib.")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"^missing_package: matplotlib .*pip install -e '\.\[analysis\]'"):
        plot_dependency_matrix(torch.zeros(3, 3, dtype=torch.bool))
    with pytest.raises(ImportError, match="^missing_package: matplotlib"):
        plot_latency([0.1])


def texts(figure):
    ax = figure.axes[0]
    legend = ax.get_legend()
    found = [ax.get_title(), *(text.get_text() for text in ax.texts)]
    return "\n".join(found + ([text.get_text() for text in legend.get_texts()] if legend else []))


def test_where_only_some_calls_have_the_work_the_slowest_are_told():
    net = torch.nn.Sequential(*(torch.nn.Conv1d(1, 1, 4, stride=2, padding=1) for _ in range(3)))
    stream = pts.create_stream(net)
    assert "the slowest of every 8 calls" in texts(plot_latency(stream, 1, calls=40))
    assert "slowest" not in texts(plot_latency(stream, 8, calls=40))


def test_one_is_not_plural():
    stream = pts.create_stream(torch.nn.Conv1d(1, 1, 1))
    for figure in (plot_timeline(stream, 1), plot_latency([1e-3], 1), plot_latency(stream, 1, calls=1)):
        assert re.search(r"\b1 samples\b|\b1 calls\b", texts(figure)) is None, texts(figure)
    assert "1 sample" in texts(plot_timeline(stream, 1))


def test_the_bars_of_few_calls_are_where_they_are():
    ax = plot_latency([1e-3], 8, fs=16000).axes[0]
    bars = [bar for bar in ax.patches if bar.get_height() > 0]
    assert len(bars) == 1 and bars[0].get_x() <= 1 <= bars[0].get_x() + bars[0].get_width() < 1.2


# ---------------------------------------------------------------------- contexts of attention


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("context", [pts.Context(4), pts.Context(3, 2), pts.Context.chunks(4, 1), pts.Context(5, 3, 4)])
def test_contexts(context, layers, tmp_path):
    figure = plot_context(context, length=16, layers=layers, fs=50)
    ax = drawn(figure, tmp_path)
    beside = figure.axes[1]
    assert ax.get_title().startswith(f"{context}") and beside.get_xlabel() == "latency, ms"
    cells = ax.collections[0].get_array().reshape(16, 16)
    assert (cells == context.mask(16).int().numpy()).all()
    waits = [round(bar.get_width() * 50 / 1000) for bar in beside.patches]
    for i, wait in enumerate(waits):
        # As many samples as let the last of the layers give the query.
        def out(n):
            for _ in range(layers):
                n = context.output_length(n, final=False)
            return n

        assert out(i + wait + 1) > i >= out(i + wait)
