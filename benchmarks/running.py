"""Cumulative norms, linear recurrences and moving averages: cost of a step, and whether silence costs more than speech.

python benchmarks/running.py            # the tables, some three minutes; writes README.md
python benchmarks/running.py --quick    # fewer rounds; prints only
"""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from report import write_between_markers
from timing import interleave, machine, quartiles, tail
from torch import Tensor, nn

import torchstreamer as pts

CHANNELS = 64
OFFLINE_LENGTH = 4096


def nets() -> dict[str, tuple[nn.Module, int]]:
    """Each with the channels that it takes."""
    return {
        "CumulativeLayerNorm1d": (pts.CumulativeLayerNorm1d(CHANNELS), CHANNELS),
        "CumulativeGroupNorm1d, 8 groups": (pts.CumulativeGroupNorm1d(8, CHANNELS), CHANNELS),
        "LayerNorm1d": (pts.LayerNorm1d(CHANNELS), CHANNELS),
        "LinearRecurrence": (pts.LinearRecurrence(), 2 * CHANNELS),
        "ExponentialMovingAverage1d": (pts.ExponentialMovingAverage1d(0.1), CHANNELS),
    }


def measure(net: nn.Module, channels: int, chunk: int, rounds: int, span_s: float) -> list[str]:
    """Offline and streamed microseconds per sample, and their ratio."""
    signal, x = torch.rand(1, channels, OFFLINE_LENGTH), torch.rand(1, channels, chunk)
    stream = pts.create_stream(net)
    script = torch.jit.script(pts.create_stream(net))
    for _ in range(20):
        stream(x)
        script(x)
    runs: dict[str, Callable[[], object]] = {
        "offline": lambda: net(signal),
        "ours": lambda: stream(x),
        "scripted": lambda: script(x),
    }
    times = interleave(runs, rounds, span_s)
    offline = quartiles([1e6 * s / OFFLINE_LENGTH for s in times["offline"]])[1]
    cells = [f"{offline:.2f}"]
    for name in ("ours", "scripted"):
        low, middle, high = quartiles([1e6 * s for s in times[name]])
        cells += [f"{middle:.0f} ({low:.0f}-{high:.0f})", f"{middle / chunk / offline:.2f}"]
    return cells


def silence(net: nn.Module, channels: int, fading: Callable[[Tensor], Tensor], steps: int, rounds: int) -> list[str]:
    """Microseconds per step of one sample: with noise, and with silence after as many samples of it."""
    noise, nothing = torch.rand(1, channels, 1), fading(torch.zeros(1, channels, 1))
    loud, quiet = pts.create_stream(net), pts.create_stream(net)
    for _ in range(100):
        loud(noise)
        quiet(noise)
    for _ in range(steps):
        quiet(nothing)
    times = interleave({"noise": lambda: loud(noise), "silence": lambda: quiet(nothing)}, rounds, 0.01)
    middle = {name: quartiles([1e6 * s for s in values])[1] for name, values in times.items()}
    ratios = quartiles([b / a for a, b in zip(times["noise"], times["silence"], strict=True)])
    ends = [f"{1e6 * s:.0f}" for s in tail(lambda: loud(noise), steps)]
    ratio = f"{ratios[1]:.2f} ({ratios[0]:.2f}-{ratios[2]:.2f})"
    return [f"{middle['noise']:.1f}", *ends, f"{middle['silence']:.1f}", ratio]


def with_decay(x: Tensor) -> Tensor:
    """The first half of the channels, a, stays at 0.9."""
    return torch.cat([x[:, :CHANNELS] + 0.9, x[:, CHANNELS:]], 1)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 rounds")
    parser.add_argument("--chunks", type=int, nargs="+", default=[1, 16, 4096])
    args = parser.parse_args()
    rounds = 5 if args.quick else 25
    warnings.filterwarnings("ignore", message=".*torch.jit")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lines = [f"{machine()['cpu']}, 1 thread; torch {torch.__version__}; {CHANNELS} channels, float32; {rounds} rounds."]

    def tell(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    tell("")
    tell("| layer | chunk | offline, µs per sample | ours, µs | by offline | scripted, µs | by offline |")
    tell("|---|--:|--:|--:|--:|--:|--:|")
    with torch.inference_mode():
        for name, (net, channels) in nets().items():
            for chunk in args.chunks:
                cells = measure(net.eval(), channels, chunk, rounds, 0.02)
                tell(f"| {name} | {chunk} | {' | '.join(cells)} |")
        tell("")
        tell("| one sample at a time | noise, µs | p99.9 | maximum | after 100,000 samples of silence, µs | ratio |")
        tell("|---|--:|--:|--:|--:|--:|")
        steps = 2000 if args.quick else 100_000
        for name, (net, channels) in nets().items():
            fading = with_decay if name == "LinearRecurrence" else torch.clone
            tell(f"| {name} | {' | '.join(silence(net, channels, fading, steps, rounds))} |")
    if not args.quick:
        write_between_markers(Path(__file__).parent / "README.md", "\n".join(lines) + "\n", "running")


if __name__ == "__main__":
    main()
