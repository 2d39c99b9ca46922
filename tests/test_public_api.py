"""What the package shows to the outside, and what torch-streamer 0.0.2 promised of it."""

import importlib
import importlib.resources
import importlib.util
import inspect
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import torchstreamer as pts
import torchstreamer.analysis
import torchstreamer.audio
import torchstreamer.data
import torchstreamer.models
import torchstreamer.testing

PACKAGES = (
    torchstreamer.analysis,
    torchstreamer.audio,
    torchstreamer.data,
    torchstreamer.models,
    torchstreamer.testing,
)

PUBLIC = {
    "AlibiBias",
    "ArrayFiles",
    "AudioStreamDataset",
    "Axes",
    "BaseStream",
    "Batch",
    "BatchNorm1dStream",
    "Cell",
    "ChunkModule",
    "Chunked1d",
    "Chunked1dStream",
    "CompiledStream",
    "Context",
    "ContextSampler",
    "Conv1dStream",
    "ConvTranspose1dStream",
    "Counter",
    "CrossAttention1d",
    "CumulativeGroupNorm1d",
    "CumulativeGroupNorm1dStream",
    "CumulativeLayerNorm1d",
    "CumulativeLayerNorm1dStream",
    "Elementwise1dStream",
    "Emformer1d",
    "ExponentialMovingAverage1d",
    "ExponentialMovingAverage1dStream",
    "FilesProgress",
    "FilesReport",
    "GRUStream",
    "GraphStream",
    "GroupedQueryAttention",
    "Input",
    "LSTMStream",
    "LayerNorm1d",
    "LengthBatchSampler",
    "LinearRecurrence",
    "LinearRecurrenceStream",
    "OutputsInMemory",
    "Pad1dStream",
    "Parallel1d",
    "Parallel1dStream",
    "PointwiseError",
    "Pool1dStream",
    "ProgressCallback",
    "RMSNorm1d",
    "RNNStream",
    "Reach",
    "Recurrent1d",
    "RecurrentStream",
    "Residual1d",
    "Residual1dStream",
    "RingBuffer",
    "Rotary",
    "RowPiece",
    "RowStream",
    "SelfAttention1d",
    "SelfAttentionStream",
    "Sequential1dStream",
    "ShawBias",
    "StaticStream",
    "StreamBatch",
    "StreamCollector",
    "StreamDataLoader",
    "StreamDataset",
    "StreamError",
    "StreamFileError",
    "StreamInputError",
    "StreamModule",
    "StreamOnlineError",
    "StreamReadError",
    "StreamState",
    "StreamStateError",
    "StreamTensor",
    "T5Bias",
    "TransformerEncoder1d",
    "TransformerEncoderLayer1d",
    "TransformerXLBias",
    "UnsupportedModuleError",
    "UpsampleStream",
    "WaveFiles",
    "WorkerError",
    "as_stream_tensor",
    "band_mask",
    "checkpoint_step",
    "chunk_mask",
    "collate",
    "compile",
    "create_stream",
    "estimate_state_size",
    "export",
    "is_online",
    "is_streamable",
    "load",
    "load_state",
    "patch_module",
    "register_streamer",
    "replace_modules",
    "save_state",
    "stack_states",
    "stream_files",
    "stream_state",
    "stream_tensor",
    "unpatch_module",
    "unstack_state",
    "without_padding",
}

MODULES = [name for _, name, _ in pkgutil.walk_packages(pts.__path__, "torchstreamer.")]


