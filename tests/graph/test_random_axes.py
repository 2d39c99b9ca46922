"""Random models with complex values, memory, positions, patches and three axes, cut at random."""

import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_graphs import RandomGraph, graphs
from random_steps import STEPS
from steps_axes import AXES, LAYOUTS, MARKS
from test_random_graphs import check

KINDS = {"layouts": LAYOUTS, "axes": AXES}
EXAMPLES = {"dev": 3, "ci": 5, "thorough": 200}[os.environ.get("HYPOTHESIS_PROFILE", "dev")]


@pytest.mark.parametrize("kind", KINDS)
def test_graphs_of_a_kind(kind: str) -> None:
    def marked(model: RandomGraph) -> bool:
        text = "\n".join([*model.lines, *model.sources.values()])
        return any(mark in text for mark in MARKS[kind])

    steps = [*STEPS, *KINDS[kind] * 20]

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
    @given(model=graphs(6, steps).filter(marked), data=st.data())
    def run(model: RandomGraph, data: st.DataObject) -> None:
        with torch.no_grad():
            check(model, data, script=data.draw(st.integers(0, 9), label="script") == 9)

    run()
