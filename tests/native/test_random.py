"""Random layers and random networks as C++, compiled many at a time, beside the modules on whole signals."""

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import nn

import torchstreamer as pts
from torchstreamer.testing.strategies import CHANNELS, layer_nets, networks

sys.path.insert(0, str(Path(__file__).parent))

from compiled import agree, chunkings, compiled

# Reasons for which a drawn network may be refused; each is tested where it belongs.
KNOWN = ("no_static_rule", "short_copies", "not_native")


def drawn(strategy: Any, count: int) -> list[nn.Module]:
    """So many networks of a strategy, always the same ones."""
    found: list[nn.Module] = []

    @settings(max_examples=count, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def collect(net: nn.Module) -> None:
        if len(found) < count:
            found.append(net)

    collect()
    return found


def compare(nets: list[nn.Module], folder: Path, seed: int = 0) -> dict[str, int]:
    streams: dict[str, Any] = {}
    refused: dict[str, int] = {}
    for i, net in enumerate(nets):
        try:
            stream = pts.create_stream(net)
            pts.export(stream, folder / "trial.cpp", channels=CHANNELS, dtype=torch.float64)
        except pts.UnsupportedModuleError as error:
            assert error.code in KNOWN, error
            refused[str(error)] = refused.get(str(error), 0) + 1
        else:
            streams[str(i)] = stream
    options = {name: {"channels": CHANNELS, "dtype": torch.float64} for name in streams}
    made = compiled(streams, folder, options=options)
    generator = np.random.default_rng(seed)
    for name, each in made.items():
        for n in generator.choice([1, 2, 5, 17, 40, 130, 300], 3, replace=False):
            x = torch.from_numpy(generator.standard_normal([1, CHANNELS, int(n)]))
            for cuts in chunkings(int(n), generator)[1:]:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # torch says so once, of a signal that is too short
                    try:
                        agree(nets[int(name)], each, x, cuts, 1e-9)
                    except AssertionError as error:
                        raise AssertionError(f"{nets[int(name)]}, {n} samples, {cuts}: {error}") from error
    return refused


@pytest.mark.parametrize("strategy", [layer_nets, networks], ids=["layers", "networks"])
def test_a_few(strategy, tmp_path):
    nets = drawn(strategy(), 12)
    refused = compare(nets, tmp_path)
    assert sum(refused.values()) <= len(nets) // 2


@pytest.mark.long
@pytest.mark.parametrize("strategy", [layer_nets, networks], ids=["layers", "networks"])
def test_many(strategy, tmp_path):
    nets = drawn(strategy(), int(os.environ.get("NATIVE_NETWORKS", 300)))
    for place in range(0, len(nets), 50):
        refused = compare(nets[place : place + 50], tmp_path, place)
        print(place, refused, flush=True)
