"""Published architectures with recurrent layers stream exactly as they are."""

import sys
from pathlib import Path

import pytest
import torch

import torchstreamer as pts
from torchstreamer.analysis import trace_error
from torchstreamer.testing import verify_stream
from torchstreamer.testing.live_rows import LiveRows

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from as_signal import as_signal
from recurrent_zoo import RECURRENT

named = pytest.mark.parametrize("entry", RECURRENT, ids=[entry.name for entry in RECURRENT])


def joined(stream, x, time, sizes):
    pieces, i = [], 0
    while x.shape[time] > 0:
        n = min(sizes[i % len(sizes)], x.shape[time])
        pieces.append(stream(x.narrow(time, 0, n)))
        x, i = x.narrow(time, n, x.shape[time] - n), i + 1
    pieces.append(stream.flush())
    return [piece for piece in pieces if piece is not None]


@pytest.mark.sample("rnnoise", rest=3, long=("crdnn", "dpcrn"))
@named
def test_as_the_model(entry):
    model, x = entry.make().double(), entry.example(batch=2).double()
    stream = pts.create_stream(model, example=x[:1], time_dim=entry.time_dim)
    with torch.no_grad():
        whole = model(x)
        for sizes in ((1,), (7, 2, 13), (50,)):
            y = torch.cat(joined(stream, x, entry.time_dim, sizes), entry.output_time_dim)
            assert y.shape == whole.shape and float((y - whole).abs().max() / whole.abs().max()) < 1e-10
        script = torch.jit.script(stream)
        y = torch.cat(joined(script, x, entry.time_dim, (5,)), entry.output_time_dim)
        assert float((y - whole).abs().max() / whole.abs().max()) < 1e-10


@pytest.mark.sample("silero", rest=3, long=("dpcrn",))
@named
def test_rows_of_any_age(entry):
    model, shape, _ = as_signal(entry)
    model = model.double()
    stream = pts.create_stream(model, example=torch.randn(1, *shape[1:], dtype=torch.float64))
    LiveRows(stream, model, stream.hop, (8, shape[1])).run(120).compare(8)


@pytest.mark.sample(rest=9)
@named
def test_every_rule(entry):
    model, shape, multiple = as_signal(entry)
    verify_stream(
        model,
        shape,
        graph=True,
        length_multiple=multiple,
        static=True,
        dtypes=[torch.float64, torch.float32],
        tolerances={torch.float32: 1e-4},
    )


class Forgetful(pts.GRUStream):
    def step(self, x, final):
        self.memory.forget()
        return super().step(x, final)


def test_an_error_is_traced_layer_by_layer():
    entry = next(entry for entry in RECURRENT if entry.name == "rnnoise")
    model, shape, _ = as_signal(entry)
    x = torch.randn(1, shape[1], 20)
    stream = pts.create_stream(model, example=x)
    found = trace_error(model, stream, x, chunk=7)
    assert not found.layer and "no difference" in str(found)
    node = next(node for node in stream.nodes if getattr(node, "stream", None) is not None)
    node.stream = Forgetful(model.get_submodule("model.vad_gru"))
    found = trace_error(model, stream, x, chunk=7)
    assert found.layer.endswith("vad_gru") and "the module 'model.vad_gru'" in found.compared and found.sample == 7
