"""Exported files of captured models with several inputs and outputs, and of other layouts than [B, C, T]."""

import dataclasses
import json
from pathlib import Path
from typing import Any, Dict, List, Tuple

import pytest
import torch
import torch.nn.functional as F
from runner_calls import GRAPH, PACKAGE, SCRIPT
from torch import Tensor, nn

import torchstreamer as pts
from torchstreamer.deploy import exported_file


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@dataclasses.dataclass
class Sound:
    audio: Tensor
    nothing: Any
    parts: Tuple[Tensor, Tensor]


class Voice(nn.Module):
    """Two inputs of different rates and a static one; outputs of different rates, layouts and dtypes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, 4, 5, padding=2)
        self.upsample = nn.ConvTranspose1d(3, 4, 8, stride=4, padding=2)
        self.speaker = nn.Linear(2, 4)
        self.audio = nn.Conv1d(4, 1, 3, padding=1)

    def forward(self, features: Tensor, x: Tensor, speaker: Tensor) -> Any:
        h = self.conv(x.unsqueeze(1)) + self.upsample(features.mT)
        h = torch.tanh(h + self.speaker(speaker).unsqueeze(-1))
        return Sound(self.audio(h)[:, 0], None, (F.avg_pool1d(h, 4).argmax(1).unsqueeze(-1), h.transpose(0, 1)))


AXES = (1, 1, 2)


def inputs(n: int) -> Tuple[Tensor, ...]:
    return normal(1, n, 3), normal(1, 4 * n), normal(1, 2)


@pytest.fixture(scope="module")
def model() -> Voice:
    torch.manual_seed(0)
    return Voice().eval()


@pytest.fixture(scope="module")
def stream(model: Voice) -> Any:
    return pts.create_stream(model, example=inputs(12), time_dim=(1, 1, None))


def outputs(answer: Any) -> List[Any]:
    get = answer.__getitem__ if isinstance(answer, dict) else lambda name: getattr(answer, name)
    return [get("audio"), *get("parts")]


def fed(runner: Any, xs: Tuple[Tensor, ...]) -> List[Tensor]:
    """In pieces, in which the second input comes late."""
    n = xs[0].shape[1]
    ends = [(1, 0), (1, 2), (n // 2, 7), (n // 2 + 1, 4 * n - 3), (n, 4 * n - 3), (n, 4 * n)]
    pieces: List[List[Tensor]] = [[], [], []]
    a = b = 0
    for i, (c, d) in enumerate(ends):
        given = [xs[0][:, a:c], xs[1][:, b:d] if d > b else None, xs[2] if i == 0 else None]
        answer = runner(*given, final=True) if i == len(ends) - 1 else runner(*given)
        a, b = c, d
        for parts, y in zip(pieces, outputs(answer), strict=True):
            parts += [] if y is None else [y]
        if i == 2 and hasattr(runner, "signals"):
            runner.set_state(runner.get_state())
    return [torch.cat(parts, axis) for parts, axis in zip(pieces, AXES, strict=True)]


@pytest.mark.parametrize(
    "suffix", [SCRIPT, GRAPH, pytest.param(*PACKAGE.values, id="package", marks=[*PACKAGE.marks, pytest.mark.slow])]
)
def test_files(model: Voice, stream: Any, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"voice{suffix}"
    options: Dict[str, Any] = {} if suffix == ".pt" else {"chunk": 2}
    pts.export(stream, path, **options)
    runner = pts.load(path)
    for n in (9, 3):
        xs = inputs(n)
        for y, expected in zip(fed(runner, xs), outputs(model(*xs)), strict=True):
            torch.testing.assert_close(y, expected)
    if suffix != ".pt":
        assert runner.output_length(9) == {"audio": 36, "nothing": 0, "parts": (9, 36)}
        check_misuse(runner)


def check_misuse(runner: Any) -> None:
    features, x, speaker = inputs(5)
    for given, message in (
        ((features, x), "static_input: the static input 'speaker' is missing"),
        ((features, x.double(), speaker), "invalid_chunk: "),
        ((features, x[None], speaker), "invalid_chunk: "),
        ((features, x, speaker, x), "invalid_chunk: 4 chunks came"),
    ):
        with pytest.raises(pts.StreamInputError, match=f"^{message}"):
            runner(*given)
    runner(features, x, speaker)
    with pytest.raises(pts.StreamInputError, match="^static_input: .*came again"):
        runner(features, None, speaker)
    with pytest.raises(pts.StreamInputError, match="^unequal_lengths: the signal ends with 21 samples of 'x'"):
        runner(None, x[:, :1], final=True)
    state = runner.get_state()
    state["@pending.1"] = state["@pending.1"].double()
    with pytest.raises(pts.StreamInputError, match="^invalid_state: "):
        runner.set_state(state)
    runner.reset()


def test_a_geometry_of_several_signals_is_checked(stream: Any) -> None:
    from torchstreamer.deploy.export import geometry

    static = pts.StaticStream(stream, 2)
    about = {**geometry(static, stream), "metadata": {}}
    assert exported_file.parse_geometry(json.dumps(about)) == json.loads(json.dumps(about))
    first, second, third = about["inputs"]
    result = about["results"][0]
    wrong: List[Dict[str, Any]] = [
        {"version": 3},
        {"inputs": []},
        {"inputs": [third]},
        {"inputs": [{**first, "time": 7}]},
        {"inputs": [{**first, "time": 0}]},
        {"inputs": [{**first, "rows": -1}]},
        {"inputs": [{**first, "rate": [1, 0]}]},
        {"inputs": [{**first, "rate": [2, 1]}]},
        {"inputs": [{**first, "dtype": "complex"}]},
        {"inputs": [{**first, "shape": [2, 2, 3]}]},
        {"inputs": [first, {**second, "shape": [1, 9]}]},
        {"inputs": [{**first, "shape": [1, 2, 2**35]}]},
        {"results": []},
        {"results": [{**result, "outputs": 0}]},
        {"results": [{**result, "lengths": [[0], 0, 1, -1]}]},
        {"results": [{**result, "time": 9}]},
        {"structure": {"set": []}},
        {"structure": {"list": [1.5]}},
        {"structure": {"dict": [0]}},
    ]
    for change in wrong:
        with pytest.raises(ValueError):
            exported_file.parse_geometry(json.dumps({**about, **change}))
