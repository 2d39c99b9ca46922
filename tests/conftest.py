"""What all tests share: one thread, hypothesis profiles, and which tests run when.

By default those run that together take some minutes. ``-m quick`` takes the quickest of them, ``-m slow`` those that
take long, and ``-m long`` the great counts, which CI leaves out.
"""

import os
import sys
from pathlib import Path
from typing import Any, List

import pytest
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

# Files whose tests are quick, and touch every room.
_QUICK = """
"""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: List[Any]) -> None:
    """Give each test the mark by which ``-m`` takes it."""
    root = Path(__file__).parent
    quick = set(_QUICK.split())
    for item in items:
        sample = item.get_closest_marker("sample")
        if sample is not None and item.callspec.id not in sample.args:
            item.add_marker("long" if item.callspec.id in sample.kwargs.get("long", ()) else "slow")
        taken = any(item.get_closest_marker(name) for name in ("slow", "long"))
        if not taken and item.path.relative_to(root).as_posix() in quick:
            item.add_marker("quick")
