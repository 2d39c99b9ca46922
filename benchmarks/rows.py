"""Live rows of any age and any pieces through `RowStream`, beside equal rows in one batch and a stream for each.

python benchmarks/rows.py           # the table, some minutes; writes results/rows.json and README.md
python benchmarks/rows.py --quick   # fewer rounds; prints only

"Equal rows" is the stream on whole batches of equal pieces, as many samples in all: the ideal.
"""

import argparse
import json
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from report import write_between_markers
from timing import interleave, machine
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.core.row_state import RowState

HERE = Path(__file__).parent


def convolutions(count: int = 10) -> nn.Module:
    """64 channels."""
    layers = [m for _ in range(count) for m in (nn.Conv1d(64, 64, 3, padding=1), nn.ReLU())]
    return nn.Sequential(*layers).eval()


def encoder() -> nn.Module:
    """Hop 160."""
    channels, strides = [1, 16, 32, 64, 64], [4, 4, 5, 2]
    layers: list[nn.Module] = []
    for i, stride in enumerate(strides):
        layers += [nn.Conv1d(channels[i], channels[i + 1], 2 * stride, stride=stride, padding=stride // 2), nn.ReLU()]
    return nn.Sequential(*layers).eval()


def attention() -> nn.Module:
    """Two layers that see the last 251 samples."""
    layers = [
        pts.SelfAttention1d(nn.MultiheadAttention(64, 4, batch_first=True), pts.Context(left=250)) for _ in range(2)
    ]
    return nn.Sequential(*layers).eval()


@dataclass
class Case:
    """Rows that come with this presence, with pieces of so many samples; and what may be asked of it."""

    name: str
    net: Callable[[], nn.Module]
    channels: int
    rows: int
    low: int
    high: int
    presence: float
    steps: int
    equal_at_most: float | None = None
    renewed: int = 0  # samples after which a signal ends and another one begins

    def traffic(self) -> list[list[tuple[int, int]]]:
        """Who brings how much, step by step."""
        draw = random.Random(0)
        return [
            [(i, draw.randint(self.low, self.high)) for i in range(self.rows) if draw.random() < self.presence]
            for _ in range(self.steps)
        ]


CASES = [
    Case("10 convolutions, equal rows", convolutions, 64, 32, 16, 16, 1.0, 2, 1.15),
    Case("10 convolutions, equal pieces", convolutions, 64, 32, 16, 16, 0.75, 6, 1.6),
    Case("10 convolutions", convolutions, 64, 32, 1, 8, 0.75, 6),
    Case("10 convolutions", convolutions, 64, 32, 40, 120, 0.75, 4, 2.5),
    Case("encoder, hop 160", encoder, 1, 32, 1600, 4800, 0.75, 4),
    Case("encoder, hop 160", encoder, 1, 256, 80, 640, 0.75, 4, 3.0),
    Case("encoder, hop 160", encoder, 1, 256, 1600, 4800, 0.75, 2, 1.5),
    Case("attention, ages 0 to 300", attention, 64, 64, 4, 4, 1.0, 4, 1.5, renewed=300),
]


def through_rows(case: Case, net: nn.Module, x: Tensor) -> tuple[pts.RowStream, Callable[[], None]]:
    """The traffic through a `RowStream`."""
    rows = pts.RowStream(net)
    traffic = case.traffic()
    draw = random.Random(1)
    age = [0] * case.rows
    if case.renewed:
        age = [draw.randrange(case.renewed) for _ in range(case.rows)]
        for i, n in enumerate(age):
            rows.step([(i, torch.randn(x.shape[1], n), True, False)])
    begun = set(rows.ids())
    pieces = {n: x[0, :, :n] for n in range(case.low, case.high + 1)}

    def run() -> None:
        for step in traffic:
            given = []
            for i, n in step:
                old = case.renewed > 0 and age[i] + n > case.renewed
                age[i] = n if old else age[i] + n
                given.append((i, pieces[n], old or i not in begun, False))
                begun.add(i)
            rows.step(given)

    return rows, run


def alone(case: Case, net: nn.Module, x: Tensor) -> Callable[[], None]:
    """The same traffic, each signal through a stream of its own."""
    streams = [pts.create_stream(net) for _ in range(case.rows)]
    traffic = case.traffic()
    pieces = {n: x[:, :, :n] for n in range(case.low, case.high + 1)}

    def run() -> None:
        for step in traffic:
            for i, n in step:
                streams[i](pieces[n])

    return run


def equal(case: Case, net: nn.Module) -> tuple[int, Callable[[], None]]:
    """Whole batches of equal pieces; and how many samples that are."""
    stream = pts.create_stream(net)
    hop = stream.hop
    n = max((case.low + case.high) // 2 // hop, 1) * hop
    x = torch.randn(case.rows, case.channels, n)
    total = sum(n for step in case.traffic() for _, n in step)
    calls = max(total // (n * case.rows), 1)

    def run() -> None:
        for _ in range(calls):
            stream(x)

    return calls * n * case.rows, run


def measured(case: Case, rounds: int, span_s: float) -> dict[str, object]:
    """Nanoseconds per sample of each, round by round."""
    torch.manual_seed(0)
    with torch.inference_mode(False):  # a network of inference tensors has no packed weights
        net = case.net()
    x = torch.randn(1, case.channels, case.high)
    rows, run = through_rows(case, net, x)
    total = sum(n for step in case.traffic() for _, n in step)
    equal_total, ideal = equal(case, net)
    runs = {"rows": run, "equal": ideal, "alone": alone(case, net, x)}
    for each in runs.values():
        each()
        each()
    before = rows.calls
    run()
    calls = (rows.calls - before) / case.steps
    times = interleave(runs, rounds, span_s)
    samples = {"rows": total, "equal": equal_total, "alone": total}
    return {
        "name": case.name,
        "rows": case.rows,
        "pieces": f"{case.low}" if case.low == case.high else f"{case.low} to {case.high}",
        "presence": case.presence,
        "at_most": case.equal_at_most,
        "calls": round(calls, 1),
        "ns": {name: [s * 1e9 / samples[name] for s in seconds] for name, seconds in times.items()},
    }


def primitive(count: int, chunk: int, rounds: int, span_s: float) -> dict[str, object]:
    """What it costs to take rows out of a stream and put others in at every step, by names and without."""
    torch.manual_seed(0)
    with torch.inference_mode(False):
        net = convolutions(count)
    x = torch.randn(32, 64, chunk)
    plain, named, bare = (pts.create_stream(net) for _ in range(3))
    states = []
    for _ in range(32):
        one = pts.create_stream(net)
        one(torch.randn(1, 64, 32))
        states.append(one.get_state())
    for stream in (plain, named, bare):
        stream.set_state(pts.stack_states(states))
    state = RowState(bare)
    kept = [(state.phase(), state.rows(), state.known())]

    def by_names() -> None:
        named.set_state(pts.stack_states(states))
        named(x)
        pts.unstack_state(named.get_state())

    def without() -> None:
        state.go_on(*kept[0])
        bare(x)
        kept[0] = state.phase(), state.rows(), state.known()

    runs = {"step": lambda: plain(x), "without": without, "by names": by_names}
    for each in runs.values():
        each()
    times = interleave(runs, rounds, span_s)
    return {"count": count, "chunk": chunk, "ns": {name: [s * 1e9 for s in many] for name, many in times.items()}}


def ratio(case: dict, one: str, other: str) -> str:
    """The median over the rounds of one's time by another's, and the quartiles."""
    low, middle, high = statistics.quantiles(
        [a / b for a, b in zip(case["ns"][one], case["ns"][other], strict=True)], n=4
    )
    return f"**{middle:.2f}** ({low:.2f}-{high:.2f})"


def table(cases: list[dict], primitives: list[dict], facts: dict) -> str:
    """The figures as markdown."""
    lines = [
        f"{facts['cpu']}, {facts['cores']} cores, 1 thread; torch {facts['torch']}, Python {facts['python']}, "
        f"{facts['system']}; {facts['rounds']} rounds.",
        "",
        "| network | rows | pieces | presence | batches per step | by equal rows | by a stream for each |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for case in cases:
        most = f", at most {case['at_most']:g}" if case["at_most"] else ""
        lines.append(
            f"| {case['name']} | {case['rows']} | {case['pieces']} | {case['presence']:g} | {case['calls']} "
            f"| {ratio(case, 'rows', 'equal')}{most} | {ratio(case, 'rows', 'alone')} |"
        )
    lines += [
        "",
        "| 32 rows, every step | chunk | by the step alone, `RowState` | by the step alone, `stack_states` and back |",
        "|---|--:|--:|--:|",
    ]
    for case in primitives:
        name = "1 convolution" if case["count"] == 1 else f"{case['count']} convolutions"
        lines.append(
            f"| {name} | {case['chunk']} | {ratio(case, 'without', 'step')} | {ratio(case, 'by names', 'step')} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 short rounds; print only")
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds")
    parser.add_argument("--span", type=float, default=0.2, help="seconds per contender and round")
    parser.add_argument("--only", type=int, nargs="+", help="numbers of cases; print only")
    parser.add_argument("--no-write", action="store_true", help="print only")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.span, args.no_write = 3, 0.01, True
    torch.set_num_threads(1)
    cases, primitives = [], []
    with torch.inference_mode():
        for i, case in enumerate(CASES):
            if args.only is None or i in args.only:
                cases.append(measured(case, args.rounds, args.span))
                print(case.name, ratio(cases[-1], "rows", "equal"), ratio(cases[-1], "rows", "alone"), flush=True)
        for count, chunk in ((1, 1), (10, 1), (10, 16)) if args.only is None else ():
            primitives.append(primitive(count, chunk, args.rounds, args.span / 4))
    facts = {**machine(), "rounds": args.rounds}
    text = table(cases, primitives, facts)
    print("\n" + text)
    if not args.no_write and args.only is None:
        body = ",\n".join(json.dumps(case) for case in cases + primitives)
        (HERE / "results" / "rows.json").write_text(f'{{"machine": {json.dumps(facts)},\n"cases": [\n{body}\n]}}\n')
        write_between_markers(HERE / "README.md", text, "rows")


if __name__ == "__main__":
    main()
