"""Streaming a stack of convolutions: cost per chunk, beside torch-streamer 0.0.2 and the offline network.

python benchmarks/conv_stack.py            # the whole table, some minutes; writes results/ and README.md
python benchmarks/conv_stack.py --quick    # fewer rounds, prints only
"""

import argparse
import json
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import torch
from peer import load_peer
from report import markdown, picture, targets, write_between_markers
from timing import interleave, machine
from torch import Tensor, nn

import torchstreamer as pts

HERE = Path(__file__).parent
CHANNELS = 64
LAYERS = 10
OFFLINE_LENGTH = 4096
STACKS = {"plain": [1] * LAYERS, "dilated": [2**i for i in range(LAYERS)]}


@dataclass
class Case:
    """One row of the table."""

    stack: str
    batch: int
    chunk: int
    seconds: dict[str, list[float]] = field(default_factory=dict)  # contender -> seconds per chunk, one per round


Step = Callable[[Tensor, bool], Tensor | None]


def build_net(stack: str) -> nn.Sequential:
    """10 × (Conv1d(64, 64, 3) + ReLU)."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for dilation in STACKS[stack]:
        layers += [nn.Conv1d(CHANNELS, CHANNELS, 3, dilation=dilation), nn.ReLU()]
    return nn.Sequential(*layers).eval()


def contenders(net: nn.Sequential, batch: int, peer: ModuleType) -> dict[str, Step]:
    """New streams, each a function of ``(chunk, final)`` on chunks ``[B, C, T]``, for one row ``[C, T]``."""

    def rows_apart(streams: list[nn.Module]) -> Step:
        # The peer takes one row only: as many streams as rows.
        def step(x: Tensor, final: bool) -> Tensor | None:
            ys = [stream(row, final) for stream, row in zip(streams, x, strict=True)]
            return None if ys[0] is None else torch.stack(ys)

        return step

    def peers(script: bool) -> Step:
        streams = [peer.create_stream(net) for _ in range(batch)]
        if script:
            streams = [torch.jit.script(stream) for stream in streams]
        return streams[0] if batch == 1 else rows_apart(streams)

    ours = pts.create_stream(net)
    return {
        "torch-streamer": peers(False),
        "torch-streamer scripted": peers(True),
        "torchstreamer": ours,
        "torchstreamer scripted": torch.jit.script(pts.create_stream(net)),
    }


def context(case: Case) -> int:
    """Samples before the first output of a stack."""
    return sum(2 * d for d in STACKS[case.stack])


def check(net: nn.Sequential, case: Case, peer: ModuleType) -> None:
    """Raise unless every contender gives, chunk by chunk, what the net gives on the whole signal."""
    first = context(case)
    x = torch.randn(case.batch, CHANNELS, first + 3 * case.chunk + 1)
    expected = net(x)
    if case.batch == 1:
        x, expected = x[0], expected[0]
    chunks = x.split([first] + 3 * [case.chunk] + [1], -1)
    for name, step in contenders(net, case.batch, peer).items():
        pieces = [step(chunk, i == len(chunks) - 1) for i, chunk in enumerate(chunks)]
        y = torch.cat([piece for piece in pieces if piece is not None], -1)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def measure(net: nn.Sequential, case: Case, peer: ModuleType, rounds: int, span_s: float) -> None:
    """Fill in the times of a case."""
    first = torch.randn(case.batch, CHANNELS, context(case))
    x = torch.randn(case.batch, CHANNELS, case.chunk)
    if case.batch == 1:
        first, x = first[0], x[0]
    signal = torch.randn(case.batch, CHANNELS, OFFLINE_LENGTH)
    runs: dict[str, Callable[[], object]] = {"offline": lambda: net(signal)}
    for name, step in contenders(net, case.batch, peer).items():
        # The context first, then chunks until TorchScript has seen enough of them to settle.
        step(first, False)
        for _ in range(20):
            step(x, False)
        runs[name] = lambda step=step: step(x, False)
    case.seconds = interleave(runs, rounds, span_s)
    # Without padding the layers give fewer samples than came: count what they computed, on average.
    computed = OFFLINE_LENGTH - sum(2 * d * (LAYERS - i) for i, d in enumerate(STACKS[case.stack])) / LAYERS
    case.seconds["offline"] = [s * case.chunk / computed for s in case.seconds["offline"]]


def as_json(cases: list[Case], facts: dict[str, str | int]) -> str:
    """All times in nanoseconds, a case on each line."""
    lines = []
    for case in cases:
        times = {name: [round(s * 1e9) for s in seconds] for name, seconds in case.seconds.items()}
        lines.append(json.dumps({"stack": case.stack, "batch": case.batch, "chunk": case.chunk, "ns": times}))
    body = ",\n".join(lines)
    return f'{{"machine": {json.dumps(facts)},\n"cases": [\n{body}\n]}}\n'


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 short rounds; print only")
    parser.add_argument("--rounds", type=int, default=25, help="interleaved rounds")
    parser.add_argument("--span", type=float, default=0.02, help="seconds per contender and round")
    parser.add_argument("--chunks", type=int, nargs="+", default=[1, 4, 16, 64, 256, 1024])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16])
    parser.add_argument("--stacks", nargs="+", default=list(STACKS), choices=list(STACKS))
    parser.add_argument("--peer", type=Path, help="folder that holds torch-streamer 0.0.2; else pip fetches it")
    parser.add_argument("--no-write", action="store_true", help="print only")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.span, args.no_write = 5, 0.005, True

    warnings.filterwarnings("ignore", message=".*torch.jit")
    torch.set_num_threads(1)
    peer = load_peer(args.peer)
    cases = []
    for stack in args.stacks:
        for batch in args.batches:
            for chunk in args.chunks:
                case = Case(stack, batch, chunk)
                net = build_net(stack)
                with torch.inference_mode():
                    check(net, case, peer)
                    measure(net, case, peer, args.rounds, args.span)
                cases.append(case)
                print(f"{stack}, batch {batch}, chunk {chunk} done", flush=True)

    facts = {**machine(), "rounds": args.rounds}
    table = markdown(cases, facts)
    print("\n" + table + "\n" + targets(cases))
    if not args.no_write:
        results = HERE / "results"
        results.mkdir(exist_ok=True)
        (results / "conv_stack.json").write_text(as_json(cases, facts))
        picture(cases, results / "conv_stack.svg")
        write_between_markers(HERE / "README.md", table + "\n" + targets(cases))


if __name__ == "__main__":
    main()
