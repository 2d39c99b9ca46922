"""Streaming a whole model, HiFi-GAN v1: cost per frame, beside torchstream-lib 1.0.2 and the offline model.

python benchmarks/graph_models.py            # the whole table, some ten minutes; writes results/ and README.md
python benchmarks/graph_models.py --quick    # fewer rounds, prints only
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from peer import load_black_box
from report import write_between_markers
from timing import interleave, machine, quartiles
from torch import Tensor, nn

import torchstreamer as pts

HERE = Path(__file__).parent
MELS = 80
HOP = 256  # samples per frame
EXAMPLE_FRAMES = 50
OFFLINE_FRAMES = 256
CHUNKS = [1, 8, 32, 128]
# What a frame of a stream may cost, in frames of the offline model.
TARGETS = {1: 11.0, 8: 2.2, 32: 1.15, 128: 1.0}
OURS, SCRIPTED, PEER = "ours", "ours scripted", "torchstream-lib"

Step = Callable[[Tensor, bool], Tensor | None]


@dataclass
class Case:
    """One row of the table."""

    chunk: int
    seconds: dict[str, list[float]] = field(default_factory=dict)  # contender -> seconds per frame, one per round

    def ratio(self, slow: str, fast: str) -> tuple[float, float, float]:
        """Quartiles of a ratio, taken round by round."""
        return quartiles([a / b for a, b in zip(self.seconds[slow], self.seconds[fast], strict=True)])


def build_model() -> nn.Module:
    """The generator as published, 512 channels wide, with random weights and without weight norm."""
    sys.path.insert(0, str(HERE.parent / "tests" / "models"))
    from hifigan import HiFiGAN

    torch.manual_seed(0)
    return HiFiGAN(normed=False).eval()


class Contenders:
    """Makes new streams of the model.

    Args:
        model: the model
        peer: the package of torchstream-lib, if it is at hand
    """

    def __init__(self, model: nn.Module, peer: ModuleType | None) -> None:
        self.model = model
        self.ours = pts.create_stream(model, example=torch.randn(1, MELS, EXAMPLE_FRAMES))
        self.peer = peer
        self.window: Any = None
        if peer is not None:
            begin = time.perf_counter()
            self.specs = peer.SeqSpec(1, MELS, -1), peer.SeqSpec(1, 1, -1)
            self.window = peer.find_sliding_window_params(model, *self.specs, max_in_out_seq_size=1_000_000)[0]
            print(
                f"torchstream-lib found {self.window} in {time.perf_counter() - begin:.0f} s; "
                f"its context is {self.window.streaming_context_size} frames"
            )

    def make(self) -> dict[str, Step]:
        """Streams at the start of a signal, each a function of ``(chunk, final)``."""
        self.ours.reset()
        steps: dict[str, Step] = {OURS: self.ours, SCRIPTED: torch.jit.script(self.ours)}
        if self.peer is not None:
            stream = self.peer.SlidingWindowStream(self.model, self.window, *self.specs)

            def step(x: Tensor, final: bool) -> Tensor | None:
                y = stream(x, is_last_input=final, allow_zero_size_outputs=True)
                return y.data[0] if y.size > 0 else None

            steps[PEER] = step
        return steps


def check(model: nn.Module, contenders: Contenders) -> None:
    """Raise unless every contender gives, chunk by chunk, what the model gives on the whole signal."""
    x = torch.randn(1, MELS, 75)
    expected = model(x)
    sizes = [40, 1, 1, 8, 8, 1, 16]
    for name, step in contenders.make().items():
        pieces = [step(chunk, i == len(sizes) - 1) for i, chunk in enumerate(x.split(sizes, -1))]
        y = torch.cat([piece for piece in pieces if piece is not None], -1)
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")


def measure(model: nn.Module, contenders: Contenders, case: Case, rounds: int, span_s: float) -> None:
    """Fill in the times of a case."""
    signal = torch.randn(1, MELS, OFFLINE_FRAMES)
    x = torch.randn(1, MELS, case.chunk)
    runs: dict[str, Callable[[], object]] = {"offline": lambda: model(signal)}
    for name, step in contenders.make().items():
        # Past the context first, then chunks until TorchScript has seen enough of them to settle.
        step(torch.randn(1, MELS, 64), False)
        for _ in range(max(4, 24 // case.chunk)):
            step(x, False)
        runs[name] = lambda step=step: step(x, False)
    for name, seconds in interleave(runs, rounds, span_s).items():
        frames = OFFLINE_FRAMES if name == "offline" else case.chunk
        case.seconds[name] = [s / frames for s in seconds]


def _ratio_text(case: Case, name: str) -> str:
    if name not in case.seconds:
        return "-"
    low, middle, high = case.ratio(name, "offline")
    return f"**{middle:.2f}** ({low:.2f}-{high:.2f})"


def markdown(cases: list[Case], facts: dict[str, str | int]) -> str:
    """The table, with the machine it was measured on."""
    lines = [
        f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} thread; torch {facts['torch']}, "
        f"Python {facts['python']}, {facts['system']}; {facts['rounds']} rounds.",
        "",
        "| chunk, frames | offline, ms per frame | ours | ours scripted | at most | torchstream-lib | it by ours "
        "| it by ours scripted |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for case in cases:
        offline = quartiles(case.seconds["offline"])[1] * 1e3
        cells = [str(case.chunk), f"{offline:.2f}", _ratio_text(case, OURS), _ratio_text(case, SCRIPTED)]
        cells += [f"{TARGETS[case.chunk]:g}" if case.chunk in TARGETS else "", _ratio_text(case, PEER)]
        cells += [f"{case.ratio(PEER, name)[1]:.1f}" if PEER in case.seconds else "-" for name in (OURS, SCRIPTED)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def targets(cases: list[Case]) -> str:
    """Which of the project's targets the streams meet."""
    lines = []
    for case in cases:
        for name in (OURS, SCRIPTED):
            ratio = case.ratio(name, "offline")[1]
            if case.chunk in TARGETS and ratio > TARGETS[case.chunk]:
                lines.append(f"- missed: {name}, chunk {case.chunk}: {ratio:.2f}, at most {TARGETS[case.chunk]:g}")
    return "\n".join(lines or ["All targets are met."]) + "\n"


