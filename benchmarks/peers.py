"""Other libraries that stream convolutions, on the stack of the benchmark: what a chunk costs in each.

python benchmarks/peers.py            # a few minutes; needs PyPI once
python benchmarks/peers.py --quick    # fewer rounds

A contender is a function of a stack of (Conv1d(64, 64, 3) + ReLU) and the number of rows. It gives a new stream, a
function of chunks ``[B, C, T]``. The weights are the stack's own.
"""

import argparse
import importlib
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch
from conv_stack import CHANNELS, LAYERS, OFFLINE_LENGTH, build_net
from limit import Limit, has_compiler
from peer import FOLDERS, fetch
from timing import interleave, machine, quartiles
from torch import Tensor, nn

import torchstreamer as pts

__all__ = ["MOSHI", "OURS", "PEERS", "Contender", "check", "folder_of", "load_peers"]

Step = Callable[[Tensor], Tensor | None]
Contender = Callable[[nn.Sequential, int], Step]

CACHED_CONV, CONTINUAL, MOSHI = "cached-conv==2.5.0", "continual-inference==1.2.4", "moshi==0.2.13"


def folder_of(requirement: str, package: str) -> Path:
    """Where a peer lies; pip fetches it once."""
    folder = FOLDERS / requirement.replace("==", "-")
    if not (folder / package).is_dir() and not fetch(folder, requirement):
        raise ImportError(f"{requirement} could not be fetched")
    return folder


def _import(requirement: str, package: str) -> ModuleType:
    folder = str(folder_of(requirement, package))
    if folder not in sys.path:
        sys.path.append(folder)  # behind everything else, so that it shadows nothing
    return importlib.import_module(package)


# --------------------------------------------------------------------------- cached_conv


def _cached_stack(net: nn.Sequential, batch: int) -> nn.Module:
    cached_conv = _import(CACHED_CONV, "cached_conv")
    layers: list[nn.Module] = []
    for layer in net:
        if isinstance(layer, nn.Conv1d):
            kernel, dilation = layer.kernel_size[0], layer.dilation[0]
            padding = cached_conv.get_padding(kernel, dilation=dilation, mode="causal")
            conv = cached_conv.CachedConv1d(CHANNELS, CHANNELS, kernel, padding=padding, dilation=dilation)
            conv.weight, conv.bias = layer.weight, layer.bias
            layers.append(conv)
        else:
            layers.append(nn.ReLU())
    stack = cached_conv.CachedSequential(*layers).eval()
    # The first call makes the caches, which a script cannot do. What it leaves in them is taken out again.
    stack(torch.zeros(batch, CHANNELS, 1))
    for cache in stack.buffers():
        cache.zero_()
    return stack


def cached_conv(net: nn.Sequential, batch: int) -> Step:
    """cached_conv, the library of RAVE, in its causal mode."""
    return _cached_stack(net, batch)


def cached_conv_scripted(net: nn.Sequential, batch: int) -> Step:
    """The same through `torch.jit.script`."""
    return torch.jit.script(_cached_stack(net, batch))


# --------------------------------------------------------------------------- continual-inference


def continual(net: nn.Sequential, batch: int) -> Step:
    """continual-inference, which takes a chunk sample by sample; it has no dilation and does not script."""
    package = _import(CONTINUAL, "continual")
    layers: list[nn.Module] = []
    for layer in net:
        # It changes the activations that it is given, so they are new ones.
        layers.append(package.Conv1d.build_from(layer) if isinstance(layer, nn.Conv1d) else nn.ReLU())
    stack = package.Sequential(*layers).eval()

    def step(x: Tensor) -> Tensor | None:
        if x.shape[-1] > 1:
            y = stack.forward_steps(x)
        else:
            y = stack.forward_step(x[..., 0])
            y = y.unsqueeze(-1) if isinstance(y, Tensor) else None
        return y if isinstance(y, Tensor) else None

    return step


# --------------------------------------------------------------------------- moshi


def _moshi_modules() -> tuple[ModuleType, ModuleType]:
    # Its convolutions need torch alone, the rest of it much more: bare packages stand for those whose __init__ would
    # import everything.
    folder = folder_of(MOSHI, "moshi") / "moshi"
    for part in ("", ".modules", ".utils"):
        name = f"moshi_peer{part}"
        if name not in sys.modules:
            package = ModuleType(name)
            package.__path__ = [str(folder / part[1:])]
            sys.modules[name] = package
    return importlib.import_module("moshi_peer.modules.conv"), importlib.import_module("moshi_peer.modules.streaming")


def moshi(net: nn.Sequential, batch: int) -> Step:
    """The streaming convolutions of moshi, which are causal; they do not script."""
    conv, streaming = _moshi_modules()

    class Stack(streaming.StreamingContainer):
        def __init__(self) -> None:
            super().__init__()
            layers: list[nn.Module] = []
            for layer in net:
                if isinstance(layer, nn.Conv1d):
                    kernel, dilation = layer.kernel_size[0], layer.dilation[0]
                    streamed = conv.StreamingConv1d(CHANNELS, CHANNELS, kernel, dilation=dilation, causal=True)
                    streamed.conv.conv = layer
                    layers.append(streamed)
                else:
                    layers.append(nn.ReLU())
            self.layers = nn.Sequential(*layers)

        def forward(self, x: Tensor) -> Tensor:
            return self.layers(x)

    stack = Stack().eval()
    stack.streaming_forever(batch)
    return stack


