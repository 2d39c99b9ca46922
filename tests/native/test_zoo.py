"""Published architectures as C++, beside the models on whole signals."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import torchstreamer as pts

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent / "models")]

from compiled import agree, chunkings, compiled  # noqa: E402
from zoo import ZOO, Entry  # noqa: E402

# What no stream or no static step takes, and what cannot be written yet.
REFUSED = {
    "wavenet_local_speaker": "no time axis",
    "wave_unet_learned": "not_native: .* no rule writes what it does .Latch",
}


def streamed(entry: Entry, model: torch.nn.Module) -> pts.BaseStream:
    return pts.create_stream(
        model, entry.example(batch=1), time_dim=entry.time_dim, length_multiple=entry.length_multiple
    )


def compare(names: list[str], folder: Path) -> None:
    entries = {entry.name: entry for entry in ZOO if entry.name in names}
    models = {name: entry.make() for name, entry in entries.items()}
    made = compiled({name: streamed(entry, models[name]) for name, entry in entries.items()}, folder)
    generator = np.random.default_rng(0)
    for name, entry in entries.items():
        times = entry.time_dim if isinstance(entry.time_dim, tuple) else (entry.time_dim,)
        for n in (entry.shortest, entry.shortest + entry.length_multiple, entry.inputs()[0].shape[times[0]]):
            n = -(-n // entry.length_multiple) * entry.length_multiple
            for cuts in chunkings(n, generator):
                agree(models[name], made[name], entry.inputs(n, 1), cuts, 1e-4, (times, entry.output_time_dim))


@pytest.mark.parametrize("names", [["wavenet", "tcn_channels_last"]])
def test_some(names, tmp_path):
    compare(names, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("entry", [entry for entry in ZOO if not entry.refused], ids=lambda entry: entry.name)
def test_each(entry, tmp_path):
    if entry.name in REFUSED:
        with pytest.raises(pts.UnsupportedModuleError, match=REFUSED[entry.name]):
            pts.export(streamed(entry, entry.make()), tmp_path / "net.cpp")
        return
    compare([entry.name], tmp_path)