def as_json(cases: list[Case], facts: dict[str, str | int]) -> str:
    """All times in nanoseconds per frame, a case on each line."""
    lines = []
    for case in cases:
        times = {name: [round(s * 1e9) for s in seconds] for name, seconds in case.seconds.items()}
        lines.append(json.dumps({"model": "HiFi-GAN v1", "chunk": case.chunk, "ns": times}))
    body = ",\n".join(lines)
    return f'{{"machine": {json.dumps(facts)},\n"cases": [\n{body}\n]}}\n'


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 short rounds; print only")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds")
    parser.add_argument("--span", type=float, default=0.2, help="seconds per contender and round")
    parser.add_argument("--chunks", type=int, nargs="+", default=CHUNKS)
    parser.add_argument("--peer", type=Path, help="folder that holds torchstream-lib 1.0.2; else pip fetches it")
    parser.add_argument("--no-peer", action="store_true", help="leave torchstream-lib out")
    parser.add_argument("--no-write", action="store_true", help="print only")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.span, args.no_write = 3, 0.1, True

    warnings.filterwarnings("ignore", message=".*torch.jit")
    torch.set_num_threads(1)
    model = build_model()
    cases = [Case(chunk) for chunk in args.chunks]
    with torch.inference_mode():
        contenders = Contenders(model, None if args.no_peer else load_black_box(args.peer))
        check(model, contenders)
        for case in cases:
            measure(model, contenders, case, args.rounds, args.span)
            print(f"chunk {case.chunk} done", flush=True)

    facts = {**machine(), "rounds": args.rounds}
    table = markdown(cases, facts) + "\n" + targets(cases)
    print("\n" + table)
    if not args.no_write:
        results = HERE / "results"
        results.mkdir(exist_ok=True)
        (results / "graph_models.json").write_text(as_json(cases, facts))
        write_between_markers(HERE / "README.md", table, "generated graph models")


if __name__ == "__main__":
    main()
