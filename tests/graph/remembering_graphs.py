"""Random graphs that hold recurrences, attention or running layers, tried by the hundred.

    python tests/graph/remembering_graphs.py COUNT SEED

Every graph holds at least one of them; which, is counted. Each is tried as in `test_random_graphs.py`: captured, its
lengths foretold, cut at random, forked in the middle, and every tenth scripted. One that differs is printed, and the
rest go on.
"""

import sys
import time
import traceback
from pathlib import Path
from typing import Any, Dict, Set

sys.path.insert(0, str(Path(__file__).parent))

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import HypothesisException
from random_graphs import RandomGraph, graphs
from random_steps import STEPS
from steps_attention import attention
from steps_length import running_module
from steps_recurrent import dual_path, recurrence
from test_random_graphs import check

KINDS = {
    "recurrences": ("nn.GRU(", "nn.LSTM(", "nn.RNN("),
    "attention": ("scaled_dot_product_attention", "@", "pts.SelfAttention1d"),
    "running layers": ("pts.Cumulative", "pts.ExponentialMovingAverage1d", "pts.LinearRecurrence"),
}
BATCH = 10  # drawn from one seed; of more, hypothesis takes most from those that it drew before
# About half of what is drawn.
REMEMBERING = [*[recurrence] * 16, *[attention] * 16, *[running_module] * 16, *[dual_path] * 4]


def kinds(model: RandomGraph) -> Set[str]:
    """Which of the kinds a graph holds."""
    text = model.describe()
    return {kind for kind, marks in KINDS.items() if any(mark in text for mark in marks)}


def run(count: int, number: int, progress: bool = False) -> Dict[str, int]:
    """Try so many graphs or a few more; how many held what, and how many differed from their model, which are printed.

    Args:
        count: how many
        number: the seed of the first batch; each takes the next
        progress: whether to print how far it is
    """
    found = {"graphs": 0, **dict.fromkeys(KINDS, 0), "several kinds": 0, "different": 0}
    began = told = time.monotonic()
    seen: Set[str] = set()

    @settings(
        max_examples=BATCH,
        deadline=None,
        database=None,
        phases=(Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(model=graphs(8, [*STEPS, *REMEMBERING]).filter(kinds), data=st.data())
    def batch(model: RandomGraph, data: st.DataObject) -> None:
        nonlocal told
        text, held = model.describe(), kinds(model)
        different = False
        try:
            with torch.no_grad():
                check(model, data, script=data.draw(st.integers(0, 9), label="script") == 9)
        except HypothesisException:
            raise
        except Exception:
            different = True
            print(f"{text}\n{traceback.format_exc()}", flush=True)
        if text not in seen:
            for kind in ["graphs", *held, *["several kinds"] * (len(held) > 1), *["different"] * different]:
                found[kind] += 1
        seen.add(text)
        if progress and time.monotonic() - told > 30:
            told = time.monotonic()
            print(f"{told - began:.0f} s: {found}", flush=True)

    while found["graphs"] < count:
        seed(number)(batch)()
        number += 1
    return found


def main(arguments: Any) -> None:
    torch.set_num_threads(1)
    count, number = (int(each) for each in arguments)
    print(run(count, number, progress=True))


if __name__ == "__main__":
    main(sys.argv[1:])
