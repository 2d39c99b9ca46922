"""Compiled streams: what a chunk costs, beside torch-streamer 0.0.2 in TorchScript, the offline network, and the limit.

python benchmarks/compiled.py                 # compiles and measures all: half an hour; writes results/ and README.md
python benchmarks/compiled.py --only stack    # one part: stack, hifigan or steady; prints only, unless --write
"""

import argparse
import ctypes
import importlib.util
import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from conv_stack import CHANNELS, LAYERS, OFFLINE_LENGTH, build_net
from limit import Limit, has_compiler
from peer import load_peer
from report import write_between_markers
from timing import interleave, machine

import torchstreamer as pts

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "models"))

HERE = Path(__file__).parent
STACK_CHUNKS = [1, 4, 16, 64, 256, 1024]
HIFIGAN_CHUNKS = [1, 8, 32]
# What a compiled chunk may cost of what it is beside, by samples per chunk.
AT_LEAST = {1: 8.0, 4: 4.0, 16: 2.0, 64: 1.1}
AT_MOST = {256: 1.15, 1024: 1.0}
HIFIGAN_AT_MOST = {1: 4.0, 8: 1.4, 32: 1.0}


def medians(times: dict[str, list[float]]) -> dict[str, float]:
    """The median time of each contender."""
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def ratio(times: dict[str, list[float]], one: str, other: str) -> float:
    """The median over the rounds of one contender's time by another's."""
    return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))


def chosen(stream: pts.CompiledStream) -> str:
    """What a compiled stream was made of."""
    return str(stream.candidates[0]).partition(":")[0]


def has_onnx_runtime() -> bool:
    """Whether a step can be run by ONNX Runtime."""
    return all(importlib.util.find_spec(name) for name in ("onnx", "onnxscript", "onnxruntime"))


