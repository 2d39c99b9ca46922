"""The rules of the contract that belong to every stream, on handlers of users too."""

from typing import Optional

import pytest
import torch
from torch import Tensor, nn

import torchstreamer as pts

BAD = [
    torch.randn(2, 3),
    torch.randn(3),
    torch.tensor(0.0),
    torch.randn(1, 1, 2, 3),
    torch.randn(1, 3, 5),
    torch.randn(2, 5).double(),
]


class Lag(nn.Module):
    """x[t] + x[t - 2], valid."""

    def forward(self, x):
        return x[..., 2:] + x[..., :-2]


class LagStream(pts.BaseStream):
    def __init__(self, net: Lag):
        super().__init__()
        self.ring = pts.RingBuffer()

    def forward(self, x: Optional[Tensor], final: bool = False) -> Optional[Tensor]:
        if x is None:
            return None
        window = self.ring.append(x)
        n = window.shape[-1] - 2
        if n <= 0:
            return None
        self.ring.drop(n)
        return window[..., 2:] + window[..., :n]

    @torch.jit.export
    def output_length(self, n: int, final: bool = True) -> int:
        return max(n - 2, 0)


@pytest.fixture
def lag(monkeypatch):
    from torchstreamer.core import registry

    monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    pts.register_streamer(Lag, LagStream)
    return Lag()


@pytest.mark.parametrize("bad", BAD, ids=lambda x: f"{tuple(x.shape)}-{x.dtype}")
@pytest.mark.parametrize("script", [False, True])
def test_a_bad_chunk_changes_nothing(bad, script):
    net = nn.Sequential(nn.MaxPool1d(2, 1), nn.Conv1d(1, 2, 3))
    x = torch.randn(1, 20)
    stream = pts.create_stream(net)
    stream = torch.jit.script(stream) if script else stream
    error = torch.jit.Error if script else pts.StreamInputError
    with pytest.raises(error, match="invalid_chunk: "):
        stream(bad)
    first = stream(x[:, :7])
    state = stream.get_state()
    with pytest.raises(error, match="invalid_chunk: a chunk came with .*; the signal goes on with"):
        stream(bad)
    after = stream.get_state()
    assert all(torch.equal(value, after[key]) for key, value in state.items())
    torch.testing.assert_close(torch.cat([first, stream(x[:, 7:], final=True)], -1), net(x))


def test_the_chunk_must_be_a_tensor():
    stream = pts.create_stream(nn.ReLU())
    with pytest.raises(pts.StreamInputError, match="^invalid_chunk: the chunk is a list"):
        stream([[1.0]])


def test_the_message_says_what_came_and_what_was_expected():
    stream = pts.create_stream(nn.Conv1d(2, 2, 3))
    stream(torch.randn(2, 2, 3))
    with pytest.raises(pts.StreamInputError) as caught:
        stream(torch.randn(2, 3).double())
    assert str(caught.value) == (
        "invalid_chunk: a chunk came with shape [2, 3], torch.float64, on cpu; the signal goes on with [2, 2, T], "
        "torch.float32, on cpu; end it with flush() or reset() before another one"
    )
    assert caught.value.code == "invalid_chunk"


class Fragile(nn.Module):
    """Fails when it sees a sample above 10."""

    def forward(self, x):
        if bool((x > 10).any()):
            raise RuntimeError("too loud")
        return x


@pytest.mark.parametrize("cure", ["reset", "set_state"])
@pytest.mark.parametrize("script", [False, True])
def test_after_a_failure_the_stream_waits(cure, script):
    net = nn.Sequential(nn.Conv1d(1, 1, 3), Fragile(), nn.AvgPool1d(2))
    nn.init.ones_(net[0].weight)
    x = torch.randn(1, 12)
    stream = pts.create_stream(net)
    stream = torch.jit.script(stream) if script else stream
    first = stream(x[:, :6])
    state = stream.get_state()
    with pytest.raises(torch.jit.Error if script else RuntimeError, match="too loud"):
        stream(torch.full((1, 3), 100.0))
    for call in (lambda: stream(x), stream.flush, stream.get_state):
        with pytest.raises(torch.jit.Error if script else pts.StreamStateError, match="failed_stream: "):
            call()
    if cure == "reset":
        stream.reset()
        y = stream(x, final=True)
    else:
        stream.set_state(state)
        y = torch.cat([first, stream(x[:, 6:], final=True)], -1)
    torch.testing.assert_close(y, net(x))


