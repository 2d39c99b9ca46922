"""Published models in every format, run in processes of their own, ONNX without torch."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, List

import numpy as np
import pytest
import torch
from as_signal import as_signal
from runner_calls import GRAPH, PACKAGE, SCRIPT, THOROUGH, compare, cut, fed, normal, whole
from smallest import _SEANET, SMALLEST, _entry, _signal
from zoo import ZOO, SEANet

import torchstreamer as pts
from torchstreamer.deploy import onnx_runner

pytestmark = [
    pytest.mark.timeout(1800),  # compilers take a while, more on a busy machine
    pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning"),
]


# ---------------------------------------------------------------------- published models


def entry_of(entries: Any, name: str) -> Any:
    return next(entry for entry in entries if entry.name == name)


def small_seanet(name: str) -> Any:
    small = {**_SEANET, "filters": 2}
    return _entry(name, lambda: SEANet(true_skip=True, **small), _signal(1, 24), length_multiple=2, shortest=2)


SMALL = [entry_of(SMALLEST, "hifigan"), small_seanet("seanet"), entry_of(SMALLEST, "wavenet")]
LARGER = [entry_of(ZOO, name) for name in ("hifigan", "seanet", "wavenet")]
# A package takes the C++ compiler long, so there is one in `runner`, and one of a captured model.
CASES = [(entry, suffix) for entry in SMALL for suffix in (SCRIPT, GRAPH)] + [(SMALL[2], PACKAGE)]
if THOROUGH:
    CASES = [(entry, suffix) for entry in [*SMALL, *LARGER] for suffix in (SCRIPT, PACKAGE, GRAPH)]

FRESH = """
import sys
import numpy as np
path, given, folder = sys.argv[1:]
data = np.load(given)
if path.endswith(".onnx"):
    sys.modules["torch"] = None  # none is needed
    import importlib.util
    spec = importlib.util.spec_from_file_location("runner", folder + "/onnx_runner.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    stream, convert, back = module.OnnxRunner(path), lambda x: x, lambda y: y
else:
    import torch
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    if path.endswith(".pt"):
        sys.modules["torchstreamer"] = None
        stream = torch.jit.load(path)
        torch.jit.optimized_execution(False).__enter__()
    else:
        import torchstreamer
        stream = torchstreamer.load(path)
    convert, back = torch.from_numpy, lambda y: y.detach().numpy()
for key in [name for name in data if name.startswith("x")]:
    x, sizes, y = data[key], data["sizes" + key[1:]], data["y" + key[1:]]
    pieces, at = [], 0
    for size in sizes:
        pieces.append(stream(convert(x[..., at : at + size])))
        at += size
    pieces.append(stream.flush())
    found = np.concatenate([back(piece) for piece in pieces if piece is not None], -1)
    assert found.shape == y.shape, (found.shape, y.shape)
    error = np.abs(found - y).max() / np.abs(y).max()
    assert error <= 1e-4, error
    print(found.shape)
assert "zoo" not in sys.modules and (not path.endswith(".onnx") or sys.modules["torch"] is None)
"""


def in_a_fresh_process(path: Path, signals: List[Any], folder: Path) -> None:
    data = {}
    for i, (x, sizes, y) in enumerate(signals):
        data.update({f"x{i}": x.numpy(), f"sizes{i}": np.array(sizes), f"y{i}": y.numpy()})
    given = folder / "signals.npz"
    np.savez(given, **data)
    script = folder / "fresh.py"
    script.write_text(FRESH)
    command = [sys.executable, str(script), str(path), str(given), str(Path(onnx_runner.__file__).parent)]
    paths = {**os.environ, "PYTHONPATH": str(Path(pts.__file__).parents[1])}  # this package, installed or not
    done = subprocess.run(command, cwd=folder, env=paths, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == len(signals)


@pytest.mark.parametrize(
    "entry, suffix",
    [
        pytest.param(entry, *suffix.values, id=f"{entry.name}-{suffix.id}", marks=suffix.marks)
        for entry, suffix in CASES
    ],
)
@torch.no_grad()
def test_models(entry: Any, suffix: str, tmp_path: Path) -> None:
    model, shape, multiple = as_signal(entry)
    x = normal(*shape)
    stream = pts.create_stream(model, example=x, length_multiple=multiple)
    chunk = 3 * stream.hop
    path = tmp_path / f"model{suffix}"
    pts.export(stream, path, chunk=chunk)
    runner = pts.load(path)
    signals = []
    # TorchScript's optimizer takes longest.
    with torch.jit.optimized_execution(THOROUGH):
        for i, n in enumerate((shape[-1], shape[-1] + 5 * multiple, 3 * shape[-1] + 7 * multiple)):
            x = normal(1, shape[1], n, seed=i)
            y = whole(model, x)
            sizes = cut(n, i, 3 * chunk)
            compare([*fed(runner, x, sizes), runner.flush()], y)
            assert runner.output_length(n, True) == y.shape[-1]
            signals.append((x, sizes, y))
    in_a_fresh_process(path, signals, tmp_path)
