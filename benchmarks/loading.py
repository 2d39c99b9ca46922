"""Loading streams, beside pytorch-stream-dataloader 1.0: batches per second, 16 rows, chunks of 1,600 float32.

python benchmarks/loading.py            # five minutes; writes results/loading.json and the table of README.md
python benchmarks/loading.py --quick    # prints only
"""

import argparse
import gc
import json
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from peer import load_loader
from report import write_between_markers
from timing import machine
from torch import Tensor

from torchstreamer import StreamDataLoader, StreamDataset

HERE = Path(__file__).parent
ROWS, SAMPLES = 16, 1600
PEER = "pytorch-stream-dataloader"
# How many times the peer's batches per second ours must give.
AT_LEAST = {"2 workers": 8.0, "0 workers": 1.0, "2 workers, 1 ms per chunk": 1.3}


class Recording:
    """A recording in memory, in chunks; each takes a while where ``pause_s`` is given."""

    def __init__(self, number: int, chunks: int, pause_s: float) -> None:
        self.chunks = chunks
        self.pause_s = pause_s
        self.samples = torch.full((chunks * SAMPLES,), float(number))

    def __iter__(self) -> Iterator[Tensor]:
        for chunk in range(self.chunks):
            if self.pause_s:
                time.sleep(self.pause_s)
            yield self.samples[chunk * SAMPLES : (chunk + 1) * SAMPLES]


def join(chunks: "Iterator[Tensor]") -> Tensor:
    """What both loaders use to make a batch."""
    return torch.stack(list(chunks))


def contenders(
    workers: int, streams: int, chunks: int, pause_s: float, peer: object
) -> dict[str, Callable[[], object]]:
    """What gives an epoch of each loader."""
    numbers = list(range(streams))

    def opened(number: int) -> Recording:
        return Recording(number, chunks, pause_s)

    def theirs() -> object:
        dataset = peer.StreamDataset(numbers, opened, ROWS, "zeros", torch.zeros(SAMPLES))  # type: ignore[attr-defined]
        return peer.StreamDataLoader(dataset, workers, join)  # type: ignore[attr-defined]

    def ours(threads: int = 0, collate_fn: Callable[..., object] | None = None) -> object:
        return StreamDataLoader(StreamDataset(numbers, opened, ROWS, threads=threads), workers, collate_fn)

    found: dict[str, Callable[[], object]] = {PEER: theirs, "ours, its collate_fn": lambda: ours(0, join), "ours": ours}
    if pause_s:
        found["ours, 8 threads"] = lambda: ours(8)
    return found


def measure(runs: dict[str, Callable[[], object]], epochs: int, rounds: int) -> dict[str, list[float]]:
    """Batches per second of each, several epochs in turn."""
    rates: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            gc.collect()
            begin, count = time.perf_counter(), 0
            for _ in range(epochs):
                for _ in runs[name]():
                    count += 1
            rates[name].append(count / (time.perf_counter() - begin))
    return rates


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 short rounds; print only")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--peer", type=Path, help="folder that holds the peer; else pip fetches it")
    args = parser.parse_args()
    rounds, scale = (3, 1) if args.quick else (args.rounds, 4)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    peer = load_loader(args.peer)
    cases = {
        "2 workers": (2, 32, 250 * scale, 0.0, 1),
        "0 workers": (0, 32, 250 * scale, 0.0, 4),
        "2 workers, 1 ms per chunk": (2, 16, 50 * scale, 0.001, 1),
    }
    lines = [
        "| | " + PEER + ", batches/s | ours, batches/s | ratio | the same with its collate_fn | with 8 threads |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    found = {}
    for case, (workers, streams, chunks, pause_s, epochs) in cases.items():
        rates = measure(contenders(workers, streams, chunks, pause_s, peer), epochs, rounds)
        found[case] = rates

        def ratio(name: str, rates: dict[str, list[float]] = rates) -> str:
            if name not in rates:
                return ""
            return f"**{statistics.median(a / b for a, b in zip(rates[name], rates[PEER], strict=True)):.2f}**"

        theirs, ours = statistics.median(rates[PEER]), statistics.median(rates["ours"])
        lines.append(
            f"| {case} | {theirs:.0f} | {ours:.0f} | {ratio('ours')} (at least {AT_LEAST[case]:g}) "
            f"| {ratio('ours, its collate_fn')} | {ratio('ours, 8 threads')} |"
        )
        print(lines[-1], flush=True)
    facts = {**machine(), "rounds": rounds}
    head = f"{facts['cpu']}, {facts['cores']} cores; torch {facts['torch']}; {rounds} rounds, in turn.\n\n"
    table = head + "\n".join(lines) + "\n"
    print("\n" + table)
    if not args.quick:
        (HERE / "results" / "loading.json").write_text(json.dumps({"machine": facts, "batches_per_s": found}, indent=1))
        write_between_markers(HERE / "README.md", table, "loading")


if __name__ == "__main__":
    main()
