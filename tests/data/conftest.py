"""What these tests share is importable by name, so that spawned processes find it."""

import os
import sys
from pathlib import Path

import pytest

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)
# Spawned processes begin with the path of their parent's environment.
os.environ["PYTHONPATH"] = os.pathsep.join([HERE, *filter(None, [os.environ.get("PYTHONPATH")])])


@pytest.fixture(autouse=True)
def _nobody_touches_the_random_state():
    import random

    import numpy
    import torch

    def states():
        return random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()

    before = states()
    yield
    assert states() == before