def test_a_users_handler_is_guarded_too(lag):
    stream = pts.create_stream(lag)
    stream(torch.randn(2, 5))
    with pytest.raises(pts.StreamInputError, match="^invalid_chunk: "):
        stream(torch.randn(3, 5))
    assert stream(torch.randn(2, 5)).shape == (2, 5)
    with pytest.raises(AttributeError):
        stream.ring.append = lambda x: x.no_such_method()
        stream(torch.randn(2, 5))
    del stream.ring.append
    with pytest.raises(pts.StreamStateError):
        stream(torch.randn(2, 5))
    stream.reset()
    assert stream(torch.randn(2, 5)).shape == (2, 3)


@pytest.mark.parametrize("save", [False, True])
def test_the_script_of_a_users_handler_is_guarded(lag, save, tmp_path):
    script = torch.jit.script(pts.create_stream(lag))
    if save:
        script.save(tmp_path / "lag.pt")
        script = torch.jit.load(tmp_path / "lag.pt")
    x = torch.randn(2, 20)
    for _ in range(2):
        first = script(x[:, :9])
        with pytest.raises(torch.jit.Error, match="invalid_chunk: "):
            script(x[:1])
        torch.testing.assert_close(torch.cat([first, script(x[:, 9:], True)], -1), lag(x))


class LouderConvStream(pts.Conv1dStream):
    def forward(self, x: Optional[Tensor], final: bool = False) -> Optional[Tensor]:
        y = super().forward(x, final)
        return None if y is None else 2 * y


class LoudestConvStream(LouderConvStream):
    def forward(self, x: Optional[Tensor], final: bool = False) -> Optional[Tensor]:
        y = super().forward(x, final)
        return None if y is None else 3 * y


class RememberingConvStream(pts.Conv1dStream):
    """Gives the sum of its own outputs of this chunk and the one before, of equal length."""

    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        y = super().step(x, final)
        before = getattr(self, "before", None)
        self.before = y
        return y if before is None or y is None else y + before


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_an_activation_does_not_write_over_what_a_handler_keeps(mode, monkeypatch):
    from torchstreamer.core import registry

    monkeypatch.setattr(registry, "_factories", dict(registry._factories))
    conv, x = nn.Conv1d(2, 2, 1), torch.randn(1, 2, 12)
    pts.register_streamer(nn.Conv1d, RememberingConvStream)
    stream = pts.create_stream(nn.Sequential(conv, nn.ReLU()))
    with mode():
        y = [stream(chunk) for chunk in x.split(4, -1)]
        a, b, c = conv(x).split(4, -1)
        torch.testing.assert_close(torch.cat(y, -1), torch.relu(torch.cat([a, a + b, b + c], -1)))


class StepConvStream(pts.Conv1dStream):
    def step(self, x: Optional[Tensor], final: bool) -> Optional[Tensor]:
        y = super().step(x, final)
        return None if y is None else 2 * y


@pytest.mark.parametrize("kind, gain", [(LouderConvStream, 2), (LoudestConvStream, 6), (StepConvStream, 2)])
@pytest.mark.parametrize("shape", [(2, 20), (3, 2, 20)])
def test_a_built_in_stream_can_be_derived_from(kind, gain, shape):
    conv = nn.Conv1d(2, 2, 3, padding=1)
    x = torch.randn(shape)
    stream = kind(conv)
    for _ in range(2):
        pieces = [stream(x[..., :7]), stream(x[..., 7:]), stream.flush()]
        torch.testing.assert_close(torch.cat(pieces, -1), gain * conv(x))


