"""Full-size models in every exported format, in fresh processes: whole signals, what each takes, what a chunk costs.

python benchmarks/exports.py                                    # all; prints only
python benchmarks/exports.py --write                            # and writes results/exports.json and README.md
python benchmarks/exports.py --models wavenet --formats .onnx   # some; --write puts them among the others
python benchmarks/exports.py --small                            # small widths: whether all works

Fails if a signal comes out in another shape than offline, or differs by more than 1e-4 of the largest magnitude.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from report import write_between_markers
from timing import interleave, machine
from torch import Tensor, nn

import torchstreamer as pts

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "tests" / folder) for folder in ("deploy", "models")]

from fresh_process import answer, command, of_tensors, save_signals  # noqa: E402
from runner_calls import cut  # noqa: E402
from zoo import ZOO, Entry, HiFiGAN, SEANetDecoder, SEANetEncoder, WaveNet, _entry, _signal  # noqa: E402

COMPILED = "compiled"
FORMATS = [".pt", ".pt2", ".onnx", COMPILED]
Row = dict[str, Any]


@dataclass(frozen=True)
class Model:
    """A model, and what is measured of it.

    `entry`: the model with random weights, and its input.
    `chunk`: samples, or frames, per step.
    `lengths`: of the whole signals.
    `long`: samples of the signal whose offline cost is measured.
    """

    title: str
    entry: Entry
    chunk: int
    lengths: tuple[int, ...]
    long: int


def codec(**options: Any) -> nn.Module:
    """EnCodec's encoder and decoder as at 24 kHz, without its LSTM and its quantizer."""
    options.update(causal=True, pad_mode="reflect")
    return nn.Sequential(SEANetEncoder(extra_padding=True, **options), SEANetDecoder(**options))


def models(small: bool) -> dict[str, Model]:
    """All models, by name."""
    # The codec's signals must be longer than what is reflected of them at the lowest rate.
    if small:
        narrow = {"dimension": 6, "filters": 4, "strides": (2, 5)}
        hifigan, wavenet = (next(entry for entry in ZOO if entry.name == name) for name in ("hifigan", "wavenet"))
        known = [
            Model("HiFi-GAN, small", hifigan, 8, (51, 23, 1), 256),
            Model("EnCodec, small", _entry("codec", lambda: codec(**narrow), _signal(1, 401)), 30, (1001, 333), 4000),
            Model("WaveNet, small", wavenet, 16, (301, 77, 1), 4000),
        ]
    else:
        known = [
            Model("HiFi-GAN v1", _entry("hifigan", HiFiGAN, _signal(80, 50)), 8, (101, 37, 1), 256),
            Model("EnCodec, 24 kHz", _entry("codec", codec, _signal(1, 4001)), 960, (24_001, 9_999), 48_000),
            Model("WaveNet", _entry("wavenet", WaveNet, _signal(1, 4001)), 160, (8_001, 2_345, 1), 16_000),
        ]
    return {model.entry.name: model for model in known}


def stream_of(model: Model, net: nn.Module) -> pts.BaseStream:
    """The model's stream."""
    return pts.create_stream(net, example=model.entry.example())