# --------------------------------------------------------------------------- all of them


def ours(net: nn.Sequential, batch: int) -> Step:
    """torchstreamer."""
    return pts.create_stream(net)


def ours_scripted(net: nn.Sequential, batch: int) -> Step:
    """The same through `torch.jit.script`."""
    return torch.jit.script(pts.create_stream(net))


def limit(net: nn.Sequential, batch: int) -> Step:
    """The hand-written loop, called from Python."""
    if batch != 1:
        raise ValueError("the limit takes one row")
    return Limit.create(net).step


OURS: dict[str, Contender] = {"torchstreamer": ours, "torchstreamer scripted": ours_scripted}
PEERS: dict[str, Contender] = {
    "cached_conv": cached_conv,
    "cached_conv scripted": cached_conv_scripted,
    "continual-inference": continual,
    "moshi": moshi,
}


def load_peers(net: nn.Sequential) -> dict[str, Contender]:
    """The peers that can be had here; says which cannot, and why."""
    found = {}
    for name, contender in PEERS.items():
        try:
            contender(net, 1)
        except ImportError as error:
            print(f"without {name}: {error}")
        else:
            found[name] = contender
    return found


def _context(net: nn.Sequential) -> int:
    # Samples before the first output of the stack.
    return sum(2 * layer.dilation[0] for layer in net if isinstance(layer, nn.Conv1d))


def check(name: str, contender: Contender, net: nn.Sequential, batch: int, chunk: int) -> None:
    """Raise unless a contender gives what the net gives on the whole signal, once the context is past.

    The causal peers give as many samples more at the start as the context has: there they take zeros for what was
    before the signal, at every layer. The others give nothing until the first window is full, as the net does.
    """
    x = torch.randn(batch, CHANNELS, _context(net) + 3 * chunk + 1)
    expected, step = net(x), contender(net, batch)
    y = torch.cat([y for y in map(step, (piece.contiguous() for piece in x.split(chunk, -1))) if y is not None], -1)
    if y.shape[-1] not in (expected.shape[-1], x.shape[-1]):
        raise AssertionError(f"{name}: {y.shape[-1]} samples for {expected.shape[-1]}")
    torch.testing.assert_close(
        y[..., -expected.shape[-1] :], expected, rtol=1e-5, atol=1e-5, msg=lambda text: f"{name}: {text}"
    )


def measure(
    contenders: dict[str, Contender], net: nn.Sequential, batch: int, chunk: int, rounds: int, span_s: float
) -> dict[str, list[float]]:
    """Seconds per chunk of every contender and of as many samples offline, one number per round."""
    x, signal = torch.randn(batch, CHANNELS, chunk), torch.randn(batch, CHANNELS, OFFLINE_LENGTH)
    runs: dict[str, Callable[[], object]] = {"offline": lambda: net(signal)}
    for name, contender in contenders.items():
        step = contender(net, batch)
        step(torch.randn(batch, CHANNELS, _context(net)))
        begin = time.perf_counter()
        for _ in range(20):  # TorchScript needs some calls to settle
            step(x)
            if "scripted" not in name and time.perf_counter() - begin > 1:
                break
        runs[name] = lambda step=step: step(x)
    seconds = interleave(runs, rounds, span_s)
    convs = [layer for layer in net if isinstance(layer, nn.Conv1d)]
    lost = sum(2 * layer.dilation[0] * (LAYERS - i) for i, layer in enumerate(convs)) / LAYERS
    seconds["offline"] = [s * chunk / (OFFLINE_LENGTH - lost) for s in seconds["offline"]]
    return seconds


def main() -> None:
    """Check all contenders, then print their times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 short rounds")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds")
    parser.add_argument("--span", type=float, default=0.02, help="seconds per contender and round")
    parser.add_argument("--chunks", type=int, nargs="+", default=[1, 4, 16, 64, 256, 1024])
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.span = 5, 0.005

    warnings.filterwarnings("ignore", message=".*torch.jit")
    torch.set_num_threads(1)
    net = build_net("plain")
    rows: dict[str, list[str]] = {}
    with torch.inference_mode():
        contenders = {**OURS, **load_peers(net)}
        if has_compiler():
            contenders["limit"] = limit
        for chunk in args.chunks:
            for name, contender in contenders.items():
                check(name, contender, net, 1, chunk)
            for name, seconds in measure(contenders, net, 1, chunk, args.rounds, args.span).items():
                us = quartiles(seconds)[1] * 1e6
                rows.setdefault(name, []).append(f"{us:.1f}" if us < 10 else f"{us:.0f}")
            print(f"chunk {chunk} done", flush=True)

    facts = machine()
    print(f"\n{facts['cpu']}, {facts['threads']} thread; torch {facts['torch']}; {args.rounds} rounds; µs per chunk\n")
    print(f"| samples per chunk | {' | '.join(map(str, args.chunks))} |\n|---|{'--:|' * len(args.chunks)}")
    for name, cells in rows.items():
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
