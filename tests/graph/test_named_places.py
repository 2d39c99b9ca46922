"""Refusals of what the exporter cannot record, or records for one length: the innermost module, the line, and what
stands there."""

import importlib
import re
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import torchstreamer as pts


class Body(nn.Module):
    """Computes a function, and stands deep in a model."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


class Model(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 2, 1)
        self.layers = nn.ModuleList([nn.Identity(), body])

    def forward(self, x: Tensor) -> Any:
        x = self.conv(x)
        for layer in self.layers:
            x = layer(x)
        return x


def recurrence(m: Any, x: Tensor) -> Tensor:
    h, ys = torch.zeros(x.shape[0], 2), []
    for t in range(x.shape[-1]):
        h = torch.tanh(m.cell(x[..., t]) + h)
        ys.append(h)
    return torch.stack(ys, -1)


def recurrence_of_steps(m: Any, x: Tensor) -> Tensor:
    steps, ys = x.unbind(-1), []
    level = steps[0]
    for step in steps:
        level = 0.9 * level + 0.1 * step
        ys.append(level)
    return torch.stack(ys, -1)


def loop(m: Any, x: Tensor) -> Tensor:
    length = int(x.shape[-1])
    ys = [m.cell(x[..., t]) for t in range(length)]
    return torch.stack(ys, -1)


def table(m: Any, x: Tensor) -> Tensor:
    return x + torch.ones(2, 40)


def linear(m: Any, x: Tensor) -> Tensor:
    for part in (m.wide,):  # a loop over layers, and not over time
        x = part(x)
    return x


def branch(m: Any, x: Tensor) -> Tensor:
    if x.abs().max() > 1:
        x = x.clamp(-1, 1)
    return x


def choice(m: Any, x: Tensor) -> Tensor:
    return x * 2 if bool(x.sum() > 0) else x


def until(m: Any, x: Tensor) -> Tensor:
    while x.abs().max() > 1:
        x = x / 2
    return x


def through_numpy(m: Any, x: Tensor) -> Tensor:
    return torch.from_numpy(x.numpy() * 2)


def inside_numpy(m: Any, x: Tensor) -> Tensor:
    return x * torch.from_numpy(np.ones(x.shape[-1]))


CASES = {
    "a recurrence": (recurrence, "", "for t in range(x.shape[-1]):", "a recurrence"),
    "a recurrence over steps": (recurrence_of_steps, "", "for step in steps:", "a recurrence"),
    "a loop": (loop, "", "ys = [m.cell(x[..., t]) for t in range(length)]", "it loops over time in Python, which"),
    "a table": (table, "", "return x + torch.ones(2, 40)", "exactly 40 samples"),
    "a layer made for one length": (linear, ".wide", "x = part(x)", "exactly 40 samples"),
    "a call of numpy": (inside_numpy, "", "return x * torch.from_numpy(np.ones(x.shape[-1]))", "exactly 40 samples"),
    "a branch": (branch, "", "if x.abs().max() > 1:", "takes a branch that depends on values"),
    "a choice": (choice, "", "return x * 2 if bool(x.sum() > 0) else x", "takes a branch that depends on values"),
    "a loop by values": (until, "", "while x.abs().max() > 1:", "depends on values"),
    "numpy": (through_numpy, "", "return torch.from_numpy(x.numpy() * 2)", "cannot follow what happens there"),
}


@pytest.mark.parametrize("name", CASES)
def test_place(name: str) -> None:
    function, inside, line, reason = CASES[name]
    model = Model(Body(function, cell=nn.Linear(2, 2), wide=nn.Linear(40, 40))).eval()
    with pytest.raises(pts.UnsupportedModuleError) as caught:
        pts.create_stream(model, example=0.1 * torch.randn(1, 2, 40))
    error = caught.value
    decides = "data_dependent" if name in ("a branch", "a choice", "a loop by values") else "not_exportable"
    assert error.code == ("fixed_length" if name in list(CASES)[:6] else decides)
    assert error.path == f"layers.1{inside}", str(error)
    assert re.search(rf"at test_named_places.py, line \d+: {re.escape(line)}", error.reason), str(error)
    assert reason in error.reason and "register a handler for" in error.remedy, str(error)
    assert not re.search(r"Eq\(|unbacked|GuardOn|u0|s\d\d", str(error))


def reversed_in_a_function(m: Any, x: Tensor) -> Tensor:
    return turned(m.cell(x.mT).mT)


def turned(x: Tensor) -> Tensor:
    y = x.flip(-1)
    return y * 2


def test_an_operation_in_a_function_is_named_where_it_stands() -> None:
    model = Model(Body(reversed_in_a_function, cell=nn.Linear(2, 2))).eval()
    with pytest.raises(pts.UnsupportedModuleError, match=r"py, line \d+: y = x\.flip\(-1\)\)") as caught:
        pts.create_stream(model, example=torch.randn(1, 2, 40))
    assert (caught.value.code, caught.value.path) == ("time_mixing", "layers.1")


@pytest.mark.parametrize(
    "text, code", [("return x.flip(-1)", "time_mixing"), ("return x + torch.ones(40)", "fixed_length")]
)
def test_a_helper_of_another_package_is_named_where_it_is_called(
    text: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / f"helper_of_{code}.py").write_text(f"import torch\n\n\ndef helped(x):\n    {text}\n")
    monkeypatch.syspath_prepend(folder)
    helper: Any = importlib.import_module(f"helper_of_{code}")
    model = Model(Body(lambda m, x: helper.helped(x) + 1)).eval()
    with pytest.raises(
        pts.UnsupportedModuleError, match=r"at test_named_places\.py, line \d+: .*helper\.helped"
    ) as caught:
        pts.create_stream(model, example=torch.randn(1, 2, 40))
    assert caught.value.code == code


def test_a_report_names_it_too() -> None:
    (report,) = pts.is_streamable(Model(Body(branch)), example=torch.randn(1, 2, 40))
    assert (report.path, report.module_type, report.handler) == ("layers.1", "Body", None)


class Many(nn.Module):
    """Four operations have no stream, and what stands after each has one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 3, stride=2)
        self.norm = nn.GroupNorm(2, 4)
        self.last = nn.Conv1d(4, 4, 3)

    def forward(self, x: Tensor) -> Any:
        y = self.norm(self.conv(x - x.mean(-1, keepdim=True)))
        z = self.last(y).flip(-1)
        return z.cumsum(-1), (z.mT @ z).softmax(-1) @ z.mT


def test_all_obstacles_are_listed() -> None:
    report = pts.is_streamable(Many().eval(), example=torch.randn(1, 2, 41))
    refused = [each.operation for each in report if each.handler is None]  # type: ignore[attr-defined]
    assert refused == ["mean", "group_norm", "flip", "matmul"] and not report
    assert [each.handler for each in report if each.path in ("conv", "last")] == ["Conv1dStream"] * 2
    assert "depends_on_refused" not in str(report) and "see there" not in str(report)
