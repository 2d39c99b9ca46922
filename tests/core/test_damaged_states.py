"""States that are not as `get_state` gave them are refused, and the stream goes on; so everywhere that has a state."""

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Tuple

import pytest
import torch
from torch import Tensor, nn

import torchstreamer as pts

sys.path.insert(0, str(Path(__file__).parent))

import damage

CHANGES: Dict[str, Callable[[Tensor], Any]] = {
    "a sample short": lambda v: v[:, :-1],
    "three times the samples": lambda v: v.repeat(1, 3, *[1] * (v.dim() - 2)),
    "twice the channels": lambda v: v.repeat(*[1] * (v.dim() - 1), 2),
    "of two rows": lambda v: torch.cat([v, v]),
    "of no row": lambda v: v[:0],
    "empty": lambda v: v.new_empty([0]),
    "of another rank": lambda v: v[None],
    "flat": lambda v: v.flatten(),
    "a vector": lambda v: v.new_zeros(3),
    "float64": lambda v: v.to(torch.float64),
    "float16": lambda v: v.to(torch.float16),
    "int32": lambda v: v.to(torch.int32),
    "bool": lambda v: v.to(torch.bool),
    "complex": lambda v: v.to(torch.complex64),
    "sparse": lambda v: v.to_sparse(),
    "mkldnn": lambda v: v.to_mkldnn(),
    "quantized": lambda v: torch.quantize_per_tensor(v, 1.0, 0, torch.qint8),
    "meta": lambda v: v.to("meta"),
    "nested": lambda v: torch.nested.as_nested_tensor([v, v]),
    "one more": lambda v: v + 1 if v.dim() == 0 else None,
    "five more": lambda v: v + 5 if v.dim() == 0 else None,
    "2^62 more": lambda v: v + (1 << 62) if v.dim() == 0 else None,
    "negative": lambda v: -1 - v if v.dim() == 0 else None,
    "None": lambda v: NotImplemented,
    "an array": lambda v: v.numpy(),
    "a number": lambda v: 1.0,
    "a list": lambda v: v.tolist(),
}


def damages(state: Dict[str, Any]) -> Iterator[Tuple[str, Any]]:
    """Each change of each entry that it changes, and changes of names."""
    for key, value in state.items():
        for name, change in CHANGES.items():
            try:
                made = change(value)
            except (RuntimeError, IndexError, TypeError):
                continue  # no such change of this one
            if made is not None and not _alike(made, value):
                yield f"{key} {name}", {**state, key: None if made is NotImplemented else made}
        rest = {other: kept for other, kept in state.items() if other != key}
        yield f"no {key}", rest
        yield f"{key} renamed", {**rest, key + "x": value}
    yield "one added", {**state, "more.ring.data": torch.zeros(1, 2, 3)}
    yield "names that are none", {**state, 3: torch.zeros(1)}
    yield "a list", list(state.items())
    yield "nothing", None
    yield "empty", {}


def _alike(made: Any, value: Tensor) -> bool:
    if not isinstance(made, Tensor) or made.is_nested or made.is_meta or made.layout != value.layout:
        return False
    same = made.dtype == value.dtype and made.shape == value.shape
    return same and (value.dim() > 0 or torch.equal(made, value))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(2, 2, 5, padding=2), nn.MaxPool1d(2), nn.ConvTranspose1d(2, 2, 4, 2, 1)).eval()


def package_runner(folder: Path) -> Any:
    if shutil.which("g++") is None and shutil.which("c++") is None:
        pytest.skip("needs a C++ compiler")
    pts.export(pts.create_stream(network()), folder / "net.pt2", chunk=4)
    return damage.Stream(lambda: pts.load(folder / "net.pt2"))


def onnx_runner(folder: Path) -> Any:
    if not all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime")):
        pytest.skip("needs onnx, onnxscript and onnxruntime")
    pts.export(pts.create_stream(network()), folder / "net.onnx", chunk=4)
    return damage.Stream(lambda: pts.load(folder / "net.onnx"))


SUBJECTS: Dict[str, Callable[[Path], Any]] = {
    "stream": lambda folder: damage.Stream(lambda: pts.create_stream(network())),
    "script": lambda folder: damage.Stream(lambda: torch.jit.script(pts.create_stream(network()))),
    "static": lambda folder: damage.Static(pts.StaticStream(pts.create_stream(network()), chunk=4)),
    "compiled": lambda folder: damage.Stream(lambda: pts.compile(pts.create_stream(network()), 4, backend="eager")),
    "onnx": onnx_runner,
    "package": package_runner,
}


