"""Random layers and whole random networks, cut at random: exact, prompt, and forked in the middle."""

import warnings
from typing import Any, List, Optional

import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.testing import Chunking, split_signal
from torchstreamer.testing.strategies import CHANNELS, chunkings, layer_nets, networks

LONGEST = 3000

# torch says so once a process, which as an error would look like a signal that is too short.


def signal(n: int, rows: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, CHANNELS, n, generator=generator, dtype=torch.float64)


def offline(net: nn.Module, x: Tensor) -> Optional[Tensor]:
    """What the network gives on the whole; ``None`` where it raises or gives nothing."""
    try:
        y = net(x.clone())
    except Warning:
        raise
    except Exception:  # too short
        return None
    return y if y.shape[-1] > 0 else None


def shortest(net: nn.Module) -> int:
    """A length at which the network works, the least but for a factor."""
    n = 1
    while offline(net, signal(n, 1, 0)) is None:
        n = n + 1 if n < 8 else n * 5 // 4
        assume(n < LONGEST)
    return n


def run(stream: Any, x: Tensor, chunking: Chunking, came: int = 0, given: int = 0) -> List[Tensor]:
    pieces = []
    for chunk, final in split_signal(x, chunking):
        y = stream(chunk, final)
        came += 0 if chunk is None else chunk.shape[-1]
        if y is not None:
            assert y.shape[-1] > 0
            pieces.append(y)
            given += y.shape[-1]
        assert final or given == stream.output_length(came, False), (came, given)
    return pieces


def compare(pieces: List[Tensor], expected: Optional[Tensor], scale: float) -> None:
    if expected is None:
        assert not pieces
        return
    y = torch.cat(pieces, -1)
    assert y.shape == expected.shape and y.dtype == expected.dtype
    other = y != expected  # a maximum over padding alone is -inf, in both
    assert not other.any() or float((y - expected)[other].abs().max()) <= 1e-10 * scale


def check(net: nn.Module, data: st.DataObject, script: bool) -> None:
    with torch.no_grad():
        least = shortest(net)
        n = data.draw(st.one_of(st.integers(1, least + 40), st.integers(least, 2 * least + 300)), label="length")
        rows = data.draw(st.integers(1, 3), label="rows")
        x = signal(n, rows, data.draw(st.integers(0, 1000), label="signal"))
        expected = offline(net, x)
        whole = offline(net, signal(least + 300, rows, 0))
        assert whole is not None
        finite = whole[whole.isfinite()]
        scale = float(finite.abs().max()) or 1.0 if finite.numel() else 1.0
        stream: Any = pts.create_stream(net)
        assert stream.output_length(n, True) == (0 if expected is None else expected.shape[-1])
        if script:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="`torch.jit")  # a FutureWarning from torch 2.15 on
                stream = torch.jit.script(stream)
        compare(run(stream, x, data.draw(chunkings(n), label="chunking")), expected, scale)
        # The same stream again, forked in the middle: both go on, cut in different ways.
        fork = data.draw(st.integers(0, n), label="fork")
        before = run_open(stream, x[..., :fork], data.draw(chunkings(fork), label="before the fork"))
        given_before = sum(piece.shape[-1] for piece in before)
        other = pts.create_stream(net)
        other.set_state(stream.get_state())
        for one in (other, stream):
            rest = run(one, x[..., fork:], data.draw(chunkings(n - fork), label="behind the fork"), fork, given_before)
            compare(before + rest, expected, scale)


def run_open(stream: Any, x: Tensor, chunking: Chunking) -> List[Tensor]:
    pieces = [stream(chunk) for chunk, _ in split_signal(x, chunking)]
    return [piece for piece in pieces if piece is not None]


@given(net=layer_nets(), data=st.data())
def test_layers(net: nn.Module, data: st.DataObject) -> None:
    check(net, data, script=data.draw(st.integers(0, 9), label="script") == 9)


@given(net=networks(), data=st.data())
def test_networks(net: nn.Module, data: st.DataObject) -> None:
    check(net, data, script=data.draw(st.integers(0, 9), label="script") == 9)
