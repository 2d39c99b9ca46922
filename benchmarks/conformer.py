"""Whole models with attention in chunks: ours beside the model offline, and beside how its own authors stream it.

SpeechBrain's Conformer, 12 layers of 256 channels, in chunks of 16 frames that see 64 frames before them; and moshi's
transformer, 8 layers of 512, frame by frame with a context of 250. Both come from PyPI, with the code of their authors
and random weights; without SpeechBrain a Conformer written after it stands in, and moshi's is left out. Outputs are
compared before anything is timed.

python benchmarks/conformer.py               # two minutes; writes results/conformer.json and README.md
python benchmarks/conformer.py --backend aot # also compiled: some minutes more
python benchmarks/conformer.py --quick       # two layers each; prints only
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from report import write_between_markers
from tables import described, ends, markdown, ratio
from timing import interleave, machine, quartiles, tail
from torch import Tensor, nn

import torchstreamer as pts

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "models"))

HERE = Path(__file__).parent
OFFLINE_FRAMES = 1000
COMPARED_FRAMES = 400
WIDTH, HEADS, KERNEL, CHUNK, LEFT = 256, 4, 31, 16, 4
MOSHI_WIDTH, MOSHI_HEADS, MOSHI_CONTEXT = 512, 8, 250


def conformer(layers: int) -> tuple[nn.Module, Callable[[Tensor], Tensor] | None]:
    """The model, and SpeechBrain's own streaming of it where that can be had."""
    try:
        from attention_peers import SpeechBrainConformer

        net = SpeechBrainConformer(WIDTH, HEADS, layers, KERNEL, CHUNK, LEFT).eval()
    except ImportError as error:
        from streaming_conformers import ChunkConformer

        print(f"without SpeechBrain: {error}; pip install --no-deps --target .benchmarks/speechbrain-1.1.2 speechbrain")
        return ChunkConformer(WIDTH, HEADS, layers, CHUNK, LEFT).eval(), None
    return net, net.streaming()


def moshi(layers: int) -> tuple[nn.Module, Callable[[Tensor], Tensor]] | None:
    """The transformer as the tests have it, with the weights of moshi's, and moshi's own streaming."""
    try:
        from attention_peers import MoshiTransformer

        peer = MoshiTransformer(MOSHI_WIDTH, MOSHI_HEADS, layers, MOSHI_CONTEXT).eval()
    except ImportError as error:
        print(f"without moshi: {error}; pip install --no-deps --target .benchmarks/moshi-0.2.13 moshi, and einops")
        return None
    import moshi_transformer as ours

    net = ours.MoshiTransformer(MOSHI_WIDTH, MOSHI_HEADS, 0, MOSHI_CONTEXT)
    sizes = MOSHI_WIDTH, MOSHI_HEADS, 4 * MOSHI_WIDTH, MOSHI_CONTEXT
    net.layers = nn.ModuleList(ours.StreamingTransformerLayer(*sizes) for _ in range(layers))
    weights = peer.transformer.state_dict()
    names = {".in_projs.0.weight": ".in_proj_weight", ".out_projs.0.": ".out_proj."}
    for old, new in names.items():
        weights = {name.replace(old, new): weight for name, weight in weights.items()}
    net.load_state_dict(weights)
    return net.eval(), peer.streaming()


def streamed(step: Callable[[Tensor], Tensor | None], x: Tensor, chunk: int) -> Tensor:
    """All that a stream gives for a signal of whole chunks."""
    return torch.cat([y for y in map(step, x.split(chunk, -1)) if y is not None], -1)


def told(*at: Any) -> None:
    """Print how far it is."""
    print("  ", *at, flush=True)


