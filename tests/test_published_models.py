"""The page of published models holds every model of the list, and says of each what the results say."""

import json
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "published.json"


def published(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import published
    from published import page

    return published, page


def test_the_page_is_that_of_the_list_and_the_results(monkeypatch):
    listed, page = published(monkeypatch)
    results = json.loads(RESULTS.read_text())
    assert page.PAGE.read_text() == page.page(listed.PACKAGES, results)


def test_the_list_names_each_model_once_with_a_verdict(monkeypatch):
    listed, _ = published(monkeypatch)
    names = [f"{package.name}: {model.name}" for package in listed.PACKAGES for model in package.models]
    assert len(names) == len(set(names)) >= 100
    assert set(json.loads(RESULTS.read_text())) <= set(names)
    for package in listed.PACKAGES:
        assert not any(requirement.startswith("torch==") for requirement in package.requirements)
        for model in package.models:
            compile(package.setup + model.build + "\n" + model.call(), model.name, "exec")
            assert model.read, f"{model.name}: say where the verdict was read"


def test_no_result_is_wrong():
    wrong = [name for name, result in json.loads(RESULTS.read_text()).items() if result["result"] == "wrong"]
    assert not wrong
