"""The models and helpers of other tests are modules of their own, importable by name."""

import sys
from pathlib import Path

import pytest
from torch import nn

for folder in ("deploy", "geometry", "graph", "models"):
    sys.path.insert(0, str(Path(__file__).parents[1] / folder))


@pytest.fixture
def net() -> nn.Module:
    """A small network; some files have one of their own."""
    from static_calls import small_net

    return small_net().double()
