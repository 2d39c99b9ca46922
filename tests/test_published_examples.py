"""The examples of torch-streamer's documentation, as they stand there, compared with the networks offline."""

import typing as T

import pytest
import torch as pt
from torch import nn

import torchstreamer as pts


@pytest.fixture(autouse=True)
def _seed():
    pt.manual_seed(0)


def stream_in(stream, x, size):
    pieces = [stream(chunk) for chunk in x.split(size, dim=-1)]
    pieces.append(stream(None, final=True))
    return pt.cat([piece for piece in pieces if piece is not None], dim=-1)


# --------------------------------------------------------------------------- Basic Usage


def test_basic_usage():
    BLOCK_SIZE = 100

    # create the convolution module
    conv = pt.nn.Conv1d(64, 128, 3, stride=2)

    # create a stream for the convolution
    stream = pts.Conv1dStream(conv)

    # create a random 1D input tensor
    x = pt.randn([64, 1000])

    # apply the convolution directly to the whole input tensor
    yc = conv(x)

    # stream the input tensor through the convolution, one block at a time
    ys = pt.cat([stream(x[..., i : i + BLOCK_SIZE]) for i in range(0, x.shape[-1], BLOCK_SIZE)], dim=-1)

    # verify the outputs match
    assert pt.allclose(yc, ys, atol=1e-6)
    assert yc.shape == ys.shape


# --------------------------------------------------------------------------- Sequential Networks


def sequential_net():
    return nn.Sequential(
        nn.Conv1d(1, 128, 1),
        nn.GELU(),
        nn.Conv1d(128, 128, 2, stride=2),
        nn.GELU(),
        nn.Conv1d(128, 128, 2, stride=2),
        nn.AvgPool1d(2),
        nn.ConvTranspose1d(128, 128, 2, stride=2),
        nn.GELU(),
        nn.ConvTranspose1d(128, 128, 2, stride=2),
        nn.GELU(),
        nn.Conv1d(128, 1, 1),
    )


@pytest.mark.parametrize("size", [1, 7, 8, 100, 1000])
@pytest.mark.parametrize("length", [1000, 1003, 37])
def test_sequential_networks(size, length):
    net = sequential_net()
    stream = pts.Sequential1dStream(net)
    x = pt.randn(1, length)
    with pt.no_grad():
        pt.testing.assert_close(stream_in(stream, x, size), net(x), rtol=1e-5, atol=1e-5)


# --------------------------------------------------------------------------- Residual Networks


def residual_net():
    return nn.Sequential(
        nn.Conv1d(1, 128, 1),
        *[
            pts.Residual1d(
                nn.Sequential(
                    nn.GELU(),
                    nn.Conv1d(128, 256, 3),
                    nn.GELU(),
                    nn.Conv1d(256, 128, 1),
                )
            )
            for _ in range(3)
        ],
        nn.Conv1d(128, 1, 1),
    )


@pytest.mark.parametrize("size", [1, 7, 100, 1000])
def test_residual_networks(size):
    net = residual_net()
    stream = pts.Sequential1dStream(net)
    x = pt.randn(1, 301)
    with pt.no_grad():
        y = net(x)
        assert y.shape == (1, 295)
        pt.testing.assert_close(stream_in(stream, x, size), y, rtol=1e-5, atol=1e-5)


# --------------------------------------------------------------------------- Custom Stream Handlers


# create a simple residual module
class MyResBlock(pt.nn.Module):
    def __init__(self, inner: pt.nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: pt.Tensor) -> pt.Tensor:
        return x + self.inner(x)


# create a custom stream handler for the residual module
class MyResBlockStream(pts.BaseStream):
    def __init__(self, net: MyResBlock):
        super().__init__()
        self.net = net

    def forward(self, x: pt.Tensor, final: bool = False) -> T.Optional[pt.Tensor]:
        # apply the inner network of the residual module
        y = self.net.inner(x.unsqueeze(0))

        # accommodate the network's receptive field by stripping
        # elements from the edge of the residual connection
        pad = (x.shape[-1] - y.shape[-1]) // 2
        res = x[..., pad:-pad]

        # add the residual connection to the outputs
        return y.squeeze(0) + res


