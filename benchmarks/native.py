"""Streams written as C++, beside loops written by hand: the stack of convolutions at every chunk size, and a GRU.

    chrt -f 1 taskset -c 1 python benchmarks/native.py

The stack stands beside `limit.py`, a loop for this stack alone, the recurrent layers beside RTNeural's static layers,
if its source is at hand (see `rtneural.py`). All times are of calls inside C++.
"""

import argparse
import ctypes
import shlex
import statistics
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from conv_stack import CHANNELS, build_net
from limit import Limit
from rtneural import RTNeural
from timing import interleave, machine
from torch import Tensor, nn

import torchstreamer as pts

FLAGS = ["-std=gnu++17", "-O3", "-march=native", "-fPIC", "-shared"]

# Calls inside C++, without Python between them.
REPEAT = """
extern "C" void net_repeat(void* net, const float* const* in, int n, float* const* out, int calls) {
  for (int i = 0; i < calls; ++i) static_cast<Net*>(net)->process(in, n, out);
}
"""


class Native:
    """A network, exported, compiled, and loaded.

    Args:
        net: the network
        compiler: command and options
    """

    def __init__(self, net: nn.Module, compiler: str = "g++") -> None:
        with tempfile.TemporaryDirectory() as folder:
            source = pts.export(pts.create_stream(net), Path(folder) / "net.cpp")
            source.write_text(source.read_text() + REPEAT)
            library = Path(folder) / "net.so"
            subprocess.run([*shlex.split(compiler), *FLAGS, str(source), "-o", str(library)], check=True)
            self.library = ctypes.CDLL(str(library))
        self.library.net_new.restype = ctypes.c_void_p
        self.net = ctypes.c_void_p(self.library.net_new())

    def repeat(self, x: Tensor, y: Tensor, calls: int) -> int:
        """Take the same chunk ``[C, T]`` so many times."""
        self.library.net_repeat(self.net, _channels(x), x.shape[1], _channels(y), calls)
        return calls

    def __call__(self, x: Tensor, y: Tensor) -> int:
        """Take a chunk; gives how many samples stand in ``y``."""
        count: int = self.library.net_process(self.net, _channels(x), x.shape[1], _channels(y))
        return count


def _channels(x: Tensor) -> Any:
    step = x.stride(0) * x.element_size()
    return (ctypes.c_void_p * x.shape[0])(*(x.data_ptr() + channel * step for channel in range(x.shape[0])))


def stack(chunks: list[int], rounds: int, span: float, compiler: str) -> None:
    """The table of the stack."""
    net = build_net("plain")
    native, limit = Native(net, compiler), Limit.create(net)
    x = torch.randn(CHANNELS, 500)
    y = torch.empty_like(x)
    expected = net(x[None])[0]
    assert native(x, y) == expected.shape[1]
    difference = float((y[:, : expected.shape[1]] - expected).abs().max() / expected.abs().max())
    assert difference < 1e-5, difference
    print("| chunk | loop by hand, µs | native, µs | native by hand |\n|--:|--:|--:|--:|")
    for chunk in chunks:
        x, y = torch.randn(CHANNELS, chunk), torch.empty(CHANNELS, chunk)
        calls = max(1, 256 // chunk)
        seconds = interleave(
            {
                "limit": partial(limit.repeat, x, y, calls),
                "native": partial(native.repeat, x, y, calls),
            },
            rounds,
            span,
        )
        one, other = (statistics.median(seconds[name]) / calls * 1e6 for name in ("limit", "native"))
        ratio = statistics.median(b / a for a, b in zip(seconds["limit"], seconds["native"], strict=True))
        print(f"| {chunk} | {one:.2f} | {other:.2f} | {ratio:.2f} |", flush=True)


def recurrent(rounds: int, compiler: str) -> None:
    """The table of recurrent layers, a sample a call."""
    print("\n| layer | RTNeural, µs | native, µs | native, chunks of 64, µs per sample |\n|---|--:|--:|--:|")
    for kind in (nn.GRU, nn.LSTM):
        torch.manual_seed(0)
        layer = kind(32, 32)
        net = pts.Recurrent1d(layer).eval()
        native = Native(net, compiler)
        x, y = torch.randn(32, 64), torch.empty(32, 64)
        assert native(x, y) == 64
        torch.testing.assert_close(y, net(x[None])[0], atol=1e-5, rtol=1e-5)
        one, out = x[:, :1].contiguous(), torch.empty(32, 1)
        times: dict[str, list[float]] = {"one": [], "many": [], "peer": []}
        contenders = {
            "one": partial(native.repeat, one, out, 2000),
            "many": partial(native.repeat, x, y, 32),
        }
        try:
            peer = RTNeural(layer, x[None])
        except (ImportError, RuntimeError) as error:
            print(f"RTNeural: {error}")
            peer = None
        for _ in range(rounds):
            for name, found in interleave(contenders, 1, 0.0).items():  # type: ignore[arg-type]
                times[name] += found
            if peer is not None:
                times["peer"].append(peer.seconds(2000))
        cells = [
            f"{statistics.median(times['peer']) * 1e6:.3f}" if times["peer"] else "",
            f"{statistics.median(times['one']) / 2000 * 1e6:.3f}",
            f"{statistics.median(times['many']) / 2048 * 1e6:.3f}",
        ]
        print(f"| {kind.__name__}(32, 32) | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Check, then print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--span", type=float, default=0.01, help="seconds per contender and round")
    parser.add_argument("--chunks", type=int, nargs="+", default=[1, 4, 16, 64, 256, 1024])
    parser.add_argument("--compiler", default="g++")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{machine()['cpu']}, 1 thread\n")
    with torch.inference_mode():
        stack(args.chunks, args.rounds, args.span, args.compiler)
        recurrent(args.rounds, args.compiler)


if __name__ == "__main__":
    main()
