"""What holds the structure of the package: rooms that name no kind of layer, integers computed in one place."""

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import torchstreamer as pts

ROOT = Path(pts.__file__).parent

# Containers and captured graphs, which any room may name: they are made of streams and have no geometry of their own.
CONTAINERS = {
    "BaseStream",
    "CompositeStream",
    "Sequential1dStream",
    "Residual1dStream",
    "Parallel1dStream",
    "KeptLength1dStream",
    "GraphStream",
    "PortedGraphStream",
}

# The files that may say how far the taps of a window reach, and how many windows there are.
SPANS = {"core/reach.py", "layers/window.py", "layers/padding.py", "layers/winograd.py"}
SPANS |= {"testing/strategies.py", "testing/drawn_layers.py"}  # which judge the others, or draw
COUNTS = {"core/reach.py", "core/lengths.py", "layers/window.py", "layers/conv.py"}


def trees(*rooms: str) -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if not rooms or name.split("/")[0] in rooms:
            yield name, ast.parse(path.read_text())


def stream_classes() -> set[str]:
    """Names of all classes of streams in the package."""
    found = {"BaseStream"}
    classes = [node for _, tree in trees() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    while True:
        more = {c.name for c in classes if any(isinstance(b, ast.Name) and b.id in found for b in c.bases)}
        if more <= found:
            return found
        found |= more


@functools.cache
def all_kinds() -> set[str]:
    return stream_classes() - CONTAINERS


def names_in(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} | {
        n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)
    }


def kinds_asked(tree: ast.AST, kinds: set[str]) -> Iterator[tuple[int, set[str]]]:
    """Lines that ask whether something is of a kind, and of which."""
    for node in ast.walk(tree):
        asks = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "isinstance"
        if asks and len(node.args) == 2 and names_in(node.args[1]) & kinds:
            yield node.lineno, names_in(node.args[1]) & kinds
        if isinstance(node, ast.Compare) and any(isinstance(op, (ast.Is, ast.IsNot, ast.Eq)) for op in node.ops):
            if "type" in names_in(node.left) and names_in(node) & kinds:
                yield node.lineno, names_in(node) & kinds


def spans(tree: ast.AST) -> Iterator[int]:
    """Lines with ``(kernel - 1) * dilation``, whatever the two are called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            for one, other in ((node.left, node.right), (node.right, node.left)):
                less = isinstance(one, ast.BinOp) and isinstance(one.op, ast.Sub) and _is_one(one.right)
                if less and any("dilation" in name for name in names_in(other)):
                    yield node.lineno


def counts(tree: ast.AST) -> Iterator[int]:
    """Lines with ``… // stride + 1``, whatever the stride is called."""
    for node in ast.walk(tree):
        plus_one = isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add) and _is_one(node.right)
        if plus_one and isinstance(node.left, ast.BinOp) and isinstance(node.left.op, ast.FloorDiv):
            if any("stride" in name for name in names_in(node.left.right)):
                yield node.lineno


def _is_one(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value == 1


def test_kinds_are_found():
    assert {"Conv1dStream", "Pool1dStream", "UpsampleStream", "CumulativeStream", "RecurrentStream"} <= all_kinds()


def test_analysis_and_deploy_ask_for_no_kind_of_layer():
    found = [
        f"{name}:{line} {kinds}"
        for name, tree in trees("analysis", "deploy")
        for line, kinds in kinds_asked(tree, all_kinds())
    ]
    assert not found, "ask the stream, or give its family a rule"


def test_nothing_outside_of_core_asks_for_a_kind_of_memory():
    memories = {"RingBuffer", "Counter", "Cell"}
    found = [
        f"{name}:{line}"
        for name, tree in trees()
        if not name.startswith("core/")
        for line, _ in kinds_asked(tree, memories)
    ]
    assert not found, "ask Memory"


def test_analysis_names_no_kind_of_layer():
    # Not even to register a rule for it: streams say themselves what they read. Modules taken as pointwise are tried.
    found = [
        f"{name}: {sorted(names_in(tree) & all_kinds())}"
        for name, tree in trees("analysis")
        if names_in(tree) & all_kinds()
    ]
    assert not found


@pytest.mark.parametrize(("find", "allowed"), [(spans, SPANS), (counts, COUNTS)], ids=["spans", "counts"])
def test_integers_of_windows_are_computed_where_they_belong(find, allowed):
    found = {f"{name}:{line}" for name, tree in trees() if name not in allowed for line in find(tree)}
    assert not found, "use spanned, window_count or Reach"
    for name in allowed - {"core/reach.py", "core/lengths.py"}:
        assert list(find(ast.parse((ROOT / name).read_text()))), f"{name} needs no permission"


@pytest.mark.parametrize(
    ("code", "find"),
    [
        ("isinstance(x, Conv1dStream)", lambda tree: list(kinds_asked(tree, all_kinds()))),
        ("isinstance(x, (A, conv.Conv1dStream))", lambda tree: list(kinds_asked(tree, all_kinds()))),
        ("type(x) is Pool1dStream", lambda tree: list(kinds_asked(tree, all_kinds()))),
        ("n = (k - 1) * dilation + 1", lambda tree: list(spans(tree))),
        ("n = self.dilation[0] * (kernel[0] - 1)", lambda tree: list(spans(tree))),
        ("n = (x - f) // self.stride + 1", lambda tree: list(counts(tree))),
    ],
)
def test_what_is_looked_for_is_found(code, find):
    assert find(ast.parse(code))


def questions() -> list[list[str]]:
    """The files that the page on the architecture names for each of its questions."""
    text = (ROOT.parent / "docs" / "architecture.md").read_text().split("## Questions")[1]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("| ")][1:]
    return [re.findall(r"`([\w/]+\.py)`", files) for _, files in rows]


def test_the_page_on_the_architecture_names_files_that_exist():
    text = (ROOT.parent / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`([\w/]+\.py)`", text))
    assert len(named) > 30
    assert not {name for name in named if not ((ROOT / name).exists() or (ROOT.parent / name).exists())}


def test_questions_are_answered_in_few_files():
    found = questions()
    assert len(found) >= 20 and all(found)
    assert sum(len(files) for files in found) / len(found) <= 2.8


def test_no_file_holds_two_versions_of_itself():
    folders = ("torchstreamer", "tests", "docs", "benchmarks", "examples", ".ci", ".github")
    files = [path for folder in folders for path in (ROOT.parent / folder).rglob("*") if path.is_file()]
    files += [path for path in ROOT.parent.iterdir() if path.is_file()]
    files = [path for path in files if path.suffix in (".py", ".md", ".toml", ".yml", ".txt", ".cff", ".cpp", "")]
    assert len(files) > 300
    marks = re.compile(rb"^(<{7}|>{7}) ", re.MULTILINE)
    assert not [path for path in files if marks.search(path.read_bytes())]


def test_no_module_is_annotated_with_any_in_its_class():
    # On Python 3.10 scripts of torch take `Any`, no class there, for `Final`, and refuse the value as a constant.
    kinds, found = [torch.nn.Module], set()
    while kinds:
        kind = kinds.pop()
        kinds += kind.__subclasses__()
        if kind.__module__.startswith("torchstreamer."):
            found |= {(kind.__name__, name) for name, of in vars(kind).get("__annotations__", {}).items() if of is Any}
    assert not found
