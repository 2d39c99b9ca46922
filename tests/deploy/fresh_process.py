"""A process of its own that runs an exported file on whole signals, with no more than the file needs.

Tests and benchmarks start it with `command`: a copy of this file, as `python fresh_process.py FILE SIGNALS`. It runs
TorchScript without this package, and ONNX files without torch either. `answer` says what it prints.
"""

import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

TOLERANCE = 1e-4  # of the largest magnitude
UNOPTIMIZED = "unoptimized"

# A runner as a function of arrays; None ends the signal.
Run = Callable[[Optional[np.ndarray]], Optional[np.ndarray]]


# ---------------------------------------------------------------------- in the process that exports


def save_signals(path: Path, signals: Sequence[Tuple[Any, List[int], Any]], **others: Any) -> None:
    """Write signals, the sizes of their chunks and the outputs to be found, all tensors, and arrays besides."""
    data = dict(others)
    for i, (x, sizes, y) in enumerate(signals):
        data.update({f"x{i}": x.numpy(), f"sizes{i}": np.array(sizes), f"y{i}": y.numpy()})
    np.savez(path, **data)


def command(path: Path, given: Path, *options: str) -> Tuple[List[str], Dict[str, str]]:
    """The command that runs a file on saved signals, and its environment. It is to run in the file's folder."""
    import torchstreamer
    from torchstreamer.deploy import exported_file, onnx_runner, step_runner

    # Nothing of the project stands beside them.
    script = Path(shutil.copy(__file__, path.parent))
    for module in (onnx_runner, step_runner, exported_file):
        shutil.copy(module.__file__, path.parent)
    package = str(Path(torchstreamer.__file__).parents[1])  # installed or not
    return [sys.executable, str(script), str(path), str(given), *options], {**os.environ, "PYTHONPATH": package}


# ---------------------------------------------------------------------- in the fresh process


def opened(path: str, optimized: bool) -> Run:
    """A runner of a file."""
    if path.endswith(".onnx"):
        sys.modules.update(torch=None, torchstreamer=None)  # type: ignore[arg-type]  # none is needed
        from onnx_runner import OnnxRunner

        runner = OnnxRunner(path)
        return lambda x: runner.flush() if x is None else runner(x)
    import torch

    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    if path.endswith(".pt"):
        sys.modules["torchstreamer"] = None  # type: ignore[assignment]
        stream = torch.jit.load(path)
        if not optimized:
            torch.jit.optimized_execution(False).__enter__()
        return of_tensors(stream)
    import torchstreamer

    return of_tensors(torchstreamer.load(path))


def of_tensors(stream: Any) -> Run:
    """A stream of tensors as a function of arrays."""
    import torch

    def run(x: Optional[np.ndarray]) -> Optional[np.ndarray]:
        y = stream.flush() if x is None else stream(torch.from_numpy(x))
        return None if y is None else y.detach().numpy()

    return run


def errors(run: Run, data: Any) -> List[float]:
    """The largest error of each signal, relative to the largest magnitude; all must be small."""
    found = []
    for key in [name for name in data if name.startswith("x")]:
        x, sizes, y = data[key], data["sizes" + key[1:]], data["y" + key[1:]]
        assert sum(sizes) == x.shape[-1]
        pieces = [run(piece) for piece in np.split(x, np.cumsum(sizes)[:-1], -1)] + [run(None)]
        whole = np.concatenate([piece for piece in pieces if piece is not None], -1)
        assert whole.shape == y.shape, (whole.shape, y.shape)
        error = np.abs(whole - y).max() / np.abs(y).max()
        assert error <= TOLERANCE, error
        found.append(float(error))
    return found


def answer(run: Run, data: Any, **about: float) -> None:
    """Print the errors of all signals. Then take the chunk ``steady`` at every line that comes in, and print how many
    seconds of the processor that took."""
    print(json.dumps({**about, "errors": errors(run, data)}), flush=True)
    for _ in sys.stdin:
        x = data["steady"]
        begin = time.process_time()
        run(x)
        print(time.process_time() - begin, flush=True)


def main() -> None:
    path, given, *options = sys.argv[1:]
    with np.load(given) as file:
        data = dict(file)
    begin = time.perf_counter()
    run = opened(path, UNOPTIMIZED not in options)
    answer(run, data, load_s=time.perf_counter() - begin)
    assert "zoo" not in sys.modules and (not path.endswith(".onnx") or sys.modules["torch"] is None)


if __name__ == "__main__":
    main()