def test_a_users_container_whose_part_refuses_the_first_chunk_is_new(lag):
    class Two(pts.BaseStream):
        def __init__(self):
            super().__init__()
            self.one = pts.create_stream(nn.MaxPool1d(3, 1))
            self.two = pts.create_stream(nn.Conv1d(4, 4, 3))

        def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
            y = self.one(x, final)
            return None if y is None else self.two(y, final)

    stream = Two()
    with pytest.raises(pts.StreamInputError):
        stream(torch.randn(3, 9))
    conv, x = nn.Conv1d(4, 4, 3), torch.randn(4, 9)
    stream.two = pts.create_stream(conv)
    torch.testing.assert_close(stream(x), conv(nn.functional.max_pool1d(x, 3, 1)))


def test_none_reaches_only_handlers_that_take_it(lag):
    seen = []

    class Listener(pts.BaseStream):
        def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
            seen.append(x)
            return x

    class Open(pts.BaseStream):
        def forward(self, x: Optional[Tensor], final: bool = False) -> Optional[Tensor]:
            seen.append(x)
            return x

    class Mark(nn.Module):
        pass

    pts.register_streamer(Mark, lambda net: Listener())
    stream = pts.create_stream(nn.Sequential(nn.Conv1d(1, 1, 5), Mark()))
    stream(torch.randn(1, 3))
    stream.flush()
    assert seen == []
    pts.register_streamer(Mark, lambda net: Open())
    stream = pts.create_stream(nn.Sequential(nn.Conv1d(1, 1, 5), Mark()))
    stream(torch.randn(1, 3), final=True)
    assert seen == [None]


@pytest.mark.parametrize("shape", [(2, 30), (3, 2, 30)])
@pytest.mark.parametrize("script", [False, True])
def test_a_ring_is_all_that_a_handler_needs(lag, shape, script):
    net = nn.Sequential(nn.Conv1d(2, 2, 3, padding=1), lag, nn.Conv1d(2, 2, 2)).double()
    x = torch.randn(shape).double()
    stream = pts.create_stream(net)
    stream = torch.jit.script(stream) if script else stream
    for _ in range(2):
        pieces = [stream(x[..., :3]), stream(x[..., 3:4]), stream(x[..., 4:15])]
        state = stream.get_state()
        stream(x[..., 15:20])
        stream.set_state(state)
        pieces += [stream(x[..., 15:]), stream.flush()]
        y = torch.cat([piece for piece in pieces if piece is not None], -1)
        expected = net(x if x.dim() == 3 else x[None])
        torch.testing.assert_close(y, expected if x.dim() == 3 else expected[0], rtol=0, atol=1e-12)


def test_a_ring_is_read_before_the_next_chunk_in_the_right_rank():
    class Previous(pts.BaseStream):
        """The last sample of the chunk before, once a chunk."""

        def __init__(self):
            super().__init__()
            self.ring = pts.RingBuffer()

        def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
            last = self.ring.window() if self.ring.length() else None
            self.ring.drop(self.ring.append(x).shape[-1] - 1)
            return last

    one, two = Previous(), Previous()
    assert one(torch.tensor([[1.0, 2.0], [3.0, 4.0]])) is None
    both = pts.stack_states([one.get_state()] * 2)
    one.set_state(pts.unstack_state(both, unbatched=True)[1])
    assert torch.equal(one(torch.zeros(2, 1)), torch.tensor([[2.0], [4.0]]))
    two.set_state(both)
    assert torch.equal(two(torch.zeros(2, 2, 1)), torch.tensor([[[2.0], [4.0]]] * 2))


def test_without_output_length_streaming_works_and_the_question_is_refused():
    class Plain(pts.BaseStream):
        def forward(self, x: Tensor, final: bool = False) -> Optional[Tensor]:
            return 2 * x

    stream = Plain()
    assert stream(torch.ones(1, 3)).shape == (1, 3)
    with pytest.raises(pts.StreamError, match="^no_output_length: "):
        stream.output_length(3)


