"""Making the stream of a model: its time beside one `torch.export`, and how many calls of the package's it takes.

python benchmarks/creation.py            # half a minute; writes results/creation.json and README.md
python benchmarks/creation.py --quick    # 3 rounds, prints only
"""

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import torch
from report import write_between_markers
from timing import interleave, machine, quartiles
from torch import Tensor, nn
from torch.export import Dim

import torchstreamer as pts

HERE = Path(__file__).parent
PACKAGE = str(Path(pts.__file__).parent)
CHANNELS, BLOCKS, LENGTH = 64, 8, 1024
MOST_TIME, MOST_CALLS = 1.7, 10_000
EXPORT, OURS = "torch.export.export", "create_stream"


class Block(nn.Module):
    """A residual block of a temporal convolutional network."""

    def __init__(self, dilation: int) -> None:
        super().__init__()
        self.wide = nn.Conv1d(CHANNELS, CHANNELS, 3, padding=dilation, dilation=dilation)
        self.activation = nn.ReLU()
        self.narrow = nn.Conv1d(CHANNELS, CHANNELS, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.narrow(self.activation(self.wide(x)))


class TCN(nn.Module):
    """Blocks of growing dilation, without work in place."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(2**i) for i in range(BLOCKS))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class Small(nn.Module):
    """The model whose creation is counted."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv1d(4, 4, 3, padding=1)
        self.b = nn.Conv1d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(torch.tanh(self.a(x)))


def contenders() -> dict[str, Callable[[], object]]:
    """One export of the network with the arguments that its stream's making takes, and that making."""
    torch.manual_seed(0)
    net, x = TCN().eval(), torch.randn(1, CHANNELS, LENGTH)
    twice = torch.cat([x, x])

    def export() -> object:
        with torch.no_grad():
            return torch.export.export(net, (twice,), dynamic_shapes=({0: Dim.AUTO, 2: Dim.AUTO},), strict=False)

    return {EXPORT: export, OURS: lambda: pts.create_stream(net, example=x)}


def calls_into_package() -> int:
    """How many Python functions of the package's run while the stream of a small model is made."""
    net, x = Small().eval(), torch.randn(1, 4, 64)
    pts.create_stream(net, example=x)
    count = 0

    def seen(frame: FrameType, event: str, argument: object) -> None:
        nonlocal count
        count += event == "call" and frame.f_code.co_filename.startswith(PACKAGE)

    sys.setprofile(seen)
    try:
        pts.create_stream(net, example=x)
    finally:
        sys.setprofile(None)
    return count


def markdown(times: dict[str, list[float]], calls: int, facts: dict[str, str | int]) -> str:
    """The figures, with the machine they were measured on."""
    low, middle, high = quartiles([a / b for a, b in zip(times[OURS], times[EXPORT], strict=True)])
    lines = [
        f"{facts['cpu']}, {facts['threads']} thread; torch {facts['torch']}, Python {facts['python']}, "
        f"{facts['system']}; {facts['rounds']} rounds.",
        "",
        "| | measured | at most |",
        "|---|--:|--:|",
    ]
    for name, seconds in times.items():
        first, second, third = (1e3 * value for value in quartiles(seconds))
        lines.append(f"| `{name}`, ms | {second:.0f} ({first:.0f}-{third:.0f}) | |")
    lines.append(f"| `create_stream` by `export` | **{middle:.2f}** ({low:.2f}-{high:.2f}) | {MOST_TIME} |")
    lines.append(f"| calls into the package, `x + b(tanh(a(x)))` | **{calls:,}** | {MOST_CALLS:,} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 rounds; print only")
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds")
    parser.add_argument("--no-write", action="store_true", help="print only")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.no_write = 3, True

    warnings.filterwarnings("ignore", category=FutureWarning)  # of torch's own, in its exporter
    torch.set_num_threads(1)
    times = interleave(contenders(), args.rounds, span_s=0.0)
    calls = calls_into_package()
    facts = {**machine(), "rounds": args.rounds}
    table = markdown(times, calls, facts)
    print(table)
    if not args.no_write:
        milliseconds = {name: [round(1e3 * value, 1) for value in seconds] for name, seconds in times.items()}
        result = {"machine": facts, "ms": milliseconds, "calls": calls}
        (HERE / "results" / "creation.json").write_text(json.dumps(result, indent=1) + "\n")
        write_between_markers(HERE / "README.md", table, "creation")


if __name__ == "__main__":
    main()
