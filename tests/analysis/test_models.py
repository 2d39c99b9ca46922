"""Every architecture of tests/models: what geometry says is what experiments show."""

import math
import os
import sys
from pathlib import Path

import pytest

import torchstreamer as pts
from torchstreamer.analysis import latency, receptive_field, summary, trace_error

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
sys.path.insert(0, str(Path(__file__).parents[1] / "graph"))

from smallest import SMALLEST
from zoo import ZOO

THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
# The smallest of each architecture; capturing the others takes minutes.
ENTRIES = SMALLEST + [entry for entry in ZOO if not entry.refused and THOROUGH]
REFUSED = [entry for entry in ZOO if entry.refused]

pytestmark = pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated:FutureWarning")


def times_of(entry):
    return entry.time_dim if isinstance(entry.time_dim, tuple) else (entry.time_dim,)


@pytest.fixture(scope="module", params=ENTRIES, ids=lambda entry: f"{entry.name}-{entry.inputs()[0].shape[-1]}")
def subject(request):
    entry = request.param
    model = entry.make().double()
    examples = tuple(x.double() for x in entry.inputs())
    example = examples if len(examples) > 1 else examples[0]
    stream = pts.create_stream(model, example, entry.time_dim, entry.length_multiple)
    return entry, model, examples, stream


@pytest.mark.sample(every=5, rest=2)
def test_symbolic_and_measured_fields_are_equal(subject):
    entry, model, examples, stream = subject
    for input in range(sum(time is not None for time in times_of(entry))):
        symbolic = receptive_field(stream, input=input)
        measured = receptive_field(
            model,
            examples,
            time_dim=times_of(entry),
            output_time_dim=entry.output_time_dim,
            length_multiple=entry.length_multiple,
            method="measured",
            input=input,
            # The recurrence of the cumulative norm is unbounded, which costs as many probes as there are samples.
            longest=512 if math.isinf(symbolic.left) else None,
        )
        assert measured.period == symbolic.period
        assert measured.phases == symbolic.phases
        # Linear interpolation multiplies a sample by 0, which nan tells from leaving it out.
        assert measured.certain or "wave_unet" in entry.name


def test_latency_is_that_of_running_the_stream(subject):
    entry, _, examples, stream = subject
    said = latency(stream, 7)
    if len(examples) > 1:
        return  # below
    x = examples[0]
    time = times_of(entry)[0] % x.dim()
    n = 6 * (said.first_output + stream.hop)
    signal = x.repeat_interleave(-(-n // x.shape[time]), time).narrow(time, 0, n)
    assert latency(stream, 7, x=signal) == said


def test_latency_is_the_right_side_of_the_field(subject):
    entry, _, _, stream = subject
    delay, field = latency(stream), receptive_field(stream)
    waits = [right for _, right in field.phases]
    pairs = [(wait, waits[i % len(waits)]) for i, wait in enumerate(delay.delays)]
    if sum(time is not None for time in times_of(entry)) > 1:
        assert all(wait >= right for wait, right in pairs)  # it also waits for the other inputs
    elif entry.name.startswith("wave_unet") and entry.name != "wave_unet_same":
        # What it crops on the right is crops of crops: these know of their own part only, and hold a hop back.
        assert all(right <= wait <= right + stream.hop for wait, right in pairs)
    else:
        assert all(wait == right for wait, right in pairs)


def test_summaries_add_up(subject):
    entry, _, _, stream = subject
    found = summary(stream, 4 * stream.hop, 16000, calls=2)
    assert sum(layer.state_nbytes for layer in found.layers) == found.state_nbytes
    assert math.isclose(sum(layer.share for layer in found.layers), 1.0)
    assert found.layers[0].rate_in in (16000, *(16000 * p / q for p, q in rates(stream)))
    assert len(str(found).splitlines()) == len(found.layers) + 5


def rates(stream):
    return [(port.p, port.q) for port in getattr(stream, "ports", []) if not port.static]


def test_no_trace_of_an_error(subject):
    entry, model, examples, stream = subject
    found = trace_error(model, stream, examples, chunk=entry.length_multiple)
    assert found, str(found)


@pytest.mark.parametrize("entry", REFUSED, ids=lambda entry: entry.name)
def test_those_that_are_refused_see_everything(entry):
    model = entry.make().double()
    field = receptive_field(model, entry.inputs()[0].double(), length_multiple=entry.length_multiple, longest=160)
    assert field.left == field.right == math.inf
