"""All blocks of tests/models with recurrences or attention under the whole contract, for long and far on.

Two of the tests run by default, of one block; the others take minutes.
"""

import contextlib
import copy
import functools
import math
import sys
import threading
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest
import torch
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.analysis import infer_dependency_matrix, latency, receptive_field, trace_error
from torchstreamer.analysis.symbolic import needed_inputs
from torchstreamer.core.state import seal_of
from torchstreamer.layers.attention_memory import AttentionMemory
from torchstreamer.testing import verify_stream
from torchstreamer.testing.live_rows import LiveRows, Signal
from torchstreamer.testing.making import capturing

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

import moshi_transformer
import realtime_encoders
from blocks import BLOCKS, EDGES, Block, WeNet, offline
from moshi_transformer import MoshiTransformer
from streaming_conformers import FastConformer
from zipformer import Zipformer

BY_NAME = {block.name: block for block in [*BLOCKS, *EDGES]}
every = pytest.mark.parametrize("name", [block.name for block in BLOCKS])
every_edge = pytest.mark.parametrize("name", list(BY_NAME))


@functools.cache
def made(name: str, dtype: torch.dtype = torch.float64) -> Tuple[Block, nn.Module, pts.BaseStream]:
    """A block, its model, and a new stream, which is captured once."""
    block = FAR_BLOCKS[name]
    net = block.module(dtype)
    return block, net, block.stream(net)


def joined(stream: Any, chunks: Any) -> Tensor:
    with torch.no_grad():
        pieces = [stream(chunk) for chunk in chunks] + [stream.flush()]
    return torch.cat([piece for piece in pieces if piece is not None], -1)


