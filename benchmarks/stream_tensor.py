"""What an operation on a `StreamTensor` costs, beside the same on a bare subclass of `torch.Tensor` that only wraps.

The bare one is the cheapest class that keeps its type through operations: what it costs above a plain tensor is torch's
own price for subclasses. One thread, medians, ratios round by round.

python benchmarks/stream_tensor.py            # two minutes; writes the table and results/stream_tensor.json
python benchmarks/stream_tensor.py --quick    # some rounds, prints only
"""

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from report import write_between_markers
from timing import interleave, machine, quartiles

import torchstreamer as pts

HERE = Path(__file__).parent
ROWS, CHANNELS, TIME = 32, 4, 16
# Wanted at most, above the bare subclass.
POINTWISE, INDEX = 1.5, 3.0


class Bare(torch.Tensor):
    """Nothing but a type of its own."""


def cases() -> dict[str, tuple[float | None, Callable[[Any], Any]]]:
    """Operations, and the ratio that is wanted of them."""
    order = list(reversed(range(ROWS)))
    index = torch.tensor(order)
    return {
        "`torch.relu(x)`": (POINTWISE, torch.relu),
        "`x + 1`": (POINTWISE, lambda x: x + 1),
        "`x * x`": (POINTWISE, lambda x: x * x),
        "`x.tanh()`": (POINTWISE, lambda x: x.tanh()),
        "`x[..., 4:12]`": (INDEX, lambda x: x[..., 4:12]),
        "`x[4:20]`": (INDEX, lambda x: x[4:20]),
        "`x[3]`": (INDEX, lambda x: x[3]),
        "`x[order]`": (INDEX, lambda x: x[order]),
        "`x[index]`": (INDEX, lambda x: x[index]),
        "`x.transpose(1, 2)`": (None, lambda x: x.transpose(1, 2)),
        "`x.sum(1)`": (None, lambda x: x.sum(1)),
        "`torch.cat([x, x], 1)`": (None, lambda x: torch.cat([x, x], 1)),
        "`x.shape`": (None, lambda x: x.shape),
        "`x.sum(-1)`, padding left out": (None, lambda x: x.sum(-1)),
    }


def measure(rounds: int) -> dict[str, dict[str, Any]]:
    """Seconds of each operation on the three kinds, and the ratios."""
    torch.manual_seed(0)
    plain = torch.randn(ROWS, CHANNELS, TIME)
    lengths = torch.randint(0, TIME + 1, (ROWS,)).tolist()
    x = pts.stream_tensor(plain, ids=[f"r{row}" for row in range(ROWS)], lengths=lengths)
    bare = plain.as_subclass(Bare)
    found = {}
    for name, (wanted, operation) in cases().items():
        kinds = {"plain": plain, "bare": bare, "ours": x}
        contenders = {kind: lambda f=operation, v=value: f(v) for kind, value in kinds.items()}
        for contender in contenders.values():
            for _ in range(100):
                contender()
        times = interleave(contenders, rounds, 0.01)
        ratio = quartiles([ours / other for ours, other in zip(times["ours"], times["bare"], strict=True)])
        seconds = {kind: quartiles(values)[1] for kind, values in times.items()}
        found[name] = {"seconds": seconds, "ratio": ratio, "wanted": wanted}
        told = "  ".join(f"{kind} {second * 1e6:6.2f} µs" for kind, second in seconds.items())
        print(f"{name:32} {told}  {ratio[1]:.2f} of the bare one", flush=True)
    return found


def markdown(found: dict[str, dict[str, Any]], facts: dict[str, Any]) -> str:
    """The table, and whether what was wanted is reached."""
    lines = [
        f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} thread; torch {facts['torch']}, "
        f"Python {facts['python']}, {facts['system']}; {facts['rounds']} rounds; {ROWS} rows of {CHANNELS} × {TIME}.",
        "",
        "| operation | plain, µs | bare subclass, µs | StreamTensor, µs | ratio | at most |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for name, row in found.items():
        times = " | ".join(f"{row['seconds'][kind] * 1e6:.1f}" for kind in ("plain", "bare", "ours"))
        low, middle, high = row["ratio"]
        wanted = "" if row["wanted"] is None else f"{row['wanted']:.1f}"
        lines.append(f"| {name} | {times} | **{middle:.2f}** ({low:.2f}-{high:.2f}) | {wanted} |")
    missed = [name for name, row in found.items() if row["wanted"] is not None and row["ratio"][1] > row["wanted"]]
    lines += ["", f"Missed: {', '.join(missed)}." if missed else "All targets are met."]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="some rounds, prints only")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rounds = 7 if options.quick else 101
    with torch.no_grad():
        found = measure(rounds)
    if not options.quick:
        facts = {**machine(), "rounds": rounds}
        write_between_markers(HERE / "README.md", markdown(found, facts), "generated stream tensor")
        text = json.dumps({"machine": facts, "cases": found}, indent=1)
        (HERE / "results" / "stream_tensor.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
