"""The commands besides `run`, and the program itself."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import ran, read, sound

import torchstreamer as pts
import torchstreamer.models.demo as demo
from torchstreamer.cli.failing import guarded
from torchstreamer.cli.quantities import clock, duration, samples_in
from torchstreamer.cli.timing import Times

ROOT = Path(pts.__file__).parent.parent


# --------------------------------------------------------------------------- the other commands


def test_what_is_told_of_a_model(exported):
    found = ran("inspect", exported / "net.pt", "--json")
    told = json.loads(found.out)
    assert found.code == 0 and told.pop("model").endswith("net.pt")
    assert told == {
        "kind": "TorchScript",
        "dtype": "float32",
        "parameters": 77,
        "rate_hz": 16000,
        "channels": 1,
        "out_channels": 1,
        "rows": None,
        "ratio": [1, 1],
        "hop": 1,
        "first_output": 9,
        "lookahead": 8,
        "past": 8,
        "static": None,
        "state_nbytes": told["state_nbytes"],
        "streams": {"Conv1dStream": 2, "Pad1dStream": 2, "PointwiseStream": 1},
        "metadata": {},
    }
    assert 4 * 5 * 8 <= told["state_nbytes"] < 1000
    text = ran("inspect", "nets:Net", "--layers").out
    for part in (
        "nets:Net        module, float32, 77 parameters, 16000 Hz",
        "8 samples (500 ",
        "; .onnx yes",
        "MAC/s",
    ):
        assert part in text, text
    assert "rate not known" in ran("inspect", "nets:Blind").out


def test_what_is_measured(capfd, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert guarded(["bench", "nets:Net", "--chunk", "10ms,320", "--seconds", "0.2", "--json"]) == 0
    told = json.loads(capfd.readouterr().out)
    assert [(row["chunk"], row["samples"]) for row in told["chunks"]] == [("10ms", 160), ("320", 320)]
    assert all(0 < row["p50_s"] <= row["p99_s"] and row["real_time"] > 0 for row in told["chunks"])
    assert guarded(["bench", "nets:Net", "--chunk", "10ms", "--seconds", "0.2"]) == 0
    text = capfd.readouterr().out
    assert text.startswith("nets:Net  16000 Hz, 0.2 s of noise, 1 thread\n") and "offline" in text


@pytest.mark.slow
def test_what_is_exported_runs(nets):
    x = sound("in.wav")
    assert ran("export", "nets:Blind", "net.pt", "--rate", 16000).out.endswith("16000 Hz\n")
    assert ran("run", "net.pt", "in.wav", "out.wav").code == 0
    with torch.no_grad():
        torch.testing.assert_close(read("out.wav"), nets.Net()(x))
    assert pts.load("net.pt").sampling_fs == 16000
    assert ran("export", "nets:Net", "net.hpp").code == 0
    assert "int rate_hz = 16000;" in Path("net.hpp").read_text()


@pytest.mark.slow
def test_programs_of_one_row_take_the_channels_one_by_one(nets):
    pytest.importorskip("onnxruntime")
    x = sound("in.wav", channels=2)
    assert ran("export", "nets:Net", "net.onnx", "--chunk", "10ms").code == 0
    told = json.loads(ran("inspect", "net.onnx", "--json").out)
    assert (told["kind"], told["hop"], told["rows"], told["rate_hz"]) == ("ONNX", 160, 1, 16000)
    assert (told["past"], told["parameters"], told["streams"]["Conv1dStream"]) == (8, 77, 2)
    assert ran("run", "net.onnx", "in.wav", "out.wav").code == 0
    with torch.no_grad():
        torch.testing.assert_close(read("out.wav"), nets.Net()(x[:, None])[:, 0])


@pytest.mark.slow
def test_every_rule_is_checked():
    found = ran("verify", "nets:Net", "--example", "1,1,60", "--json")
    told = json.loads(found.out)
    assert found.code == 0 and told["ok"] and {"exact", "prompt", "final"} <= {each["rule"] for each in told["checks"]}


def test_the_demo_has_a_bar(monkeypatch):
    report = demo.DemoReport(1, 10, 0.1, 7.1, 1e-6, 1, 2, 30, (Path("a"), Path("b"), Path("c")))
    for changed, code in (({}, 0), ({"difference": 1e-3}, 1), ({"si_sdr_after_db": 5.5}, 1)):
        monkeypatch.setattr(demo, "demo", lambda folder, changed=changed: dataclasses.replace(report, **changed))
        assert ran("demo", "here").code == code


# --------------------------------------------------------------------------- the program


def test_help_comes_without_torch():
    code = (
        "import sys\nfrom torchstreamer.cli import main\ntry:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n"
        "    heavy = {'torch', 'numpy', 'soundfile', 'rich'} & set(sys.modules)\n"
        "    sys.exit(f'{heavy} came' if heavy else end.code)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for program in (["-c", code, "run", "--help"], ["-m", "torchstreamer", "--version"]):
        found = subprocess.run([sys.executable, *program], env=environment, capture_output=True, text=True, timeout=120)
        assert found.returncode == 0 and not found.stderr, found.stderr
        assert "Stream sound through a model." in found.stdout or found.stdout == f"torchstreamer {pts.__version__}\n"


def test_the_page_is_that_of_the_program():
    spec = importlib.util.spec_from_file_location("docs_command_line", ROOT / "docs" / "command_line.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.PAGE.read_text() == module.page(), "run python docs/command_line.py"


def test_quantities():
    assert [samples_in(text, 16000) for text in ("10ms", "1s", "0.5 s", "480", "0.01ms")] == [160, 16000, 8000, 480, 1]
    assert [clock(seconds) for seconds in (0, 192.9, 3723)] == ["0:00", "3:12", "1:02:03"]
    assert [duration(seconds) for seconds in (2, 0.0125, 3e-5)] == ["2 s", "12.5 ms", "30 µs"]
    times = Times()
    for i in range(1, 1001):
        times.add(i / 1000)
    assert times.quantile(0.5) == pytest.approx(0.5, rel=0.01) and times.quantile(0.99) == pytest.approx(0.99, rel=0.01)