def run_python(code: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    paths = {**os.environ, "PYTHONPATH": str(Path(pts.__file__).parents[1])}  # this package, installed or not
    done = subprocess.run(command, env=paths, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


# --------------------------------------------------------------------------- names


def test_all_lists_the_public_names():
    assert set(pts.__all__) == PUBLIC
    assert pts.__all__ == sorted(pts.__all__)


def test_the_facade_holds_no_other_public_names():
    others = {name for name, value in vars(pts).items() if not name.startswith("_") and not inspect.ismodule(value)}
    assert others == PUBLIC
    modules = {name for name, value in vars(pts).items() if not name.startswith("_") and inspect.ismodule(value)}
    assert all(vars(pts)[name].__name__ == f"torchstreamer.{name}" for name in modules)


def test_torchstreamer_nn_does_not_exist():
    assert not hasattr(pts, "nn")
    assert not hasattr(pts, "torch")
    assert importlib.util.find_spec("torchstreamer.nn") is None


@pytest.mark.parametrize("name", ["torchstreamer", *MODULES])
def test_every_module_is_documented_and_lists_what_exists(name):
    if name.startswith("torchstreamer.cli"):
        pytest.importorskip("typer")
    module = importlib.import_module(name)
    assert module.__doc__
    for exported in getattr(module, "__all__", ()):
        assert hasattr(module, exported), exported


@pytest.mark.parametrize(
    "thing",
    [getattr(module, name) for module in (pts, *PACKAGES) for name in module.__all__],
    ids=lambda thing: getattr(thing, "__name__", str(thing)),
)
def test_every_exported_name_is_documented(thing):
    if not inspect.isclass(thing) and not inspect.isfunction(thing):
        return  # an alias of a type
    assert thing.__doc__
    if inspect.isclass(thing):
        for name, method in vars(thing).items():
            if not name.startswith("_") and inspect.isfunction(method) and name != "step":
                assert inspect.getdoc(method), f"{thing.__name__}.{name}"


def test_the_package_is_typed():
    assert (importlib.resources.files(pts) / "py.typed").is_file()


# --------------------------------------------------------------------------- import


def test_import_has_no_side_effects():
    out = run_python(
        """
import sys, warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
before = set(sys.modules)
def settings():
    return (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_num_threads(), torch.initial_seed(),
            torch.get_rng_state().tolist(), torch.are_deterministic_algorithms_enabled(), list(warnings.filters))
was = settings()
import torchstreamer
torchstreamer.create_stream
assert settings() == was
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before}))
print(*sorted(name for name in sys.modules if name.startswith("torchstreamer.")))
"""
    )
    imported, inside = out.splitlines()
    third_party = set(imported.split()) - set(sys.stdlib_module_names) - {"torchstreamer"}
    assert not third_party & {"numpy", "scipy", "matplotlib", "hypothesis", "pytest", "torchaudio"}
    assert not any(name.startswith(("torchstreamer.testing", "torchstreamer.analysis")) for name in inside.split())


def test_names_are_loaded_when_one_is_used():
    out = run_python(
        """
import sys
import torchstreamer as pts
pts.__version__
assert not hasattr(pts, "handlers") and not hasattr(pts, "analysis") and not hasattr(pts, "__wrapped__")
assert not {"torch", "numpy"} & set(sys.modules)
assert "create_stream" in dir(pts) and "torch" in sys.modules
assert not hasattr(pts, "torch") and pts.ragged.done_list
print(*pts.__all__)
"""
    )
    assert set(out.split()) == PUBLIC


# Ways into the package, each in a new process, that need what `handlers.py` registers.
WAYS_IN = """
import os, sys, warnings
warnings.simplefilter("ignore")
import torch
net = torch.nn.Sequential(torch.nn.Conv1d(1, 2, 3))
saved = os.environ["SAVED"]

def room(name):
    __import__(name)
    from torchstreamer.core.registry import create_stream
    return create_stream(net)

def script():
    import torchstreamer as pts
    return torch.jit.script(pts.create_stream(net))

def compiled():
    import torchstreamer as pts
    return torch.compile(lambda: pts.create_stream(net), backend="eager")()

def loaded():
    assert "torchstreamer" not in sys.modules
    return torch.load(saved, weights_only=False)

rooms = "core.ring layers.conv containers.residual graph.capture handlers deploy.static data.audio ragged.files audio"
ways = {name: (lambda name=name: room("torchstreamer." + name)) for name in rooms.split()}
ways |= {"script": script, "compile": compiled, "load": loaded}
for name, way in ways.items():
    child = os.fork()
    if not child:
        stream = way()
        os._exit(0 if stream(torch.ones(1, 9), final=True).shape == (2, 7) else 1)
    assert os.waitpid(child, 0)[1] == 0, name
print("done")
"""


@pytest.mark.slow
def test_every_way_in_finds_the_handlers(tmp_path, monkeypatch):
    monkeypatch.setenv("SAVED", str(tmp_path / "stream.pt"))
    torch.save(pts.create_stream(nn.Sequential(nn.Conv1d(1, 2, 3))), tmp_path / "stream.pt")
    assert run_python(WAYS_IN).split() == ["done"]


def test_the_verifier_needs_no_test_framework():
    out = run_python(
        """
import sys, warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
from torchstreamer.testing import verify_stream
print(*[name for name in ("pytest", "hypothesis", "scipy", "matplotlib") if name in sys.modules])
"""
    )
    assert out.split() == []


def test_the_analysis_needs_matplotlib_for_pictures_alone():
    out = run_python(
        """
import sys, warnings
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
from torchstreamer.analysis import infer_dependency_matrix, receptive_field
infer_dependency_matrix(torch.nn.Linear(2, 3), (1, 5, 2))
receptive_field(torch.nn.Conv1d(1, 1, 3))
print(*[name for name in ("pytest", "hypothesis", "scipy", "matplotlib") if name in sys.modules])
"""
    )
    assert out.split() == []


# --------------------------------------------------------------------------- the published API


@pytest.mark.parametrize(
    ("thing", "arguments"),
    [
        (pts.BaseStream, []),
        (pts.Sequential1dStream, ["net"]),
        (pts.Residual1d, ["net"]),
        (pts.Residual1dStream, ["net"]),
        (pts.Conv1dStream, ["net"]),
        (pts.ConvTranspose1dStream, ["net"]),
        (pts.Pool1dStream, ["net"]),
        (pts.Elementwise1dStream, ["net"]),
        (pts.create_stream, ["net"]),
    ],
)
def test_published_arguments(thing, arguments):
    parameters = list(inspect.signature(thing).parameters.values())
    assert [parameter.name for parameter in parameters[: len(arguments)]] == arguments
    assert all(parameter.default is not inspect.Parameter.empty for parameter in parameters[len(arguments) :])


def test_forward_takes_a_chunk_and_final():
    parameters = inspect.signature(pts.BaseStream.forward).parameters
    assert list(parameters) == ["self", "x", "final"]
    assert parameters["final"].default is False
    stream = pts.Conv1dStream(nn.Conv1d(2, 2, 3))
    assert stream(torch.randn(2, 4), final=True).shape == (2, 2)
    assert stream(x=torch.randn(2, 4), final=True).shape == (2, 2)


def test_register_streamer_takes_a_type_and_a_factory():
    class Twice(nn.Module):
        def forward(self, x):
            return 2 * x

    made = []

    def factory(net):
        made.append(net)
        return pts.Elementwise1dStream(net)

    assert pts.register_streamer(Twice, factory) is None
    net = Twice()
    assert isinstance(pts.create_stream(net), pts.Elementwise1dStream)
    assert made == [net]


@pytest.mark.parametrize(
    ("stream", "beginning"),
    [
        (lambda: pts.Conv1dStream(nn.Conv1d(64, 128, 3, stride=2)), "Conv1dStream(64, 128, kernel_size=3, stride=2"),
        (
            lambda: pts.Conv1dStream(nn.Conv1d(4, 6, 3, padding=1, groups=2)),
            "Conv1dStream(4, 6, kernel_size=3, stride=1",
        ),
        (
            lambda: pts.ConvTranspose1dStream(nn.ConvTranspose1d(64, 32, 4, stride=2)),
            "ConvTranspose1dStream(64, 32, kernel_size=4, stride=2",
        ),
        (lambda: pts.Pool1dStream(nn.AvgPool1d(2)), "AvgPool1dStream(kernel_size=2, stride=2"),
        (lambda: pts.Pool1dStream(nn.MaxPool1d(3, stride=1)), "MaxPool1dStream(kernel_size=3, stride=1"),
        (lambda: pts.Sequential1dStream(nn.Sequential(nn.ReLU())), "Sequential1dStream(\n  (streams): ModuleList("),
        (lambda: pts.Residual1dStream(nn.Conv1d(2, 2, 3)), "Residual1dStream(\n  (stream): Conv1dStream(2, 2,"),
        (lambda: pts.Elementwise1dStream(nn.ReLU()), "Elementwise1dStream(\n  (net): ReLU()"),
    ],
)
def test_published_reprs(stream, beginning):
    assert repr(stream()).startswith(beginning)


@pytest.mark.parametrize(
    ("code", "kind", "cause"),
    [
        ("invalid_residual_stride", ValueError, lambda: pts.Residual1d(nn.Conv1d(2, 2, 3, stride=2))),
        ("invalid_pool_module", ValueError, lambda: pts.Pool1dStream(nn.Conv1d(2, 2, 3))),
        (
            "invalid_elementwise_output",
            RuntimeError,
            lambda: pts.Elementwise1dStream(nn.Conv1d(2, 2, 3))(torch.randn(2, 10)),
        ),
    ],
)
def test_published_error_codes(code, kind, cause):
    with pytest.raises(kind, match=f"^{code}: ") as caught:
        cause()
    assert isinstance(caught.value, pts.StreamError)
    assert caught.value.code == code


def test_streams_keep_the_published_bases():
    for name in pts.__all__:
        thing = getattr(pts, name)
        if name == "StaticStream":  # several signals at once, not one in pieces
            assert issubclass(thing, nn.Module)
        elif name == "RowStream":  # many signals, through a stream
            assert not issubclass(thing, nn.Module)
        elif name.endswith("Stream"):
            assert issubclass(thing, pts.BaseStream)
            assert issubclass(thing, nn.Module)