def test_weights_are_live():
    net = nn.Sequential(nn.Conv1d(2, 2, 3), nn.ConvTranspose1d(2, 2, 3), nn.PReLU()).double()
    stream = pts.create_stream(net)
    x = torch.randn(1, 2, 10).double()
    optimizer = torch.optim.SGD(net.parameters(), 0.1)
    for change in ("load", "step", "data"):
        with torch.no_grad():
            torch.testing.assert_close(stream(x, final=True), net(x))
        if change == "load":
            net.load_state_dict({key: torch.randn_like(value) for key, value in net.state_dict().items()})
        elif change == "step":
            net(x).sum().backward()
            optimizer.step()
        else:
            for p in net.parameters():
                p.data = torch.randn_like(p)
    with torch.no_grad():
        torch.testing.assert_close(stream(x, final=True), net(x))
        net[0].weight.data.mul_(2)  # bypasses the version counter
        stream.refresh_weights()
        torch.testing.assert_close(stream(x, final=True), net(x))


def test_double_and_back():
    net = nn.Conv1d(2, 2, 3)
    stream = pts.create_stream(net)
    with torch.no_grad():
        stream(torch.randn(1, 2, 10), final=True)
        net.double()
        x = torch.randn(1, 2, 10).double()
        torch.testing.assert_close(stream(x, final=True), net(x))


def test_moving_a_stream_moves_its_samples():
    net = nn.Conv1d(2, 2, 3).double()
    x = torch.randn(1, 2, 10).double()
    expected = net(x)
    stream = pts.create_stream(net)
    with torch.no_grad():
        first = stream(x[..., :5])
        stream.float()
        rest = stream(x[..., 5:].float(), final=True)
    assert rest.dtype == torch.float32
    torch.testing.assert_close(torch.cat([first.float(), rest], -1), expected.float())


def test_autograd_is_never_switched_off_and_can_be_cut():
    net = nn.Conv1d(1, 1, 3)
    stream = pts.create_stream(net)
    x = torch.randn(1, 1, 10, requires_grad=True)
    stream(x[..., :5])
    stream.detach_state()
    stream(x[..., 5:]).sum().backward()
    assert x.grad is not None and not x.grad[..., :5].any() and x.grad[..., 5:].all()
    assert net.weight.grad is not None


def test_autocast_chunks_are_taken():
    net = nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Conv1d(4, 2, 3))
    x = torch.randn(1, 2, 20)
    stream = pts.create_stream(net)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        y = torch.cat([stream(x[..., :9]), stream(x[..., 9:], final=True)], -1)
        expected = net(x)
    assert y.dtype == expected.dtype
    torch.testing.assert_close(y, expected, rtol=2e-2, atol=2e-2)


def test_a_handler_must_define_something():
    with pytest.raises(pts.StreamError, match="^no_forward: "):
        pts.BaseStream()(torch.ones(1, 3))


def test_the_steady_state_compiles_whole_and_not_again_with_every_chunk():
    from torch._dynamo.testing import CompileCounterWithBackend

    net = nn.Sequential(
        nn.Conv1d(2, 4, 3, padding=1),
        pts.Residual1d(nn.Conv1d(4, 4, 3, dilation=50)),
        nn.ConvTranspose1d(4, 2, 4, 2, 1),
        nn.Upsample(scale_factor=1.5, mode="linear"),
        nn.MaxPool1d(3, 2, 1),
    )
    stream, reference = pts.create_stream(net), pts.create_stream(net)
    counter = CompileCounterWithBackend("eager")
    with torch.no_grad():
        for _ in range(60):
            stream(torch.randn(1, 2, stream.hop * 2))
        reference.set_state(stream.get_state())
        compiled = torch.compile(stream, backend=counter, fullgraph=True)
        for _ in range(20):
            x = torch.randn(1, 2, stream.hop * 2)
            torch.testing.assert_close(compiled(x), reference(x))
    assert counter.frame_count <= 2
