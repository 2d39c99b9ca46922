"""The state of attention with a context, and all that a stream is asked for: static rows, compiled steps, files."""

import copy
import sys
from pathlib import Path
from typing import Any, Dict

import pytest
import torch
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.analysis import receptive_field, trace_error
from torchstreamer.testing import verify_stream
from torchstreamer.testing.live_rows import LiveRows

sys.path.insert(0, str(Path(__file__).parents[1] / "deploy"))

from attention_nets import biases, check, layer, mha, pieces
from runner_calls import GRAPH, PACKAGE, SCRIPT

# ---------------------------------------------------------------------- the state


def test_the_state_does_not_grow():
    for context in (pts.Context(5, 3), pts.Context(8, 0, 4), pts.Context(6, 3, 4)):
        stream = pts.create_stream(pts.SelfAttention1d(mha(torch.float32), context))
        x = torch.randn(1, 8, 4)
        sizes = []
        with torch.no_grad():
            for count in (10, 500):
                for _ in range(count):
                    stream(x)
                state = stream.get_state()
                sizes.append({name: (value.shape, value.dtype) for name, value in state.items()})
        assert sizes[0] == sizes[1]


def test_rows_of_any_age_share_a_batch():
    net = pts.SelfAttention1d(mha(), pts.Context(9), rope=pts.Rotary(4))
    x = torch.randn(5, 8, 60, dtype=torch.float64)
    ages = [1, 2, 7, 23, 40]
    with torch.no_grad():
        states = []
        for row, age in zip(x, ages, strict=True):
            stream = pts.create_stream(net)
            stream(row[None, :, :age])
            states.append(stream.get_state())
        together = pts.create_stream(net)
        together.set_state(pts.stack_states(states))
        moved = torch.stack([row[:, age : age + 20] for row, age in zip(x, ages, strict=True)])
        y = torch.cat([together(chunk) for chunk in moved.split(3, -1)], -1)
        for row, age, out in zip(x, ages, y, strict=True):
            torch.testing.assert_close(out, net(row[None])[0, :, age : age + 20])


@pytest.mark.parametrize("at", [100_000, 1_000_000])
def test_clocks_may_be_far_on(at):
    net = pts.SelfAttention1d(mha(), pts.Context(8), rope=pts.Rotary(4, dtype=torch.float64))
    stream, x = pts.create_stream(net), torch.randn(1, 8, 72, dtype=torch.float64)
    with torch.no_grad():
        body = net.body()
        position = torch.arange(at - 8, at + 64).unsqueeze(0)
        q, kv = body.project(x.transpose(1, 2), position)
        mask = pts.band_mask(72, 8)[None]
        expected = body.answer(x.transpose(1, 2), q, kv, position, position, mask)[:, 8:].transpose(1, 2)
        stream(x[..., :8])
        state = stream.get_state()
        clock = next(name for name in state if name.endswith("samples"))
        assert state[clock].tolist() == [8]
        late = pts.create_stream(net)
        late(torch.zeros(1, 8, 100, dtype=torch.float64))
        # The same keys, turned by positions that are so far on.
        state = late.get_state()
        state[clock] = torch.tensor([at - 8])
        late.set_state(_resealed(late, state))
        late(x[..., :8])
        y = torch.cat([late(chunk) for chunk in x[..., 8:].split(5, -1)], -1)
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)


def _resealed(stream: Any, state: Dict[str, Tensor]) -> Dict[str, Tensor]:
    from torchstreamer.core.state import seal_of

    kept = {name: value for name, value in state.items() if name != "@seal"}
    return {**kept, "@seal": torch.tensor(seal_of(kept))}