def stack(rounds: int, span_s: float, peer_folder: Path | None, autotune: bool) -> list[str]:
    """10 × (Conv1d(64, 64, 3) + ReLU), batch 1."""
    net = build_net("plain")
    peer = load_peer(peer_folder)
    signal = torch.randn(1, CHANNELS, OFFLINE_LENGTH)
    lines = [
        "| chunk | offline, µs | torch-streamer scripted, µs | ours, scripted, µs | compiled, µs | by ONNX Runtime, µs "
        "| limit, µs | torch-streamer by compiled | compiled by offline | chosen |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for chunk in STACK_CHUNKS:
        compiled = pts.compile(pts.create_stream(net), chunk=chunk, autotune=autotune)
        onnx = pts.compile(pts.create_stream(net), chunk=chunk, backend="onnx") if has_onnx_runtime() else None
        scripted = torch.jit.script(pts.create_stream(net))
        other = torch.jit.script(peer.create_stream(net))
        x, first = torch.randn(1, CHANNELS, chunk), torch.randn(1, CHANNELS, 2 * LAYERS)
        runs: dict[str, Callable[[], object]] = {"offline": lambda: net(signal)}
        with torch.inference_mode():
            steps = {
                "compiled": compiled,
                "scripted": scripted,
                "torch-streamer": lambda x, other=other: other(x[0], False),
            }
            if onnx is not None:
                steps["onnx"] = onnx
            if has_compiler():
                steps["limit"] = Limit.create(net).step
            for name, step in steps.items():
                step(first)
                for _ in range(30 + 2 * LAYERS // chunk):
                    step(x)
                runs[name] = lambda step=step, x=x: step(x)
            times = interleave(runs, rounds, span_s)
        times["offline"] = [s * chunk / (OFFLINE_LENGTH - LAYERS - 1) for s in times["offline"]]
        cost = medians(times)
        gain, share = ratio(times, "torch-streamer", "compiled"), ratio(times, "compiled", "offline")
        wanted = [f"at least {AT_LEAST[chunk]:g}"] if chunk in AT_LEAST else []
        asked = f" (at most {AT_MOST[chunk]:g})" if chunk in AT_MOST else ""
        by_onnx, limit = (f"{cost[name] * 1e6:.1f}" if name in cost else "-" for name in ("onnx", "limit"))
        lines.append(
            f"| {chunk} | {cost['offline'] * 1e6:.1f} | {cost['torch-streamer'] * 1e6:.0f} | "
            f"{cost['scripted'] * 1e6:.0f} | {cost['compiled'] * 1e6:.1f} | {by_onnx} | {limit} | **{gain:.2f}**"
            f"{' (' + wanted[0] + ')' if wanted else ''} | **{share:.2f}**{asked} | {chosen(compiled)} |"
        )
        print(lines[-1], *map(str, compiled.candidates), sep="\n", flush=True)
    return lines


def keep_memory() -> None:
    """Let glibc keep what is freed: else it hands large blocks back, and faults them in anew."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def hifigan(rounds: int, backend: str, autotune: bool, chunks: list[int]) -> list[str]:
    """HiFi-GAN v1 in full, against the offline cost of as many frames. A turn is a second: some calls in a row."""
    from hifigan import HiFiGAN

    keep_memory()
    torch.manual_seed(0)
    model = HiFiGAN().eval()
    frames = 256
    signal = torch.randn(1, 80, frames)
    stream = pts.create_stream(model, example=torch.randn(1, 80, 50))
    lines = [
        "| frames per chunk | offline, ms | compiled, ms | compiled by offline | chosen |",
        "|--:|--:|--:|--:|---|",
    ]
    for chunk in chunks:
        compiled = pts.compile(stream, chunk=chunk, backend=backend, autotune=autotune)
        x = torch.randn(1, 80, chunk)
        with torch.inference_mode():
            for _ in range(80 // chunk + 3):
                compiled(x)
            runs = {"offline": lambda: model(signal), "compiled": lambda x=x, step=compiled: step(x)}
            times = interleave(runs, rounds, 1.0)
        times["offline"] = [s * chunk / frames for s in times["offline"]]
        cost, share = medians(times), ratio(times, "compiled", "offline")
        lines.append(
            f"| {chunk} | {cost['offline'] * 1e3:.2f} | {cost['compiled'] * 1e3:.2f} | **{share:.2f}** (at most "
            f"{HIFIGAN_AT_MOST[chunk]:g}) | {chosen(compiled)} |"
        )
        print(lines[-1], *map(str, compiled.candidates), sep="\n", flush=True)
    return lines


def steady(chunks: int) -> list[str]:
    """The cost of a chunk after 10 chunks and after many."""
    net = build_net("plain")
    x = torch.randn(1, CHANNELS, 1)
    lines = []
    with torch.inference_mode():
        for name, stream in (
            ("scripted", torch.jit.script(pts.create_stream(net))),
            ("compiled, not autotuned", pts.compile(pts.create_stream(net), chunk=1, backend="aot", autotune=False)),
        ):
            for _ in range(3000):  # TorchScript settles
                stream(x)
            stream.reset()
            for _ in range(30):
                stream(x)

            def cost(stream=stream) -> float:
                spans = []
                for _ in range(50):
                    begin = time.process_time()
                    for _ in range(100):
                        stream(x)
                    spans.append((time.process_time() - begin) / 100)
                return statistics.median(spans)

            early = cost()
            for _ in range(chunks):
                stream(x)
            late = cost()
            lines.append(
                f"- {name}: {early * 1e6:.1f} µs per chunk of one sample at the start, {late * 1e6:.1f} µs after "
                f"{chunks:,} chunks"
            )
            print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["stack", "hifigan", "steady"], help="one part; prints, unless --write")
    parser.add_argument("--write", action="store_true", help="put the part among those that were measured before")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--span", type=float, default=0.02, help="seconds per contender and round")
    parser.add_argument("--chunks", type=int, default=1_000_000, help="chunks of the long run")
    parser.add_argument("--peer", type=Path, help="folder that holds torch-streamer 0.0.2; else pip fetches it")
    parser.add_argument("--no-autotune", action="store_true", help="compile without trying kernels out")
    parser.add_argument("--backend", default="auto", help="of HiFi-GAN")
    parser.add_argument("--frames", type=int, nargs="+", default=HIFIGAN_CHUNKS, help="of HiFi-GAN, per chunk")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*torch.jit")
    torch.set_num_threads(1)
    facts = machine()
    tuned = "not autotuned" if args.no_autotune else "autotuned"
    where = f"{facts['cpu']}, 1 thread; torch {facts['torch']}; float32, batch 1"
    about = dict.fromkeys(("stack", "hifigan"), f"{where}; medians of {args.rounds} rounds; {tuned}.")
    about["steady"] = f"{where}; medians of 50 times 100 chunks."
    parts: dict[str, Callable[[], list[str]]] = {
        "stack": lambda: stack(args.rounds, args.span, args.peer, not args.no_autotune),
        "hifigan": lambda: hifigan(args.rounds, args.backend, not args.no_autotune, args.frames),
        "steady": lambda: steady(args.chunks),
    }
    found = {name: part() for name, part in parts.items() if args.only in (None, name)}
    if args.only is None or args.write:
        path = HERE / "results" / "compiled.json"
        kept = json.loads(path.read_text()) if path.exists() else {}
        if "hifigan" in found and args.frames != HIFIGAN_CHUNKS:  # the other rows stay
            rows = {line.split("|")[1]: line for line in [*kept["hifigan"][4:], *found["hifigan"][2:]]}
            found["hifigan"][2:] = rows.values()
        kept.update({name: [about[name], "", *lines] for name, lines in found.items()}, machine=facts)
        path.write_text(json.dumps(kept, indent=1) + "\n")
        text = "\n\n".join("\n".join(kept[name]) for name in parts if name in kept)
        write_between_markers(HERE / "README.md", text + "\n", "generated compiled")


if __name__ == "__main__":
    main()
