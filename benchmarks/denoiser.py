"""The denoiser that comes with the package: what a chunk of 10 ms costs on one core, in every form.

python benchmarks/denoiser.py            # some minutes; writes results/denoiser.json and README.md
python benchmarks/denoiser.py --quick    # fewer rounds; prints only

"offline" is the network on 10 s at once, by 10 ms; "compiled" is the recorded step, which ONNX Runtime runs; "64 rows"
is one static step for 64 signals, by signal.
"""

import argparse
import json
import statistics
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from report import write_between_markers
from timing import interleave, machine, quartiles
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.models import pretrained_denoiser

HERE = Path(__file__).parent
CHUNK = 160
ROWS = 64
WHOLE = 1000  # chunks of the whole signal
AT_MOST_MS = {"eager": 2.0, "scripted": 1.0, "compiled": 0.5}


def check(streams: dict[str, Callable[[Tensor], Tensor | None]], net: nn.Module) -> None:
    """Raise unless every stream gives what the network gives on the whole."""
    x = 0.1 * torch.randn(1, 1, 100 * CHUNK)
    whole = net(x)
    for name, stream in streams.items():
        y = torch.cat([y for chunk in x.split(CHUNK, -1) if (y := stream(chunk)) is not None], -1)
        torch.testing.assert_close(
            y, whole[..., : y.size(-1)], rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}"
        )


def rows_at_once(net: nn.Module) -> Callable[[], object]:
    """A step of so many signals that all are alive."""
    step = pts.StaticStream(pts.create_stream(net), chunk=CHUNK, batch=ROWS)
    x, lengths = 0.1 * torch.randn(ROWS, 1, CHUNK), torch.full((ROWS,), CHUNK)
    flags = {value: torch.full((ROWS,), value) for value in (True, False)}
    step(x, lengths, flags[True], flags[False])
    return lambda: step(x, lengths, flags[False], flags[False])


def measured(rounds: int, span_s: float) -> dict[str, list[float]]:
    """Seconds a chunk, round by round, of each form."""
    torch.manual_seed(0)
    net = pretrained_denoiser()
    with tempfile.TemporaryDirectory() as folder:
        path = pts.export(pts.create_stream(net), Path(folder) / "denoiser.onnx", chunk=CHUNK)
        streams = {
            "eager": pts.create_stream(net),
            "scripted": torch.jit.script(pts.create_stream(net)),
            "compiled": pts.compile(pts.create_stream(net), chunk=CHUNK, backend="onnx"),
            "onnx file": pts.load(path),
        }
    check(streams, net)
    x, long = 0.1 * torch.randn(1, 1, CHUNK), 0.1 * torch.randn(1, 1, WHOLE * CHUNK)
    runs: dict[str, Callable[[], object]] = {"offline": lambda: net(long)}
    runs |= {name: lambda stream=stream: stream(x) for name, stream in streams.items()}
    runs[f"{ROWS} rows"] = rows_at_once(net)
    for run in runs.values():
        for _ in range(30):
            run()
    times = interleave(runs, rounds, span_s)
    shares = {"offline": WHOLE, f"{ROWS} rows": ROWS}
    return {name: [s / shares.get(name, 1) for s in seconds] for name, seconds in times.items()}


def markdown(times: dict[str, list[float]], facts: dict[str, str | int]) -> str:
    """The table, with the machine it was measured on."""
    lines = [
        f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} thread; torch {facts['torch']}, "
        f"Python {facts['python']}, {facts['system']}; {facts['rounds']} rounds; float32, `[1, 1, {CHUNK}]`.",
        "",
        "| | ms a chunk of 10 ms | quartiles | goal | signals a core in real time |",
        "|---|--:|--:|--:|--:|",
    ]
    for name, seconds in times.items():
        low, middle, high = (1e3 * s for s in quartiles(seconds))
        goal = f"{AT_MOST_MS[name]:.1f}" if name in AT_MOST_MS else ""
        lines.append(f"| {name} | {middle:.3f} | {low:.3f} to {high:.3f} | {goal} | {10 / middle:.0f} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what a chunk of the denoiser costs.")
    parser.add_argument("--quick", action="store_true", help="fewer rounds; print only")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    rounds = 5 if quick else 25
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore", DeprecationWarning)
        times = measured(rounds, 0.03 if quick else 0.1)
    facts = {**machine(), "rounds": rounds}
    table = markdown(times, facts)
    print(table)
    if not quick:
        (HERE / "results" / "denoiser.json").write_text(json.dumps({"machine": facts, "seconds": times}) + "\n")
        write_between_markers(HERE / "README.md", table, "denoiser")
    missed = [name for name, most in AT_MOST_MS.items() if 1e3 * statistics.median(times[name]) > most]
    for name in missed:
        print(f"{name}: more than {AT_MOST_MS[name]} ms")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
