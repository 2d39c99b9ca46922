"""Features of sound as streams: their cost per second of sound, beside the whole signal at once.

python benchmarks/features.py            # the table, some five minutes; writes README.md
python benchmarks/features.py --quick    # fewer rounds; prints only
"""

import argparse
import warnings
from pathlib import Path

import torch
from report import write_between_markers
from timing import interleave, machine, quartiles
from torch import nn

import torchstreamer as pts
from torchstreamer.audio import MFCC, PCEN, KaldiFbank, LogMel, MelSpectrogram, Spectrogram

RATE = 16000
SECONDS = 10
# Of what the whole signal costs, a compiled step of 100 ms was to take so much at most.
MOST = 1.3


def nets() -> dict[str, nn.Module]:
    """Front ends with a hop of 10 ms."""
    mels = {"n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 80}
    return {
        "Spectrogram": Spectrogram(512, 400, 160),
        "MelSpectrogram": MelSpectrogram(RATE, **mels),
        "LogMel.whisper": LogMel.whisper(),
        "LogMel.nemo": LogMel.nemo(),
        "MFCC": MFCC(RATE, 13, **mels),
        "MelSpectrogram, PCEN": nn.Sequential(MelSpectrogram(RATE, **mels), PCEN()),
        "KaldiFbank": KaldiFbank(RATE, 80),
    }


def measure(net: nn.Module, chunks: list[int], rounds: int, span_s: float) -> list[str]:
    """Milliseconds per second of sound offline, and the ratio of streams in chunks of so many samples, in one run."""
    signal = torch.randn(1, 1, RATE * SECONDS)
    runs = {"offline": lambda: net(signal)}
    for chunk in chunks:
        stream, script = pts.create_stream(net), torch.jit.script(pts.create_stream(net))
        x = torch.randn(1, 1, chunk)
        for _ in range(20):
            stream(x)
            script(x)
        runs[f"eager {chunk}"] = lambda stream=stream, x=x: stream(x)
        runs[f"script {chunk}"] = lambda script=script, x=x: script(x)
    times = interleave(runs, rounds, span_s)
    offline = [t / SECONDS for t in times["offline"]]
    cells = [f"{1e3 * quartiles(offline)[1]:.2f}"]
    for chunk in chunks:
        for kind in ("eager", "script"):
            ratios = [t / chunk * RATE / whole for t, whole in zip(times[f"{kind} {chunk}"], offline, strict=True)]
            low, middle, high = quartiles(ratios)
            cells.append(f"{middle:.2f} ({low:.2f}-{high:.2f})")
    return cells


def compiled(net: nn.Module, chunk: int, rounds: int, span_s: float) -> tuple[float, float, float]:
    """Quartiles of what a compiled step of so many samples costs, by the same samples of a whole signal."""
    signal, x = torch.randn(1, 1, RATE * SECONDS), torch.randn(1, 1, chunk)
    stream = pts.compile(pts.create_stream(net), chunk=chunk, channels=1, backend="aot")
    for _ in range(20):
        stream(x)
    times = interleave({"offline": lambda: net(signal), "compiled": lambda: stream(x)}, rounds, span_s)
    shares = [whole / signal.numel() * chunk for whole in times["offline"]]
    return quartiles([t / share for t, share in zip(times["compiled"], shares, strict=True)])


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, nothing is written")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--span", type=float, default=0.2, help="seconds of each contender in a round")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    torch.set_num_threads(1)
    rounds, span_s = (3, 0.05) if args.quick else (args.rounds, args.span)
    chunks = [160, 1600, 16000]
    lines = [
        "| features | offline, ms/s | " + " | ".join(f"{c * 1000 // RATE} ms | scripted" for c in chunks) + " |",
        "|---|" + "---|" * (1 + 2 * len(chunks)),
    ]
    with torch.no_grad():
        for name, net in nets().items():
            lines.append(f"| `{name}` | " + " | ".join(measure(net.eval(), chunks, rounds, span_s)) + " |")
            print(lines[-1], flush=True)
        low, middle, high = compiled(nets()["MelSpectrogram"].eval(), 1600, rounds, span_s)
    ratio = f"**{middle:.2f}** ({low:.2f}-{high:.2f})"
    lines += ["", f'- `MelSpectrogram`, 100 ms, compiled (`backend="aot"`), by offline: {ratio} (at most {MOST})']
    text = "\n".join(
        [
            f"{machine()['cpu']}, 1 thread; torch {torch.__version__}; float32, one channel at 16 kHz, hop 10 ms; "
            f"{rounds} rounds.",
            "",
            *lines,
        ]
    )
    print(text)
    if not args.quick:
        write_between_markers(Path(__file__).with_name("README.md"), text + "\n", "features")


if __name__ == "__main__":
    main()
