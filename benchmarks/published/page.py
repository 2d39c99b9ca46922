"""The page of the docs: every published model with its verdict, its result and the call to copy."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .listing import Model, Package

__all__ = ["PAGE", "page"]

PAGE = Path(__file__).parent.parent.parent / "docs" / "published-models.md"

_HEAD = """# Published models

Models of published packages as they are, not a line of theirs changed, with random weights. Each was built, made a
stream by the call that is shown, fed in several chunkings and lengths, and compared with itself on the whole signal in
float64: *exact* means a difference of at most 1e-9 of the largest value (2e-5 for models that compute in float32
whatever comes, marked †). Before any was streamed, each got a verdict that was read in its source: *streams*, or the
operation of the whole signal that forbids it. `python benchmarks/published.py` does it all anew, and writes this page.

Creation is the time of the call that is shown; hop and latency are in samples of the input; the state is what a signal
needs between chunks, in float64. *Script*, *static rows* and *export* tell whether the stream scripts, has rows of
mixed age in one batch of fixed shapes, and is written to a `.pt` file and loaded.
"""


def _yes(told: str | None) -> str:
    return "" if told is None else ("yes" if told == "yes" else "no")


def _cells(model: Model, result: dict[str, Any]) -> list[str]:
    seconds = result.get("creation_s")
    latency, state = result.get("latency"), result.get("state_bytes")
    return [
        model.name + (" †" if model.single else ""),
        model.forbidden or "streams",
        f"**{result['result']}**" if result["result"] == "exact" else result["result"],
        "" if seconds is None else f"{seconds:.1f}",
        str(result.get("hop") or ""),
        "" if latency is None else f"{latency:.4g}",
        "" if state is None else f"{state:,}",
        _yes(result.get("script")),
        _yes(result.get("static_rows")),
        _yes(result.get("export")),
        _plain(result.get("reason", "")),
    ]


def _plain(reason: str) -> str:
    short = reason.split("; to stream", 1)[0][:160]
    return short.replace("|", "\\|").replace("`", "'").replace("<", "&lt;").replace("*", "\\*").replace("_", "\\_")


def _section(name: str, models: list[tuple[Package, Model]], results: dict[str, dict[str, Any]]) -> list[str]:
    requirement = next(iter(models))[0].requirements[0]
    lines = [f"## {name}", "", f"`{requirement}` of PyPI", ""]
    head = "model|verdict|result|creation, s|hop|latency|state, bytes|script|static rows|export|reason".split("|")
    lines += [f"| {' | '.join(head)} |", "|---|---|---|--:|--:|--:|--:|---|---|---|---|"]
    for package, model in models:
        result = results.get(f"{package.name}: {model.name}", {"result": "not run"})
        lines.append(f"| {' | '.join(_cells(model, result))} |")
    lines.append("")
    for package, model in models:
        build = (package.setup + model.build).splitlines()
        lines += ['<details markdown="1">', f"<summary>{model.name}</summary>", "", model.read, ""]
        lines += ["```py", "import torch", "import torchstreamer as pts", "", *build, model.call(), "```", ""]
        lines += ["</details>", ""]
    return lines


def page(packages: Sequence[Package], results: dict[str, dict[str, Any]]) -> str:
    """The whole page."""
    due = [
        results[f"{package.name}: {model.name}"]
        for package in packages
        for model in package.models
        if not model.forbidden and f"{package.name}: {model.name}" in results
    ]
    others = [result for result in results.values() if result["forbidden"]]
    expected = sum(not model.forbidden for package in packages for model in package.models)
    counts = Counter(result["result"] for result in due)
    told_others = ", ".join(f"{n} {kind}" for kind, n in Counter(r["result"] for r in others).most_common())
    exact = [result for result in due if result["result"] == "exact"]
    scripts = sum(result.get("script") == "yes" for result in exact)
    static = sum(result.get("static_rows") == "yes" for result in exact)
    count = sum(len(package.models) for package in packages)
    told = ", ".join(f"{number} {kind}" for kind, number in counts.most_common())
    known = [result for result in results.values() if result.get("commit")]
    commits = ", ".join(f"{of} ({n})" for of, n in Counter(result["commit"] for result in known).most_common())
    quick = sum(bool(result.get("quick")) for result in known)
    lines = [
        _HEAD,
        f"{count} configurations of {len({package.name for package in packages})} packages. Of the {expected} that "
        f"should stream, {len(due)} were run: {told}. Of the exact ones, {scripts} script and {static} have static "
        f"rows. Of the {count - expected} that cannot be streamed, {len(others)} were run: {told_others}.",
        "",
        f"They ran on these commits of the library: {commits}. {quick} ran quickly, that is on two lengths in one "
        "chunking each, and without an export.",
        "",
    ]
    sections: dict[str, list[tuple[Package, Model]]] = {}
    for package in packages:
        sections.setdefault(package.name, []).extend((package, model) for model in package.models)
    for name, models in sections.items():
        lines += _section(name, models, results)
    return "\n".join(lines).rstrip() + "\n"
