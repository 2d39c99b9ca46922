"""Published models in every format, run in processes of their own, ONNX without torch."""

import json
import subprocess
from pathlib import Path
from typing import Any, List

import pytest
import torch
from as_signal import as_signal
from fresh_process import UNOPTIMIZED, command, save_signals
from runner_calls import GRAPH, PACKAGE, SCRIPT, THOROUGH, compare, cut, fed, normal, whole
from smallest import _SEANET, SMALLEST, _entry, _signal
from zoo import ZOO, SEANet

import torchstreamer as pts

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


def in_a_fresh_process(path: Path, signals: List[Any], folder: Path) -> None:
    given = folder / "signals.npz"
    save_signals(given, signals)
    line, paths = command(path, given, UNOPTIMIZED)  # TorchScript's optimizer takes longest
    done = subprocess.run(
        line, cwd=folder, env=paths, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["errors"]
    assert len(found) == len(signals) and max(found) <= 1e-4


@pytest.mark.sample(
    "hifigan-script",
    "hifigan-onnx",
    long=(
        "seanet-script",
        "seanet-onnx",
        "wavenet-script",
    ),
)
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
    pts.export(stream, path, **({} if suffix == ".pt" else {"chunk": chunk}))
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
