"""Short-time spectra and back as streams: the cost of a chunk of 10 ms, beside the whole signal at once.

python benchmarks/spectra.py            # the table, half a minute; writes README.md
python benchmarks/spectra.py --quick    # fewer rounds; prints only
"""

import argparse
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from report import write_between_markers
from timing import interleave, machine, quartiles
from torch import nn

import torchstreamer as pts
from torchstreamer.audio import ISTFT, STFT, Spectral1d

RATE, N_FFT, HOP = 16000, 512, 160
SECONDS, ROWS = 10, 16


def nets() -> dict[str, tuple[nn.Module, int, int]]:
    """The modules, their channels, and how many samples come in 10 ms."""
    causal = {"padding": "causal", "pad_mode": "constant"}
    return {
        "STFT": (STFT(N_FFT, HOP), 1, HOP),
        "STFT, causal": (STFT(N_FFT, HOP, **causal), 1, HOP),
        "ISTFT": (ISTFT(N_FFT, HOP), N_FFT + 2, 1),
        "Spectral1d, causal": (Spectral1d(nn.Identity(), N_FFT, HOP, causal=True), 1, HOP),
    }


def contenders(net: nn.Module, channels: int, chunk: int) -> dict[str, Callable[[], object]]:
    """The whole signal, the stream, its script, and a static step of some rows."""
    signal = torch.randn(1, channels, chunk * 100 * SECONDS)
    stream, script = pts.create_stream(net), torch.jit.script(pts.create_stream(net))
    static = pts.StaticStream(pts.create_stream(net), chunk=chunk, batch=ROWS, channels=channels)
    x, rows = torch.randn(1, channels, chunk), torch.randn(ROWS, channels, chunk)
    flags = torch.full([ROWS], chunk), torch.zeros(ROWS, dtype=torch.bool), torch.zeros(ROWS, dtype=torch.bool)
    static(rows, flags[0], torch.ones(ROWS, dtype=torch.bool), flags[2])
    runs = {
        "offline": lambda: net(signal),
        "eager": lambda: stream(x),
        "scripted": lambda: script(x),
        "static": lambda: static(rows, *flags),
    }
    for name in ("eager", "scripted", "static"):
        for _ in range(20):
            runs[name]()
    return runs


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, nothing is written")
    parser.add_argument("--rounds", type=int, default=11)
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.set_num_threads(1)
    rounds, span_s = (3, 0.03) if args.quick else (args.rounds, 0.1)
    lines = [
        f"| of 10 ms, µs | offline | eager | scripted | static step of {ROWS} rows, a row |",
        "|---|--:|--:|--:|--:|",
    ]
    with torch.no_grad():
        for name, (net, channels, chunk) in nets().items():
            times = interleave(contenders(net, channels, chunk), rounds, span_s)
            parts = {"offline": 100 * SECONDS, "static": ROWS}
            cells = []
            for kind, seconds in times.items():
                low, middle, high = quartiles([1e6 * value / parts.get(kind, 1) for value in seconds])
                cells.append(f"{middle:.1f} ({low:.1f}-{high:.1f})")
            lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    text = "\n".join(
        [
            f"{machine()['cpu']}, 1 thread; torch {torch.__version__}; float32, one channel at {RATE} Hz, frames of "
            f"{N_FFT} samples, {HOP} apart; {rounds} rounds.",
            "",
            *lines,
        ]
    )
    print(text)
    if not args.quick:
        write_between_markers(Path(__file__).with_name("README.md"), text + "\n", "spectra")


if __name__ == "__main__":
    main()
