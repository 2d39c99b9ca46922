"""README, documentation and docstrings say what is true: every Python block and every docstring example runs."""

import doctest
import importlib
import importlib.util
import pkgutil
import re
import sys
from pathlib import Path

import pytest
import torch

import torchstreamer as pts
import torchstreamer.analysis
import torchstreamer.audio
import torchstreamer.data
import torchstreamer.models
import torchstreamer.testing

PACKAGES = (
    torchstreamer.analysis,
    torchstreamer.audio,
    torchstreamer.data,
    torchstreamer.models,
    torchstreamer.testing,
)

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(DOCS.rglob("*.md"))]
WITH_CODE = [page for page in PAGES if "```python" in page.read_text()]
MODULES = ["torchstreamer", *(name for _, name, _ in pkgutil.walk_packages(pts.__path__, "torchstreamer."))]


@pytest.fixture(autouse=True)
def _as_in_a_new_process(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")  # the tutorials run from a clone
    torch.manual_seed(0)
    grad = torch.is_grad_enabled()
    yield
    torch.set_grad_enabled(grad)


# --------------------------------------------------------------------------- pages


def python_of(page: Path) -> str:
    """The Python blocks of a page, each on the lines on which it stands; everything else is empty."""
    lines, inside = [], False
    for line in page.read_text().splitlines():
        if line.startswith("```"):
            inside = line == "```python"
            line = ""
        lines.append(line if inside else "")
    return "\n".join(lines) + "\n"


def test_blocks_keep_their_lines(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("text\n```python\nx = 1\n```\nmore\n```sh\nls\n```\n```python\ny = 2\n```\n")
    assert python_of(page).splitlines() == ["", "", "x = 1", "", "", "", "", "", "", "y = 2", ""]


def by_time(pages):
    """Pages whose code verifies streams and exports models take long."""
    for page in pages:
        long = page.name in ("custom-handlers.md", "stream-your-own-model.md")
        yield pytest.param(page, id=page.name, marks=[pytest.mark.slow] if long else [])


@pytest.mark.parametrize("page", list(by_time(WITH_CODE)))
def test_python_blocks_run(page, tmp_path, monkeypatch):
    # The blocks become a file, as TorchScript wants to read their source.
    name = "page_" + page.stem.replace("-", "_").lower()
    file = tmp_path / f"{name}.py"
    file.write_text(python_of(page))
    spec = importlib.util.spec_from_file_location(name, file)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)


def test_there_are_blocks_to_run():
    assert {"README.md", "index.md", "getting-started.md", "concepts.md", "custom-handlers.md", "state.md"} <= {
        page.name for page in WITH_CODE
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page):
    text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


def test_readme_opens_with_the_two_commands():
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    example, tests = (block.strip() for block in blocks[:2])
    for command in (example, tests):
        assert "\n" not in command
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt -e ")
    assert example.endswith(" .venv/bin/torchstreamer demo")
    assert " -m pytest" in tests


def test_every_public_name_is_in_the_reference():
    reference = "\n".join(page.read_text() for page in sorted((DOCS / "reference").glob("*.md")))
    documented = re.findall(r"^::: (\S+)$", reference, re.MULTILINE)
    assert len(documented) == len(set(documented))
    for module in (pts, *PACKAGES):
        for name in module.__all__:
            if module is pts or not hasattr(pts, name):
                assert f"{module.__name__}.{name}" in documented


def test_every_page_is_in_the_navigation():
    navigation = re.findall(r"^ +- (?:.*: )?(\S+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    assert sorted(navigation) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


# --------------------------------------------------------------------------- docstrings


def docstring_examples():
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in MODULES:
        if name.startswith("torchstreamer.cli") and importlib.util.find_spec("typer") is None:
            continue  # without its extra
        for test in finder.find(importlib.import_module(name), name):
            if test.examples:
                yield pytest.param(test, id=test.name.removeprefix("torchstreamer."))


@pytest.mark.parametrize("test", list(docstring_examples()))
def test_docstring_examples_run(test):
    report = []
    doctest.DocTestRunner().run(test, out=report.append)
    assert not report, "".join(report)


def test_what_users_make_has_an_example():
    wanted = {"create_stream", "is_streamable", "register_streamer", "stack_states", "without_padding", "RingBuffer"}
    wanted |= {name for name in pts.__all__ if re.match(r"(Conv|Pool|Sequential|Residual|Upsample|Elementwise)", name)}
    for name in wanted:
        assert ">>> " in getattr(pts, name).__doc__, name
