"""Dependency matrices: what it costs to infer one, beside the algorithm that SpeechBrain published, and what is found.

python benchmarks/dependencies.py            # two minutes; writes results/ and README.md
python benchmarks/dependencies.py --quick    # one round, prints only
"""

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from report import write_between_markers
from timing import interleave, machine, quartiles
from torch import Tensor, nn

from torchstreamer.analysis import infer_dependency_matrix

HERE = Path(__file__).parent
# Convolutions, channels and frames of each case, and how many times faster ours must be.
CASES = {(4, 16, 200): 50.0, (8, 64, 400): 8.0}
OURS, FIELD, PEER = "ours", "ours, field known", "published"


def published(model: Callable[[Tensor], Tensor], seq_shape: Sequence[int], in_stride: int = 1) -> Tensor:
    """The matrix as SpeechBrain's ``utils/streaming.py`` describes its way to it, written anew.

    A random sequence is run. Then, for one input frame after the other, the frame is drawn anew, the sequence is run
    again, and every output frame is compared with what it was, within the tolerances of `torch.allclose`.
    """
    rows, frames, features = seq_shape
    sequence = torch.rand(rows, frames, features)
    with torch.no_grad():
        before = model(sequence)
        if not torch.equal(model(sequence), before):
            raise ValueError("the model is not deterministic")
    found = torch.zeros(-(-frames // in_stride), before.shape[1], dtype=torch.bool)
    for i, frame in enumerate(range(0, frames, in_stride)):
        changed = sequence.clone()
        changed[:, frame] = torch.rand(rows, features)
        with torch.no_grad():
            after = model(changed)
        for out in range(before.shape[1]):
            if not torch.allclose(after[:, out], before[:, out]):
                found[i, out] = True
    return found


class Stack(nn.Module):
    """Convolutions of three taps on ``[B, T, C]``, padded."""

    def __init__(self, layers: int, channels: int) -> None:
        super().__init__()
        self.net = nn.Sequential(*[nn.Conv1d(channels, channels, 3, padding=1) for _ in range(layers)])

    def forward(self, x: Tensor) -> Tensor:
        """The output, as long as the input."""
        return self.net(x.transpose(1, 2)).transpose(1, 2)


def contenders(layers: int, channels: int, frames: int) -> dict[str, Callable[[], Tensor]]:
    """The ways to the matrix of a stack."""
    torch.manual_seed(0)
    model, shape = Stack(layers, channels).eval(), (1, frames, channels)
    return {
        OURS: lambda: infer_dependency_matrix(model, shape),
        FIELD: lambda: infer_dependency_matrix(model, shape, field=layers),
        PEER: lambda: published(model, shape),
    }


def check(runs: dict[str, Callable[[], Tensor]], layers: int, frames: int) -> dict[str, int]:
    """Wrong entries of each matrix; raises unless ours is right."""
    frame = torch.arange(frames)
    truth = (frame[:, None] - frame).abs() <= layers
    wrong = {name: int((run() != truth).sum()) for name, run in runs.items()}
    if wrong[OURS] or wrong[FIELD]:
        raise AssertionError(f"{wrong} entries are wrong")
    return wrong


# ---------------------------------------------------------------------- what is found


def _attention(x: Tensor, scores: Tensor) -> Tensor:
    return torch.softmax(x @ x.transpose(1, 2) / x.shape[2] ** 0.5 + scores, -1) @ x


def _max_pool(x: Tensor) -> Tensor:
    return torch.nn.functional.max_pool1d(x.transpose(1, 2), 10, 1).transpose(1, 2)


def hard_models(frames: int = 60) -> dict[str, tuple[Callable[[Tensor], Tensor], Tensor]]:
    """Models on which some way of looking fails, with the truth."""
    i, o = torch.arange(frames)[:, None], torch.arange(frames)
    pooled = torch.arange(frames - 9)
    masked = torch.where(o[:, None] // 10 < o // 10, -torch.inf, 0.0)
    weights = torch.softmax(-1.5 * (i - o).abs(), -1)
    return {
        "max-pool, kernel 10": (_max_pool, (i >= pooled) & (i < pooled + 10)),
        "exponentially decaying attention": (lambda x: weights @ x, torch.ones(frames, frames, dtype=torch.bool)),
        "cumulative sum": (lambda x: x.cumsum(1), i <= o),
        "attention masked in chunks of 10": (lambda x: _attention(x, masked), i // 10 <= o // 10),
    }


def findings() -> list[str]:
    """A row for each of these models."""
    rows = []
    for name, (model, truth) in hard_models().items():
        torch.manual_seed(0)
        theirs = published(model, (1, len(truth), 8))
        lower, upper = infer_dependency_matrix(model, (1, len(truth), 8), bounds=True)
        if bool((lower & ~truth).any()) or bool((truth & ~upper).any()):
            raise AssertionError(f"{name}: the truth does not lie between the bounds")
        counts = [int(truth.sum()), int((truth & ~theirs).sum()), int((theirs & ~truth).sum())]
        counts += [int((lower != truth).sum()), int((upper & ~truth).sum())]
        rows.append(f"| {name} | " + " | ".join(str(count) for count in counts) + " |")
    return rows


# ---------------------------------------------------------------------- the table


def markdown(measured: list[tuple[tuple[int, int, int], dict[str, list[float]], dict[str, int]]], facts: dict) -> str:
    """Both tables, with the machine they were measured on."""
    lines = [
        f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} thread; torch {facts['torch']}, "
        f"Python {facts['python']}, {facts['system']}; {facts['rounds']} rounds.",
        "",
        "| model | published, ms | ours, ms | ours, field known, ms | published by ours | at least "
        "| by ours, field known | wrong entries, published | ours |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    missed = []
    for case, seconds, wrong in measured:
        layers, channels, frames = case
        times = [f"{1e3 * quartiles(seconds[name])[1]:.1f}" for name in (PEER, OURS, FIELD)]
        ratios = {
            name: quartiles([a / b for a, b in zip(seconds[PEER], seconds[name], strict=True)])
            for name in (OURS, FIELD)
        }
        low, middle, high = ratios[OURS]
        gain = f"**{middle:.0f}** ({low:.0f}-{high:.0f})"
        name = f"{layers} convolutions of {channels} channels, {frames} frames"
        row = [name, *times, gain, f"{CASES[case]:g}", f"{ratios[FIELD][1]:.0f}", str(wrong[PEER]), str(wrong[OURS])]
        lines.append(f"| {' | '.join(row)} |")
        if middle < CASES[case]:
            missed.append(f"- missed: {name}: {middle:.1f}, at least {CASES[case]:g}")
    lines += ["", *(missed or ["All targets are met."]), ""]
    lines += [
        "What is found on 60 frames of 8 values, in entries of the matrix:",
        "",
        "| model | true | missed, published | too many, published | wrong, ours | too many in our upper bound |",
        "|---|--:|--:|--:|--:|--:|",
        *findings(),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 rounds; print only")
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds")
    parser.add_argument("--span", type=float, default=0.2, help="seconds per contender and round, at least one call")
    args = parser.parse_args()
    if args.quick:
        args.rounds = 2
    torch.set_num_threads(1)
    measured = []
    for case in CASES:
        runs = contenders(*case)
        wrong = check(runs, case[0], case[2])
        measured.append((case, interleave(runs, args.rounds, args.span), wrong))
        print(f"{case} done", flush=True)
    facts = {**machine(), "rounds": args.rounds}
    table = markdown(measured, facts)
    print("\n" + table)
    if not args.quick:
        cases = [{"case": case, "seconds": seconds, "wrong": wrong} for case, seconds, wrong in measured]
        results = HERE / "results"
        results.mkdir(exist_ok=True)
        body = ",\n".join(json.dumps(case) for case in cases)
        text = f'{{"machine": {json.dumps(facts)},\n"cases": [\n{body}\n]}}\n'
        (results / "dependencies.json").write_text(text)
        write_between_markers(HERE / "README.md", table, "generated dependencies")


if __name__ == "__main__":
    main()