def measure(
    name: str,
    net: nn.Module,
    peer: Callable[[Tensor], Tensor] | None,
    channels: int,
    chunk: int,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Seconds per chunk of every contender, the offline model's for as many frames."""
    frames = COMPARED_FRAMES // chunk * chunk
    signal, x = torch.randn(1, channels, OFFLINE_FRAMES), torch.randn(1, channels, chunk)
    print(f"{name}: capturing", flush=True)
    example = torch.randn(1, channels, 6 * chunk + 5)
    stream = pts.create_stream(net, example=example, progress=told)
    expected = net(signal[..., :frames])
    print(f"{name}: scripting", flush=True)
    scripted = torch.jit.script(stream)
    steps: dict[str, Callable[[Tensor], Any]] = {"ours": stream, "ours, scripted": scripted}
    if args.backend:
        print(f"{name}: compiling", flush=True)
        own = dict(autotune=False, time_limit_s=args.time_limit, progress=told)
        steps["ours, compiled"] = pts.compile(stream, chunk, backend=args.backend, **own)
    if peer is not None:
        steps["its own streaming"] = peer
    for each, step in steps.items():
        torch.testing.assert_close(
            streamed(step, signal[..., :frames], chunk),
            expected,
            rtol=1e-3,
            atol=1e-4,
            msg=lambda text, each=each: f"{name}, {each}: {text}",
        )
    print(f"{name}: outputs agree, measuring", flush=True)
    contenders: dict[str, Callable[[], Any]] = {"offline": lambda: net(signal)}
    contenders.update({each: lambda step=step: step(x) for each, step in steps.items()})
    times = interleave(contenders, args.rounds, args.span)
    times["offline"] = [s * chunk / OFFLINE_FRAMES for s in times["offline"]]
    ends = {}
    for each in steps:
        middle = quartiles(times[each])[1]
        count = max(100, min(args.steps, int(args.seconds / middle)))
        ends[each] = (*tail(contenders[each], count), count)
    return {"name": name, "seconds": times, "tails": ends}


def table(cases: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """The figures as markdown."""
    rows = []
    for case in cases:
        times = case["seconds"]
        peer = times.get("its own streaming")
        for each, seconds in times.items():
            most = 1.3 if each == "ours, compiled" and "Conformer" in case["name"] else None
            by = ratio(seconds, times["offline"], most)
            gain = ratio(peer, seconds) if peer else "-"
            *last, count = case["tails"].get(each, (0,))
            steps = f"{count:,}" if count else "-"
            cost = f"{1e3 * quartiles(seconds)[1]:.2f}"
            rows.append([case["name"], each, cost, by, gain, *ends(last, 1e-3, 2), steps])
    columns = ["model", "contender", "chunk, ms", "by offline", "its own streaming by it"]
    return markdown(described(facts), [*columns, "p99.9, ms", "maximum, ms", "steps"], rows, 2)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two layers, few rounds; prints only")
    parser.add_argument("--layers", type=int, nargs=2, default=[12, 8], help="of the Conformer, of the transformer")
    parser.add_argument("--backend", default="", help="of pts.compile; nothing is compiled without it")
    parser.add_argument("--time-limit", type=float, default=None, help="seconds after which no other way is compiled")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds")
    parser.add_argument("--span", type=float, default=0.1, help="seconds per contender and round")
    parser.add_argument("--steps", type=int, default=100_000, help="single steps for p99.9 and the maximum")
    parser.add_argument("--seconds", type=float, default=20, help="for those steps of a contender: fewer if they end")
    parser.add_argument("--only", choices=["conformer", "moshi"])
    parser.add_argument("--no-write", action="store_true", help="print only")
    args = parser.parse_args()
    if args.quick:
        args.layers, args.rounds, args.span, args.seconds, args.no_write = [2, 2], 5, 0.02, 1, True
    torch.set_num_threads(1)
    torch.manual_seed(0)
    facts = {**machine(), "rounds": args.rounds}
    path = HERE / "results" / "conformer.json"
    cases: dict[str, dict[str, Any]] = {}
    if path.exists() and not args.no_write:
        kept = json.loads(path.read_text())
        cases = {case["name"]: case for case in kept["cases"]} if kept["machine"] == facts else {}
    with torch.no_grad():
        if args.only != "moshi":
            net, peer = conformer(args.layers[0])
            name = f"{'SpeechBrain' if peer else 'A chunked'} Conformer, {args.layers[0]} layers, chunks of {CHUNK}"
            cases[name] = measure(name, net, peer, WIDTH, CHUNK, args)
        both = moshi(args.layers[1]) if args.only != "conformer" else None
        if both is not None:
            name = f"moshi's transformer, {args.layers[1]} layers, frame by frame"
            cases[name] = measure(name, *both, MOSHI_WIDTH, 1, args)
    text = table(list(cases.values()), facts)
    print("\n" + text)
    if not args.no_write:
        path.write_text(json.dumps({"machine": facts, "cases": list(cases.values())}) + "\n")
        write_between_markers(HERE / "README.md", text, "conformer")


if __name__ == "__main__":
    main()
