"""Stream a folder of sound files through a network on all machines of a Ray cluster.

    python examples/files_with_ray.py [folder for the outputs]

Needs the packages ray[data] and soundfile. The recording of `stream_speech.py` is cut into twelve files of unequal
length. Ray Data deals them out, some at a time, to a pool of actors, each with a network of its own, which takes some
files side by side. On a cluster all of them see the same folders; without one, Ray starts on this machine.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import ray  # type: ignore[import-not-found,unused-ignore]
import soundfile  # type: ignore[import-untyped]
import torch
from torch import nn

import torchstreamer as pts

SPEECH = Path(__file__).parent / "speech.wav"
LIMIT = 1e-5  # of the output's scale


def build_net() -> nn.Module:
    """An encoder that gives 8 numbers for every 10 ms."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv1d(1, 8, 400, stride=160, padding=200), nn.GELU(), nn.Conv1d(8, 8, 3, padding=1)).eval()


class Runner:
    """An actor: makes the network once, and is called with some paths at a time."""

    def __init__(self, folder: str) -> None:
        torch.set_num_threads(1)
        self.net = build_net()
        self.sink = pts.ArrayFiles(folder)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        paths = [str(path) for path in batch["path"]]
        report = pts.stream_files(self.net, paths, batch=4, chunk=4000, sink=self.sink)
        return {"path": paths, "failed": [report.failed.get(path, "") for path in paths]}


def cut_up(folder: Path, count: int) -> list[str]:
    """The recording in files of unequal length."""
    samples, rate_hz = soundfile.read(SPEECH, dtype="float32")
    ends = (len(samples) * np.linspace(0, 1, count + 1) ** 1.5).astype(int)
    paths = [str(folder / f"part{number:02}.flac") for number in range(count)]
    for path, start, end in zip(paths, ends[:-1], ends[1:], strict=True):
        soundfile.write(path, samples[start:end], rate_hz)
    return paths


def main() -> int:
    """Run the example; 1 if an output is not what the network gives on the whole file."""
    parser = argparse.ArgumentParser(description="Stream sound files through a network, on a Ray cluster.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("files_with_ray_out"), help="where outputs go")
    folder = parser.parse_args().folder.absolute()

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    with tempfile.TemporaryDirectory() as where:
        paths = cut_up(Path(where), 12)
        files = ray.data.from_items([{"path": path} for path in [*paths, str(Path(where) / "missing.flac")]])
        done = files.map_batches(
            Runner,
            fn_constructor_args=(str(folder),),
            compute=ray.data.ActorPoolStrategy(size=2),
            batch_size=5,
        ).take_all()
        failed = [row for row in done if row["failed"]]
        worst = 0.0
        for path in paths:
            found = torch.from_numpy(np.load(pts.ArrayFiles(folder).target(path)))
            with torch.no_grad():
                whole = build_net()(torch.from_numpy(soundfile.read(path, dtype="float32")[0])[None, None])[0]
            worst = max(worst, float((found - whole).abs().max() / whole.abs().max()))
    ray.shutdown()
    print(f"files               {len(done) - len(failed)} done, {len(failed)} failed")
    for row in failed:
        print(f"failed              {Path(row['path']).name}: {row['failed'].split(':')[1].strip()}")
    print(f"largest difference  {worst:.1e} of the output's scale")
    if worst > LIMIT or len(failed) != 1:
        print(f"larger than {LIMIT}, or other files failed", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
