"""On a CUDA GPU: what a chunk costs by CUDA graph, eager and offline, and how many streams of HiFi-GAN one GPU holds.

python benchmarks/gpu.py                         # all tables; writes results/ and README.md
python benchmarks/gpu.py --only layers           # recurrences, running norms, attention, a Conformer
python benchmarks/gpu.py --device cpu --small    # without a GPU, to try the script: no graphs, prints only
"""

import argparse
import gc
import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from compiled import chosen, medians, ratio
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
ALONG_CHUNK = 16
DTYPES = ["float32", "float16"]
SAMPLE_RATE = 24_000  # Hz
FRAME = 256  # samples of sound per frame of HiFi-GAN v1
MOST_STREAMS = 8192
STREAM_ROUNDS = 9


def device_clock(device: torch.device) -> Callable[[], float]:
    """Seconds, read once the device has done all that it was given."""

    def read() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return read


class LiveRows:
    """A static step all of whose rows are live, by CUDA graph where there is one."""

    def __init__(self, stream: pts.BaseStream, chunk: int, batch: int, device: torch.device, fuse: bool = True):
        self.static = pts.StaticStream(stream, chunk=chunk, batch=batch, validate=False)
        if device.type == "cuda":
            self.static.capture(fuse)
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
        "| batch | chunk | offline, µs | eager, µs | compiled, µs | static step, µs | eager by compiled "
        "| compiled by offline | chosen |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|---|",
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
                "compiled": lambda compiled=compiled, x=x: compiled(x),
                "static": lambda rows=rows, x=x: rows(x),
            }
            for run in runs.values():
                for _ in range(30):
                    run()
            times = interleave(runs, rounds, span_s, device_clock(device))
            # Without padding the layers give fewer samples than came: count what they computed, on average.
            times["offline"] = [s * chunk / (samples - LAYERS - 1) for s in times["offline"]]
            cost = {name: f"{seconds * 1e6:.1f}" for name, seconds in medians(times).items()}
            gain, share = ratio(times, "eager", "compiled"), ratio(times, "compiled", "offline")
            lines.append(
                f"| {batch} | {chunk} | {cost['offline']} | {cost['eager']} | {cost['compiled']} | {cost['static']} "
                f"| **{gain:.2f}** | **{share:.2f}** | {chosen(compiled)} |"
            )
            print(lines[-1], flush=True)
    return lines


def along() -> dict[str, tuple[nn.Module, int, bool]]:
    """Layers that carry something along the signal, their channels, and whether they are captured."""
    from streaming_conformers import ChunkConformer

    attention, encoder = nn.MultiheadAttention(256, 4, batch_first=True), nn.TransformerEncoderLayer(256, 4, 1024)
    conformer = ChunkConformer(256, 4, 4, ALONG_CHUNK, 4)
    return {
        "GRU(256)": (pts.Recurrent1d(nn.GRU(256, 256)), 256, False),
        "LSTM(256)": (pts.Recurrent1d(nn.LSTM(256, 256)), 256, False),
        "CumulativeLayerNorm1d(256)": (pts.CumulativeLayerNorm1d(256), 256, False),
        "LinearRecurrence, 256": (pts.LinearRecurrence(), 512, False),
        "attention, 64 before": (pts.SelfAttention1d(attention, pts.Context(64)), 256, False),
        "encoder layer, chunks": (pts.TransformerEncoderLayer1d(encoder, pts.Context(64, 0, ALONG_CHUNK)), 256, False),
        "Conformer, 4 layers": (conformer, 256, True),
    }