def whole(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return offline(net)(x)


def difference(y: Tensor, expected: Tensor) -> float:
    assert y.shape == expected.shape and y.dtype == expected.dtype
    return float((y.double() - expected.double()).abs().max() / expected.double().abs().max())


def held(stream: pts.BaseStream, outputs: int = 1) -> int:
    """Samples that a stream of a bounded field sees, or some where it is not bounded."""
    field = receptive_field(stream)
    return 3 * stream.hop * 10 if math.isinf(field.left) else int(field.left + field.right) + 1


# ---------------------------------------------------------------------- any chunking


@pytest.mark.sample(rest=99)
@every_edge
def test_windows_past_the_wrap(name: str) -> None:
    for dtype, limit in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        block, net, stream = made(name, dtype)
        seen = held(stream)
        for n in (10 * seen + 7, 12 * seen + 11):
            length = n // block.multiple * block.multiple
            x = block.signal(length, 2, dtype)
            y = whole(net, x)
            for size in (1, 2, 3, 5, 7, 11, 13, 29, seen // 2 + 1, seen, seen + 1, 2 * seen + 3, length):
                if size == 1 and length > 3000:
                    continue
                assert difference(joined(stream, x.split(size, -1)), y) < limit, (dtype, n, size)


@pytest.mark.sample(rest=99)
@every_edge
def test_every_rule(name: str) -> None:
    block = BY_NAME[name]
    net = block.module()
    verify_stream(
        net,
        block.shape,
        reference=None if block.context is None else offline(net),
        graph=block.captured,
        context=block.context,
        length_multiple=block.multiple,
        static=True,
        tolerances={torch.float32: 1e-4},
    )


# ---------------------------------------------------------------------- far on


class _Later:
    """``torch`` for a file of models: an ``arange`` as long as the signal begins late."""

    def __init__(self, frames: int, begin: int) -> None:
        self.frames, self.begin, self.real = frames, begin, torch

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)

    def arange(self, *given: Any, **options: Any) -> Tensor:
        y = self.real.arange(*given, **options)
        return y + self.begin if given == (self.frames,) else y


@contextlib.contextmanager
def later(name: str, net: nn.Module, frames: int, begin: int) -> Iterator[None]:
    """Let a model take its own operations on positions from ``begin`` on."""
    place, attribute, value = FAR[name](net, frames, begin)
    real = getattr(place, attribute)
    setattr(place, attribute, value)
    try:
        yield
    finally:
        setattr(place, attribute, real)


def positions_of(module: Any) -> Any:
    return lambda net, frames, begin: (module, "torch", _Later(frames, begin))


def rows_of_a_table(net: nn.Module, frames: int, begin: int) -> Any:
    embed = net.net.embed
    return embed, "pe", embed.pe[:, begin:]


def none(net: nn.Module, frames: int, begin: int) -> Any:
    """Distances, and places in chunks of which ``begin`` is a multiple, are the same everywhere."""
    return net, "training", False


def put_on(stream: pts.BaseStream, clocks: int) -> None:
    """Set the clocks of positions of a stream."""
    state = stream.get_state()
    down = stream.ratio[1] // stream.ratio[0]
    for name, value in state.items():
        if name.endswith("memory.next"):
            value.fill_(clocks)
        if name == "came.samples":  # of the signal, for a table that ends
            value.fill_(clocks * down)
    state["@seal"] = torch.tensor(seal_of({name: value for name, value in state.items() if name != "@seal"}))
    stream.set_state(state)


class Absolute(nn.Module):
    """Positions that are added to the signal, so that no later one gives the same outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = MoshiTransformer(num_layers=1)

    def forward(self, x: Tensor) -> Tensor:
        i = torch.arange(x.shape[-1], device=x.device)
        waves = torch.sin(i.to(x.dtype) * 0.7 ** torch.arange(8, dtype=x.dtype)[:, None])
        return self.inner(x + waves) + (i % 5).to(x.dtype)


FAR_OFF = 1_001_000  # frames, in tables
FAR_BLOCKS = {
    **BY_NAME,
    "absolute": Block("absolute", Absolute, (2, 8, 40)),
    "fastconformer_far": Block("", lambda: FastConformer(longest=FAR_OFF), (2, 5, 120)),
    "zipformer_far": Block("", lambda: Zipformer(longest=FAR_OFF), (2, 8, 40)),
    "wenet_far": Block("", lambda: WeNet(FAR_OFF), (2, 8, 40), context=pts.Context.chunks(4, 2)),
}
FAR = {
    "moshi": positions_of(moshi_transformer),
    "voxtral": positions_of(realtime_encoders),
    "absolute": positions_of(sys.modules[__name__]),
    "speechbrain": none,
    "fastconformer_far": none,
    "zipformer_far": none,
    "wenet_far": rows_of_a_table,
}


@pytest.mark.sample("moshi-100000-dtype0", rest=99)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("at", [100_000, 1_000_000])
@pytest.mark.parametrize("name", list(FAR))
def test_clocks_far_on(name: str, at: int, dtype: torch.dtype) -> None:
    block, net, stream = made(name, dtype)
    rate = stream.ratio[1] // stream.ratio[0]
    grid = max(stream.hop // rate, 1)
    before = held(stream) // rate + 1  # what the outputs of interest see
    begin = (at - 7 - 2 * before) // grid * grid
    frames = at + 64 - begin
    x = block.signal(frames * rate, 2, dtype)
    with later(name, net, frames, begin):
        expected = whole(net, x)[..., 2 * before :]
    if name in ("absolute", "wenet_far"):  # elsewhere distances alone count, up to rounding
        assert difference(whole(net, x)[..., 2 * before :], expected) > 1e-4
    for size in (1, 3, 64):
        stream.reset()
        with torch.no_grad():
            stream(block.signal(40 * rate, 2, dtype, seed=1))
            put_on(stream, begin)
        y = joined(stream, x.split(size * rate, -1))
        assert difference(y[..., 2 * before :], expected) < (1e-10 if dtype == torch.float64 else 1e-5)


# ---------------------------------------------------------------------- rows of any age


class _Neighbours(LiveRows):
    """Of signals with ``nan`` the lengths alone are compared: many models spread it over the whole signal."""

    def _hold(self, signal: Signal, expected: Any, scale: float) -> None:
        if bool(signal.x.isfinite().all()):
            super()._hold(signal, expected, scale)


@pytest.mark.sample(rest=99)
@every
def test_rows_of_random_age(name: str) -> None:
    block, net, stream = made(name)
    stream.reset()
    chunk = stream.hop if stream.hop > 1 else 3
    longest = max(6 * chunk + 40, min(3 * held(stream), 60 * chunk))
    rows = _Neighbours(
        stream, offline(net), chunk, (64,), multiple=block.multiple, lengths=[1, chunk - 1, longest], longest=longest
    )
    rows.run(2000)
    poisoned = sum(not bool(signal.x.isfinite().all()) for signal in rows.finished)
    print(f"{name}: {rows.compare(500)} signals, {poisoned} of them with nan")
    assert poisoned > 10


# ---------------------------------------------------------------------- memory


def _sizes(stream: pts.BaseStream) -> Dict[str, Any]:
    return {name: (value.shape, value.dtype, value.nbytes) for name, value in stream.get_state().items()}


@pytest.mark.sample(rest=99)
@every
def test_the_state_after_many_chunks(name: str) -> None:
    block, _, stream = made(name, torch.float32)
    stream.reset()
    x = block.signal(stream.hop, dtype=torch.float32)
    found: List[Any] = []
    with torch.no_grad():
        for count in (10, 9_990):
            for _ in range(count):
                stream(x)
            found.append((_sizes(stream), stream.state_nbytes()))
    assert found[0] == found[1]


# ---------------------------------------------------------------------- half precision


@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight:UserWarning")
@pytest.mark.sample(rest=99)
@pytest.mark.parametrize("kind", ["bfloat16", "float16", "autocast"])
@every
def test_half_precision(name: str, kind: str) -> None:
    if (name, kind) == ("zipformer", "float16"):
        pytest.skip("its large negative number is none of float16")
    dtype = torch.float32 if kind == "autocast" else getattr(torch, kind)
    block, net, stream = made(name, dtype)
    stream.reset()
    x = block.signal(3 * block.shape[2], 2, dtype)
    mode = torch.autocast("cpu", torch.bfloat16) if kind == "autocast" else contextlib.nullcontext()
    with mode:
        y = whole(net, x)
        for size in (1, 7, x.shape[2]):
            error = difference(joined(stream, x.split(size, -1)), y)
            assert error < 2e-2, (size, error)


# ---------------------------------------------------------------------- threads


@pytest.mark.sample(rest=99)
@every
def test_a_stream_a_thread(name: str) -> None:
    block, net, stream = made(name)
    stream.reset()
    make = capturing(lambda: stream, net)
    streams = [make() for _ in range(16)]
    weights = {weight.data_ptr() for weight in net.parameters()}
    assert all({weight.data_ptr() for weight in each.parameters()} <= weights for each in streams)
    x = [block.signal((block.shape[2] + i) // block.multiple * block.multiple, seed=i) for i in range(16)]
    y = [whole(net, each) for each in x]
    errors: Dict[int, float] = {}
    ready = threading.Barrier(16)

    def work(i: int) -> None:
        ready.wait()
        errors[i] = difference(joined(streams[i], x[i].split(3 + i % 4, -1)), y[i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(errors) == 16 and max(errors.values()) < 1e-10


@pytest.mark.sample(rest=99)
@every
def test_two_threads_on_one_stream(name: str) -> None:
    block, net, stream = made(name)
    stream.reset()
    length = 20 * block.shape[2] // block.multiple * block.multiple
    x = block.signal(length)
    refused: List[str] = []
    done = threading.Event()

    def disturb() -> None:
        while not done.is_set():
            try:
                stream.get_state()
            except pts.StreamStateError as error:
                refused.append(str(error))

    thread = threading.Thread(target=disturb)
    thread.start()
    pieces: List[Tensor] = []
    try:
        with torch.no_grad():
            for chunk in [*x.split(7, -1), None]:
                while True:
                    try:
                        y = stream(chunk, chunk is None)
                        break
                    except pts.StreamStateError as error:  # the other thread has it
                        assert "in_use" in str(error)
                pieces += [] if y is None else [y]
    finally:
        done.set()
        thread.join()
    assert all("in_use" in each for each in refused)
    assert difference(torch.cat(pieces, -1), whole(net, x)) < 1e-10


# ---------------------------------------------------------------------- analysis


@pytest.mark.sample(rest=99)
@every
def test_analysis(name: str) -> None:
    block, net, stream = made(name)
    stream.reset()
    n = block.shape[2]
    field, delay = receptive_field(stream), latency(stream)
    assert trace_error(net, stream, block.signal(n), chunk=7) if block.context is None else True
    # Look-ahead is composed over layers: what the field says is what the stream waits for.
    waits = [right for _, right in field.phases]
    for i, wait in enumerate(delay.delays):
        assert waits[i % len(waits)] <= wait
    outs = stream.output_length(n, True)
    found = needed_inputs(stream, torch.arange(outs), n)
    lower = infer_dependency_matrix(
        offline(net), (1, block.shape[1], n), time_dim=2, method="perturb", dtype=torch.float64
    )
    assert bool((found >= lower).all())
    assert float(lower.sum()) > 0.5 * float(found.sum()) or math.isinf(field.left)
    for t in range(outs):
        assert stream.output_length(n, False) <= t or not bool(found[t, n:].any())


def _forgetful(memory: AttentionMemory) -> AttentionMemory:
    class Forgetful(AttentionMemory):
        """Knows no key of earlier chunks."""

        def take(self, q: Any, k: Any, final: bool) -> Any:
            for part in self.children():
                part._clear()
            found = super().take(q, k, final)
            self.steady = -1  # so that the next chunk comes here, too
            return found

    memory.__class__ = Forgetful
    return memory


@pytest.mark.sample("moshi", rest=99)
@pytest.mark.parametrize(
    "name", ["moshi", "moonshine", "voxtral", "speechbrain", "fastconformer", "fastconformer_regular", "zipformer"]
)
def test_an_error_is_traced_to_its_attention(name: str) -> None:
    block, net, stream = made(name)
    stream.reset()
    x = block.signal(block.shape[2])
    places = [i for i, node in enumerate(stream.nodes) if isinstance(getattr(node, "memory", None), AttentionMemory)]
    assert places
    for i in places:
        twin = copy.deepcopy(stream)
        _forgetful(twin.nodes[i].memory)
        found = trace_error(net, twin, x, chunk=2 * stream.hop)
        assert not found.equal and found.layer == stream.node_names[i], str(found)
        assert found.handler == "RelationNode" and "itself on its whole input" in str(found)
