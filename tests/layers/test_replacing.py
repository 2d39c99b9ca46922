"""A copy of a model with modules replaced by others."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import torchstreamer as pts


class Clip(nn.Module):
    """No export can follow it."""

    def __init__(self, most: float) -> None:
        super().__init__()
        self.register_buffer("most", torch.tensor(most))

    def forward(self, x: Tensor) -> Tensor:
        most = float(self.most)
        return x.clamp(-most, most) if bool(x.abs().max() > most) else x


class Block(nn.Module):
    def __init__(self, clip: nn.Module) -> None:
        super().__init__()
        self.conv = nn.utils.weight_norm(nn.Conv1d(4, 4, 3, padding=1))
        self.clip = clip

    def forward(self, x: Tensor) -> Tensor:
        return self.clip(self.conv(x)) + x


class Model(nn.Module):
    """Two blocks share one module."""

    def __init__(self) -> None:
        super().__init__()
        clip = Clip(0.5)
        self.blocks = nn.ModuleList([Block(clip), Block(clip)])
        self.last = Clip(2.0)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return self.last(x)


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model().eval()


def clamp(clip: Clip) -> nn.Module:
    return nn.Hardtanh(-float(clip.most), float(clip.most))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_repaired_model_streams(model: Model) -> None:
    x = torch.randn(2, 4, 50)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    repaired = pts.replace_modules(model, {Clip: clamp})
    assert type(repaired) is Model and not repaired.training
    assert repaired.blocks[0].clip is repaired.blocks[1].clip is not repaired.last
    assert isinstance(model.last, Clip) and model.blocks[0].clip is model.blocks[1].clip
    stream = pts.create_stream(repaired, example=x)
    y = torch.cat([stream(x[..., :20]), stream(x[..., 20:], final=True)], -1)
    torch.testing.assert_close(y, model(x))
    with torch.no_grad():
        repaired.blocks[0].conv.weight_v.zero_()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_keys(model: Model) -> None:
    new = nn.Tanh()
    by_path = pts.replace_modules(model, {"blocks.1.clip": new, "last": nn.Tanh()})
    assert by_path.blocks[0].clip is by_path.blocks[1].clip is new  # one module in both places
    assert isinstance(by_path.last, nn.Tanh) and not new.training
    first = pts.replace_modules(model, {"last": nn.Tanh(), Clip: clamp})
    assert isinstance(first.last, nn.Tanh) and isinstance(first.blocks[0].clip, nn.Hardtanh)
    found = pts.replace_modules(model, {lambda path, module: path.endswith("conv"): lambda old: nn.Sequential(old)})
    assert isinstance(found.blocks[1].conv[0], nn.Conv1d) and isinstance(model.blocks[1].conv, nn.Conv1d)
    x = torch.randn(1, 4, 9)
    torch.testing.assert_close(found(x), model(x))
    assert isinstance(pts.replace_modules(model, {Model: lambda old: old.last}), Clip)  # the model itself
    assert type(pts.replace_modules(model, {lambda path, module: False: new})) is Model


def test_hooks_stay_with_their_place() -> None:
    net = nn.Sequential(nn.Conv1d(1, 1, 1), nn.ReLU())
    net[1].register_forward_hook(lambda module, args, y: 3 * y)
    net[1].register_forward_pre_hook(lambda module, args, kwargs: ((args[0] + 1,), kwargs), with_kwargs=True)
    x = torch.randn(1, 1, 9)
    torch.testing.assert_close(pts.replace_modules(net, {nn.ReLU: nn.ReLU()})(x), net(x))
    torch.testing.assert_close(pts.replace_modules(net, {nn.ReLU: lambda old: nn.Sequential(old)})(x), net(x))


def nothing(old: nn.Module) -> Any:
    return 3


@pytest.mark.parametrize(
    "replacements, error, message",
    [
        ({nn.GRU: nn.Tanh()}, ValueError, "^nothing_to_replace: .*'GRU'"),
        ({"1.conv": nn.Tanh()}, ValueError, "^nothing_to_replace: .*'1.conv'"),
        ({3: nn.Tanh()}, TypeError, "got 3 as a key"),
        ({int: nn.Tanh()}, TypeError, "as a key"),
        ({nn.Tanh(): nn.Tanh()}, TypeError, "as a key"),
        ({nn.ReLU: nn.Tanh}, TypeError, "got the type Tanh"),
        ({nn.ReLU: 3}, TypeError, "got a int"),
        ({nn.ReLU: nothing}, TypeError, "got a int for '1'"),
    ],
)
def test_refused(replacements: Any, error: Any, message: str) -> None:
    net = nn.Sequential(nn.Conv1d(1, 1, 1), nn.ReLU())
    with pytest.raises(error, match=message):
        pts.replace_modules(net, replacements)


def test_no_model() -> None:
    with pytest.raises(TypeError, match="got a function"):
        pts.replace_modules(nothing, {})  # type: ignore[arg-type]
