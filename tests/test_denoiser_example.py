"""The programs that trained and measured the denoiser run, and what they hold out is held out."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import torchstreamer as pts
from torchstreamer.models import pretrained_denoiser

pytest.importorskip("numpy", reason="the examples need numpy")
pytest.importorskip("scipy", reason="the examples need scipy")

pytestmark = pytest.mark.examples

FOLDER = Path(__file__).parent.parent / "examples" / "denoiser"


@pytest.fixture(scope="module")
def modules():
    names = ("speech", "noise", "mixing", "human", "evaluate")
    sys.path.insert(0, str(FOLDER))
    try:
        yield [__import__(name) for name in names]
    finally:
        sys.path.remove(str(FOLDER))
        for name in names:
            sys.modules.pop(name, None)


def test_one_step_of_training_gives_weights(tmp_path):
    # With the small voice, so that it needs no espeak-ng.
    options = ["--synthetic", "--steps", "1", "--speech", "0.5", "--folder", tmp_path]
    command = [sys.executable, "-W", "error", FOLDER / "train.py", tmp_path / "new.pt", *options]
    paths = {**os.environ, "PYTHONPATH": str(Path(pts.__file__).parents[1])}
    done = subprocess.run([*map(str, command)], env=paths, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "1 steps" in done.stdout
    net, kept = pretrained_denoiser(tmp_path / "new.pt"), torch.load(tmp_path / "new.pt", weights_only=True)
    assert all(value.dtype == torch.float16 for value in kept.values())
    assert {name: tuple(value.shape) for name, value in net.state_dict().items()} == {
        name: tuple(value.shape) for name, value in pretrained_denoiser().state_dict().items()
    }


def test_a_folded_norm_changes_nothing(modules):
    sys.modules.pop("train", None)
    train = __import__("train")
    torch.manual_seed(0)
    net = train.Denoiser(channels=8, dilations=(1, 2))
    train.insert_norms(net)
    assert sum(isinstance(module, torch.nn.BatchNorm1d) for module in net.modules()) == 3
    x = torch.randn(3, 1, 4000)
    net(x)  # so that the statistics are none of the first ones
    before = net.eval()(x)
    train.fold_norms(net)
    assert not any(isinstance(module, torch.nn.BatchNorm1d) for module in net.modules())
    torch.testing.assert_close(net(x), before, rtol=1e-4, atol=1e-5)


def test_what_is_held_out_was_not_trained_on(modules):
    speech, noise, *_ = modules
    assert not set(speech.TRAINED.languages) & set(speech.HELD_OUT.languages)
    assert not set(speech.TRAINED.variants) & set(speech.HELD_OUT.variants)
    assert not set(noise.TRAINED) & set(noise.HELD_OUT)


def test_signals_are_measured_at_each_ratio(modules):
    speech, noise, _, _, evaluate = modules
    clean = speech.speech(0, 12, None)
    gains = evaluate.gains(torch.nn.Identity(), clean, noise.HELD_OUT, 4, 0)
    assert gains.shape == (4, len(evaluate.RATIOS_DB))
    assert float(gains.abs().max()) < 1e-6  # what changes nothing gains nothing
    assert float(evaluate.gains(pretrained_denoiser(), clean, noise.TRAINED, 8, 0).mean()) > 2