def save(path: Path, model: Model, net: nn.Module) -> None:
    """Write whole signals and their offline outputs for the fresh process."""
    signals = []
    for seed, n in enumerate(model.lengths):
        x = model.entry.example(n)
        # Steps of the planned size first, which a compiled stream has its program for, then of any.
        sizes = [model.chunk] * (n // model.chunk // 2)
        signals.append((x, [*sizes, *cut(n - sum(sizes), seed, 3 * model.chunk)], net(x)))
    save_signals(path, signals, steady=model.entry.example(model.chunk).numpy())


def check_scale(y: Tensor) -> None:
    """Refuse outputs in which errors would not show: faint ones, and saturated ones."""
    peaks = float((y.abs() > 0.99 * y.abs().max()).float().mean())
    if not (float(y.std()) > 0.1 and peaks < 0.1):
        raise RuntimeError(f"standard deviation {float(y.std()):.2g}, {peaks:.0%} of the samples at the peak")


class Fresh:
    """A fresh process that checks signals and then takes steps.

    Attributes:
        report: what it printed first
        seconds: of its processor, that its steps took
    """

    def __init__(self, line: list[str], paths: dict[str, str], folder: Path) -> None:
        self.process = subprocess.Popen(
            line, cwd=folder, env=paths, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.seconds = 0.0
        self.report = json.loads(self._line())

    def step(self) -> None:
        """One chunk."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.seconds += float(self._line())

    def clock(self) -> float:
        """Seconds of both processors, here and there."""
        return time.process_time() + self.seconds

    def close(self) -> None:
        """End it."""
        self.process.communicate()
        if self.process.returncode:
            raise RuntimeError("the fresh process failed; its message stands above")

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            raise RuntimeError("the fresh process failed; its message stands above")
        return line


def measure(model: Model, net: nn.Module, form: str, rounds: int, small: bool, folder: Path) -> Row:
    """Export, run in a fresh process, and time."""
    x = model.entry.example(model.long)
    check_scale(net(x))
    row: Row = {"model": model.entry.name, "title": model.title, "format": form, "chunk": model.chunk}
    row["parameters"] = sum(p.numel() for p in net.parameters())
    given = folder / "signals.npz"
    save(given, model, net)
    if form == COMPILED:
        line = [sys.executable, str(Path(__file__).resolve()), "--compile", model.entry.name, str(given)]
        fresh = Fresh([*line, "--small"] if small else line, dict(os.environ), folder)
    else:
        path = folder / f"model{form}"
        stream = stream_of(model, net)
        begin = time.perf_counter()
        pts.export(stream, path, chunk=None if form == ".pt" else model.chunk)
        row["export_s"] = time.perf_counter() - begin
        row["bytes"] = path.stat().st_size
        fresh = Fresh(*command(path, given), folder)
    row.update(fresh.report)
    for _ in range(model.long // model.chunk):
        fresh.step()
    contenders: dict[str, Callable[[], object]] = {"offline": lambda: net(x), "exported": fresh.step}
    times = interleave(contenders, rounds, 0.5, fresh.clock)
    fresh.close()
    row["chunk_s"], row["offline_s"] = times["exported"], [s * model.chunk / model.long for s in times["offline"]]
    row["by_offline"] = statistics.median(a / b for a, b in zip(row["chunk_s"], row["offline_s"], strict=True))
    return row


def compile_here(model: Model, given: Path) -> None:
    """The fresh process of a compiled stream."""
    import numpy as np

    with np.load(given) as file:
        data = dict(file)
    stream = stream_of(model, model.entry.make())
    begin = time.perf_counter()
    compiled = pts.compile(stream, chunk=model.chunk, backend="aot", autotune=False)
    answer(of_tensors(compiled), data, export_s=time.perf_counter() - begin)


def markdown(rows: list[Row], facts: dict[str, Any]) -> str:
    """The table, with the machine it was measured on."""
    rounds = " or ".join(map(str, sorted({len(row["chunk_s"]) for row in rows})))
    lines = [
        f"{facts['cpu']}, 1 thread; torch {facts['torch']}; float32, batch 1; medians of {rounds} rounds.",
        "",
        "| model | format | chunk | file, MiB | export, s | load, s | chunk, ms | by offline | largest error |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        size = f"{row['bytes'] / 2**20:.1f}" if "bytes" in row else "-"
        load = f"{row['load_s']:.1f}" if "load_s" in row else "-"
        lines.append(
            f"| {row['title']} ({row['parameters'] / 1e6:.2f} M) | `{row['format']}` | {row['chunk']} | {size} | "
            f"{row['export_s']:.0f} | {load} | {statistics.median(row['chunk_s']) * 1e3:.2f} | "
            f"**{row['by_offline']:.2f}** | {max(row['errors']):.1e} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(models(True))
    parser.add_argument("--models", nargs="+", choices=names, default=names)
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=FORMATS)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--small", action="store_true", help="small widths; prints only")
    parser.add_argument("--write", action="store_true", help="put what is measured among what was before")
    parser.add_argument("--compile", nargs=2, metavar=("MODEL", "SIGNALS"), help=argparse.SUPPRESS)  # the fresh process
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    known = models(args.small)
    if args.compile:
        compile_here(known[args.compile[0]], Path(args.compile[1]))
        return

    facts, failed = machine(), []
    rows: list[Row] = []
    for name in args.models:
        net = known[name].entry.make()
        for form in args.formats:
            with tempfile.TemporaryDirectory() as folder:
                os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder + "/cache"  # nothing was compiled before
                try:
                    row = measure(known[name], net, form, args.rounds, args.small, Path(folder))
                except Exception:
                    traceback.print_exc()
                    failed.append(f"{name} {form}")
                    continue
            rows.append(row)
            print(markdown([row], facts).splitlines()[-1], flush=True)

    print("\n" + markdown(rows, facts))
    if failed:
        sys.exit("failed, so nothing is written: " + ", ".join(failed))
    if args.write and not args.small:
        path = HERE / "results" / "exports.json"
        kept = json.loads(path.read_text())["rows"] if path.exists() else []
        found = {(row["model"], row["format"]): row for row in [*kept, *rows]}
        rows = [found[key] for key in ((name, form) for name in names for form in FORMATS) if key in found]
        path.write_text(json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")
        write_between_markers(HERE / "README.md", markdown(rows, facts), "generated exports")


if __name__ == "__main__":
    main()
