"""Random models, captured and cut at random: exact, their lengths foretold, forked in the middle, scripted."""

import copy
import os
import warnings
from typing import Any, List, Optional, Tuple

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from random_graphs import RandomGraph, graphs
from torch import Tensor

import torchstreamer as pts
from torchstreamer.testing import Chunking, split_signal
from torchstreamer.testing.strategies import chunkings

# Each example costs a capture.
EXAMPLES = {"ci": 12, "thorough": 1000}.get(os.environ.get("HYPOTHESIS_PROFILE", "dev"), 8)
TOLERANCE = 1e-9

# torch says so, which as an error would look like a signal that is too short.
pytestmark = pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")


def offline(model: RandomGraph, x: Tensor) -> Optional[Tensor]:
    """What the model gives on the whole; ``None`` where it raises or gives nothing."""
    try:
        y = model(x.clone())
    except Warning:
        raise
    except (RuntimeError, IndexError, ValueError):  # too short
        return None
    return y if y.numel() > 0 else None


def make_stream(model: RandomGraph) -> Any:
    example = model.signal(model.example_length, 2, seed=1)
    if model.length_multiple == 1:
        return pts.create_stream(model, example=example)
    return pts.create_stream(model, example=example, length_multiple=model.length_multiple)


def run(stream: Any, x: Tensor, chunking: Chunking, came: int = 0, given: int = 0) -> List[Tensor]:
    """Feed a signal of which ``came`` samples came before, up to its end."""
    pieces = []
    for chunk, final in split_signal(x, chunking):
        y = stream(chunk, final)
        came += 0 if chunk is None else chunk.shape[-1]
        if y is not None:
            assert y.shape[-1] > 0
            pieces.append(y)
            given += y.shape[-1]
        foretold = stream.output_length(came, final)
        assert given == foretold, f"{given} outputs for {came} inputs, final={final}; output_length said {foretold}"
    return pieces


def run_open(stream: Any, x: Tensor, chunking: Chunking) -> List[Tensor]:
    pieces = [stream(chunk) for chunk, _ in split_signal(x, chunking)]
    return [piece for piece in pieces if piece is not None]


def compare(pieces: List[Tensor], expected: Optional[Tensor], scale: float) -> None:
    if expected is None:
        assert not pieces, f"{sum(piece.shape[-1] for piece in pieces)} outputs where the model gives none"
        return
    y = torch.cat(pieces, -1)
    assert y.shape == expected.shape and y.dtype == expected.dtype, (y.shape, expected.shape)
    error = torch.where(y == expected, 0.0, (y - expected).abs())  # a maximum over padding alone is -inf, in both
    worst = int(error.amax((0, 1)).argmax())
    assert float(error.max()) <= TOLERANCE * scale, f"{float(error.max()):.3g} off at output {worst}; scale {scale:.3g}"


def lengths(model: RandomGraph) -> st.SearchStrategy[int]:
    """Short and long ones, some too short for the model."""
    least, multiple = model.shortest // model.length_multiple, model.length_multiple
    return st.one_of(st.integers(1, least + 40), st.integers(least, 2 * least + 300 // multiple)).map(
        lambda n: n * multiple
    )


def check(model: RandomGraph, data: st.DataObject, script: bool) -> None:
    try:
        pristine = make_stream(model)
    except pts.UnsupportedModuleError:
        assume(not model.odd)
        raise
    stream: Any = copy.deepcopy(pristine)
    if script:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`torch.jit")  # a FutureWarning from torch 2.15 on
            stream = torch.jit.script(stream)
    whole = model(model.signal(model.example_length + 40 * model.length_multiple))
    scale = float(whole[whole.isfinite()].abs().max()) or 1.0
    for label in ("first", "second"):
        n, rows = data.draw(lengths(model), label=f"{label} length"), data.draw(st.integers(1, 3), label="rows")
        x = model.signal(n, rows, seed=2)
        expected = offline(model, x)
        if n < model.shortest and expected is not None:
            continue  # a value inside is empty, or broadcast by chance
        kept = x.clone()
        assert stream.output_length(n, True) == (0 if expected is None else expected.shape[-1])
        compare(run(stream, x, data.draw(chunkings(n), label="chunking")), expected, scale)
        # The same stream again, forked in the middle: both go on, cut in different ways.
        fork = data.draw(st.integers(0, n), label="fork")
        before = run_open(stream, x[..., :fork], data.draw(chunkings(fork), label="before the fork"))
        given_before = sum(piece.shape[-1] for piece in before)
        other = copy.deepcopy(pristine)
        other.set_state(stream.get_state())
        for one in (other, stream):
            rest = run(one, x[..., fork:], data.draw(chunkings(n - fork), label="behind the fork"), fork, given_before)
            compare(before + rest, expected, scale)
        assert torch.equal(x, kept)


@settings(max_examples=EXAMPLES)
@given(model=graphs(), data=st.data())
def test_graphs(model: RandomGraph, data: st.DataObject) -> None:
    with torch.no_grad():
        check(model, data, script=data.draw(st.integers(0, 9), label="script") == 9)


@settings(max_examples=EXAMPLES)
@given(model=graphs())
def test_models_of_the_generator(model: RandomGraph) -> None:
    step = model.length_multiple
    first: List[Tuple[int, int]] = []
    for n in range(model.shortest, model.shortest + model.hop, step):
        with torch.no_grad():
            y, later = model(model.signal(n, 2)), model(model.signal(n + model.hop, 2))
        assert y.dtype == torch.float64 and y.dim() == 3 and not y.isnan().any()
        first.append((later.shape[-1] - y.shape[-1], y.shape[1]))
    assert len(set(first)) == 1
    assert model.without_dead_lines().lines == model.lines
