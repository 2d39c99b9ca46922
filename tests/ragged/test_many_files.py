"""200 files, 0.1 s to 20 min, some broken, in runs that are killed: nothing is lost, done twice, or kept in memory.

Run by hand; ``python tests/ragged/test_many_files.py FOLDER N`` is one run, of the N longest files.
"""

import json
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch import nn

import torchstreamer as pts

RATE = 16_000
pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


def encoder():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv1d(1, 32, 400, stride=160, padding=200), nn.ReLU(), nn.Conv1d(32, 32, 5, padding=2), nn.ReLU()
    ).eval()


def paths_in(folder):
    return sorted(map(str, (folder / "in").glob("*.wav")))


def run(folder, count):
    """One run; says what it did, and the most memory that it had."""
    torch.set_num_threads(1)
    paths = sorted(paths_in(folder), key=os.path.getsize)[-count:]
    sink = pts.ArrayFiles(folder / f"out{count}")
    report = pts.stream_files(encoder(), paths, 16, 16_000, sink=sink, resume=folder / f"done{count}")
    # Of this program alone: getrusage counts what its parent had when it started it.
    status = Path("/proc/self/status").read_text()
    peak = 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])
    print(json.dumps({"done": len(report.done), "failed": sorted(report.failed), "peak": peak, "told": str(report)}))


def command(folder, count):
    return [sys.executable, __file__, str(folder), str(count)]


def told(folder, count):
    return json.loads(subprocess.run(command(folder, count), capture_output=True, text=True, check=True).stdout)


def make(folder, count=200, longest_s=240.0):
    (folder / "in").mkdir()
    rng, noise = random.Random(0), np.random.default_rng(0)
    for i in range(count):
        # Log-uniform to four minutes, two hours in all with one of 20 minutes.
        share = (i + rng.random()) / count
        seconds = 0.1 * (longest_s / 0.1) ** share if i < count - 1 else 1200.0
        samples = round(RATE * seconds)
        soundfile.write(folder / "in" / f"{i:03}.wav", noise.standard_normal(samples, np.float32) * 0.1, RATE)
    broken = [folder / "in" / f"{i:03}.wav" for i in (3, count // 2, count - 5)]
    broken[0].write_text("no sound")
    broken[1].write_bytes(broken[1].read_bytes()[:-500])
    soundfile.write(broken[2], noise.standard_normal((40_000, 2)), RATE)
    return [str(path) for path in broken]


def test_two_hours_in_runs_that_are_killed(tmp_path):
    broken = make(tmp_path)
    paths = [path for path in paths_in(tmp_path) if path not in broken]
    seconds = sum(soundfile.info(path).duration for path in paths)
    assert 1.8 * 3600 < seconds < 2.2 * 3600
    longest = told(tmp_path, 1)
    rng, kills = random.Random(1), 0
    stamps = {}
    sink, done = pts.ArrayFiles(tmp_path / "out200"), tmp_path / "done200"

    def listed():
        return done.read_bytes().split(b"\n")[:-1] if done.exists() else []

    while kills < 8:
        enough = len(listed()) + rng.randrange(20)
        process = subprocess.Popen(command(tmp_path, 200), stdout=subprocess.DEVNULL)
        # At any moment of the work, however fast the machine is.
        while process.poll() is None and len(listed()) < enough:
            time.sleep(0.01)
        time.sleep(rng.random() * 0.5)
        process.kill()
        if process.wait() == 0:  # it came to its end
            break
        kills += 1
        lines = listed()
        for path in [json.loads(line)["path"] for line in lines]:
            stamp = sink.target(path).stat().st_mtime_ns
            assert stamps.setdefault(path, stamp) == stamp
        print(f"killed {kills} times, {len(lines)} of {len(paths)} files done", flush=True)
    assert kills == 8
    last = told(tmp_path, 200)
    assert last["failed"] == broken and 0 < len(lines) < len(paths)
    entries = [json.loads(line)["path"] for line in done.read_text().splitlines()]
    assert sorted(entries) == paths
    assert all(sink.target(path).stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    assert not list(tmp_path.glob("out200/*.part"))
    net, worst = encoder(), 0.0
    with torch.no_grad():
        for path in paths:
            x = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
            y, found = net(x[None, None])[0], torch.from_numpy(np.load(sink.target(path)))
            assert found.shape == y.shape
            worst = max(worst, float((found - y).abs().max()))
    assert worst < 1e-5
    whole = told(tmp_path, 201)  # in one go
    print(f"{seconds / 3600:.2f} h, killed {kills} times, {worst:.1e} from offline\n{whole['told']}")
    print(f"peak {whole['peak'] / 1e6:.0f} MB, of the longest file alone {longest['peak'] / 1e6:.0f} MB")
    assert whole["peak"] < longest["peak"] + 100e6
    assert whole["done"] == len(paths)


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(sys.argv[2]))