@pytest.mark.filterwarnings("ignore:.*(quantized|nested|autocast).*")
@pytest.mark.sample("stream", "script", "static", "compiled", "onnx")
@pytest.mark.parametrize("kind", SUBJECTS)
def test_damaged_states_are_refused_and_the_stream_goes_on(kind: str, tmp_path: Path) -> None:
    with torch.no_grad():
        subject = SUBJECTS[kind](tmp_path)
        subject.feed(13, 1)
        good = subject.get_state()
        count = 0
        for what, state in damages(good):
            values = list(state.values()) if isinstance(state, dict) else [None]
            keys = list(state) if isinstance(state, dict) else [0]
            if kind == "script" and not (
                all(isinstance(v, Tensor) for v in values) and all(isinstance(k, str) for k in keys)
            ):
                continue  # TorchScript itself refuses the call
            if kind in ("onnx", "package") and what in ("@pending twice the channels", "@unbatched one more"):
                continue  # any number of samples may wait, its last axis, and one row may be of either rank
            with pytest.raises((pts.StreamInputError, torch.jit.Error)) as error:
                subject.set_state(state)
                pytest.fail(f"{what} was accepted")
            assert "invalid_" in str(error.value), what
            count += 1
            if count % 16 == 0:
                now = subject.get_state()
                assert all(torch.equal(now[key], value) for key, value in good.items()), what
        assert count >= 60
        expected = subject.rest()
        subject.set_state(good)
        assert damage._same(subject.rest(), expected)


@pytest.mark.slow
def test_random_damage_does_no_harm() -> None:
    found = damage.run(100, 1)
    assert found["refused"] > 70


def test_clocks_may_be_late_and_not_negative() -> None:
    net, x = damage.Skip().eval(), torch.randn(1, 2, 30)
    stream = pts.create_stream(net, example=x)
    with torch.no_grad():
        stream(x[..., :12])
        state = stream.get_state()
        (clock,) = (key for key in state if key.endswith("next"))
        for value in (0, 5, 1 << 62):
            stream.set_state({**state, clock: torch.tensor([value])})
            assert torch.isfinite(stream(x[..., 12:])).all()
        for value in (-1, (1 << 62) + 1):
            with pytest.raises(pts.StreamInputError, match="^invalid_state: the clock"):
                stream.set_state({**state, clock: torch.tensor([value])})


def test_a_new_stream_takes_a_state_of_any_rows_and_rank() -> None:
    net, x = network(), torch.randn(3, 2, 40)
    with torch.no_grad():
        begun = pts.create_stream(net)
        begun(x[..., :18])
        state = begun.get_state()
        rest = begun(x[..., 18:], final=True)
        for rows in (slice(0, 3), slice(1, 2), slice(0, 2)):
            other = pts.create_stream(net)
            other.set_state(pts.stack_states(pts.unstack_state(state)[rows]))
            torch.testing.assert_close(other(x[rows, :, 18:], final=True), rest[rows])
        other = pts.create_stream(net)
        other.set_state(pts.unstack_state(state, unbatched=True)[2])
        torch.testing.assert_close(other(x[2, :, 18:], final=True), rest[2])


def test_clocks_of_static_rows_belong_together() -> None:
    static = pts.StaticStream(pts.create_stream(network()), chunk=4)
    subject = damage.Static(static)
    with torch.no_grad():
        subject.feed(3, 1)
        live = static.get_state()
        subject._step(damage._signal(4, 5), False, True)
        draining = static.get_state()
        for state in (live, draining):
            age, total, left = (int(state[name]) for name in ("row.age", "row.total", "row.left"))
            for changed in ((age, total + 9, left), (age, total, left + 1), (age, total, 0), (-1, total, left)):
                clocks = zip(("row.age", "row.total", "row.left"), changed, strict=True)
                with pytest.raises(pts.StreamInputError, match="^invalid_state: row 0"):
                    static.set_state(None, {**state, **{name: torch.tensor([value]) for name, value in clocks}})
        late = {**live, "row.age": torch.tensor([1 << 40])}
        static.set_state(None, late)
        (y, *_) = subject.rest()
        static.set_state(None, live)
        torch.testing.assert_close(y, subject.rest()[0])
