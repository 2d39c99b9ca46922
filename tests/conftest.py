"""What all tests share: one thread, and hypothesis profiles."""

import os
import sys
from pathlib import Path

import torch
from hypothesis import HealthCheck, settings

# Handlers that several tests of the verifier use, importable by name so that they can be pickled.
sys.path.insert(0, str(Path(__file__).parent / "testing"))

torch.set_num_threads(1)

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
for name, examples in (("dev", 25), ("ci", 150), ("thorough", 2000)):
    settings.register_profile(
        name,
        max_examples=examples,
        deadline=None,
        derandomize=name != "thorough",
        print_blob=True,
        suppress_health_check=_SLOW,
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
