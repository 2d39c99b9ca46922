"""On a CUDA GPU: what a chunk costs by CUDA graph, eager and offline, and how many streams of HiFi-GAN one GPU holds.

python benchmarks/gpu.py                         # both tables; writes results/ and README.md
python benchmarks/gpu.py --device cpu --small    # without a GPU, to try the script: no graphs, prints only
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from compiled import medians, ratio
from conv_stack import CHANNELS, LAYERS, build_net
from report import write_between_markers
from timing import interleave
from torch import Tensor, nn

import torchstreamer as pts

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "models"))

HERE = Path(__file__).parent
BATCHES = [1, 16, 64, 256, 1024]
CHUNKS = [1, 16, 256]
FRAMES = [8, 32]
SAMPLE_RATE = 24_000  # Hz
FRAME = 256  # samples of sound per frame of HiFi-GAN v1
MOST_STREAMS = 4096


def device_clock(device: torch.device) -> Callable[[], float]:
    """Seconds, read once the device has done all that it was given."""

    def read() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return read


class LiveRows:
    """A static step all of whose rows are live, by CUDA graph where there is one."""

    def __init__(self, stream: pts.BaseStream, chunk: int, batch: int, device: torch.device):
        self.static = pts.StaticStream(stream, chunk=chunk, batch=batch, validate=False)
        if device.type == "cuda":
            self.static.capture()
        self.lengths = torch.full([batch], chunk, device=device)
        self.no = torch.zeros([batch], dtype=torch.bool, device=device)

    def __call__(self, x: Tensor, first: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        return self.static(x, self.lengths, ~self.no if first else self.no, self.no)


def close(found: Tensor, expected: Tensor) -> None:
    """Raise unless a contender gives what the network does, within float32."""
    error = float((found - expected).abs().max() / expected.abs().max())
    if found.shape != expected.shape or error > 1e-4:
        raise SystemExit(f"an output of {list(found.shape)} is {error:.1e} away from the network's {expected.shape}")


def check(net: nn.Module, compiled: pts.CompiledStream, rows: LiveRows, chunk: int, x: Tensor) -> None:
    """Compare the compiled stream and the static step with the network on a whole signal."""
    expected = net(x)
    pieces = [compiled(piece) for piece in x.split(chunk, -1)] + [compiled.flush()]
    close(torch.cat([piece for piece in pieces if piece is not None], -1), expected)
    found = []
    for i, piece in enumerate(x.split(chunk, -1)):
        y, start, stop = rows(piece, first=i == 0)
        found.append(y[..., int(start[0]) : int(stop[0])])
    y = torch.cat(found, -1)
    close(y, expected[..., : y.shape[-1]])


def stack(device: torch.device, batches: list[int], chunks: list[int], rounds: int, span_s: float) -> list[str]:
    """10 × (Conv1d(64, 64, 3) + ReLU)."""
    net = build_net("plain").to(device)
    lines = [
        "| batch | chunk | offline, µs | eager, µs | CUDA graph, µs | graph of the static step, µs | eager by graph "
        "| graph by offline |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for batch in batches:
        samples = max(chunks[-1], 2**20 // batch // CHANNELS)
        signal = torch.randn(batch, CHANNELS, samples, device=device)
        for chunk in chunks:
            stream = pts.create_stream(net)
            backend = "cudagraph" if device.type == "cuda" else "eager"
            compiled = pts.compile(stream, chunk=chunk, batch=batch, backend=backend)
            rows = LiveRows(stream, chunk, batch, device)
            check(net, compiled, rows, chunk, torch.randn(batch, CHANNELS, chunk * (40 // chunk + 4), device=device))
            x, first = signal[..., :chunk].clone(), signal[..., : 2 * LAYERS]
            stream(first)
            compiled(first)
            rows(x, first=True)
            runs: dict[str, Callable[[], object]] = {
                "offline": lambda signal=signal: net(signal),
                "eager": lambda stream=stream, x=x: stream(x),
                "graph": lambda compiled=compiled, x=x: compiled(x),
                "static": lambda rows=rows, x=x: rows(x),
            }
            for run in runs.values():
                for _ in range(30):
                    run()
            times = interleave(runs, rounds, span_s, device_clock(device))
            # Without padding the layers give fewer samples than came: count what they computed, on average.
            times["offline"] = [s * chunk / (samples - LAYERS - 1) for s in times["offline"]]
            cost = {name: f"{seconds * 1e6:.1f}" for name, seconds in medians(times).items()}
            lines.append(
                f"| {batch} | {chunk} | {cost['offline']} | {cost['eager']} | {cost['graph']} | {cost['static']} "
                f"| **{ratio(times, 'eager', 'graph'):.2f}** | **{ratio(times, 'graph', 'offline'):.2f}** |"
            )
            print(lines[-1], flush=True)
    return lines


def step_seconds(stream: pts.BaseStream, chunk: int, batch: int, device: torch.device, dtype: torch.dtype) -> float:
    """Median time of a static step with all rows live; infinite if the device's memory does not hold it."""
    try:
        rows = LiveRows(stream, chunk, batch, device)
        x = torch.randn(batch, 80, chunk, device=device, dtype=dtype)
        rows(x, first=True)
        for _ in range(5):
            rows(x)
        return medians(interleave({"step": lambda: rows(x)}, 9, 0.1, device_clock(device)))["step"]
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return float("inf")


