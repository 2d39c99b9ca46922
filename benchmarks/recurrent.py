"""Recurrent layers one sample at a time, beside torch's cells called by hand and the whole sequence.

python benchmarks/recurrent.py                            # all layers, some minutes each; writes results/ and README.md
python benchmarks/recurrent.py --kinds LSTM --sizes 256   # one of them; the others stay as they were measured
python benchmarks/recurrent.py --quick                    # fewer rounds, short tails, prints only

"bare step" is the compiled program without the checks of the call; "in silence" comes after as many samples of zeros as
single steps are measured. RTNeural, in C++, stands beside them where rtneural.py finds its source.
"""

import argparse
import json
import statistics
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from report import write_between_markers
from rtneural import RTNeural
from tables import described, ends, markdown, ratio
from timing import interleave, machine, tail
from torch import Tensor, nn

import torchstreamer as pts

HERE = Path(__file__).parent
WHOLE_LENGTH = 1000
# What a step may cost, of a cell called by hand, or of a step of the whole sequence.
AT_MOST = {("stream", 32): 1.7, ("compiled", 32): 0.85, ("bare step", 32): 0.35}
WHOLE_AT_MOST = {("compiled", 256): 1.3}


def by_hand(kind: str, net: nn.Module, cell: nn.Module, x: Tensor) -> Callable[[], Any]:
    """A step of torch's cell with the weights of the layer, whose caller carries the state."""
    cell.load_state_dict({name.removesuffix("_l0"): weight for name, weight in net.state_dict().items()})
    sample = x[:, :, 0]
    state: list[Any] = [None]

    def step() -> Any:
        state[0] = cell(sample, state[0])
        return state[0] if kind == "GRU" else state[0][0]

    return step


def bare(compiled: pts.CompiledStream, x: Tensor) -> Callable[[], Any]:
    """The compiled program alone, without the checks of the call."""
    for _ in range(3):
        compiled(x)
    program: Any = compiled._program
    states = [compiled._states]

    def step() -> Any:
        y, states[0] = program.run(x, states[0])
        return y

    return step


def check(streams: dict[str, Any], net: Any, size: int) -> None:
    """Raise unless every contender gives what the layer gives."""
    x = torch.randn(1, size, 50)
    whole = net(x.permute(2, 0, 1))[0].permute(1, 2, 0)
    for name, stream in streams.items():
        y = torch.cat([stream(x[..., i : i + 1]) for i in range(x.shape[-1])], -1)
        torch.testing.assert_close(y, whole, rtol=1e-4, atol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
        stream.reset()


def measured(
    kind: str, size: int, rounds: int, span_s: float, count: int, backend: str, autotune: bool
) -> dict[str, Any]:
    """All figures of one layer."""
    torch.manual_seed(0)
    net = getattr(nn, kind)(size, size).eval()
    x = torch.randn(1, size, 1)
    stream = pts.create_stream(net)
    compiled = pts.compile(pts.create_stream(net), chunk=1, backend=backend, autotune=autotune)
    scripted = torch.jit.script(pts.create_stream(net))
    signal = torch.randn(WHOLE_LENGTH, 1, size)
    runs: dict[str, Callable[[], Any]] = {}
    with torch.inference_mode():
        check({"stream": stream, "scripted": scripted, "compiled": compiled}, net, size)
        runs["cell by hand"] = by_hand(kind, net, getattr(nn, f"{kind}Cell")(size, size).eval(), x)
        runs["stream"] = lambda: stream(x)
        quiet, silence = pts.create_stream(net), torch.zeros_like(x)
        for _ in range(count):
            quiet(silence)
        runs["in silence"] = lambda: quiet(silence)
        runs["scripted"] = lambda: scripted(x)
        runs["bare step"] = bare(compiled, x)
        runs["compiled"] = lambda: compiled(x)
        for run in runs.values():
            for _ in range(200):
                run()
        runs["whole sequence"] = lambda: net(signal)
        times = interleave(runs, rounds, span_s)
        times["whole sequence"] = [s / WHOLE_LENGTH for s in times["whole sequence"]]
        tails = {name: tail(run, count) for name, run in runs.items() if name != "whole sequence"}
        try:
            with RTNeural(net, x := torch.randn(1, size, 50)) as peer:
                whole = net(x.permute(2, 0, 1))[0].permute(1, 2, 0)
                torch.testing.assert_close(peer.outputs(), whole, rtol=1e-4, atol=1e-5)
                calls = max(1, round(span_s / peer.seconds(1000)))
                times["RTNeural"] = [peer.seconds(calls) for _ in range(rounds)]
                tails["RTNeural"] = peer.tail(count)
        except ImportError as error:
            print(f"without RTNeural: {error}")
    return {
        "kind": kind,
        "size": size,
        "ns": {name: [round(s * 1e9) for s in seconds] for name, seconds in times.items()},
        "tails_ns": {name: [round(s * 1e9) for s in pair] for name, pair in tails.items()},
        "chosen": str(compiled.candidates[0]).partition(":")[0],
    }


def table(cases: list[dict[str, Any]], facts: dict[str, Any]) -> str:
    """The figures as markdown."""
    rows = []
    for case in cases:
        layer = f"{case['kind']}({case['size']})"
        for name, times in case["ns"].items():
            cell = ratio(times, case["ns"]["cell by hand"], AT_MOST.get((name, case["size"])))
            whole = ratio(times, case["ns"]["whole sequence"], WHOLE_AT_MOST.get((name, case["size"])))
            named = f"{name} ({case['chosen']})" if name in ("compiled", "bare step") else name
            step = f"{statistics.median(times) / 1000:.1f}"
            rows.append([layer, named, step, cell, whole, *ends(case["tails_ns"].get(name, ()), 1000)])
    columns = ["layer", "contender", "step, µs", "by the cell", "by a step of the whole sequence"]
    return markdown(described(facts), [*columns, "p99.9, µs", "maximum, µs"], rows, 2)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="5 short rounds, tails of 2,000 steps; print only")
    parser.add_argument("--rounds", type=int, default=25, help="interleaved rounds")
    parser.add_argument("--span", type=float, default=0.02, help="seconds per contender and round")
    parser.add_argument("--steps", type=int, default=100_000, help="single steps for p99.9 and the maximum")
    parser.add_argument("--backend", default="aot", help="of the compiled step; auto tries all")
    parser.add_argument("--no-autotune", action="store_true", help="compile without trying kernels out")
    parser.add_argument("--kinds", nargs="+", default=["GRU", "LSTM"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--no-write", action="store_true", help="print only")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.span, args.steps, args.no_write = 5, 0.005, 2_000, True
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    path = HERE / "results" / "recurrent.json"
    facts = {**machine(), "rounds": args.rounds}
    for kind in args.kinds:
        for size in args.sizes:
            print(f"{kind}({size}): compiling", flush=True)
            options = args.rounds, args.span, args.steps, args.backend, not args.no_autotune
            case = measured(kind, size, *options)
            print(table([case], facts), flush=True)
            if not args.no_write:  # after each, since the next may take long
                kept = json.loads(path.read_text()) if path.exists() else {"machine": facts, "cases": []}
                same = kept["cases"] if kept["machine"] == facts else []
                found = {(each["kind"], each["size"]): each for each in [*same, case]}
                cases = [found[key] for key in sorted(found)]
                body = ",\n".join(json.dumps(each) for each in cases)
                path.write_text(f'{{"machine": {json.dumps(facts)},\n"cases": [\n{body}\n]}}\n')
                write_between_markers(HERE / "README.md", table(cases, facts), "recurrent")


if __name__ == "__main__":
    main()
