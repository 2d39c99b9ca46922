"""Tables and pictures of the measured cases."""

from pathlib import Path
from typing import TYPE_CHECKING

from timing import quartiles

if TYPE_CHECKING:
    from conv_stack import Case

__all__ = ["markdown", "picture", "targets", "write_between_markers"]

OURS, PEER = "torchstreamer scripted", "torch-streamer scripted"
OURS_EAGER, PEER_EAGER = "torchstreamer", "torch-streamer"
# Okabe and Ito's colours; the marker and the dash say the same again.
LOOKS = {
    "offline": ("#000000", "none", ":"),
    PEER_EAGER: ("#E69F00", "s", "--"),
    PEER: ("#D55E00", "s", "-"),
    OURS_EAGER: ("#56B4E9", "o", "--"),
    OURS: ("#0072B2", "o", "-"),
}
LABELS = {"offline": "offline, as many samples", OURS_EAGER: "ours", OURS: "ours scripted"}


def _median_us(case: "Case", name: str) -> float:
    return quartiles(case.seconds[name])[1] * 1e6


def _ratio(case: "Case", slow: str, fast: str) -> tuple[float, float, float]:
    return quartiles([a / b for a, b in zip(case.seconds[slow], case.seconds[fast], strict=True)])


def _digits(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _ratio_text(ratio: tuple[float, float, float]) -> str:
    low, middle, high = ratio
    return f"**{middle:.2f}** ({low:.2f}-{high:.2f})"


def markdown(cases: "list[Case]", facts: dict[str, str | int]) -> str:
    """The table, with the machine it was measured on."""
    lines = [
        f"{facts['cpu']}, {facts['cores']} cores, {facts['threads']} thread; torch {facts['torch']}, "
        f"Python {facts['python']}, {facts['system']}; {facts['rounds']} rounds.",
        "",
        "| stack | batch | chunk | offline, µs | torch-streamer, µs | its script, µs | ours, µs | our script, µs "
        "| ratio | ratio of scripts |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for case in cases:
        times = " | ".join(_digits(_median_us(case, name)) for name in LOOKS)
        eager = _ratio_text(_ratio(case, PEER_EAGER, OURS_EAGER))
        scripted = _ratio_text(_ratio(case, PEER, OURS))
        lines.append(f"| {case.stack} | {case.batch} | {case.chunk} | {times} | {eager} | {scripted} |")
    return "\n".join(lines) + "\n"


def _wanted(case: "Case") -> float:
    # Never slower than torch-streamer, within what can be told apart; faster where live streams need it.
    if case.stack == "plain" and case.chunk == 1:
        return 1.2 if case.batch == 1 else 10.0
    return 0.97


def targets(cases: "list[Case]") -> str:
    """Which of the project's targets the scripted streams meet."""
    lines = []
    for case in cases:
        ratio, wanted = _ratio(case, PEER, OURS)[1], _wanted(case)
        if ratio < wanted:
            lines.append(
                f"- missed: {case.stack}, batch {case.batch}, chunk {case.chunk}: {ratio:.2f}, wanted {wanted:.2f}"
            )
    return "\n".join(lines or ["All targets are met."]) + "\n"


def picture(cases: "list[Case]", path: Path) -> None:
    """Cost per chunk over chunk size, one panel for each stack and batch."""
    try:
        import matplotlib
    except ImportError:
        print("no picture: matplotlib is not installed")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    matplotlib.rcParams["svg.hashsalt"] = "conv_stack"
    matplotlib.rcParams["svg.fonttype"] = "none"
    panels = list(dict.fromkeys((case.stack, case.batch) for case in cases))
    figure, axes = pyplot.subplots(
        1, len(panels), figsize=(3.6 * len(panels), 3.9), sharey=True, squeeze=False, layout="constrained"
    )
    for axis, (stack, batch) in zip(axes[0], panels, strict=True):
        group = [case for case in cases if (case.stack, case.batch) == (stack, batch)]
        chunks = [case.chunk for case in group]
        for name, (colour, marker, dash) in LOOKS.items():
            label = LABELS.get(name, name)
            values = [_median_us(case, name) for case in group]
            axis.plot(chunks, values, color=colour, marker=marker, linestyle=dash, markersize=4, label=label)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(chunks, [str(chunk) for chunk in chunks])
        axis.set_title(f"{stack} stack, batch {batch}", fontsize=10)
        axis.set_xlabel("samples per chunk")
        axis.grid(True, which="major", color="#dddddd", linewidth=0.6)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0][0].set_ylabel("time per chunk, µs (median)")
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False, fontsize=9)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def write_between_markers(path: Path, text: str, name: str = "generated") -> None:
    """Replace what stands between the markers of a file that have this name."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, rest = path.read_text().split(begin)
    _, tail = rest.split(end)
    path.write_text(f"{head}{begin}\n{text}{end}{tail}")