def live_streams(device: torch.device, frames: list[int], small: bool) -> list[str]:
    """How many streams of HiFi-GAN v1 at 24 kHz one device keeps up with, as rows of one static step."""
    from hifigan import HiFiGAN

    lines = ["| dtype | frames per chunk | a chunk lasts, ms | streams | a step takes, ms |", "|---|--:|--:|--:|--:|"]
    for dtype in [torch.float32] if small else [torch.float32, torch.float16]:
        torch.manual_seed(0)
        model = (HiFiGAN(initial_channels=32) if small else HiFiGAN()).eval().to(device, dtype)
        stream = pts.create_stream(model, example=torch.randn(1, 80, 50, device=device, dtype=dtype))
        for chunk in frames:
            lasts = chunk * FRAME / SAMPLE_RATE
            held, took, batch = 0, 0.0, 1
            refused = (4 if small else MOST_STREAMS) + 1
            while held < batch < refused:  # doubling until one is too many, then by halves, to an eighth
                seconds = step_seconds(stream, chunk, batch, device, dtype)
                if seconds <= lasts:
                    held, took = batch, seconds
                else:
                    refused = batch
                batch = 2 * held if 2 * held < refused else held + (refused - held) // 2
                if refused - held <= max(held // 8, 1):
                    break
            lines.append(f"| {dtype} | {chunk} | {lasts * 1e3:.1f} | **{held}** | {took * 1e3:.1f} |")
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a narrow model and small batches; prints only")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--span", type=float, default=0.05, help="seconds per contender and round")
    args = parser.parse_args()
    device = torch.device(args.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise SystemExit("no CUDA device was found; to try the script without one: --device cpu --small")
    warnings.filterwarnings("ignore", category=FutureWarning, message=".*weight_norm")
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32
    torch.set_grad_enabled(False)
    if device.type == "cpu":
        torch.set_num_threads(1)
    parts = {
        "stack": stack(device, [1, 3] if args.small else BATCHES, CHUNKS, args.rounds, args.span),
        "streams": live_streams(device, FRAMES[:1] if args.small else FRAMES, args.small),
    }
    if device.type == "cuda" and not args.small:
        card = torch.cuda.get_device_name(device)
        about = f"{card}; torch {torch.__version__}, CUDA {torch.version.cuda}; medians of {args.rounds} rounds."
        (HERE / "results" / "gpu.json").write_text(json.dumps({"card": card, **parts}, indent=1) + "\n")
        text = "\n\n".join([about, *("\n".join(lines) for lines in parts.values())])
        write_between_markers(HERE / "README.md", text + "\n", "generated gpu")


if __name__ == "__main__":
    main()
