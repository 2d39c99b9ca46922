"""The steady step of two checkouts of this package, side by side: processor time after by before.

python benchmarks/checkouts.py BEFORE AFTER             # two folders, each a checkout; some four minutes
python benchmarks/checkouts.py BEFORE AFTER --rounds 5  # a first look

Every checkout runs in a process of its own, one more time as its own twin: the ratio of twins is the noise.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

from timing import quartiles

# Seconds that one contender gets in a round, and the most that a case may be slower.
SPAN_S, LIMIT = 0.15, 1.02


def cases() -> dict[str, Callable[[], object]]:
    """The steps that are timed, from the package that is on the path."""
    import torch
    from torch import nn

    import torchstreamer as pts

    class Block(nn.Module):
        """A captured residual block."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv1d(32, 32, 3, padding=1), nn.Conv1d(32, 32, 5, padding=2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.b(torch.tanh(self.a(x)))

    torch.set_num_threads(1)
    torch.manual_seed(0)
    stack = [layer for _ in range(10) for layer in (nn.Conv1d(64, 64, 3), nn.ReLU())]
    nets: dict[str, tuple[nn.Module, int]] = {
        "one layer": (nn.Conv1d(64, 64, 3), 64),
        "10 layers": (nn.Sequential(*stack), 64),
        "captured": (Block(), 32),
    }
    found: dict[str, Callable[[], object]] = {}
    for name, (net, channels) in nets.items():
        for chunk in (1, 16):
            x = torch.randn(1, channels, chunk)
            example = torch.randn(1, channels, 64) if name == "captured" else None
            eager = pts.create_stream(net.eval(), example=example)
            scripted = torch.jit.script(pts.create_stream(net.eval(), example=example))
            for kind, stream in (("eager", eager), ("scripted", scripted)):
                with torch.inference_mode():
                    for _ in range(200):
                        stream(x)
                found[f"{name}, chunk {chunk}, {kind}"] = lambda stream=stream, x=x: stream(x)  # type: ignore[misc]
    return found


def work() -> None:
    """Time what is asked for: a line ``case calls`` in, seconds of processor time out."""
    import torch

    known = cases()
    print(json.dumps(list(known)), flush=True)
    with torch.inference_mode():
        for line in sys.stdin:
            case, calls = json.loads(line)
            run = known[case]
            begin = time.process_time()
            for _ in range(calls):
                run()
            print(time.process_time() - begin, flush=True)


class Checkout:
    """A process that times the steps of one checkout."""

    def __init__(self, folder: Path) -> None:
        paths = {**os.environ, "PYTHONPATH": str(folder.resolve()), "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, str(Path(__file__).resolve()), "--work"]
        self.process = subprocess.Popen(command, env=paths, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.cases: list[str] = json.loads(cast(IO[str], self.process.stdout).readline())

    def seconds(self, case: str, calls: int) -> float:
        """Processor time per call."""
        stdin, stdout = cast(IO[str], self.process.stdin), cast(IO[str], self.process.stdout)
        stdin.write(json.dumps([case, calls]) + "\n")
        stdin.flush()
        return float(stdout.readline()) / calls


def main() -> int:
    """Print the ratios; 1 if a case is slower than the limit."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    print("starting three processes …", flush=True)
    places = {"before": options.before, "twin": options.before, "after": options.after}
    checkouts = {name: Checkout(folder) for name, folder in places.items()}
    slow = 0
    for case in checkouts["before"].cases:
        calls = max(1, round(SPAN_S / checkouts["before"].seconds(case, 20)))
        times: dict[str, list[float]] = {name: [] for name in checkouts}
        names = list(checkouts)
        for turn in range(options.rounds):
            for name in names[turn % 3 :] + names[: turn % 3]:
                times[name].append(checkouts[name].seconds(case, calls))
        ratios = {
            name: quartiles([one / other for one, other in zip(times[name], times["before"], strict=True)])
            for name in ("after", "twin")
        }
        microseconds = 1e6 * quartiles(times["before"])[1]
        low, middle, high = ratios["after"]
        noise = "{:.3f} ({:.3f}-{:.3f})".format(*(ratios["twin"][i] for i in (1, 0, 2)))
        mark = "" if middle <= LIMIT else "  SLOWER"
        slow += middle > LIMIT
        print(f"{case:32} {microseconds:7.1f} µs  {middle:.3f} ({low:.3f}-{high:.3f})  noise {noise}{mark}", flush=True)
    return 1 if slow else 0


if __name__ == "__main__":
    if "--work" in sys.argv:
        work()
    else:
        sys.exit(main())
