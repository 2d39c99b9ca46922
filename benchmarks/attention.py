"""Attention with a context of 64 keys: a step of a stream, beside what it cannot do without.

The floor is the projections of the new frames and one bare `scaled_dot_product_attention` over held and new keys, which
lie ready, without a mask. One thread, medians, and the tail of many steps.

python benchmarks/attention.py              # some three minutes; writes results/attention.json and README.md
python benchmarks/attention.py --autotune   # the compiler tries kernels out: some minutes more
python benchmarks/attention.py --quick      # few rounds, nothing compiled; prints only
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from report import write_between_markers
from tables import described, ends, markdown, ratio
from timing import interleave, machine, quartiles, tail
from torch import nn

import torchstreamer as pts

HERE = Path(__file__).parent
CHANNELS, HEADS, LEFT = 256, 4, 64
# Chunk of the stream, and the context that its queries have.
CASES = {
    "window, chunk 1": (1, pts.Context(LEFT)),
    "chunks of 16": (16, pts.Context(LEFT, 0, 16)),
    "window, chunk 16": (16, pts.Context(LEFT)),
    "4 ahead, chunk 1": (1, pts.Context(LEFT, 4)),
}


class Floor:
    """Projections of the new frames, and attention to keys that lie ready."""

    def __init__(self, attention: nn.MultiheadAttention, chunk: int) -> None:
        self.attention = attention
        width = CHANNELS // HEADS
        self.x = torch.randn(1, chunk, CHANNELS)
        self.k, self.v = torch.randn(2, 1, HEADS, LEFT + chunk, width)
        self.shape = (1, chunk, HEADS, width)

    def __call__(self) -> torch.Tensor:
        attention = self.attention
        fused = F.linear(self.x, attention.in_proj_weight, attention.in_proj_bias)
        q = fused[..., :CHANNELS].view(self.shape).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, self.k, self.v).transpose(1, 2)
        return F.linear(y.reshape(self.x.shape), attention.out_proj.weight, attention.out_proj.bias)


def measure(name: str, rounds: int, steps: int, backend: str | None, autotune: bool) -> dict[str, Any]:
    """Seconds per step of a case: of every contender in each round, and the ends of many single steps."""
    torch.manual_seed(0)
    chunk, context = CASES[name]
    attention = nn.MultiheadAttention(CHANNELS, HEADS, batch_first=True).eval()
    stream = pts.create_stream(pts.SelfAttention1d(attention, context))
    x = torch.randn(1, CHANNELS, chunk)
    contenders = {"floor": Floor(attention, chunk), "stream": lambda: stream(x)}
    if backend is not None:
        compiled = pts.compile(stream, chunk, backend=backend, autotune=autotune)
        contenders["compiled"] = lambda: compiled(x)
    for step in contenders.values():
        for _ in range(LEFT + 50):
            step()
    # Many short turns: on a machine that does other things too, what happens then falls on all of them.
    times = interleave(contenders, rounds, 0.004)
    ends = {each: tail(step, steps) for each, step in contenders.items() if each != "floor"}
    return {"name": name, "seconds": times, "tails": ends}


def table(cases: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """The figures as markdown."""
    rows = []
    for case in cases:
        floor = case["seconds"]["floor"]
        for each, seconds in case["seconds"].items():
            most = None if "ahead" in case["name"] else 1.3
            by = "1" if each == "floor" else ratio(seconds, floor, most, spread=True)
            step = f"{1e6 * quartiles(seconds)[1]:.1f}"
            rows.append([case["name"], each, step, by, *ends(case["tails"].get(each, ()), 1e-6)])
    columns = ["context, chunk", "contender", "step, µs", "by the floor", "p99.9, µs", "maximum, µs"]
    return markdown(described(facts, f"{facts['steps']:,} single steps"), columns, rows, 2)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few rounds, nothing compiled; prints only")
    parser.add_argument("--rounds", type=int, default=301, help="interleaved rounds")
    parser.add_argument("--steps", type=int, default=100_000, help="single steps for p99.9 and the maximum")
    parser.add_argument("--backend", default="aot", help="of pts.compile")
    parser.add_argument("--autotune", action="store_true", help="let the compiler try kernels out")
    parser.add_argument("--no-write", action="store_true", help="print only")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.steps, args.no_write = 41, 1_000, True
    torch.set_num_threads(1)
    facts = {**machine(), "rounds": args.rounds, "steps": args.steps}
    cases: list[dict[str, Any]] = []
    with torch.no_grad():
        for name in CASES:
            print(f"{name}: measuring", flush=True)
            backend = None if args.quick else args.backend
            cases.append(measure(name, args.rounds, args.steps, backend, args.autotune))
            print(table(cases[-1:], facts), flush=True)
    if not args.no_write:
        text = json.dumps({"machine": facts, "cases": cases})
        (HERE / "results" / "attention.json").write_text(text + "\n")
        write_between_markers(HERE / "README.md", table(cases, facts), "attention")


if __name__ == "__main__":
    main()
