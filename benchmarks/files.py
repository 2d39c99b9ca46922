"""A folder of sound files, many side by side: `stream_files` beside file after file, one thread.

python benchmarks/files.py            # some five minutes; writes results/files.json and the table of README.md
python benchmarks/files.py --quick    # prints only
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from report import write_between_markers
from timing import machine
from torch import nn

import torchstreamer as pts

HERE = Path(__file__).parent
RATE, HOP, BATCH = 16_000, 160, 16
CHUNKS_S = (0.03, 0.16, 0.64, 2.56, 5.12, 10.24, 20.48)
AT_LEAST = {"30 ms": 1.8, "best": 1.0}


def encoder() -> nn.Module:
    """An encoder of hop 160, of the size of those that recognise speech on a phone."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv1d(1, 64, 400, stride=160, padding=200), nn.ReLU()]
    for _ in range(6):
        layers += [pts.Residual1d(nn.Sequential(nn.Conv1d(64, 64, 5, padding=2), nn.ReLU()))]
    return nn.Sequential(*layers, nn.Conv1d(64, 80, 1)).eval()


def folder_of(count: int, longest_s: float, where: Path) -> list[str]:
    """Files whose lengths are log-uniform from 0.5 s on."""
    rng, noise, paths = random.Random(0), np.random.default_rng(0), []
    for i in range(count):
        samples = round(RATE * 0.5 * (longest_s / 0.5) ** ((i + rng.random()) / count))
        paths.append(str(where / f"{i:03}.wav"))
        soundfile.write(paths[-1], noise.standard_normal(samples, np.float32) * 0.1, RATE)
    rng.shuffle(paths)
    return paths


class Nowhere:
    """Outputs are taken and dropped."""

    def __call__(self, path: str) -> "Nowhere":
        return self

    def write(self, piece: torch.Tensor) -> None:
        """Drop it."""

    def close(self) -> None:
        """Nothing is to be closed."""


def together(net: nn.Module, paths: Sequence[str], chunk: int) -> None:
    """All files, many side by side."""
    report = pts.stream_files(net, paths, BATCH, chunk, sink=Nowhere())
    assert len(report.done) == len(paths)


@torch.no_grad()
def one_by_one(net: nn.Module, paths: Sequence[str], chunk: int) -> None:
    """File after file, as one would write it."""
    stream = pts.create_stream(net)
    for path in paths:
        with soundfile.SoundFile(path) as file:
            for block in file.blocks(chunk, dtype="float32", always_2d=True):
                stream(torch.from_numpy(block.T.copy())[None])
        stream.flush()


def measure(net: nn.Module, paths: Sequence[str], rounds: int) -> dict[str, list[dict[str, float]]]:
    """Seconds of each way at each chunk: the median of rounds in which all take turns."""
    ways = {"together": together, "one by one": one_by_one}
    times: dict[tuple[str, float], list[float]] = {(name, chunk_s): [] for name in ways for chunk_s in CHUNKS_S}
    for turn in range(rounds):
        for (name, chunk_s), seconds in times.items():
            if turn < 3 or chunk_s > 0.1:  # the smallest takes long, and differs by far
                start = time.process_time()
                ways[name](net, paths, round(chunk_s * RATE))
                seconds.append(time.process_time() - start)
        print(f"round {turn + 1} of {rounds}", flush=True)
    return {
        name: [{"chunk_s": chunk_s, "seconds": statistics.median(times[name, chunk_s])} for chunk_s in CHUNKS_S]
        for name in ways
    }


def markdown(found: dict[str, list[dict[str, float]]], audio_s: float, facts: dict[str, str | int]) -> str:
    """The table, with the machine it was measured on."""
    lines = [
        f"{facts['cpu']}, {facts['cores']} cores, 1 thread; torch {facts['torch']}, Python {facts['python']}.",
        "",
        "| chunk | file after file, times real time | `stream_files`, times real time | ratio |",
        "|--:|--:|--:|--:|",
    ]
    ours, theirs = ([case["seconds"] for case in found[name]] for name in ("together", "one by one"))
    rows = [(f"{chunk_s:g} s", a, b) for chunk_s, a, b in zip(CHUNKS_S, ours, theirs, strict=True)]
    rows.append(("each its best", min(ours), min(theirs)))
    for name, a, b in rows:
        lines.append(f"| {name} | {audio_s / b:.0f} | {audio_s / a:.0f} | **{b / a:.2f}** |")
    return "\n".join(lines) + "\n"


def targets(found: dict[str, list[dict[str, float]]]) -> str:
    """Whether the targets are met."""
    ours, theirs = ([case["seconds"] for case in found[name]] for name in ("together", "one by one"))
    ratios = {"30 ms": theirs[0] / ours[0], "best": min(theirs) / min(ours)}
    missed = [
        f"- missed: {name}: {ratio:.2f}, wanted {AT_LEAST[name]}"
        for name, ratio in ratios.items()
        if ratio < AT_LEAST[name]
    ]
    return "\n".join(missed or ["All targets are met."]) + "\n"


def main() -> None:
    """Measure, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="less sound, and nothing is written")
    quick = parser.parse_args().quick
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        paths = folder_of(24 if quick else 48, 30.0 if quick else 60.0, Path(folder))
        audio_s = sum(soundfile.info(path).duration for path in paths)
        found = measure(encoder(), paths, 3 if quick else 7)
    text = markdown(found, audio_s, machine())
    print(text + targets(found))
    if not quick:
        about = {"audio_s": audio_s, "files": len(paths), "batch": BATCH, "machine": machine(), "cases": found}
        (HERE / "results" / "files.json").write_text(json.dumps(about, indent=1) + "\n")
        write_between_markers(HERE / "README.md", text + "\n" + targets(found), "files")


if __name__ == "__main__":
    main()
