"""Pages that are made of tables of the package leave nothing out; pictures are those of the scripts that draw them."""

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import torch
from error_codes import codes_of_package, rules_of_verifier
from torch import nn

import torchstreamer as pts
from torchstreamer import handlers
from torchstreamer.core import registry
from torchstreamer.graph.lowering import _rules
from torchstreamer.graph.reasons import REASONS

ROOT = Path(__file__).parent.parent.parent
DOCS = ROOT / "docs"


def script(name, monkeypatch):
    """A script of the documentation, imported."""
    monkeypatch.syspath_prepend(str(DOCS))
    spec = importlib.util.spec_from_file_location(f"docs_{Path(name).stem}", DOCS / name)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


# --------------------------------------------------------------------------- My model is refused


def listed():
    return re.findall(r"^\| `([a-z_…]+)`", (DOCS / "my-model-is-refused.md").read_text(), re.MULTILINE)


def test_every_error_code_is_on_the_page():
    assert len(codes_of_package()) > 120  # they are found at all
    missing = codes_of_package() | rules_of_verifier()
    missing -= set(listed())
    assert not missing, f"add a line for each of them to docs/my-model-is-refused.md: {sorted(missing)}"


def test_every_code_on_the_page_is_one_of_the_package():
    assert len(listed()) == len(set(listed()))
    strange = set(listed()) - codes_of_package() - rules_of_verifier()
    assert not strange, f"no error has these codes: {sorted(strange)}"


# --------------------------------------------------------------------------- Does X stream?


def test_every_module_of_torch_has_a_line(monkeypatch):
    trials = script("module_trials.py", monkeypatch)
    names = set(trials.modules_of_torch())
    tabled = [*registry._builtin, *handlers._REFUSED]
    shown = {kind.__name__ for kind in tabled if getattr(nn, kind.__name__, None) is kind and kind is not nn.RNNBase}
    assert shown <= names
    assert {"Conv1d", "LSTM", "GroupNorm", "Linear", "Conv3d", "Unfold"} <= names
    for name in trials._ARGUMENTS | trials._LAYOUTS | trials._KEYWORDS:
        assert name in names or not hasattr(nn, name), name


@pytest.mark.parametrize(
    ("name", "answer", "note"),
    [
        ("Conv1d", "yes", "as `Conv1dStream`"),
        ("GELU", "yes", "as `PointwiseStream`"),
        ("Linear", "example", "with `example=`, in the layout `[B, T, C]`, and `time_dim=1`"),
        (
            "CircularPad1d",
            "no",
            "`time_mixing`: it puts the end of the signal before its start; use another padding mode",
        ),
    ],
)
def test_a_module_is_tried(name, answer, note, monkeypatch):
    row = script("module_trials.py", monkeypatch).tried(name)
    assert (row.name, row.answer, row.note) == (name, answer, note)


def test_every_operation_of_the_tables_has_a_line(monkeypatch):
    index = script("streams_index.py", monkeypatch)
    rows = index.operation_rows()
    names = [row.name.split()[0] for row in rows]
    assert len(names) == len(set(names))
    assert set(_rules) | set(REASONS) <= set(names) | index.INTERNAL
    assert set(index._NOTES) == set(_rules) - index.INTERNAL
    assert {"relu", "exp", "where", "erf"} <= set(names)  # what torch says is pointwise
    notes = {row.name: row.note for row in rows}
    assert all(reason[0] in notes[name] for name, reason in REASONS.items() if name in notes and name in REASONS)


def test_a_table_has_a_line_for_each_row(monkeypatch):
    index = script("streams_index.py", monkeypatch)
    rows = [index.Row("a b", "yes", "x | y"), index.Row("c", "no", "")]
    assert index.table(rows, "thing").splitlines()[2:] == [
        '| `a` `b` | <span class="answer yes">yes</span> | x \\| y |',
        '| `c` | <span class="answer no">no</span> |  |',
    ]


def test_cells_bear_the_head_of_their_column(monkeypatch):
    labelled = script("labels.py", monkeypatch).labelled
    html = "<table><thead><tr><th>a</th><th></th></tr></thead><tbody><tr><td>1</td><td>2</td></tr></tbody></table>"
    assert '<td data-label="a">1</td><td>2</td>' in labelled(html)


# --------------------------------------------------------------------------- pictures


def test_the_idea_is_drawn_by_its_script(monkeypatch):
    assert script("drawings/idea.py", monkeypatch).drawn() == (DOCS / "assets" / "idea.svg").read_text()


def test_the_result_is_that_of_a_run(monkeypatch):
    result = script("drawings/result.py", monkeypatch)
    run = result.run()
    peak = run.whole.abs().max()
    torch.testing.assert_close(run.streamed, run.whole)
    clicks = (run.naive - run.whole).abs()
    assert clicks.max() > 0.2 * peak
    edges = torch.arange(run.chunk, len(clicks), run.chunk)
    assert clicks[edges].mean() > 5 * clicks[edges[:-1] + run.chunk // 2].mean()  # worst where pieces meet
    said = re.search(r"at most (\d+)% of the peak", (DOCS / "assets" / "result.svg").read_text())
    assert int(said[1]) == round(100 * float(clicks.max() / peak))


def test_pictures_are_small():
    for picture in (DOCS / "assets").iterdir():
        assert picture.stat().st_size < 150_000, picture.name


# --------------------------------------------------------------------------- files for those who take part


def test_ruff_is_of_one_version():
    pinned = re.search(r"^ruff==(\S+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    hook = re.search(r"ruff-pre-commit\n\s+rev: v(\S+)", (ROOT / ".pre-commit-config.yaml").read_text())
    assert pinned[1] == hook[1]


def test_the_citation_names_the_version():
    assert f"version: {pts.__version__}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_workflow_runs_the_checks():
    assert re.search(r"run: .*\.ci/run", (ROOT / ".github" / "workflows" / "ci.yml").read_text())
