"""Filters chunk by chunk, beside SciPy's with state, and loops in Python.

python benchmarks/filters.py            # some minutes; writes results/filters.json and README.md
python benchmarks/filters.py --quick    # fewer rounds, prints only

A cascade of 4 second-order sections, one channel at 48 kHz, in single precision; and a response of 48,000 taps.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from report import write_between_markers
from scipy import signal
from timing import interleave, machine
from torch import Tensor

import torchstreamer as pts
from torchstreamer.audio import FIR, SOSFilter, butterworth

HERE = Path(__file__).parent
FS = 48_000
SILENT = 60  # chunks of silence, in which every state passes through the denormal numbers


def loop_of_floats(sos: list[list[float]]) -> Callable[[Tensor], Tensor]:
    """Sample by sample, on Python's own numbers."""
    states = [[0.0, 0.0] for _ in sos]

    def run(x: Tensor) -> Tensor:
        out = []
        for u in x.flatten().tolist():
            for (b0, b1, b2, _, a1, a2), z in zip(sos, states, strict=True):
                y = b0 * u + z[0]
                z[0] = b1 * u - a1 * y + z[1]
                z[1] = b2 * u - a2 * y
                u = y
            out.append(u)
        return torch.tensor(out).view(x.shape)

    return run


def loop_of_tensors(sos: Tensor) -> Callable[[Tensor], Tensor]:
    """Sample by sample, on tensors, as differentiable filters are often written."""
    b, a = sos[:, :3].float(), sos[:, 3:].float()
    z = torch.zeros(len(sos), 2)

    def run(x: Tensor) -> Tensor:
        out = []
        for u in x[0, 0]:
            for i in range(len(b)):
                y = b[i, 0] * u + z[i, 0]
                z[i, 0] = b[i, 1] * u - a[i, 1] * y + z[i, 1]
                z[i, 1] = b[i, 2] * u - a[i, 2] * y
                u = y
            out.append(u)
        return torch.stack(out).view(x.shape)

    return run


def by_scipy(sos: Tensor) -> Callable[[Tensor], Tensor]:
    """`scipy.signal.sosfilt` with its state, in single precision."""
    coefficients = sos.float().numpy()
    state: list[Any] = [None]

    def run(x: Tensor) -> Tensor:
        if state[0] is None:
            state[0] = np.zeros((len(coefficients), *x.shape[:2], 2), np.float32)
        y, state[0] = signal.sosfilt(coefficients, x.numpy(), zi=state[0])
        return torch.from_numpy(y)

    return run


def fading(run: Callable[[Tensor], Any], x: Tensor, sound: bool) -> Callable[[], None]:
    """A chunk of sound and then only silence, or sound all along."""
    rest = x if sound else torch.zeros_like(x)

    def step() -> None:
        run(x)
        for _ in range(SILENT):
            run(rest)

    return step


def cascade(batch: int, chunk: int, rounds: int, span_s: float) -> dict[str, Any]:
    """Seconds per chunk of each contender."""
    sos = butterworth("lowpass", FS, 1000, order=8)
    x = torch.randn(batch, 1, chunk)
    makers: dict[str, Callable[[], Callable[[Tensor], Any]]] = {
        "stream": lambda: pts.create_stream(SOSFilter(sos)),
        "scripted": lambda: torch.jit.script(pts.create_stream(SOSFilter(sos))),
        "sosfilt": lambda: by_scipy(sos),
    }
    if batch == 1:
        makers["loop of floats"] = lambda: loop_of_floats(sos.tolist())
        if chunk < 1000:
            makers["loop of tensors"] = lambda: loop_of_tensors(sos)
    whole = torch.from_numpy(signal.sosfilt(sos.numpy(), torch.cat([x, x], -1).double().numpy()))
    with torch.inference_mode():
        for name, make in makers.items():
            run = make()
            y = torch.cat([run(x), run(x)], -1)
            assert (y - whole).abs().max() < 1e-3 * whole.abs().max(), name
        runs = {}
        for name, make in makers.items():
            run = make()
            for _ in range(2 if "loop" in name else 50):
                run(x)
            runs[name] = lambda run=run: run(x)
        seconds = interleave(runs, rounds, span_s)
        silences: dict[str, list[float]] = {}
        if batch == 1 and chunk < 1000:
            pairs = {}
            for name in ("stream", "scripted", "sosfilt"):
                for sound in (True, False):
                    pairs[f"{name} {sound}"] = fading(makers[name](), x, sound)
            times = interleave(pairs, rounds, span_s)
            silences = {
                name: [a / b for a, b in zip(times[f"{name} False"], times[f"{name} True"], strict=True)]
                for name in ("stream", "scripted", "sosfilt")
            }
    return {"batch": batch, "chunk": chunk, "seconds": seconds, "silence": silences}


