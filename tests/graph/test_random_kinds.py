"""Random models of which each holds an operation of one kind."""

import os
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import graphs
from random_steps import KINDS
from test_random_graphs import check

pytestmark = pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")

# Each example costs a capture.
EXAMPLES = {"dev": 2, "ci": 2, "few": 1, "thorough": 200}[os.environ.get("HYPOTHESIS_PROFILE", "dev")]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_graphs(kind: str, data: Any) -> None:
    model = data.draw(graphs(max_steps=6, kind=KINDS[kind]))
    with torch.no_grad():
        check(model, data, script=data.draw(st.integers(0, 9), label="script") == 9)