def test_what_is_not_finite_reaches_those_that_see_it_alone():
    for context in (pts.Context(3, 2), pts.Context(4, 0, 4), pts.Context(2, 3, 4)):
        net = pts.TransformerEncoderLayer1d(layer(), context)
        x = torch.randn(2, 8, 40, dtype=torch.float64)
        x[0, :, 17] = float("nan")
        with torch.no_grad():
            expected = net(x)
            assert torch.equal(expected[0].isnan().any(0), context.mask(40)[:, 17]) and not expected[1].isnan().any()
            for sizes in ([1], [7], [40]):
                y = torch.cat(pieces(pts.create_stream(net), x, sizes), -1)
                torch.testing.assert_close(y, expected, equal_nan=True)


def test_gradients_reach_through_chunks():
    net = pts.TransformerEncoderLayer1d(layer(), pts.Context(4, 2))
    x = torch.randn(1, 8, 30, dtype=torch.float64)
    net(x).square().sum().backward()
    expected = {name: parameter.grad.clone() for name, parameter in net.named_parameters()}
    net.zero_grad()
    torch.cat(pieces(pts.create_stream(net), x, [3, 7]), -1).square().sum().backward()
    for name, parameter in net.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name])


def test_streams_see_changes_of_weights():
    net = pts.TransformerEncoderLayer1d(copy.deepcopy(layer()), pts.Context(4))
    stream = pts.create_stream(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(1.5)
        x = torch.randn(1, 8, 30, dtype=torch.float64)
        torch.testing.assert_close(torch.cat(pieces(stream, x, [3, 7]), -1), net(x))


def limited() -> Dict[str, Any]:
    bounded = pts.SelfAttention1d(mha(), pts.Context(None, max_length=20))
    conv = nn.Conv1d(8, 8, 4, stride=2, padding=1).double()
    return {
        "alone": (bounded, 20),
        "short memory": (pts.SelfAttention1d(mha(), pts.Context(3, max_length=20)), 20),
        "after a stride": (nn.Sequential(conv, nn.Sequential(bounded)), 41),
        "residual": (pts.Residual1d(bounded), 20),
        "branches": (pts.Parallel1d(bounded, nn.ReLU()), 20),
    }


@pytest.mark.parametrize("chunk", [1, 3])
@pytest.mark.parametrize("kind", ["attention", "encoder", "grouped"])
def test_the_steady_step_of_one_row(kind, chunk):
    # It keeps views of memory and of a weight, over which weights, modes, memory and the stream itself may change.
    torch.manual_seed(0)
    if kind == "encoder":
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        net = pts.TransformerEncoderLayer1d(layer, pts.Context(20))
    else:
        grouped = kind == "grouped"
        attention = pts.GroupedQueryAttention(8, 4, 2) if grouped else nn.MultiheadAttention(8, 2, bias=False)
        net = pts.SelfAttention1d(attention, pts.Context(20))
    net = net.double().eval()
    plain, stream = copy.deepcopy(net), pts.create_stream(net)
    x = torch.randn(1, 8, 40 * chunk, dtype=torch.float64)
    mode, ys = torch.no_grad, []
    for i, piece in enumerate(x.split(chunk, -1)):
        if i == 20:
            weight = next(iter(net.parameters()))
            weight.data = weight.data.clone()  # where it lies changes, and nothing else
        if i == 24:
            stream = copy.deepcopy(stream)
        mode = torch.inference_mode if 28 <= i < 34 else torch.no_grad
        with mode():
            ys.append(stream(piece))
    assert len(stream.lane.views) > 1 or (kind == "grouped" and chunk > 1)
    assert not copy.deepcopy(stream).lane.views
    torch.testing.assert_close(torch.cat(ys, -1), plain(x), rtol=0, atol=1e-10)
    x[..., 15 * chunk + 1] = float("nan")
    with torch.no_grad():
        y = torch.cat(pieces(pts.create_stream(net), x, [chunk]), -1)
        torch.testing.assert_close(y, net(x), rtol=0, atol=1e-10, equal_nan=True)
    # New values elsewhere in memory are seen at once: they do not reach the keys that are held, so compare two streams.
    twin = copy.deepcopy(stream)
    for weight, other in zip(stream.body.parameters(), twin.body.parameters(), strict=True):
        weight.data = other.data.mul_(2).clone()
    twin.lane = None
    with torch.no_grad():
        for piece in torch.randn(1, 8, 4 * chunk, dtype=torch.float64).split(chunk, -1):
            torch.testing.assert_close(stream(piece), twin(piece), rtol=0, atol=1e-10)


@pytest.mark.parametrize("scripted", [False, True])
@pytest.mark.parametrize("name", list(limited()))
def test_signals_that_are_too_long(name, scripted):
    net, longest = limited()[name]
    stream, x = pts.create_stream(net), torch.randn(1, 8, longest, dtype=torch.float64)
    stream = torch.jit.script(stream) if scripted else stream
    more = torch.randn(1, 8, 2, dtype=torch.float64)
    refusal = pytest.raises(torch.jit.Error if scripted else pts.StreamInputError, match="signal_too_long")
    with torch.no_grad():
        with refusal:
            stream(torch.randn(3, 8, longest + 1, dtype=torch.float64))
        given = [stream(x[..., :5]), stream(x[..., 5:])]
        with refusal:
            stream(more)
        given.append(stream.flush())
        torch.testing.assert_close(torch.cat([y for y in given if y is not None], -1), net(x))
        stream(more)  # another signal


def test_static_rows_that_are_too_long():
    net, longest = limited()["alone"]
    static = pts.StaticStream(pts.create_stream(net), chunk=8)
    x, n, yes, no = (
        torch.randn(1, 8, 8, dtype=torch.float64),
        torch.tensor([8]),
        torch.tensor([True]),
        torch.tensor([False]),
    )
    static(x, n, yes, no)
    static(x, n, no, no)
    with pytest.raises(pts.StreamInputError, match="signal_too_long"):
        static(x, n, no, yes)
    assert static(x, torch.tensor([4]), no, yes)[0][..., :4].isfinite().all()


def test_chunks_inside_a_residual():
    check(pts.Residual1d(pts.SelfAttention1d(mha(), pts.Context(6, 0, 3))), lengths=(1, 40))


# ---------------------------------------------------------------------- the whole contract

NETS = {
    "attention": lambda: pts.SelfAttention1d(mha(), pts.Context(5, 2)),
    "chunks": lambda: pts.SelfAttention1d(mha(), pts.Context(6, 0, 3)),
    "layer": lambda: pts.TransformerEncoderLayer1d(layer(norm_first=True), pts.Context(5, 4, 3)),
    "rotary": lambda: pts.SelfAttention1d(mha(), pts.Context(6, 1), rope=pts.Rotary(4)),
    "sinks": lambda: pts.SelfAttention1d(mha(add_bias_kv=True), pts.Context(3, 1), sinks=2),
    "sinks, Transformer-XL": lambda: pts.SelfAttention1d(mha(), pts.Context(3, 1), sinks=2, bias=biases()["xl"]),
    "sinks, Shaw": lambda: pts.SelfAttention1d(
        mha(), pts.Context(4, 0, 2), sinks=2, bias=pts.ShawBias(4, 3, values=True)
    ),
    "alibi": lambda: pts.SelfAttention1d(mha(), pts.Context(4, 0, 2), bias=pts.AlibiBias(2)),
    "xl": lambda: pts.SelfAttention1d(mha(), pts.Context(4, 1), bias=biases()["xl"]),
    "encoder": lambda: pts.TransformerEncoder1d(
        nn.TransformerEncoder(layer(), 2, nn.LayerNorm(8), enable_nested_tensor=False), pts.Context(4, 0, 2)
    ),
    "branches": lambda: nn.Sequential(
        nn.Conv1d(8, 8, 4, stride=2, padding=1),
        pts.Residual1d(nn.Sequential(pts.SelfAttention1d(mha(), pts.Context(4, 3)), nn.Conv1d(8, 8, 3, padding=1))),
        pts.SelfAttention1d(mha(), pts.Context(6, 0, 3)),
    ),
}


@pytest.mark.sample(rest=9)
@pytest.mark.parametrize("name", list(NETS))
def test_the_whole_contract(name):
    verify_stream(NETS[name]().double().eval(), (2, 8, 40), static=True)


# ---------------------------------------------------------------------- static rows, compiled steps, analysis


@pytest.mark.parametrize("name", list(NETS))
def test_static_rows_of_any_age(name):
    net = NETS[name]().double().eval()
    stream = pts.create_stream(net)
    LiveRows(stream, net, stream.hop, (5, 3), seed=1).run(60).compare(10)
    LiveRows(stream, net, 2 * stream.hop, (64,), seed=2).run(30).compare(64)


@pytest.mark.parametrize("name", ["attention", "chunks", "rotary", "sinks", "encoder"])
def test_compiled_steps(name):
    net = NETS[name]().double().eval()
    stream = pts.create_stream(net)
    compiled = pts.compile(stream, chunk=2 * stream.hop, batch=2, backend="eager")
    x = torch.randn(2, 8, 90, dtype=torch.float64)
    with torch.no_grad():
        expected = net(x)
        for sizes in ([2 * stream.hop], [1, 2 * stream.hop]):
            torch.testing.assert_close(torch.cat(pieces(compiled, x, sizes), -1), expected)
        # A row that has just begun, beside an old one: they share shapes, and the step must not take it for an old one.
        states = []
        for row, n in ((0, 60), (1, 6)):
            compiled.reset()
            compiled(x[row : row + 1, :, :n])
            states.append(compiled.get_state())
        compiled.set_state(pts.stack_states(states))
        begin = [stream.output_length(n, False) for n in (60, 6)]
        for k in range(3):
            new = torch.stack([x[0, :, 60 + 6 * k : 66 + 6 * k], x[1, :, 6 + 6 * k : 12 + 6 * k]])
            y = torch.cat([compiled(chunk) for chunk in new.split(2 * stream.hop, -1)], -1)
            for row, at in enumerate(begin):
                torch.testing.assert_close(y[row], expected[row, :, at + 6 * k : at + 6 * k + y.size(-1)])


def test_fields_are_those_of_the_context():
    field = receptive_field(pts.SelfAttention1d(mha(), pts.Context(5, 2)))
    assert (field.left, field.right) == (5, 2)
    field = receptive_field(pts.SelfAttention1d(mha(), pts.Context(6, 1, 3)))
    assert field.phases == ((6, 3), (7, 2), (8, 1))
    encoder = nn.TransformerEncoder(layer(), 3, enable_nested_tensor=False).eval()
    assert receptive_field(pts.TransformerEncoder1d(encoder, pts.Context(4, 1))).right == 3
    assert receptive_field(pts.TransformerEncoder1d(encoder, pts.Context(4, 0, 2))).right == 1


def test_errors_are_traced_layer_by_layer():
    net = NETS["encoder"]().double().eval()
    stream, x = pts.create_stream(net), torch.randn(1, 8, 30, dtype=torch.float64)
    assert trace_error(net, stream, x, chunk=7).equal
    stream.streams[1] = pts.create_stream(pts.TransformerEncoderLayer1d(net[1].layer, pts.Context(6, 0, 2)))
    assert trace_error(net, stream, x, chunk=7).layer == "1"


@pytest.mark.sample(rest=9)
@pytest.mark.parametrize("suffix", [SCRIPT, PACKAGE, GRAPH])
@pytest.mark.parametrize("name", ["encoder", "rotary", "sinks"])
def test_files(name, suffix, tmp_path):
    net = NETS[name]().float().eval()
    stream, x, path = pts.create_stream(net), torch.randn(1, 8, 70), tmp_path / f"net{suffix}"
    pts.export(stream, path, **({} if suffix == ".pt" else {"chunk": 4 * stream.hop}))
    with torch.no_grad():
        runner = pts.load(path)
        y = [runner(chunk) for chunk in x.split(9, -1)] + [runner.flush()]
        torch.testing.assert_close(torch.cat([each for each in y if each is not None], -1), net(x))
