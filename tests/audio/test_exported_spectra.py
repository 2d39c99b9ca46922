"""Short-time spectra, their inverse and networks between them as files, in processes of their own."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict, List

import pytest
import torch
from torch import nn

import torchstreamer as pts
from torchstreamer.audio import ISTFT, STFT, Spectral1d

sys.path.insert(0, str(Path(__file__).parents[1] / "deploy"))

from fresh_process import UNOPTIMIZED, command, save_signals

NETS = {
    "stft": (STFT(16, 4), (1, 1, 90)),
    "complex stft": (STFT(16, 4, return_complex=True), (1, 1, 90)),
    "istft": (ISTFT(16, 4), (1, 18, 24)),
    "spectral": (Spectral1d(nn.Conv1d(18, 18, 1), 16, 4), (1, 1, 90)),
}
# Compilers take long, and of these forms two at least are in every run.
CASES = [
    pytest.param(name, suffix, marks=pytest.mark.slow if (name, suffix) == ("stft", ".onnx") else pytest.mark.long)
    for name in NETS
    for suffix in (".pt", ".pt2", ".onnx")
    if (name, suffix) != ("complex stft", ".onnx")
]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "suffix"), CASES)
def test_files_run_in_a_fresh_process(name: str, suffix: str, tmp_path: Path) -> None:
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime")
    net, shape = NETS[name]
    net = net.eval()
    path, given = tmp_path / f"spectra{suffix}", tmp_path / "signals.npz"
    options: Dict[str, Any] = {} if suffix == ".pt" else {"chunk": 8, "channels": shape[1]}
    pts.export(pts.create_stream(net), path, **options)
    signals: List[Any] = []
    with torch.no_grad():
        for n, size in ((shape[2], 7), (3 * shape[2] + 5, 50)):
            x = torch.randn(*shape[:2], n, generator=torch.Generator().manual_seed(n))
            signals.append((x, [piece.size(-1) for piece in x.split(size, -1)], net(x)))
    save_signals(given, signals)
    line, paths = command(path, given, UNOPTIMIZED)
    done = subprocess.run(line, cwd=tmp_path, env=paths, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert max(json.loads(done.stdout)["errors"]) <= 1e-5


@pytest.mark.slow
def test_complex_numbers_are_refused_in_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    for net, options in (
        (STFT(16, 4, return_complex=True), {"channels": 1}),
        (ISTFT(16, 4, complex_input=True), {"channels": 9, "dtype": torch.complex64}),
    ):
        with pytest.raises(ValueError, match="^complex_values: .*return_complex=False"):
            pts.export(pts.create_stream(net), tmp_path / "spectra.onnx", chunk=8, **options)
        assert not list(tmp_path.iterdir())
