"""What all tests share: one thread, hypothesis profiles, and which tests run when.

By default those run that together take some minutes. ``-m quick`` takes the quickest of them, ``-m slow`` those that
take long, ``-m examples`` the examples, and ``-m long`` the great counts, which CI leaves out.
"""

import os
import sys
from pathlib import Path
from typing import Any, List, Optional

import pytest
import torch
from hypothesis import HealthCheck, settings

# Handlers that several tests of the verifier use, importable by name so that they can be pickled.
sys.path.insert(0, str(Path(__file__).parent / "testing"))

torch.set_num_threads(1)
# Torch gives some warnings once in a process: whichever test came first would fail by chance.
torch.set_warn_always(True)

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
for name, examples in (("few", 8), ("dev", 25), ("ci", 30), ("thorough", 2000)):
    settings.register_profile(
        name,
        max_examples=examples,
        deadline=None,
        derandomize=name != "thorough",
        print_blob=True,
        suppress_health_check=_SLOW,
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
_THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"

# Rooms whose scripts run without TorchScript's optimizer, but those of tests with the mark `optimized`; scripts of all
# layers, containers and files run with it.
_SCRIPTS_AS_THEY_ARE = frozenset(["graph"])

# Files whose tests are quick, and touch every room.
_QUICK = """
analysis/test_arguments.py analysis/test_causality.py analysis/test_costs.py analysis/test_splitting.py
analysis/test_trace.py
core/test_cell.py core/test_lengths.py core/test_reach.py core/test_registry.py core/test_ring.py core/test_state.py
core/test_stream.py core/test_user_forward.py
data/test_audio.py data/test_kinds.py data/test_published.py
deploy/test_folding.py deploy/test_static_misuse.py deploy/test_static_states.py
geometry/test_special_values.py
graph/test_several_inputs.py
audio/test_resample.py
layers/test_kernels.py layers/test_upsampling.py layers/test_winograd.py
test_random_networks.py test_refused.py test_review.py
testing/test_chunkings.py
"""


def pytest_ignore_collect(collection_path: Path, config: Any) -> Optional[bool]:
    """Do not even import a file that has no test of the mark that is asked for: importing all takes ten seconds."""
    words = {"quick": [], "slow": ["slow", "sample("], "long": ["long", "sample("], "examples": ["examples"]}
    mark = config.option.markexpr
    if mark not in words or not collection_path.name.startswith("test_"):
        return None
    if mark == "quick":
        name = collection_path.relative_to(Path(__file__).parent).as_posix()
        return None if name in _QUICK.split() else True
    text = collection_path.read_text(encoding="utf-8")
    return None if any(word in text for word in words[mark]) else True


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: List[Any]) -> None:
    """Give each test the mark by which ``-m`` takes it."""
    root = Path(__file__).parent
    quick = set(_QUICK.split())
    for item in items:
        sample = item.get_closest_marker("sample")
        if sample is not None and not _by_default(item, sample):
            item.add_marker("slow" if _slow(item, sample) else "long")
        taken = any(item.get_closest_marker(name) for name in ("slow", "long", "examples"))
        if not taken and item.path.relative_to(root).as_posix() in quick:
            item.add_marker("quick")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: Any) -> Any:
    """Leave TorchScript's optimizer out where other things are tried: it takes far longer than the scripts."""
    room = item.path.relative_to(Path(__file__).parent).parts[0]
    optimized = _THOROUGH or room not in _SCRIPTS_AS_THEY_ARE or item.get_closest_marker("optimized") is not None
    with torch.jit.optimized_execution(optimized):
        return (yield)


def _by_default(item: Any, sample: pytest.Mark) -> bool:
    every = sample.kwargs.get("every")
    if every is None:
        return item.callspec.id in sample.args
    return _number(item) % every == 0


def _slow(item: Any, sample: pytest.Mark) -> bool:
    if item.callspec.id in sample.kwargs.get("long", ()):
        return False
    return _number(item) % sample.kwargs.get("rest", 1) == 0


def _number(item: Any) -> int:
    return sum(item.callspec.indices.values())