@pytest.fixture
def registered():
    # register the streamer with the library
    pts.register_streamer(MyResBlock, lambda net: MyResBlockStream(net))


def custom_net():
    # create the neural network containing the custom resblock module
    return pt.nn.Sequential(
        pt.nn.Conv1d(1, 32, 1),
        MyResBlock(pt.nn.Conv1d(32, 32, 3)),
        pt.nn.Conv1d(32, 1, 1),
    )


def cropped(net, x):
    """What the network means: the residual cropped to the inner output, as the published handler does."""
    x = net[0](x)
    return net[2](net[1].inner(x) + x[..., 1:-1])


def test_custom_handler_runs_as_published(registered):
    net = custom_net()
    # create a stream that uses the custom stream handler
    # whenever it encounters an instance of MyResBlock
    stream = pts.Sequential1dStream(net)
    assert isinstance(stream.streams[1], MyResBlockStream)
    x = pt.randn(1, 40)
    y = stream(x, final=True)
    pt.testing.assert_close(y, cropped(net, x))
    assert stream(pt.randn(1, 5)).shape == (1, 3)  # and the next signal


def test_custom_handler_as_published_is_not_exact(registered):
    net = custom_net()
    stream = pts.Sequential1dStream(net)
    x = pt.randn(1, 40)
    y = stream_in(stream, x, 10)
    assert y.shape[-1] == 32  # it keeps no ring, so every chunk loses its edges
    assert cropped(net, x).shape[-1] == 38


class RingResBlock(MyResBlock):
    """The same block, its residual cropped also offline."""

    def forward(self, x: pt.Tensor) -> pt.Tensor:
        y = self.inner(x)
        pad = (x.shape[-1] - y.shape[-1]) // 2
        return y + x[..., pad : pad + y.shape[-1]]


class RingResBlockStream(pts.BaseStream):
    """The published handler with a ring."""

    def __init__(self, net: RingResBlock):
        super().__init__()
        self.inner = net.inner
        self.surplus = (net.inner.kernel_size[0] - 1) * net.inner.dilation[0]
        self.ring = pts.RingBuffer()

    def forward(self, x: pt.Tensor, final: bool = False) -> T.Optional[pt.Tensor]:
        window = self.ring.append(x)
        n = window.size(-1) - self.surplus
        if n <= 0:
            return None
        self.ring.drop(n)
        pad = self.surplus // 2
        return self.inner(window) + window[..., pad : pad + n]


pts.register_streamer(RingResBlock, lambda net: RingResBlockStream(net))


@pytest.mark.sample(every=3, rest=99)
@pytest.mark.parametrize("script", [False, True], ids=["eager", "scripted"])
@pytest.mark.parametrize("size", [1, 2, 10, 40])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 1), (5, 2), (4, 1), (1, 1)])
@pytest.mark.parametrize("shape", [(1, 40), (2, 1, 40)], ids=["unbatched", "batched"])
def test_custom_handler_with_a_ring_is_exact(script, size, kernel, dilation, shape):
    net = pt.nn.Sequential(
        pt.nn.Conv1d(1, 32, 1),
        RingResBlock(pt.nn.Conv1d(32, 32, kernel, dilation=dilation)),
        pt.nn.Conv1d(32, 1, 1),
    )
    stream = pts.Sequential1dStream(net)
    if script:
        stream = pt.jit.script(stream)
    x = pt.randn(shape)
    with pt.no_grad():
        for _ in range(2):  # the second signal starts as new
            pt.testing.assert_close(stream_in(stream, x, size), net(x), rtol=1e-5, atol=1e-5)


def test_custom_handler_with_a_ring_needs_no_code_for_snapshots():
    net = pt.nn.Sequential(pt.nn.Conv1d(1, 32, 1), RingResBlock(pt.nn.Conv1d(32, 32, 3)), pt.nn.Conv1d(32, 1, 1))
    x = pt.randn(1, 40)
    stream, other = pts.create_stream(net), pts.create_stream(net)
    stream(x[..., :11])
    state = stream.get_state()
    expected = stream(x[..., 11:], final=True)
    other.set_state(state)
    assert pt.equal(other(x[..., 11:], final=True), expected)
    stream(x[..., :11])
    stream.reset()
    pt.testing.assert_close(stream(x, final=True), net(x))