def response(chunk: int, rounds: int, span_s: float) -> dict[str, Any]:
    """Seconds per chunk through 48,000 taps."""
    taps, x = torch.randn(FS) / 200, torch.randn(1, 1, chunk)
    stream, script = pts.create_stream(FIR(taps)), torch.jit.script(pts.create_stream(FIR(taps)))
    long = torch.randn(1, 1, 2 * FS)
    whole = torch.from_numpy(signal.fftconvolve(long[0, 0].double().numpy(), taps.double().numpy())[: 2 * FS])
    with torch.inference_mode():
        y = torch.cat([stream(piece) for piece in long.split(480, -1)], -1)[0, 0]
        assert (y - whole).abs().max() < 1e-5 * whole.abs().max()
        stream.reset()
        for _ in range(20):
            stream(x), script(x)
        seconds = interleave({"stream": lambda: stream(x), "scripted": lambda: script(x)}, rounds, span_s)
    return {"chunk": chunk, "seconds": seconds}


def told(times: list[float], other: list[float]) -> str:
    """The median of the rounds' ratios."""
    return f"{statistics.median(a / b for a, b in zip(times, other, strict=True)):.3g}"


def table(cases: list[dict[str, Any]], responses: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """The figures as markdown."""
    lines = [
        f"{facts['cpu']}, {facts['cores']} cores, 1 thread; torch {facts['torch']}, Python {facts['python']}, "
        f"{facts['system']}; {facts['rounds']} rounds.",
        "",
        "| 4 sections, rows × samples | contender | per chunk, µs | per sample, ns | by sosfilt | in silence, by in sound |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for case in cases:
        for name, times in case["seconds"].items():
            median, count = statistics.median(times), case["batch"] * case["chunk"]
            silence = f"{statistics.median(case['silence'][name]):.2f}" if name in case["silence"] else ""
            lines.append(
                f"| {case['batch']} × {case['chunk']} | {name} | {median * 1e6:,.0f} | {median / count * 1e9:,.1f} "
                f"| {told(times, case['seconds']['sosfilt'])} | {silence} |"
            )
    lines += ["", "| 48,000 taps, chunk | contender | per chunk, µs | of a core at 48 kHz |", "|---|---|--:|--:|"]
    for case in responses:
        for name, times in case["seconds"].items():
            median = statistics.median(times)
            lines.append(f"| {case['chunk']} | {name} | {median * 1e6:,.0f} | {median / case['chunk'] * FS:.1%} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 short rounds; print only")
    parser.add_argument("--rounds", type=int, default=25, help="interleaved rounds")
    parser.add_argument("--span", type=float, default=0.02, help="seconds per contender and round")
    parser.add_argument("--no-write", action="store_true", help="print only")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.span, args.no_write = 5, 0.005, True
    torch.manual_seed(0)
    torch.set_num_threads(1)
    facts = {**machine(), "rounds": args.rounds}
    cases = [cascade(*sizes, args.rounds, args.span) for sizes in ((1, 480), (16, 480), (1, FS), (16, FS))]
    responses = [response(chunk, args.rounds, args.span) for chunk in (64, 160, 480, 4800)]
    print(table(cases, responses, facts))
    if not args.no_write:
        kept = json.dumps({"machine": facts, "cascades": cases, "responses": responses})
        (HERE / "results" / "filters.json").write_text(f"{kept}\n")
        write_between_markers(HERE / "README.md", table(cases, responses, facts), "filters")


if __name__ == "__main__":
    main()
