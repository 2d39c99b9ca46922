"""The limit: a C++ loop written for one stack of convolutions, built with g++ and called by ctypes.

python benchmarks/limit.py    # its times, beside those of the offline network
"""

import argparse
import ctypes
import functools
import shutil
import statistics
import subprocess
import tempfile
from pathlib import Path

import torch
from conv_stack import CHANNELS, OFFLINE_LENGTH, build_net
from timing import interleave, machine
from torch import Tensor, nn

__all__ = ["Limit", "has_compiler"]

SOURCE = Path(__file__).parent / "limit" / "conv_stack.cpp"
COMPILER = "g++"
FLAGS = ["-O3", "-march=native", "-ffast-math", "-std=c++17", "-Wall", "-Wextra", "-shared", "-fPIC"]


def has_compiler() -> bool:
    """Whether the limit can be built here."""
    return shutil.which(COMPILER) is not None


@functools.cache
def _library() -> ctypes.CDLL:
    # Built for this machine and this process.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "conv_stack.so"
        subprocess.run([COMPILER, *FLAGS, "-o", path, SOURCE], check=True)
        library = ctypes.CDLL(str(path))
    pointers, integers = ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_int64)
    number, pointer = ctypes.c_int64, ctypes.c_void_p
    library.limit_create.argtypes, library.limit_create.restype = [number, integers, pointers, pointers], pointer
    library.limit_step.argtypes, library.limit_step.restype = [pointer, pointer, pointer, number], number
    library.limit_repeat.argtypes, library.limit_repeat.restype = [pointer, pointer, pointer, number, number], None
    library.limit_destroy.argtypes, library.limit_destroy.restype = [pointer], None
    return library


class Limit:
    """One row of a stack of (Conv1d(64, 64, 3, dilation) + ReLU), float32, without padding.

    Args:
        net: the stack; its weights are copied
    """

    def __init__(self, net: nn.Sequential) -> None:
        convs, relus = list(net)[::2], list(net)[1::2]
        for conv in convs:
            plain = isinstance(conv, nn.Conv1d) and (conv.stride, conv.padding, conv.groups) == ((1,), (0,), 1)
            if not plain or conv.weight.shape != (CHANNELS, CHANNELS, 3) or conv.weight.dtype != torch.float32:
                raise ValueError(f"the limit is written for Conv1d({CHANNELS}, {CHANNELS}, 3) in float32, not {conv}")
        if len(convs) != len(relus) or not all(isinstance(relu, nn.ReLU) for relu in relus):
            raise ValueError("the limit is written for a ReLU behind every convolution")
        library = _library()
        self._step, self._repeat, self._destroy = library.limit_step, library.limit_repeat, library.limit_destroy
        weights = [conv.weight.detach().contiguous() for conv in convs]
        biases = [conv.bias.detach().contiguous() for conv in convs]
        pointers, integers = ctypes.c_void_p * len(convs), ctypes.c_int64 * len(convs)
        self._stack = library.limit_create(
            len(convs),
            integers(*(conv.dilation[0] for conv in convs)),
            pointers(*(weight.data_ptr() for weight in weights)),
            pointers(*(bias.data_ptr() for bias in biases)),
        )

    def __del__(self) -> None:
        if getattr(self, "_stack", None):
            self._destroy(self._stack)

    @classmethod
    def create(cls, net: nn.Sequential) -> "Limit":
        """A new stream of a stack."""
        return cls(net)

    def step(self, x: Tensor) -> Tensor | None:
        """Take a contiguous chunk ``[C, T]`` or ``[1, C, T]``, give what is ready, or ``None``."""
        y = torch.empty_like(x)
        length = x.shape[-1]
        ready = self._step(self._stack, x.data_ptr(), y.data_ptr(), length)
        if ready == length:
            return y
        return y.view(-1)[: CHANNELS * ready].view(*x.shape[:-1], ready) if ready else None

    def repeat(self, x: Tensor, y: Tensor, calls: int) -> None:
        """Take the same chunk so many times inside C++, for times without Python; the last output is left in ``y``."""
        self._repeat(self._stack, x.data_ptr(), y.data_ptr(), x.shape[-1], calls)


def check(net: nn.Sequential, chunk: int) -> float:
    """The largest difference from the network on the whole signal, relative to the output's scale."""
    x = torch.randn(CHANNELS, 2100 + 3 * chunk + 1)
    limit = Limit.create(net)
    answers = [limit.step(piece.contiguous()) for piece in x.split(chunk, -1)]
    y, expected = torch.cat([answer for answer in answers if answer is not None], -1), net(x[None])[0]
    if y.shape != expected.shape:
        raise AssertionError(f"{tuple(y.shape)} came out, not {tuple(expected.shape)}")
    return ((y - expected).abs().max() / expected.abs().max()).item()


def main() -> None:
    """Check, then print times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--span", type=float, default=0.02, help="seconds per contender and round")
    parser.add_argument("--chunks", type=int, nargs="+", default=[1, 4, 16, 64, 256, 1024])
    parser.add_argument("--stack", default="plain", choices=["plain", "dilated"])
    args = parser.parse_args()

    torch.set_num_threads(1)
    facts = machine()
    print(f"{facts['cpu']}, {facts['threads']} thread; torch {facts['torch']}; {args.stack} stack, µs per chunk\n")
    print(f"| chunk | in C++ | from Python | offline | GFLOP/s | difference |\n|{'--:|' * 6}")
    with torch.inference_mode():
        net = build_net(args.stack)
        convs = list(net)[::2]
        lost = sum(2 * conv.dilation[0] * (len(convs) - i) for i, conv in enumerate(convs)) / len(convs)
        signal = torch.randn(1, CHANNELS, OFFLINE_LENGTH)
        flops = 2 * sum(conv.weight.numel() for conv in convs)  # per sample
        for chunk in args.chunks:
            difference = check(net, chunk)
            assert difference < 1e-5, difference
            x, y = torch.randn(CHANNELS, chunk), torch.empty(CHANNELS, chunk)
            inner, outer = Limit.create(net), Limit.create(net)
            calls = max(1, 256 // chunk)
            seconds = interleave(
                {
                    "in C++": lambda x=x, y=y, inner=inner, calls=calls: inner.repeat(x, y, calls),
                    "from Python": lambda x=x, outer=outer: outer.step(x),
                    "offline": lambda: net(signal),
                },
                args.rounds,
                args.span,
            )
            us = {name: statistics.median(times) * 1e6 for name, times in seconds.items()}
            us["in C++"] /= calls
            us["offline"] *= chunk / (OFFLINE_LENGTH - lost)
            row = " | ".join(f"{value:.1f}" for value in us.values())
            print(f"| {chunk} | {row} | {flops * chunk / us['in C++'] / 1e3:.0f} | {difference:.0e} |", flush=True)


if __name__ == "__main__":
    main()