def layers(device: torch.device, batches: list[int], rounds: int, span_s: float) -> list[str]:
    """What carries something along the signal, in chunks of 16 samples."""
    lines = [
        "| layer | batch | offline, µs | eager, µs | compiled, µs | static step, µs | eager by compiled "
        "| compiled by offline |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    chunk, samples = ALONG_CHUNK, 64 * ALONG_CHUNK
    for name, (net, channels, captured) in along().items():
        net = net.eval().to(device)
        example = torch.rand(1, channels, 6 * chunk + 5, device=device) if captured else None
        stream = pts.create_stream(net, example=example)
        for batch in batches:
            print(f"  {name}, {batch} rows", flush=True)
            backend = "cudagraph" if device.type == "cuda" else "eager"
            given = {} if captured else {"channels": channels}
            compiled = pts.compile(stream, chunk=chunk, batch=batch, backend=backend, **given)
            rows = LiveRows(stream, chunk, batch, device)
            # From 0 to 1, as the decay of a linear recurrence has to be.
            signal = torch.rand(batch, channels, samples, device=device)
            check(net, compiled, rows, chunk, signal[..., : 12 * chunk])
            x = signal[..., :chunk].clone()
            mine = pts.create_stream(net, example=example)
            rows(x, first=True)
            runs: dict[str, Callable[[], object]] = {
                "offline": lambda net=net, signal=signal: net(signal),
                "eager": lambda mine=mine, x=x: mine(x),
                "compiled": lambda compiled=compiled, x=x: compiled(x),
                "static": lambda rows=rows, x=x: rows(x),
            }
            for run in list(runs.values())[1:]:
                for _ in range(30):
                    run()
            times = interleave(runs, rounds, span_s, device_clock(device))
            times["offline"] = [s * chunk / samples for s in times["offline"]]
            cost = {each: f"{seconds * 1e6:.1f}" for each, seconds in medians(times).items()}
            gain, share = ratio(times, "eager", "compiled"), ratio(times, "compiled", "offline")
            lines.append(
                f"| {name} | {batch} | {cost['offline']} | {cost['eager']} | {cost['compiled']} | {cost['static']} "
                f"| **{gain:.2f}** | **{share:.2f}** |"
            )
            print(lines[-1], flush=True)
    return lines


def step_seconds(stream: pts.BaseStream, chunk: int, batch: int, fuse: bool, like: Tensor) -> float:
    """Median time of a static step with all rows live; infinite if the device's memory does not hold it."""
    try:
        return _step_seconds(stream, chunk, batch, fuse, like)
    except RuntimeError as error:  # not every library raises torch.OutOfMemoryError
        if not any(
            text in str(error).lower() for text in ("out of memory", "alloc_failed", "unable to find an engine")
        ):
            raise
        return float("inf")
    finally:
        gc.collect()
        if like.is_cuda:
            torch.cuda.empty_cache()


def _step_seconds(stream: pts.BaseStream, chunk: int, batch: int, fuse: bool, like: Tensor) -> float:
    rows = LiveRows(stream, chunk, batch, like.device, fuse)
    x = torch.randn(batch, 80, chunk, device=like.device, dtype=like.dtype)
    rows(x, first=True)
    for _ in range(5):
        rows(x)
    return medians(interleave({"step": lambda: rows(x)}, STREAM_ROUNDS, 0.1, device_clock(like.device)))["step"]


def most_rows(seconds: Callable[[int], float], lasts: float, first: int, most: int) -> tuple[int, float]:
    """The largest batch, to an eighth, whose step takes no longer than a chunk lasts, and the time of that step.

    Args:
        seconds: time of a step with so many rows
        lasts: of a chunk
        first: where to begin
        most: rows that are tried at most
    """
    held, took, refused, batch = 0, 0.0, most + 1, min(first, most)
    while refused - held > max(held // 8, 1):
        spent = seconds(batch)
        if spent <= lasts:
            held, took = batch, spent
        else:
            refused = batch
        # The time of a long step goes with the rows, so this comes close at once.
        estimate = int(0.97 * batch * lasts / spent) if spent < float("inf") else (held + refused) // 2
        batch = max(estimate, held + held // 8 + 1)
        if batch >= refused:
            batch = (held + refused) // 2
    return held, took


def live_streams(device: torch.device, dtypes: list[str], frames: list[int], small: bool) -> list[str]:
    """How many streams of HiFi-GAN v1 at 24 kHz one device keeps up with, as rows of one static step."""
    from hifigan import HiFiGAN

    lines = [
        "| dtype | frames per chunk | a chunk lasts, ms | streams, CUDA graph | a step takes, ms | streams, fused "
        "| a step takes, ms |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name in dtypes:
        torch.manual_seed(0)
        dtype = getattr(torch, name)
        model = (HiFiGAN(initial_channels=32) if small else HiFiGAN()).eval().to(device, dtype)
        like = torch.randn(1, 80, 50, device=device, dtype=dtype)
        stream = pts.create_stream(model, example=like)
        for chunk in frames:
            lasts = chunk * FRAME / SAMPLE_RATE
            most = 4 if small else MOST_STREAMS
            cells, first = "", 1 if small else 64
            for fuse in (False, True):

                def seconds(
                    batch: int, fuse: bool = fuse, chunk: int = chunk, stream: Any = stream, like=like
                ) -> float:
                    spent = step_seconds(stream, chunk, batch, fuse, like)
                    print(f"  {batch} rows, {'fused' if fuse else 'graph'}: {spent * 1e3:.1f} ms", flush=True)
                    return spent

                held, took = most_rows(seconds, lasts, first, most)
                cells += f" **{'at least ' if held == most else ''}{held}** | {f'{took * 1e3:.1f}' if held else '-'} |"
                first = max(held, 1) * 3 // 2
            lines.append(f"| {name} | {chunk} | {lasts * 1e3:.1f} |{cells or ' - | - |'}")
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a narrow model and small batches; prints only")
    parser.add_argument(
        "--only", choices=["stack", "layers", "streams"], help="one part; the other stays as it was measured"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=BATCHES, help="of the stack")
    parser.add_argument("--frames", type=int, nargs="+", default=FRAMES, help="of HiFi-GAN, per chunk")
    parser.add_argument("--dtypes", nargs="+", default=DTYPES, help="of HiFi-GAN")
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
    if args.small:
        args.batches, args.frames, args.dtypes = [1, 3], FRAMES[:1], DTYPES[:1]
    parts = {
        "stack": lambda: stack(device, args.batches, CHUNKS, args.rounds, args.span),
        "layers": lambda: layers(device, args.batches, args.rounds, args.span),
        "streams": lambda: live_streams(device, args.dtypes, args.frames, args.small),
    }
    rounds = {"stack": args.rounds, "layers": args.rounds, "streams": STREAM_ROUNDS}
    for name, part in parts.items():
        if args.only not in (None, name):
            continue
        lines = part()
        if device.type != "cuda" or args.small:
            continue
        path = HERE / "results" / "gpu.json"  # written after each part, since the next may take long
        kept = json.loads(path.read_text()) if path.exists() else {}
        about = f"{torch.cuda.get_device_name(device)}; torch {torch.__version__}, CUDA {torch.version.cuda}"
        kept[name] = [f"{about}; medians of {rounds[name]} rounds.", "", *merged(kept.get(name, []), lines)]
        path.write_text(json.dumps(kept, indent=1) + "\n")
        text = "\n\n".join("\n".join(kept[name]) for name in parts if name in kept)
        write_between_markers(HERE / "README.md", text + "\n", "generated gpu")


def merged(before: list[str], lines: list[str]) -> list[str]:
    """A table with its rows put among those that were measured before; a row is known by its first two cells."""
    head, rows = lines[:2], lines[2:]
    known = {tuple(row.split("|")[1:3]): row for row in [*(before[4:] if before[2:3] == head[:1] else []), *rows]}
    return [*head, *known.values()]


if __name__ == "__main__":
    main()
