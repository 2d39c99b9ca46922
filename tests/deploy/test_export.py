"""Exported files stream what the network gives on the whole, in this process and in fresh ones, and keep the rules."""

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from runner_calls import (
    CHUNK,
    GRAPH,
    PACKAGE,
    compare,
    cut,
    fed,
    needs_onnx,
    normal,
    whole,
)
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.deploy import export as exporting
from torchstreamer.deploy import exported_file, onnx_runner

pytestmark = [
    pytest.mark.timeout(1800),  # compilers take a while, more on a busy machine
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning"),
]


def contract_net() -> nn.Module:
    """A layer of every kind; every fourth sample begins a period."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(2, 4, 3, padding=2, padding_mode="reflect"),
        nn.PReLU(4),
        nn.AvgPool1d(3, 2, 1, ceil_mode=True, count_include_pad=False),
        pts.Residual1d(nn.Sequential(nn.ELU(), nn.Conv1d(4, 4, 3, padding=2, dilation=2))),
        nn.BatchNorm1d(4),
        nn.Upsample(scale_factor=1.5, mode="linear"),
        nn.ConvTranspose1d(4, 3, 4, stride=2, padding=1),
        nn.ReplicationPad1d((2, 1)),
        nn.MaxPool1d(2, 1, 1),
    ).eval()


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return contract_net()


SLOW_PACKAGE = pytest.param(*PACKAGE.values, id=PACKAGE.id, marks=[*PACKAGE.marks, pytest.mark.slow])


@pytest.fixture(scope="module", params=[SLOW_PACKAGE, GRAPH])
def runner(request: Any, net: nn.Module, tmp_path_factory: Any) -> Any:
    path = tmp_path_factory.mktemp("export") / f"net{request.param}"
    assert pts.export(pts.create_stream(net), path, chunk=CHUNK, metadata={"rate_hz": 16000}, sampling_fs=8000) == path
    made = pts.load(path)
    made.path = path
    return made


@pytest.fixture(autouse=True)
def as_new(request: Any) -> Any:
    with torch.no_grad():
        yield
    if "runner" in request.fixturenames:
        request.getfixturevalue("runner").reset()


# ---------------------------------------------------------------------- the rules of runners


def test_signals_of_any_length(runner: Any, net: nn.Module) -> None:
    for n in [*range(0, 5), CHUNK - 1, CHUNK, CHUNK + 1, 5 * CHUNK, 101, 240]:
        x = normal(1, 2, n, seed=n)
        expected = whole(net, x) if n else None
        for sizes in ([n], [1] * n, cut(n, n)):
            compare([*fed(runner, x, sizes), runner.flush()], expected)
        # The last chunk with the end in one call.
        compare([runner(x[..., : n // 2]), runner(x[..., n // 2 :], final=True)], expected)
        compare([runner(x, True)], expected)
        assert runner.output_length(n) == (0 if expected is None else expected.shape[-1])


def test_nothing_gives_none(runner: Any) -> None:
    assert runner(None) is None
    assert runner(normal(1, 2, 0)) is None
    assert runner.flush() is None
    assert runner(normal(1, 2, 1)) is None  # no step is full
    assert runner.flush() is None  # too short for reflection
    for n in range(300):
        assert 0 <= runner.output_length(n, False) <= runner.output_length(n, True)
    assert runner.output_length(-1, False) == runner.output_length(-1, True) == 0


def test_signals_without_rows(runner: Any, net: nn.Module) -> None:
    x = normal(2, 50)
    pieces = [*fed(runner, x, [20, 13, 17]), runner.flush()]
    compare(pieces, whole(net, x[None])[0])
    assert runner.flush() is None
    compare([runner(x[None], True)], whole(net, x[None]))  # the next signal is of another rank


def test_the_end_makes_it_as_new(runner: Any, net: nn.Module) -> None:
    fresh = runner.get_state()
    runner(normal(1, 2, 31))
    runner.flush()
    assert same(runner.get_state(), fresh)
    runner(normal(1, 2, 31))
    runner.reset()
    assert same(runner.get_state(), fresh)
    x = normal(1, 2, 40)
    compare([runner(x, True)], whole(net, x))


def same(one: Any, other: Any) -> bool:
    return set(one) == set(other) and all(torch.equal(one[name], other[name]) for name in one)


def test_chunks_and_outputs_belong_to_the_caller(runner: Any, net: nn.Module) -> None:
    x = normal(1, 2, 100)
    expected = whole(net, x)
    pieces, kept = [], []
    for size in (5, 40, 12, 24, 19):
        at = sum(piece.shape[-1] for piece in kept)
        chunk = x[..., at : at + size].clone()
        kept.append(chunk.clone())
        y = runner(chunk)
        assert torch.equal(chunk, kept[-1])
        chunk.fill_(float("nan"))
        if y is not None:
            pieces.append((y, y.clone()))
    end = runner.flush()
    assert all(torch.equal(y, before) for y, before in pieces)
    compare([y for y, _ in pieces] + [end], expected)
    for y, _ in pieces:  # nor does what the caller does with an output reach the runner
        y.fill_(float("nan"))
    compare([runner(x, True)], expected)


def test_transposed_and_strided_chunks(runner: Any, net: nn.Module) -> None:
    x = normal(1, 60, 2)
    compare([runner(x.transpose(1, 2), True)], whole(net, x.transpose(1, 2)))
    wide = normal(1, 2, 120)[..., ::2]
    compare([runner(wide[..., :30]), runner(wide[..., 30:], True)], whole(net, wide))


BAD = {
    "rank": lambda x: x[0, 0],
    "higher_rank": lambda x: x[None],
    "channels": lambda x: x[:, :1],
    "rows": lambda x: x.repeat(2, 1, 1),
    "double": lambda x: x.double(),
    "half": lambda x: x.bfloat16(),
    "device": lambda x: x.to("meta"),
    "list": lambda x: x.tolist(),
    "without_rows": lambda x: x[0],
}


@pytest.mark.parametrize("name", BAD)
def test_chunks_that_do_not_fit(runner: Any, net: nn.Module, name: str) -> None:
    x = normal(1, 2, 50)
    pieces = [runner(x[..., :29])]
    before = runner.get_state()
    for final in (False, True):
        with pytest.raises(pts.StreamInputError, match="invalid_chunk"):
            runner(BAD[name](x[..., 29:]), final)
    assert same(runner.get_state(), before)
    compare([*pieces, runner(x[..., 29:]), runner.flush()], whole(net, x))


def test_a_failed_step(runner: Any, net: nn.Module, monkeypatch: Any) -> None:
    x = normal(1, 2, 50)
    runner(x[..., :30])
    state = runner.get_state()

    def fails(*args: Any) -> Any:
        raise OSError("out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(runner, "_run", fails)
        with pytest.raises(OSError, match="out of memory"):
            runner(x[..., 30:])
    for use in (lambda: runner(x), runner.flush, runner.get_state):
        with pytest.raises(pts.StreamStateError, match="failed_stream"):
            use()
    runner.set_state(state)
    rest = [runner(x[..., 30:]), runner.flush()]
    compare([whole(net, x)[..., : runner.output_length(30, False)], *rest], whole(net, x))


def test_states_are_data(runner: Any, net: nn.Module) -> None:
    other = pts.load(runner.path)
    x = normal(1, 2, 90)
    for at in (0, 1, CHUNK, 31, 77):
        begun = fed(runner, x[..., :at], cut(at, at))
        file = io.BytesIO()
        state = runner.get_state()
        torch.save(state, file)
        file.seek(0)
        loaded = torch.load(file, weights_only=True)
        assert same(loaded, state)
        other.set_state(loaded)
        given = sum(y.shape[-1] for y in begun)
        for one in (runner, other):
            compare([*begun, *fed(one, x[..., at:], cut(90 - at, 1), at, given), one.flush()], whole(net, x))
    # A state is a copy, both ways.
    runner(x[..., :31])
    state = runner.get_state()
    kept = copy.deepcopy(state)
    runner(x[..., 31:60])
    assert same(state, kept)
    other.set_state(state)
    for value in state.values():
        value.fill_(9)
    assert same(other.get_state(), kept)
    assert other.state_nbytes() == sum(v.nbytes for name, v in kept.items() if name not in ("@steps", "@unbatched"))


def test_states_that_do_not_fit(runner: Any) -> None:
    runner(normal(1, 2, 31))
    state = runner.get_state()
    ring = next(name for name in state if name.startswith("ring"))
    for bad in (
        {},
        {name: value for name, value in state.items() if name != ring},
        {**state, "more": torch.zeros(1)},
        {**state, ring: state[ring][..., :-1]},
        {**state, ring: state[ring].double()},
        {**state, "@pending": state["@pending"].double()},
        {**state, "@pending": state["@pending"][:, :1]},
        {**state, "@pending": torch.zeros(1, 2, CHUNK)},
    ):
        with pytest.raises(pts.StreamInputError, match="invalid_state"):
            runner.set_state(bad)
        assert same(runner.get_state(), state)


def test_the_state_does_not_grow(runner: Any) -> None:
    sizes = set()
    for _ in range(40):
        runner(normal(1, 2, CHUNK + 1))
        sizes.add(runner.state_nbytes())
    assert max(sizes) - min(sizes) <= CHUNK * 2 * 4


# ---------------------------------------------------------------------- files


def test_what_travels_and_what_is_damaged(runner: Any, tmp_path: Path) -> None:
    assert runner.metadata == {"rate_hz": 16000} and runner.sampling_fs == 8000
    whole = runner.path.read_bytes()
    path = tmp_path / runner.path.name
    for at in (0, len(whole) // 3, len(whole) - 100, len(whole) - 1):
        path.write_bytes(whole[:at] + b"%c" % (whole[at] ^ 1) + whole[at + 1 :])
        with pytest.raises(pts.StreamFileError, match="^invalid_file: "):
            pts.load(path)
    path.write_bytes(whole)
    assert pts.load(path).metadata == runner.metadata


@needs_onnx
def test_several_rows_in_one_runner(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv1d(2, 3, 5, padding=2), nn.AvgPool1d(2))
    pts.export(pts.create_stream(net), tmp_path / "net.onnx", chunk=4, batch=3)
    runner = pts.load(tmp_path / "net.onnx")
    x = normal(3, 2, 27)
    compare([*fed(runner, x, cut(27, 0)), runner.flush()], whole(net, x))
    with pytest.raises(pts.StreamInputError, match="invalid_chunk"):
        runner(x[0])


@needs_onnx
def test_lengths_that_are_multiples(tmp_path: Path) -> None:

    class Frames(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(8, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x.reshape(x.shape[0], 2, -1, 4).permute(0, 1, 3, 2).flatten(1, 2))

    net = Frames()
    stream = pts.create_stream(net, example=normal(2, 2, 64), length_multiple=4)
    pts.export(stream, tmp_path / "net.onnx", chunk=8)
    runner = pts.load(tmp_path / "net.onnx")
    x = normal(1, 2, 44)
    pieces = fed(runner, x[..., :42], [5, 9, 28])
    before = runner.get_state()
    with pytest.raises(pts.StreamInputError, match="length_multiple: the signal ends after 42 samples"):
        runner.flush()
    with pytest.raises(pts.StreamInputError, match="length_multiple: a length of 42 samples"):
        runner.output_length(42)
    assert same(runner.get_state(), before)
    compare([*pieces, runner(x[..., 42:], True)], whole(net, x))


@pytest.mark.slow
@needs_onnx
def test_long_steps_take_packed_products(monkeypatch: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv1d(16, 24, 3, padding=1), nn.ELU(), nn.ConvTranspose1d(24, 2, 4, stride=2, padding=1))
    stream = pts.create_stream(net.eval())
    saved: Any = []

    def save(program: Any, path: str, about: str, kernels: str) -> None:
        saved.append(kernels)
        if kernels:
            save_package(program, path, about, kernels)
        else:
            Path(path).touch()

    save_package = exporting._save_package
    monkeypatch.setattr(exporting, "_save_package", save)
    # 2 operations per product: 16 · 24 · 3 per sample, and twice 24 · 2 · 2 from the frames that overlap.
    each = 2 * (16 * 24 * 3 + 24 * 4 * 2)
    for chunk in (8, 9):
        monkeypatch.setattr(exporting, "_LONG", 8 * each)
        pts.export(stream, tmp_path / "net.pt2", chunk=chunk)
    assert saved == ["", "packed"]
    runner = pts.load(tmp_path / "net.pt2")
    for n in (1, 9, 61):
        x = normal(1, 16, n)
        compare([*fed(runner, x, cut(n, n, 20)), runner.flush()], whole(net, x))


def test_arrays_without_torch(net: nn.Module, tmp_path: Path) -> None:
    pts.export(pts.create_stream(net), tmp_path / "net.onnx", chunk=CHUNK)
    runner = onnx_runner.OnnxRunner(tmp_path / "net.onnx")
    x = normal(1, 2, 50)
    pieces = [runner(piece.numpy()) for piece in x.split([0, 1, 30, 19], -1)]
    state = {name: value.copy() for name, value in runner.get_state().items()}
    for _ in range(2):
        end = runner.flush()
        compare([torch.from_numpy(y) for y in [*pieces, end] if y is not None], whole(net, x))
        runner.set_state(state)
    with pytest.raises(ValueError, match="invalid_chunk"):
        runner(x)
    assert repr(runner).startswith("OnnxRunner([1, 2, 12], outputs=")
    geometry = json.loads(runner.session.get_modelmeta().custom_metadata_map[exported_file.KEY])
    static = pts.StaticStream(pts.create_stream(net), CHUNK)
    for name in ("chunk", "batch", "channels", "outputs", "lag", "flush_steps", "out_shape"):
        assert geometry[name] == getattr(static, name)
    assert geometry["hop"] == pts.create_stream(net).hop
    names = [value.name for value in runner.session.get_inputs()]
    assert set(names) - {"x", "lengths", "first", "last"} <= set(geometry["states"]) == set(static.init_state())


@pytest.mark.slow
def test_a_script_keeps_every_rule(tmp_path: Path) -> None:
    net = contract_net()
    stream = pts.create_stream(net)
    x = normal(1, 2, 60)
    begun = stream(x[..., :20])
    path = tmp_path / "net.pt"
    pts.export(stream, path)
    # The stream goes on as if nothing had happened, and the file holds none of its samples.
    compare([begun, stream(x[..., 20:], True)], whole(net, x), 1e-5)
    for sizes in ([60], cut(60, 0), [1] * 60):
        script = pts.load(path)
        compare([*fed(script, x, sizes), script.flush()], whole(net, x), 1e-5)
    with pytest.raises(torch.jit.Error, match="invalid_chunk"):
        script(x[:, :1])


def test_files_that_do_not_fit(net: nn.Module, tmp_path: Path) -> None:
    stream = pts.create_stream(net)
    for name in ("net.bin", "net", "net.pth"):
        with pytest.raises(ValueError, match="invalid_suffix"):
            pts.export(stream, tmp_path / name, chunk=CHUNK)
        with pytest.raises(pts.StreamFileError, match="invalid_suffix"):
            pts.load(tmp_path / name)
    with pytest.raises(TypeError, match="invalid_stream"):
        pts.export(net, tmp_path / "net.pt")
    for suffix in (".onnx", ".pt2"):
        with pytest.raises(ValueError, match="missing_chunk: .*a multiple of 4"):
            pts.export(stream, tmp_path / f"net{suffix}")
        with pytest.raises(ValueError, match="invalid_chunk_size"):
            pts.export(stream, tmp_path / f"net{suffix}", chunk=5)
    assert not list(tmp_path.iterdir())


@needs_onnx
def test_a_foreign_graph_is_refused(tmp_path: Path) -> None:
    import onnx

    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [value("x", 1, [1])], [value("y", 1, [1])])
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9),
        tmp_path / "net.onnx",
    )
    with pytest.raises(ValueError, match="invalid_file"):
        pts.load(tmp_path / "net.onnx")
