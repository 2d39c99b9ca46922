"""The pin says the same of the same package every time, and its comparison finds what is changed."""

import copy
import json

from layers import layers
from networks import networks
from pin import describe, main

# A few layers of kinds that differ much, and some networks.
CHOSEN = ("conv 0", "conv-mirrored 1", "transposed 2", "average-pool 3", "max-pool 4", "linear 0", "reflection-pad 0")
NETWORKS = ("composed 0", "composed 1")


def some():
    wanted = [subject for subject in layers() if subject.name in CHOSEN]
    for subject in networks():
        if subject.name not in NETWORKS:
            return wanted
        wanted.append(subject)


def written(path, found):
    path.write_text(json.dumps({"torch": "any", "groups": {"layers": found}}))
    return str(path)


def test_written_twice_and_compared(tmp_path, capsys):
    first, second = describe(some()), describe(some())
    assert list(first) == [*CHOSEN, *NETWORKS]
    assert json.dumps(first) == json.dumps(second)
    for name, found in first.items():
        tables = found["tables"]
        assert len(tables["length.open"]) == len(tables["length.final"]) > 100, name
        assert tables["values"] != "nothing" and tables["static.some.lag"] >= 0, name
    before, after = (written(tmp_path / f"{i}.json", found) for i, found in enumerate((first, second)))
    assert main(["compare", before, after]) == 0
    assert "0 differences" in capsys.readouterr().out

    changed = copy.deepcopy(first)
    changed["linear 0"]["tables"]["static.some.lag"] += 1
    changed["conv 0"]["tables"]["length.open"][9] += 1
    del changed["max-pool 4"]
    after = written(tmp_path / "changed.json", changed)
    assert main(["compare", before, after]) == 1
    told = capsys.readouterr().out
    assert "static.some.lag: 1\n  linear: 1\n    linear 0: " in told
    assert "length.open: 1\n  conv: 1\n    conv 0: [9] " in told and "max-pool 4: gone" in told
    assert "3 differences, 3 of them unexpected" in told
    expected = ["--expect", "static.*.lag", "length.open@conv", "subject@max*"]
    assert main(["compare", before, after, *expected]) == 0
    assert main(["compare", before, after, *expected[:-1]]) == 1
