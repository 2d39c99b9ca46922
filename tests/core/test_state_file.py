"""States as files: whole after whatever happens."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import torchstreamer as pts


def test_a_state_goes_through_a_file(tmp_path: Path) -> None:
    net, x = nn.Conv1d(2, 3, 5, padding=2).eval(), torch.randn(1, 2, 30)
    path = tmp_path / "state"
    with torch.no_grad():
        stream = pts.create_stream(net)
        stream(x[..., :11])
        pts.save_state(str(path), stream.get_state())
        expected = stream(x[..., 11:], final=True)
        other = pts.create_stream(net)
        other.set_state(pts.load_state(path))
        assert torch.equal(other(x[..., 11:], final=True), expected)
        static = pts.StaticStream(pts.create_stream(net), chunk=4)
        (tmp_path / "link").symlink_to(path)
        pts.save_state(tmp_path / "link", static.get_state())
        static.set_state(None, pts.load_state(path))
    assert sorted(os.listdir(tmp_path)) == ["link", "state"]


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    pts.save_state(path, {"a": torch.arange(50.0), "b": torch.tensor(3)})
    good = path.read_bytes()
    for place in range(0, len(good), 37):
        for bad in (good[:place], good[:place] + bytes([good[place] ^ 16]) + good[place + 1 :], good[place + 1 :]):
            path.write_bytes(bad)
            with pytest.raises(pts.StreamFileError, match=f"^(invalid|damaged)_file: {path} "):
                pts.load_state(path)
    for bad in (good + b"x", good + good, b"", b"\0" * 3000):
        path.write_bytes(bad)
        with pytest.raises(pts.StreamFileError):
            pts.load_state(path)
    torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="torch.load"):
        pts.load_state(path)
    with pytest.raises(FileNotFoundError):
        pts.load_state(tmp_path / "none")


def test_what_is_no_state_is_not_written(tmp_path: Path) -> None:
    path = tmp_path / "state"
    pts.save_state(path, {"a": torch.ones(2)})
    for bad in (None, [1], {"a": 3}, {3: torch.ones(1)}, {"a": torch.ones(2, 2).to_sparse()}):
        with pytest.raises(pts.StreamInputError, match="^invalid_state: "):
            pts.save_state(path, bad)  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError):
        pts.save_state(tmp_path / "no folder" / "state", {"a": torch.ones(2)})
    assert torch.equal(pts.load_state(path)["a"], torch.ones(2)) and os.listdir(tmp_path) == ["state"]


@pytest.mark.skipif(os.name != "posix", reason="needs kill -9")
def test_a_killed_process_leaves_the_old_or_the_new_state(tmp_path: Path) -> None:
    """Forked writers, which begin at once, each killed a little later than the one before."""
    script = f"""
import os, signal, time, torch, torchstreamer as pts
torch.set_num_threads(1)
path, found = {str(tmp_path / "state")!r}, set()
begin = time.perf_counter()
for _ in range(10):
    pts.save_state(path, {{"a": torch.zeros(100_000), "b": torch.tensor(0)}})
span = (time.perf_counter() - begin) / 10  # on this machine, as busy as it is
for round in range(1, 26):
    child = os.fork()
    if child == 0:
        for i in range(10_000):
            pts.save_state(path, {{"a": torch.full([100_000], float(round)), "b": torch.tensor(round)}})
    time.sleep(0.4 * span * round)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    state = pts.load_state(path)
    assert torch.equal(state["a"], torch.full([100_000], float(state["b"]))), round
    found.add(int(state["b"]))
print(len(found))
"""
    paths = {**os.environ, "PYTHONPATH": str(Path(pts.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=paths, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 5  # old states stayed, and new ones came
