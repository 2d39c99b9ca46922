"""Attention with a context of 64 keys: a step of a stream, beside what it cannot do without.

The floor is the projections of the new frames and one bare `scaled_dot_product_attention` over held and new keys, which
lie ready, without a mask. One thread, medians, and the tail of many steps.

python benchmarks/attention.py            # some minutes; writes results/attention.json
python benchmarks/attention.py --quick    # one round, prints only
"""

import argparse
import json
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from timing import interleave, machine, quartiles
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


def tail(step: object, steps: int) -> dict[str, float]:
    """Median, 99.9th percentile and maximum of so many steps, in seconds on the wall."""
    taken = []
    for _ in range(steps):
        begin = time.perf_counter()
        step()  # type: ignore[operator]
        taken.append(time.perf_counter() - begin)
    taken.sort()
    return {"median": taken[steps // 2], "p99.9": taken[int(steps * 0.999)], "maximum": taken[-1]}


def measure(rounds: int, steps: int, backends: list[str]) -> dict[str, dict[str, object]]:
    """Seconds per step of every case."""
    found: dict[str, dict[str, object]] = {}
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(CHANNELS, HEADS, batch_first=True).eval()
    for name, (chunk, context) in CASES.items():
        stream = pts.create_stream(pts.SelfAttention1d(attention, context))
        x = torch.randn(1, CHANNELS, chunk)
        contenders = {"floor": Floor(attention, chunk), "stream": lambda s=stream, x=x: s(x)}
        for backend in backends:
            compiled = pts.compile(stream, chunk, backend=backend)
            contenders[f"compiled, {backend}"] = lambda s=compiled, x=x: s(x)
        for step in contenders.values():
            for _ in range(LEFT + 50):
                step()
        times = interleave(contenders, rounds, 0.02)
        ratios = {
            each: quartiles([a / b for a, b in zip(values, times["floor"], strict=True)])
            for each, values in times.items()
        }
        found[name] = {
            "seconds": {each: quartiles(values) for each, values in times.items()},
            "ratio": ratios,
            "tail": tail(contenders["stream"], steps),
        }
        for each, values in times.items():
            print(f"{name:18} {each:16} {quartiles(values)[1] * 1e6:8.1f} µs   {ratios[each][1]:.2f} of the floor")
        print(f"{name:18} tail of {steps} steps, µs: ", end="")
        print({key: round(value * 1e6, 1) for key, value in found[name]["tail"].items()}, flush=True)  # type: ignore[attr-defined]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round, prints only")
    parser.add_argument("--backends", nargs="*", default=["auto"], help="of pts.compile")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rounds, steps = (3, 1_000) if options.quick else (61, 100_000)
    with torch.no_grad():
        found = measure(rounds, steps, [] if options.quick else options.backends)
    if not options.quick:
        facts = {**machine(), "rounds": rounds, "steps": steps}
        text = json.dumps({"machine": facts, "cases": found}, indent=1)
        (HERE / "results" / "attention.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
